"""locust with a user per slot of a steady state, on websocket-client; every number comes in from the environment.

SLOTS=8000 SECONDS=60 STEPS=10 THINK=10 EXPONENTIAL=1 PORT=8000
    locust -f locust_steady.py --headless --users 8000 --spawn-rate 400 --run-time 60s --stop-timeout 800

Each user plays session after session, thinking before every step and every session; one that was refused waits 1 s,
doubling to 30 s. Latencies are locust's own percentiles, in whole milliseconds; how late sends are is counted here.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from typing import Any

import gevent
import websocket
from locust import User, events, task

STEPS, THINK = int(os.environ["STEPS"]), float(os.environ["THINK"])
EXPONENTIAL = os.environ["EXPONENTIAL"] == "1"
END = time.time() + float(os.environ["SECONDS"])
URL = f"ws://127.0.0.1:{os.environ['PORT']}/ws"
STEP = json.dumps({"type": "step", "data": {"wait_seconds": 0}})

_LATE_UNIT_S, _LATEST = 1e-4, 100_000

late = [0] * (_LATEST + 1)
"""How many sends were late by so many tenths of a millisecond; the last is 10 s and more."""

sessions = {"begun": 0, "ok": 0}


def think_time() -> float:
    """Draw a think time in seconds."""
    return min(random.expovariate(1 / THINK), 10 * math.log(2) * THINK) if EXPONENTIAL else THINK


class Slot(User):
    """One slot; locust lets it think between its sessions."""

    refusals = 0

    def wait_time(self) -> float:
        """Return how long the slot pauses until its next session, in seconds."""
        return min(2.0 ** (self.refusals - 1), 30.0) if self.refusals else think_time()

    @task
    def play(self) -> None:
        """Play one session, unless time is up."""
        if time.time() >= END:
            return
        sessions["begun"] += 1
        is_reset = False
        try:
            connection = websocket.create_connection(URL, timeout=60)
            connection.send('{"type":"reset","data":{}}')
            json.loads(connection.recv())
            is_reset = True
            for _ in range(STEPS):
                self.think_and_step(connection)
            connection.send('{"type":"close"}')
            connection.recv()  # The server's close frame; the library answers it.
            connection.close()
            sessions["ok"] += 1
        except (OSError, websocket.WebSocketException):
            pass
        self.refusals = 0 if is_reset else self.refusals + 1

    def think_and_step(self, connection: Any) -> None:
        """Think, take a step, and tell locust how long it took."""
        due = time.perf_counter() + (think := think_time())
        gevent.sleep(think)
        sent = time.perf_counter()
        late[min(max(0, int((sent - due) / _LATE_UNIT_S)), _LATEST)] += 1
        connection.send(STEP)
        reply = connection.recv()
        took_ms = (time.perf_counter() - sent) * 1e3
        json.loads(reply)
        told = {"response_time": took_ms, "response_length": len(reply), "exception": None, "context": {}}
        self.environment.events.request.fire(request_type="WS", name="step", **told)


def latest_of(share: float) -> float:
    """Return how late this share of all sends was at most, in seconds."""
    left = share * sum(late)
    for number, count in enumerate(late):
        left -= count
        if left <= 0:
            return number * _LATE_UNIT_S
    return math.nan


@events.init.add_listener
def tell_at_the_end(environment: Any, **_: Any) -> None:
    """Print the client's one line after all that locust prints by itself."""

    @events.quit.add_listener
    def tell(exit_code: int, **_: Any) -> None:
        steps = environment.stats.get("step", "WS")
        figures = {
            "ok": sessions["ok"] / max(1, sessions["begun"]),
            "step_p50": steps.get_response_time_percentile(0.5) / 1e3,
            "step_p99": steps.get_response_time_percentile(0.99) / 1e3,
            "late_p50": latest_of(0.5),
            "late_p99": latest_of(0.99),
        }
        print(json.dumps(figures), flush=True)
