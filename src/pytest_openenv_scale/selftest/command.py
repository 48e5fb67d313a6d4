"""`openenv-scale self-test`: options in, a table and one sentence per mode out, and the exit code."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_openenv_scale.core.files import json_output
from pytest_openenv_scale.core.formatting import count, seconds, seconds_pair
from pytest_openenv_scale.core.parsing import parse_count, parse_modes, parse_seconds
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.reporting.text.page import TextPage

from .figures import ARRIVALS, P50_LIMIT_S, P99_LIMIT_S, MeasuredBatch, ModeLadder, SelfTestRequest
from .search import BatchSearch

UNRESOLVED, INTERRUPTED = 1, 130

_WIDTH = 120
_MAX_PROCESSES = 256


def read_options(arguments: argparse.Namespace) -> SelfTestRequest:
    """Read the options of a command line.

    Raises:
        GrammarError: a value cannot be used; one line naming the option.
    """
    return SelfTestRequest(
        parse_modes(arguments.modes),
        parse_count(arguments.max_batch, what="--max-batch"),
        parse_seconds(arguments.wait, what="--wait"),
        None
        if arguments.processes == "auto"
        else parse_count(arguments.processes, maximum=_MAX_PROCESSES, what="--processes"),
        parse_seconds(arguments.time, positive=True, what="--time"),
    )


def run_self_test(request: SelfTestRequest, json_path: Path | None) -> int:
    """Measure, print while measuring, and return the exit code; 130 where Ctrl-C ended it.

    Raises:
        SelfTestError: the null server cannot be started, or not a single session fits this machine.
        GrammarError: the JSON file cannot be written.
    """
    with json_output(json_path) as write_json:
        return _measure_and_print(request, write_json)


def _measure_and_print(request: SelfTestRequest, write_json: Callable[[Any], None]) -> int:
    screen = _Screen()
    search = BatchSearch(request, lambda measured: screen.show(batch_line(measured)))
    for line in opening_lines(request, usable_cores()):
        screen.show(line)
    code = 0
    try:
        result = search.run()
    except KeyboardInterrupt:
        result, code = search.result(), INTERRUPTED
    screen.show("")
    for ladder in result.ladders:
        screen.show_sentence(mode_sentence(ladder, request.time_s))
    write_json(result.to_json())
    unresolved = any(ladder.resolved_batch is None for ladder in result.ladders)
    return code or (UNRESOLVED if unresolved else 0)


class _Screen:
    """Standard output: each line at once, in ASCII where its encoding has nothing else."""

    def __init__(self) -> None:
        self._width = shutil.get_terminal_size((_WIDTH, 24)).columns

    def show(self, line: str) -> None:
        """Print a line as it is."""
        page = TextPage(self._width, sys.stdout.encoding)
        page.add_line(line)
        print(page.text, flush=True)

    def show_sentence(self, text: str) -> None:
        """Print a sentence, wrapped to the terminal."""
        page = TextPage(self._width, sys.stdout.encoding)
        page.add_sentence(text, indent=0)
        print(page.text, flush=True)


_ADVICE = "judge smaller batches, or give it more load processes (--processes)"

_WIDTHS = (5, 6, 7, 16, 16, 16, 9)
_LIMITS_TEXT = f"{P50_LIMIT_S * 1e3:.0f}/{P99_LIMIT_S * 1e3:.0f} ms"


def opening_lines(request: SelfTestRequest, cores: int) -> list[str]:
    """Return what is about to be measured, and the head of the table."""
    modes, arrivals = " and ".join(request.modes), " and ".join(ARRIVALS)
    lines = [
        f"self-test: this client against a server that only waits, {modes}, {arrivals}, steps of"
        f" {seconds(request.wait_s)}, {'1 core' if cores == 1 else f'{cores} cores'}",
    ]
    if cores == 1:
        lines.append("client and server share the one core: what this shows is less than what the client can do")
    return [
        *lines,
        "step latency beyond the wait, p50 / p99; invented = this client's figure − the server's own",
        "",
        _table_row("mode", "from", "batch", "server's own", "this client's", "invented", "CPU each") + "  resolved",
    ]


def batch_line(measured: MeasuredBatch) -> str:
    """Return the row of one batch in one arrival."""
    figures = _table_row(
        measured.mode,
        measured.arrival,
        count(measured.batch),
        seconds_pair(measured.server_p50_s, measured.server_p99_s),
        seconds_pair(measured.client_p50_s, measured.client_p99_s),
        _invented_text(measured),
        seconds(measured.cpu_s),
    )
    repeated = f" (median of {measured.runs})" if measured.runs > 1 else ""
    return f"{figures}  {'✓' if measured.resolved else '✗'}{repeated}"


def mode_sentence(ladder: ModeLadder, time_s: float) -> str:
    """Return what a ladder means, in one sentence."""
    if not ladder.rungs:
        return f"{ladder.mode}: nothing was measured; {_end_reason(ladder, time_s)}"
    if ladder.resolved_batch is not None:
        reached = f"up to batch {count(ladder.resolved_batch)} here, in {' and '.join(ARRIVALS)}"
    else:
        reached = "at no batch here"
    return f"{ladder.mode}: this client resolves {_LIMITS_TEXT} {reached}; {_end_reason(ladder, time_s)}"


def _end_reason(ladder: ModeLadder, time_s: float) -> str:
    match ladder.end:
        case "top":
            return "the ladder ended there" + (f": {ladder.top_reason}" if ladder.top_reason else "")
        case "time":
            return f"the time ended there (--time {time_s:g}s)"
        case "interrupted":
            return "interrupted"
        case "unresolved":
            return f"{_breach_text(next(measured for measured in ladder.rungs if not measured.resolved))}: {_ADVICE}"


def _breach_text(measured: MeasuredBatch) -> str:
    position = f"at {count(measured.batch)} in {measured.arrival}"
    # What was measured says more than a guard that fired over it; sessions that failed say most.
    if measured.problem is not None and (measured.failed or measured.within_limits):
        return f"{position} {measured.problem}"
    return f"{position} it invents {_invented_text(measured)}"


def _invented_text(measured: MeasuredBatch) -> str:
    """Return the invented latency, p50 / p99, rounded to 10 µs; what rounds to 0 has no sign."""
    values = (measured.invented_p50_s, measured.invented_p99_s)
    return seconds_pair(*(None if value is None else round(value, 5) + 0.0 for value in values))


def _table_row(*cells: str) -> str:
    columns = zip(cells, _WIDTHS, strict=True)
    texts = [cell.rjust(width) if number > 1 else cell.ljust(width) for number, (cell, width) in enumerate(columns)]
    return " ".join(texts)
