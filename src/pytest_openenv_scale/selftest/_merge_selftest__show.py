"""A self-test as lines of text: one row per rung while it runs, one sentence per mode at its end."""

from __future__ import annotations

from ..core.format import count, seconds, seconds_pair
from .figures import ARRIVALS, P50_LIMIT_S, P99_LIMIT_S, Asked, Ladder, Rung

GUIDE = "docs/self-test.md"

_WIDTHS = (5, 6, 7, 16, 16, 16, 9)
_LIMITS = f"{P50_LIMIT_S * 1e3:.0f}/{P99_LIMIT_S * 1e3:.0f} ms"


def opening(asked: Asked, cores: int) -> list[str]:
    """Return what is about to be measured, and the head of the table."""
    modes, arrivals = " and ".join(asked.modes), " and ".join(ARRIVALS)
    lines = [
        f"self-test: this client against a server that only waits, {modes}, {arrivals}, steps of"
        f" {seconds(asked.wait_s)}, {'1 core' if cores == 1 else f'{cores} cores'}",
    ]
    if cores == 1:
        lines.append("client and server share the one core: what this shows is less than what the client can do")
    return [
        *lines,
        "step latency beyond the wait, p50 / p99; invented = this client's figure − the server's own",
        "",
        _row("mode", "from", "batch", "server's own", "this client's", "invented", "CPU each") + "  resolved",
    ]


def rung_line(rung: Rung) -> str:
    """Return the row of one batch in one arrival."""
    figures = _row(
        rung.mode,
        rung.arrival,
        count(rung.batch),
        seconds_pair(rung.server_p50_s, rung.server_p99_s),
        seconds_pair(rung.client_p50_s, rung.client_p99_s),
        _invented(rung),
        seconds(rung.cpu_s),
    )
    repeated = f" (median of {rung.runs})" if rung.runs > 1 else ""
    return f"{figures}  {'✓' if rung.resolved else '✗'}{repeated}"


def sentence(ladder: Ladder, time_s: float) -> str:
    """Return what a ladder means, in one sentence."""
    if not ladder.rungs:
        return f"{ladder.mode}: nothing was measured; {_end(ladder, time_s)}"
    if ladder.resolved_batch is not None:
        found = f"up to batch {count(ladder.resolved_batch)} here, in {' and '.join(ARRIVALS)}"
    else:
        found = "at no batch here"
    return f"{ladder.mode}: this client resolves {_LIMITS} {found}; {_end(ladder, time_s)}"


def _end(ladder: Ladder, time_s: float) -> str:
    match ladder.end:
        case "top":
            return "the ladder ended there" + (f": {ladder.top_reason}" if ladder.top_reason else "")
        case "time":
            return f"the time ended there (--time {time_s:g}s)"
        case "interrupted":
            return "interrupted"
        case "unresolved":
            return f"{_breach(next(rung for rung in ladder.rungs if not rung.resolved))}: see {GUIDE}"


def _breach(rung: Rung) -> str:
    at = f"at {count(rung.batch)} in {rung.arrival}"
    # What was measured says more than a guard that fired over it; sessions that failed say most.
    if rung.problem is not None and (rung.failed or rung.within_limits):
        return f"{at} {rung.problem}"
    return f"{at} it invents {_invented(rung)}"


def _invented(rung: Rung) -> str:
    """Below 10 µs lies a system call or two; what rounds to nothing has no sign."""
    figures = (rung.invented_p50_s, rung.invented_p99_s)
    return seconds_pair(*(None if value is None else round(value, 5) + 0.0 for value in figures))


def _row(*cells: str) -> str:
    columns = zip(cells, _WIDTHS, strict=True)
    texts = [cell.rjust(width) if number > 1 else cell.ljust(width) for number, (cell, width) in enumerate(columns)]
    return " ".join(texts)
