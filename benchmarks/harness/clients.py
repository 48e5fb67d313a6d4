"""The clients that are compared: how each is started for the same sessions."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .build import Programs
from .problem import Problem

FOLDER = Path(__file__).resolve().parents[1] / "clients"

FLOOR, OURS, AIOHTTP, K6 = "c-floor", "ours", "aiohttp", "k6"
BY_NUMBER, BY_OBSERVATION = "ours-by-number", "ours-by-observation"
"""Our engine with a function that makes the actions: called before sessions play, or between reply and next send."""
FUNCTIONS = {BY_NUMBER: "functions:by_number", BY_OBSERVATION: "functions:by_observation"}


@dataclass(frozen=True)
class BatchRequest:
    """What a client is asked to play: `wait` in seconds per step, `arrival` burst or hold."""

    sessions: int
    wait: float = 1.0
    arrival: str = "burst"
    steps: int = 1


@dataclass(frozen=True)
class Client:
    """A way to play sessions: `command(asked, port)` is the program to run."""

    name: str
    command: Callable[[BatchRequest, int], Sequence[str]]


def known_clients(programs: Programs) -> dict[str, Client]:
    """Return the clients there are on this machine by name; k6 only where it is installed."""
    clients = [
        Client(FLOOR, lambda batch, port: _floor(programs, batch, port)),
        Client(OURS, lambda batch, port: _python("engine.py", batch, port)),
        *(
            Client(name, lambda batch, port, function=function: [*_python("engine.py", batch, port), function])
            for name, function in FUNCTIONS.items()
        ),
        Client(AIOHTTP, lambda batch, port: _python("aiohttp_client.py", batch, port)),
    ]
    if (k6 := find_k6()) is not None:
        clients.append(Client(K6, lambda batch, port: _k6(k6, batch, port)))
    return {client.name: client for client in clients}


def find_k6() -> str | None:
    """Return the path of k6: the one installed beside this Python, else that on PATH."""
    return shutil.which(K6, path=Path(sys.executable).parent) or shutil.which(K6)


def _floor(programs: Programs, batch: BatchRequest, port: int) -> list[str]:
    if batch.steps != 1:
        raise Problem("the C floor plays sessions of one step only: leave c-floor out")
    return [str(programs.ws_floor), str(batch.sessions), str(batch.wait), str(port)]


def _python(script: str, batch: BatchRequest, port: int) -> list[str]:
    figures = [batch.sessions, batch.wait, port, batch.arrival, batch.steps]
    return [sys.executable, str(FOLDER / script), *map(str, figures)]


def _k6(k6: str, batch: BatchRequest, port: int) -> list[str]:
    variables = {
        "SESSIONS": batch.sessions,
        "WAIT": batch.wait,
        "PORT": port,
        "ARRIVAL": batch.arrival,
        "STEPS": batch.steps,
    }
    settings = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    # Without an address it opens no API server, whose port another k6 may hold.
    return [k6, "run", "--quiet", "--no-usage-report", "--address", "", *settings, str(FOLDER / "k6.js")]
