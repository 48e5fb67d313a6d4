"""What on the client's side keeps a cell from speaking for the server, each with its figure and a remedy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.core.parsing import parse_arrival
from pytest_openenv_scale.core.system import descriptor_limit, usable_cores
from pytest_openenv_scale.results.cell import ClientFinding

from .client_resources import SPARE_DESCRIPTORS, PortBudget, plan_ports
from .ipc import CellRequest

SESSIONS_PER_PROCESS = 8192
"""Sessions per load process beyond which `auto` adds another where there is a core for it."""

MAX_BUSY_SHARE = 0.9
"""Share of a cell from which a load process that works or waits for a core counts as the bottleneck.

One that is idle for a tenth of the time has caught up again and again. Less than this is no concern: replies
carry the kernel's time, so that a client that is merely late puts nothing into a latency.
"""

MIN_FUNCTION_SHARE = 0.1
"""Share of a cell from which a user's function that makes actions is named where its process fell behind."""

MAX_STARVED_SHARE = 0.5
"""Share of a cell from which a load process that was ready to run and had no core was kept from its work."""

MAX_LOOP_LAG_S = 0.2
"""Longest a load process's event loop may keep a timer waiting, in seconds.

Also the least from which the shares are judged: a client that was at work for less held nobody up for longer.
"""


@dataclass(frozen=True, slots=True)
class ClientStats:
    """What the client itself used; CPU and lags in seconds, shares those of the busiest process.

    `cpu_share` is CPU ÷ wall, `starved_share` the same of `starved_s`, the time a process was ready to run and
    had no core, and `busy_share` both together. `ports_needed` are towards the busiest destination (at most),
    `ports_there` from one source address, None where that is unknown; `sources` are the loopback addresses used
    to have more of them.

    `clock_moved_s` is by how much the wall clock was set meanwhile, in seconds, `impossible_arrivals` how many answers
    were timed by their reading, as no stamp could be believed; `missed_pongs` how many pings were unanswered
    `ping_s` seconds later, when the next was due.

    `read_lag_p99_s` tells how late answers were read: the client's pace, never part of a latency.
    `answer_lag_p50_s` and `answer_lag_p99_s` tell how late HTTP answers were seen, which is in their latencies;
    those of the slowest process, None in ws mode. `answer_lag_max_s` is the latest answer, `session_lag_max_s` the
    most that the lateness of all its answers put into the total of one session.

    `steal_share` is what a hypervisor took of all cores meanwhile, None where the kernel does not tell. `late_sessions`
    are those of which a standstill of more than 200 ms kept a message from being sent, None in http mode.

    `send_lag_p50_s` and `send_lag_p99_s` are how late steps were sent whose think time was over, those of the process
    that was latest; None without think time, and in http mode.
    """

    processes: int = 1
    cpu_s: tuple[float, ...] = ()
    cpu_share: float = 0.0
    read_lag_p99_s: float = 0.0
    loop_lag_max_s: float = 0.0
    descriptors_needed: int = 0
    descriptor_limit: int = 0
    rss_bytes: int = 0
    answer_lag_p50_s: float | None = None
    answer_lag_p99_s: float | None = None
    answer_lag_max_s: float | None = None
    session_lag_max_s: float | None = None
    starved_s: tuple[float, ...] = ()
    starved_share: float = 0.0
    busy_share: float = 0.0
    ports_needed: int = 0
    ports_there: int | None = None
    sources: int = 0
    clock_moved_s: float = 0.0
    impossible_arrivals: int = 0
    missed_pongs: int = 0
    function_share: float = 0.0
    ping_s: float | None = None
    steal_share: float | None = None
    late_sessions: int | None = None
    send_lag_p50_s: float | None = None
    send_lag_p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class ResourceNeeds:
    """What a cell needs of this machine; with `findings` something is lacking, and nothing may be started."""

    descriptors: int
    descriptor_limit: int
    ports: PortBudget
    findings: tuple[ClientFinding, ...] = ()


_MOST_PROCESSES = 64
"""Load processes that `auto` may come to on any machine."""


def most_sessions_of_client(processes: int | None) -> int:
    """Return how many sessions so many load processes can hold at once; None: as many as `auto` takes."""
    return (processes or _MOST_PROCESSES) * max(1, descriptor_limit() - SPARE_DESCRIPTORS)


def choose_processes(batch: int) -> int:
    """Return how many load processes a batch needs: for its descriptors, and for cores there are to spare.

    Ports are no reason for another: one process can connect from several addresses.
    """
    for_descriptors = math.ceil(batch / max(1, descriptor_limit() - SPARE_DESCRIPTORS))
    for_cores = min(math.ceil(batch / SESSIONS_PER_PROCESS), max(1, usable_cores() // 2))
    return max(for_descriptors, for_cores)


def check_resources(request: CellRequest, processes: int) -> ResourceNeeds:
    """Compare what a cell needs with what this machine has; may resolve hosts, and blocks while it does.

    Sessions of `rate=R` follow each other, and how many are open at once only the cell tells: for them
    nothing is refused beforehand.
    """
    batch, limit = request.cell.batch, descriptor_limit()
    descriptors = math.ceil(batch / processes) + SPARE_DESCRIPTORS
    ports = plan_ports(request.network.destinations(request.urls), batch, several_sources=request.cell.mode == "ws")
    findings: list[ClientFinding] = []
    if parse_arrival(request.cell.arrival).kind != "rate":
        if descriptors > limit:
            findings.append(ClientFinding("descriptors", _descriptors_message(batch, descriptors, limit, processes)))
        if ports.shortage is not None:
            findings.append(ClientFinding("ports", ports.shortage))
    return ResourceNeeds(descriptors, limit, ports, tuple(findings))


def _descriptors_message(batch: int, needed: int, limit: int, processes: int) -> str:
    room = limit - SPARE_DESCRIPTORS
    where = "one load process" if processes == 1 else f"each of {processes} load processes"
    more = f"use --openenv-processes {math.ceil(batch / room)}, or " if room > 0 else ""
    return f"{batch} sessions need {needed} descriptors in {where}, and the limit is {limit}: {more}raise ulimit -Hn"


def check_pace(stats: ClientStats) -> tuple[ClientFinding, ...]:
    """Judge whether the load processes kept up with the cell."""
    findings: list[ClientFinding] = []
    if stats.loop_lag_max_s > MAX_LOOP_LAG_S and stats.late_sessions != 0:
        findings.append(
            ClientFinding(
                "loop_lag",
                f"a load process stood still for {stats.loop_lag_max_s * 1000:.0f} ms"
                f" (allowed {MAX_LOOP_LAG_S * 1000:.0f} ms){_late_words(stats)}: it needs a core that nothing else"
                f" keeps busy{_function_words(stats)}",
            )
        )
    longest_work_s = max(
        (cpu + starved for cpu, starved in zip(stats.cpu_s, stats.starved_s, strict=True)), default=0.0
    )
    if longest_work_s > MAX_LOOP_LAG_S and (
        stats.busy_share > MAX_BUSY_SHARE or stats.starved_share > MAX_STARVED_SHARE
    ):
        findings.append(ClientFinding("cpu", _pace_message(stats)))
    return tuple(findings)


def _pace_message(stats: ClientStats) -> str:
    cores = usable_cores()
    if stats.starved_share > stats.cpu_share:
        remedy = "give the load cores of its own, or end what keeps them busy"
    elif stats.processes < cores:
        remedy = f"use more load processes, --openenv-processes {cores}, or a machine with more cores"
    else:
        remedy = f"use a machine with more cores: there are {cores}, and as many load processes"
    return (
        f"a load process did not keep up: it used {stats.cpu_share:.0%} of a core and waited for one"
        f" {stats.starved_share:.0%} of the time"
        f" (allowed: {MAX_BUSY_SHARE:.0%} together, {MAX_STARVED_SHARE:.0%} waiting): {remedy}{_function_words(stats)}"
    )


def _late_words(stats: ClientStats) -> str:
    """Say how many sessions had a message that was sent too late; nothing where that is not known."""
    late = stats.late_sessions
    return f" and sent messages of {count_of(late, 'session')} too late" if late else ""


def _function_words(stats: ClientStats) -> str:
    """Say how much of the time a user's function had that makes actions; nothing where it was little."""
    share = stats.function_share
    return f"; your function that makes actions worked {share:.0%} of the time" if share >= MIN_FUNCTION_SHARE else ""


MAX_ANSWER_LAG_P50_S = 0.005
"""Median time from which on it is said that HTTP answers were seen late, in seconds."""

MAX_ANSWER_LAG_P99_S = 0.040
"""99th percentile of that time from which on it is said, in seconds."""


MIN_SAMPLES = 20
"""Fewest samples of a phase whose median is judged: fewer may show a single hiccup."""


@dataclass(slots=True)
class AnswerLags:
    """How late this process saw that connections, resets and steps were answered, in seconds; None where unknown.

    `session_max` is the largest sum over one session, None where no answer's lateness is known.
    """

    connect: list[float | None] = field(default_factory=list[float | None])
    reset: list[float | None] = field(default_factory=list[float | None])
    step: list[float | None] = field(default_factory=list[float | None])
    session_max: float | None = None

    def worst(self) -> tuple[float | None, float | None]:
        """Return p50 and p99 of the phase in which they are largest; None where too little is known."""
        measured = [sorted(lag for lag in lags if lag is not None) for lags in (self.connect, self.reset, self.step)]
        return (
            max((_percentile(lags, 0.5) for lags in measured if len(lags) >= MIN_SAMPLES), default=None),
            max((_percentile(lags, 0.99) for lags in measured if lags), default=None),
        )

    def figures(self) -> dict[str, float | None]:
        """Return the figures of `ClientStats` that are about answers; None where nothing is known."""
        p50, p99 = self.worst()
        latest = (lag for lags in (self.connect, self.reset, self.step) for lag in lags if lag is not None)
        return {
            "answer_lag_p50_s": p50,
            "answer_lag_p99_s": p99,
            "answer_lag_max_s": max(latest, default=None),
            "session_lag_max_s": self.session_max,
        }


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[math.ceil(len(ordered) * share) - 1]


def check_answer_lags(client: ClientStats) -> tuple[ClientFinding, ...]:
    """Say where HTTP answers were seen late; no finding where nothing is known (ws mode).

    Such a cell is judged all the same: lateness makes latencies longer, and by how much at most is known.
    """
    p50, p99 = client.answer_lag_p50_s or 0.0, client.answer_lag_p99_s or 0.0
    if p50 <= MAX_ANSWER_LAG_P50_S and p99 <= MAX_ANSWER_LAG_P99_S:
        return ()
    return (
        ClientFinding(
            "http_lag",
            f"HTTP answers were seen late, p50 {p50 * 1000:.0f} ms and p99 {p99 * 1000:.0f} ms, which is in their"
            " latencies: use more load processes with --openenv-processes, or a smaller batch",
        ),
    )
