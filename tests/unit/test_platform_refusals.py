"""What the platform of a Space did to clients, told apart from what the server did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cells import a_summary

from pytest_openenv_scale.config.limits import Slo
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import ErrorCount, Refusal
from pytest_openenv_scale.verdict.cell import judge_cell
from pytest_openenv_scale.verdict.refusals import name_refusals

RESET = ErrorCount("connect", "connection_reset", "ECONNRESET", 24, "reset before the upgrade was answered")
FULL = ErrorCount("reset", "capacity", "CAPACITY_REACHED", 8, "Server at capacity: 16/16 sessions active.")


def status(code: str, message: str = "", count: int = 8) -> ErrorCount:
    return ErrorCount("connect", "handshake_status", code, count, message or f"HTTP {code}")


def on_a_space(*errors: ErrorCount, target: str = "spaces:alice/env", mode: str = "ws", **fields: Any) -> CellSummary:
    failed = sum(error.count for error in errors)
    summary = a_summary(64, failed=failed, errors=errors, **fields)
    return replace(summary, cell=replace(summary.cell, target=target, mode=mode))


def causes(*summaries: CellSummary) -> list[str]:
    return [refusal.cause for refusal in name_refusals(summaries)]


def only(summary: CellSummary) -> Refusal:
    (refusal,) = name_refusals([summary])
    return refusal


def test_handshakes_turned_away_while_others_are_held_are_the_platforms() -> None:
    refusal = only(on_a_space(RESET, peak_concurrency=40, limits={"workers": 2, "max_envs": 100}))
    assert (refusal.cause, refusal.count) == ("platform_connections", 24)
    assert (refusal.words, refusal.figures["held"], refusal.figures["slots"]) == ("connection reset", 40, 200)


@pytest.mark.parametrize("target", ["https://alice-env.hf.space", "local"])
def test_the_same_failures_elsewhere_stay_without_a_name(target: str) -> None:
    assert causes(on_a_space(RESET, target=target, peak_concurrency=40)) == ["unnamed"]


def test_a_space_where_no_session_came_about_is_not_said_to_have_a_cap() -> None:
    assert causes(on_a_space(RESET, peak_concurrency=0)) == ["unnamed"]


def test_what_broke_off_later_is_not_a_cap() -> None:
    cut = ErrorCount("step", "closed_early", "1006", 24, None)
    assert causes(on_a_space(cut, peak_concurrency=40)) == ["cut"]


def test_a_server_out_of_descriptors_keeps_the_blame() -> None:
    log = "OSError: [Errno 24] Too many open files"
    assert causes(on_a_space(RESET, peak_concurrency=40, log_tail=log)) == ["descriptors"]


def test_the_servers_own_refusals_are_told_beside_the_platforms() -> None:
    assert causes(on_a_space(FULL, RESET, peak_concurrency=16)) == ["capacity", "platform_connections"]


def test_503_on_a_space_is_uvicorns_only_where_uvicorn_says_so() -> None:
    silent = on_a_space(status("503"), peak_concurrency=40, log_tail="INFO: Uvicorn running on http://0.0.0.0:8000")
    says = on_a_space(status("503"), peak_concurrency=40, log_tail="WARNING: Exceeded concurrency limit.")
    assert causes(silent) == ["platform_connections"]
    assert causes(says) == ["limit_concurrency"]


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn-h11", "Python/3.12 aiohttp/3.13"])
@pytest.mark.parametrize("code", ["429", "502", "503"])
def test_an_answer_in_the_name_of_the_server_is_never_the_platforms(code: str, server: str) -> None:
    refusal = only(on_a_space(status(code, f"HTTP {code} from {server}"), peak_concurrency=40))
    assert (refusal.cause.startswith("platform"), refusal.count) == (False, 8)


def test_a_server_that_died_in_its_space_is_not_the_platforms_doing() -> None:
    ending = ExitStatus.parse("the Space stopped with an error (stage RUNTIME_ERROR): OOM")
    refusal = only(on_a_space(RESET, status("503"), peak_concurrency=40, server_exit=ending))
    assert (refusal.cause, refusal.count, refusal.exit) == ("server_died", 32, ending)


def test_429_keeps_how_long_to_wait() -> None:
    words = "HTTP 429 Too Many Requests (Retry-After: 30 s)"
    refusal = only(on_a_space(status("429", words), peak_concurrency=8))
    assert (refusal.cause, refusal.words, refusal.figures["held"]) == ("platform_rate", words, 8)


def test_http_endpoints_that_are_not_reachable_are_the_platforms() -> None:
    missing = replace(status("404"), phase="reset")
    refusal = only(on_a_space(missing, mode="http", successful=0, peak_concurrency=0))
    assert (refusal.cause, refusal.figures["status"]) == ("http_unreachable", "404")


@pytest.mark.parametrize("stage", ["SLEEPING", "BUILDING"])
def test_a_space_that_left_its_stage_is_not_a_server_that_died(stage: str) -> None:
    ending = ExitStatus("stage", f"the Space is not there (stage {stage})", stage=stage)
    summary = on_a_space(RESET, status("503"), peak_concurrency=40, server_exit=ending)
    refusal = only(summary)
    assert (refusal.cause, refusal.count, refusal.exit) == ("platform_stage", 32, ending)
    verdict = judge_cell(64, [summary], Slo(()), 1)
    assert [reason.exit for reason in verdict.reasons if reason.kind == "server_died"] == [ending]
