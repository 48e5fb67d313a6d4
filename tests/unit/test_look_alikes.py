"""Each cause on its evidence, and on what looks the same and is not; docs/causes.md is the table of these."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cells import a_cell, a_summary

from pytest_openenv_scale.core.endpoint import ExitStatus, HostIncident, ProxyFacts
from pytest_openenv_scale.metrics.errors import LostWorker
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content import refusals as refusals_in_words
from pytest_openenv_scale.results.outcome import ErrorCount
from pytest_openenv_scale.verdict.refusals import name_refusals

PAGE = Path(__file__).parents[2] / "docs" / "causes.md"


class Pair(NamedTuple):
    """A cell with the evidence of a cause, one that looks alike, and the cause of that one."""

    evidence: CellSummary
    look_alike: CellSummary
    instead: str


def failing(*errors: ErrorCount, target: str = "local", mode: str = "ws", **fields: Any) -> CellSummary:
    failed = sum(error.count for error in errors)
    return a_summary(64, failed=failed, errors=errors, cell=a_cell(64, target=target, mode=mode), **fields)


def full(active: int, limit: int, count: int = 8) -> ErrorCount:
    return ErrorCount("reset", "capacity", "CAPACITY_REACHED", count, f"at capacity: {active}/{limit} sessions active.")


def status(code: int, words: str = "", phase: str = "connect") -> ErrorCount:
    return ErrorCount(phase, "handshake_status", str(code), 8, f"HTTP {code}{words}")


def ended(code: str | None = "1006", phase: str = "step") -> ErrorCount:
    return ErrorCount(phase, "closed_early", code, 8, None)


def exited(text: str) -> dict[str, Any]:
    return {"server_exit": ExitStatus.parse(text)}


def of_environment(code: str) -> ErrorCount:
    return ErrorCount("step", "environment", code, 8, "Server at capacity")


def befallen(host: str) -> ProxyFacts:
    return ProxyFacts("Envoy 1.40", {"a": 40, "b": 24}, mishaps=(HostIncident(host, "died", 1.2, "killed by SIGKILL"),))


LOST: dict[str, Any] = {"lost_workers": (LostWorker(4711, "a", 8),)}
RESET = ErrorCount("connect", "connection_reset", "ECONNRESET", 8, "reset before the upgrade was answered")
REFUSED = ErrorCount("connect", "refused", "ECONNREFUSED", 8, "Connection refused")
SILENT = ErrorCount("connect", "timeout", None, 8, "no answer within 30 s")
OVERFLOWED = ProxyFacts("Envoy 1.40", {"a": 56}, overflows={"upstream_cx_overflow": 8})
NO_FILES = "OSError: [Errno 24] Too many open files"
EXCEEDED = "WARNING:  Exceeded concurrency limit."
OVERFLOW = ": upstream connect error. reset reason: overflow"
NONE_IN: dict[str, Any] = {"successful": 0, "peak_concurrency": 0}
SPACE = "spaces:alice/env"

PAIRS = {
    "capacity": Pair(failing(full(56, 56)), failing(of_environment("EXECUTION_ERROR")), "environment"),
    "one_session": Pair(failing(full(1, 1)), failing(full(8, 8), peak_concurrency=1), "capacity"),
    "limit_concurrency": Pair(
        failing(status(503), log_tail=EXCEEDED),
        failing(status(503, ' {"detail": "full"}'), log_tail="Uvicorn"),
        "http_503",
    ),
    "descriptors": Pair(failing(SILENT, log_tail=NO_FILES), failing(SILENT, log_tail=NO_FILES, log_lines=0), "unnamed"),
    "worker_killed": Pair(failing(ended(), **LOST, ended_pids=(4711,)), failing(ended(), **LOST, ended_pids=()), "cut"),
    "server_died": Pair(
        failing(ended(), **exited("killed by SIGKILL")), failing(ended(), listens_again=True), "restarted"
    ),
    "restarted": Pair(failing(ended("1012")), failing(ended(), pids=None, **LOST, ended_pids=()), "cut"),
    "host_lost": Pair(
        failing(ended(), proxy=befallen("a"), failed_hosts={"a": 8}),
        failing(ended(), proxy=befallen("a"), failed_hosts={"b": 8}),
        "cut",
    ),
    "proxy": Pair(failing(status(503, OVERFLOW)), failing(status(503, ": no healthy upstream")), "http_503"),
    "platform_connections": Pair(failing(RESET, target=SPACE), failing(RESET), "unnamed"),
    "platform_rate": Pair(
        failing(status(429), target=SPACE), failing(status(429, " from uvicorn"), target=SPACE), "http_429"
    ),
    "platform_stage": Pair(
        failing(RESET, target=SPACE, **exited("the Space went to sleep (stage SLEEPING)")),
        failing(RESET, target=SPACE, **exited("the Space stopped with an error (stage RUNTIME_ERROR)")),
        "server_died",
    ),
    "http_unreachable": Pair(
        failing(status(404, phase="reset"), target=SPACE, mode="http", **NONE_IN),
        failing(status(404, phase="reset"), mode="http", **NONE_IN),
        "http_404",
    ),
    "http_NNN": Pair(failing(status(503)), failing(status(503), log_tail=EXCEEDED), "limit_concurrency"),
    "redirect": Pair(failing(status(308)), failing(status(404)), "http_404"),
    "closed_NNNN": Pair(failing(ended("1013")), failing(ended()), "cut"),
    "cut": Pair(failing(ended()), failing(ended(None, phase="connect")), "unnamed"),
    "not_listening": Pair(failing(REFUSED), failing(REFUSED, **exited("exited with code 1")), "server_died"),
    "environment": Pair(
        failing(of_environment("EXECUTION_ERROR")), failing(of_environment("CAPACITY_REACHED")), "capacity"
    ),
    "unnamed": Pair(failing(SILENT), failing(SILENT, proxy=OVERFLOWED), "proxy"),
}


def cause_of(summary: CellSummary) -> str:
    (refusal,) = name_refusals([summary])
    return refusal.cause


@pytest.mark.parametrize("cause", PAIRS)
def test_a_cause_is_named_by_its_evidence_and_not_by_what_looks_alike(cause: str) -> None:
    pair = PAIRS[cause]
    assert re.fullmatch(re.sub("N+", r"\\d+", cause), cause_of(pair.evidence))
    assert cause_of(pair.look_alike) == pair.instead


def test_the_page_of_causes_names_all_there_are_each_with_its_look_alike() -> None:
    families = {"http": "http_NNN", "closed": "closed_NNNN"}
    every = {*refusals_in_words._BY_CAUSE, *(families[family] for family in refusals_in_words._BY_FAMILY)}
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert {row[0].strip("| `") for row in rows} == every == set(PAIRS)
    assert all(len(row) == 4 and all(cell.strip(" |") for cell in row) for row in rows)
    for cause, _, look_alike, _ in rows:
        assert f"`{PAIRS[cause.strip('| `')].instead}`" in look_alike
    named = {name for row in rows for name in re.findall(r"test_\w+", row[3])}
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert {name for name in named if f"def {name}(" not in tests} == set()
