"""`openenv-scale self-test`: options in, a table and one sentence per mode out, and the exit code."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.formatting import count, seconds, seconds_pair
from pytest_openenv_scale.core.parsing import parse_count, parse_modes, parse_seconds
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.reporting.text.page import TextPage

from .figures import ARRIVALS, P50_LIMIT_S, P99_LIMIT_S, MeasuredBatch, ModeLadder, SelfTest, SelfTestRequest
from .search import BatchSearch

UNRESOLVED, INTERRUPTED = 1, 130

_WIDTH = 120
_MAX_PROCESSES = 256


def asked_for(given: argparse.Namespace) -> SelfTestRequest:
    """Read the options of a command line.

    Raises:
        GrammarError: a value cannot be used; one line naming the option.
    """
    return SelfTestRequest(
        parse_modes(given.modes),
        parse_count(given.max_batch, what="--max-batch"),
        parse_seconds(given.wait, what="--wait"),
        None if given.processes == "auto" else parse_count(given.processes, maximum=_MAX_PROCESSES, what="--processes"),
        parse_seconds(given.time, positive=True, what="--time"),
    )


def run_self_test(asked: SelfTestRequest, json_path: Path | None) -> int:
    """Measure, print while measuring, and return the exit code; 130 where Ctrl-C ended it.

    Raises:
        SelfTestError: the null server cannot be started, or not a single session fits this machine.
        GrammarError: the JSON file cannot be written.
    """
    if json_path is not None:
        _check_writable(json_path)
    page = _Screen()
    climb = BatchSearch(asked, lambda rung: page.show(batch_line(rung)))
    for line in opening(asked, usable_cores()):
        page.show(line)
    code = 0
    try:
        found = climb.run()
    except KeyboardInterrupt:
        found, code = climb.so_far(), INTERRUPTED
    page.show("")
    for ladder in found.ladders:
        page.tell(sentence(ladder, asked.time_s))
    if json_path is not None:
        _write(json_path, found)
    unresolved = any(ladder.resolved_batch is None for ladder in found.ladders)
    return code or (UNRESOLVED if unresolved else 0)


class _Screen:
    """Standard output, a line as soon as it is known, in ASCII where it speaks nothing else."""

    def __init__(self) -> None:
        self._width = shutil.get_terminal_size((_WIDTH, 24)).columns

    def show(self, line: str) -> None:
        """Print a line as it is."""
        page = TextPage(self._width, sys.stdout.encoding)
        page.add_line(line)
        print(page.text, flush=True)

    def tell(self, text: str) -> None:
        """Print a sentence, wrapped to the terminal."""
        page = TextPage(self._width, sys.stdout.encoding)
        page.add_sentence(text, indent=0)
        print(page.text, flush=True)


def _check_writable(path: Path) -> None:
    """Refuse, before anything is measured, a file that cannot be written."""
    if path.is_dir():
        raise GrammarError(f"--json: {path} is a directory; name a file")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise GrammarError(f"--json: {path} cannot be written; name a file in a directory that can")


def _write(path: Path, found: SelfTest) -> None:
    try:
        path.write_text(json.dumps(found.to_json(), ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise GrammarError(f"--json: {path} cannot be written: {error.strerror}") from None


GUIDE = "docs/self-test.md"

_WIDTHS = (5, 6, 7, 16, 16, 16, 9)
_LIMITS = f"{P50_LIMIT_S * 1e3:.0f}/{P99_LIMIT_S * 1e3:.0f} ms"


def opening(asked: SelfTestRequest, cores: int) -> list[str]:
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


def batch_line(rung: MeasuredBatch) -> str:
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


def sentence(ladder: ModeLadder, time_s: float) -> str:
    """Return what a ladder means, in one sentence."""
    if not ladder.rungs:
        return f"{ladder.mode}: nothing was measured; {_end(ladder, time_s)}"
    if ladder.resolved_batch is not None:
        found = f"up to batch {count(ladder.resolved_batch)} here, in {' and '.join(ARRIVALS)}"
    else:
        found = "at no batch here"
    return f"{ladder.mode}: this client resolves {_LIMITS} {found}; {_end(ladder, time_s)}"


def _end(ladder: ModeLadder, time_s: float) -> str:
    match ladder.end:
        case "top":
            return "the ladder ended there" + (f": {ladder.top_reason}" if ladder.top_reason else "")
        case "time":
            return f"the time ended there (--time {time_s:g}s)"
        case "interrupted":
            return "interrupted"
        case "unresolved":
            return f"{_breach(next(rung for rung in ladder.rungs if not rung.resolved))}: see {GUIDE}"


def _breach(rung: MeasuredBatch) -> str:
    at = f"at {count(rung.batch)} in {rung.arrival}"
    # What was measured says more than a guard that fired over it; sessions that failed say most.
    if rung.problem is not None and (rung.failed or rung.within_limits):
        return f"{at} {rung.problem}"
    return f"{at} it invents {_invented(rung)}"


def _invented(rung: MeasuredBatch) -> str:
    """Below 10 µs lies a system call or two; what rounds to nothing has no sign."""
    figures = (rung.invented_p50_s, rung.invented_p99_s)
    return seconds_pair(*(None if value is None else round(value, 5) + 0.0 for value in figures))


def _row(*cells: str) -> str:
    columns = zip(cells, _WIDTHS, strict=True)
    texts = [cell.rjust(width) if number > 1 else cell.ljust(width) for number, (cell, width) in enumerate(columns)]
    return " ".join(texts)
