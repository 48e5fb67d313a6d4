"""The bench: built programs, a core for each side, and clients measured in turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from .build import Programs, built_programs
from .clients import BatchRequest, Client, known_clients, without_missing_guests
from .machine import Cores, choose_cores, describe_cores, describe_machine, make_room
from .problem import Problem
from .processes import run_pinned
from .program import note
from .server import NullServer, Truth

T = TypeVar("T")


@dataclass(frozen=True)
class Played:
    """One measurement: what the client used and told, and what the server saw; seconds and KiB.

    `told` is the client's own line: `ok`, and what it measured of `step_over_p50`, `step_over_p99` (the step
    latency beyond the wait), `held_kib`, `peak_kib` (resident size of the process that holds the sessions).
    """

    cpu_s: float
    wall_s: float
    figures: dict[str, Any]
    truth: Truth


@dataclass(frozen=True)
class Bench:
    """What measurements are made with."""

    programs: Programs
    cores: Cores

    def clients(self, names: Sequence[str]) -> list[Client]:
        """Return the clients asked for, without guests that are not installed.

        Raises:
            Problem: a client is not known.
        """
        clients = known_clients(self.programs)
        names = without_missing_guests(names)
        for name in names:
            if name not in clients:
                raise Problem(f"there is no client {name!r} here: choose from {', '.join(clients)}")
        return [clients[name] for name in names]

    def play(self, client: Client, batch: BatchRequest) -> Played:
        """Let a client play sessions against a null server of its own.

        Raises:
            Problem: the client ended without figures.
        """
        with NullServer(self.programs.null_server, self.cores.server) as server:
            ended = run_pinned(client.command(batch, server.port), self.cores.client)
            truth = server.stop()
        lines = ended.output.strip().splitlines()
        try:
            figures = json.loads(lines[-1])
        except (IndexError, ValueError):
            last_line = (ended.complaints.strip() or ended.output.strip() or "it said nothing").splitlines()[-1]
            raise Problem(f"{client.name} gave no figures: {last_line}") from None
        return Played(ended.cpu_s, ended.wall_s, figures, truth)


@contextmanager
def set_up(sessions: int) -> Iterator[Bench]:
    """Build what is needed for so many sessions, and print the machine.

    Raises:
        Problem: there is no compiler, or there are too few descriptors.
    """
    make_room(sessions)
    cores = choose_cores()
    with built_programs() as programs:
        print(describe_machine(), describe_cores(cores), sep="\n", flush=True)
        yield Bench(programs, cores)


def interleaved(runs: int, clients: Sequence[Client], measure: Callable[[Client], T]) -> list[dict[str, T]]:
    """Measure every client once in each run, one after the other, so that a noisy minute hits all alike."""
    measurements: list[dict[str, T]] = []
    for number in range(1, runs + 1):
        measurements.append({})
        for client in clients:
            note(f"run {number} of {runs}: {client.name}")
            measurements[-1][client.name] = measure(client)
    return measurements
