"""Which processes of the server the sessions of a check had in common: in different ones they cannot see each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from pytest_openenv_scale.checks.capacity_probe import Slots
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.formatting import count_of


@dataclass(frozen=True, slots=True)
class Sharing:
    """How the sessions of a play were spread over processes, as far as it is known.

    `known` is how many sessions named the process that served them, `pids` and `hosts` how many of those there were,
    `together` how many sessions had theirs in common with another. `workers` is how many the server has at least.
    """

    sessions: int
    known: int
    pids: int
    hosts: int
    together: int
    workers: int

    @property
    def apart(self) -> bool:
        """Whether each session was served by a process of its own, where nothing in memory can be shared."""
        return self.known == self.sessions > 1 and self.together == 0

    @property
    def figures(self) -> dict[str, int]:
        """The counts that are known, as figures of a check."""
        return {"pids": self.pids, "hosts": self.hosts, "sessions_together": self.together} if self.known else {}

    @property
    def sentences(self) -> Iterator[str]:
        """What sessions told of the processes that served them, in a sentence; none where they told nothing."""
        processes = "1 process" if self.pids == 1 else f"{self.pids} processes"
        if self.known:
            yield (
                f"answers came from {processes} on {count_of(self.hosts, 'host')}; {self.together} of {self.sessions} "
                "sessions shared a process with another"
            )

    @property
    def note(self) -> str:
        """What to know beside a verdict on all sessions, in brackets; empty where one process may have served all."""
        if self.pids > 1:
            return f" ({self.together} of {self.sessions} shared one of {self.pids} processes)"
        if not self.known and self.workers > 1:
            return f" (which of {self.workers} workers or more served them is not known)"
        return ""


def sharing_of(processes: Mapping[int, tuple[str, int]], sessions: int, endpoint: Endpoint, slots: Slots) -> Sharing:
    """Return how so many sessions were spread over the processes that some of them named."""
    counts = Counter(processes.values())
    configured = endpoint.limits.get("workers")
    workers = configured if isinstance(configured, int) else 1
    split = ceil(slots.open / slots.limit) if slots.limit else 1
    return Sharing(
        sessions=sessions,
        known=len(processes),
        pids=len(counts),
        hosts=len({host for host, _ in counts}),
        together=sum(count for count in counts.values() if count > 1),
        workers=max(workers, split, len(endpoint.urls)),
    )
