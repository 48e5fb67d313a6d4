"""The steady state that is compared, who can play it, and what a client uses meanwhile."""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

from .bench import Bench
from .clients import FOLDER, K6, LOCUST, OURS, find_guest, k6_command, without_missing_guests
from .problem import Problem
from .processes import run_pinned
from .pytest_run import curve_in, reporting_in, sweep_command
from .server import NullServer, Truth

SETTLED_S = 8.0
"""Seconds after the ramp from which figures count: as late as that a client may begin after it was started."""

_SAMPLES = 60


@dataclass(frozen=True)
class SteadyState:
    """So many slots for `seconds`; each plays session after session of `steps` steps, which the server answers at once.

    Slots begin one by one in the first `ramp` seconds. Before every step and every session but the first a client
    thinks for `think` seconds: always so long, or in the mean of an exponential distribution, cut at ten medians.
    """

    slots: int
    seconds: float
    ramp: float
    steps: int
    think: float
    exponential: bool = True


@dataclass(frozen=True)
class Sample:
    """What a client's process tree had used, and the server had answered, so many seconds after its start."""

    elapsed_s: float
    cpu_s: float
    resident_kib: int
    steps: int


@dataclass(frozen=True)
class SteadyClient:
    """Who plays: `command(state, port, folder)` runs in a folder of its own, `read(folder, output)` finds its figures.

    Figures are `ok` (the share of sessions that ended well), `step_p50`, `step_p99` (latency of steps), `late_p50` and
    `late_p99` (from the end of a think time to the send), in seconds as the client tells them.
    """

    name: str
    command: Callable[[SteadyState, int, Path], Sequence[str]]
    read: Callable[[Path, str], dict[str, Any]]


@dataclass(frozen=True)
class Steady:
    """A steady state as it was played: what the client told, what the server saw, what the client used."""

    figures: dict[str, Any]
    truth: Truth
    samples: tuple[Sample, ...]


def steady_clients(names: Sequence[str]) -> list[SteadyClient]:
    """Return the clients asked for, without guests that are not installed.

    Raises:
        Problem: a client is not known.
    """
    known = {
        OURS: SteadyClient(OURS, _ours, _read_ours),
        K6: SteadyClient(K6, _k6, _read_line),
        LOCUST: SteadyClient(LOCUST, _locust, _read_line),
    }
    for name in names:
        if name not in known:
            raise Problem(f"there is no client {name!r} here: choose from {', '.join(known)}")
    return [known[name] for name in without_missing_guests(names)]


def play_steady(bench: Bench, client: SteadyClient, state: SteadyState) -> Steady:
    """Let a client play against a null server of its own, and look at both meanwhile.

    Raises:
        Problem: the client ended without figures, or before the state was steady.
    """
    with (
        tempfile.TemporaryDirectory(prefix="openenv-scale-bench-") as name,
        NullServer(bench.programs.null_server, bench.cores.server) as server,
    ):
        folder = Path(name)
        watch = _Watch(state, server)
        ended = run_pinned(
            client.command(state, server.port, folder),
            bench.cores.client,
            folder=folder,
            patience_s=state.seconds + 900.0,
            started=watch.start,
        )
        samples = watch.stop()
        truth = server.stop()
        output = ended.output.strip() or ended.complaints.strip() or "it said nothing"
        try:
            figures = client.read(folder, output)
        except (ValueError, KeyError, TypeError):
            raise Problem(f"{client.name} gave no figures: {output.splitlines()[-1]}") from None
    if len(samples) < 2:
        raise Problem(f"{client.name} ended after {ended.wall_s:.0f} s, before its state was steady")
    return Steady(figures, truth, samples)


class _Watch:
    """A thread that looks at a client's processes and at the server while the state is steady."""

    def __init__(self, state: SteadyState, server: NullServer) -> None:
        self._state = state
        self._server = server
        self._samples: list[Sample] = []
        self._ended = Event()
        self._thread = Thread(target=self._look, daemon=True)

    def start(self, pid: int) -> None:
        self._client = psutil.Process(pid)
        self._began = time.perf_counter()
        self._thread.start()

    def stop(self) -> tuple[Sample, ...]:
        self._ended.set()
        self._thread.join()
        return tuple(self._samples)

    def _look(self) -> None:
        begin = self._state.ramp + SETTLED_S
        pause = max(0.5, (self._state.seconds - begin) / _SAMPLES)
        number = 0
        while (at := begin + number * pause) <= self._state.seconds:
            if self._ended.wait(max(0.0, self._began + at - time.perf_counter())):
                return
            with suppress(psutil.Error):  # A process has ended meanwhile.
                self._samples.append(self._sample())
            number += 1

    def _sample(self) -> Sample:
        cpu_s, resident = 0.0, 0
        for process in (self._client, *self._client.children(recursive=True)):
            times = process.cpu_times()
            cpu_s += times.user + times.system + times.children_user + times.children_system
            resident += process.memory_info().rss
        return Sample(time.perf_counter() - self._began, cpu_s, resident // 1024, self._server.count_steps())


def _ours(state: SteadyState, port: int, folder: Path) -> list[str]:
    think = f"exponential={state.think:g}s" if state.exponential else f"{state.think:g}s"
    command = sweep_command(
        f"http://127.0.0.1:{port}",
        batches=state.slots,
        waits=0,
        modes="ws",
        steps=state.steps,
        arrival=f"steady={state.seconds:g}s",
        ramp=f"{state.ramp:g}s",
        think=think,
        slo="success>=0.99",
        inconclusive="warn",
        again=0,
    )
    return [sys.executable, *command, *reporting_in(folder)]


def _read_ours(folder: Path, output: str) -> dict[str, Any]:
    (cell,) = curve_in(folder, output)["cells"]
    (repetition,) = cell["repetitions"]
    step, client = repetition["phases"].get("step"), repetition["client"]
    if step is None:
        raise Problem("no session began after the ramp and ended in time: ask for more --seconds or fewer --steps")
    return {
        "ok": repetition["success_rate"],
        "step_p50": step["p50"],
        "step_p99": step["p99"],
        "late_p50": client["send_lag_p50_s"],
        "late_p99": client["send_lag_p99_s"],
    }


def _variables(state: SteadyState, port: int) -> dict[str, str]:
    values = {name.upper(): str(value) for name, value in asdict(state).items()}
    return {**values, "EXPONENTIAL": str(int(state.exponential)), "PORT": str(port)}


def _k6(state: SteadyState, port: int, folder: Path) -> list[str]:
    return k6_command("k6_steady.js", _variables(state, port))


def _locust(state: SteadyState, port: int, folder: Path) -> list[str]:
    locust = find_guest(LOCUST)
    assert locust is not None
    settings = [f"{name}={value}" for name, value in _variables(state, port).items()]
    # A spawn rate of its own for whole users per second; sessions that run when time is up are played to their end.
    arrivals = ["--users", str(state.slots), "--spawn-rate", str(math.ceil(state.slots / max(state.ramp, 1.0)))]
    lengths = ["--run-time", f"{math.ceil(state.seconds)}s", "--stop-timeout", "800"]
    script = str(FOLDER / "locust_steady.py")
    return ["env", *settings, locust, "-f", script, "--headless", "--loglevel", "ERROR", *arrivals, *lengths]


def _read_line(folder: Path, output: str) -> dict[str, Any]:
    return json.loads(output.splitlines()[-1])
