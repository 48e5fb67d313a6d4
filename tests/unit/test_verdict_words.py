"""Every sentence that verdicts, limits, doubts and refusals become, and that none is without one."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from cells import a_cell, a_curve, a_summary, an_slo, stats
from hypothesis import given
from hypothesis import strategies as st
from served_cells import Server

from goldens import Golden
from pytest_openenv_scale.config.limits import LIMITS, Slo, make_limit
from pytest_openenv_scale.core.endpoint import (
    ExitStatus,
    HostIncident,
    ProxyFacts,
    ServerSample,
    SessionSettings,
    UnhealthyHost,
)
from pytest_openenv_scale.metrics.errors import LostWorker
from pytest_openenv_scale.metrics.summary import CellSummary, split_attempts
from pytest_openenv_scale.metrics.windows import Window
from pytest_openenv_scale.reporting.content import cell_verdicts as cells_in_words
from pytest_openenv_scale.reporting.content import refusals as refusals_in_words
from pytest_openenv_scale.reporting.content import verdicts as verdicts_in_words
from pytest_openenv_scale.reporting.content.cell_verdicts import breach_text, breach_words
from pytest_openenv_scale.reporting.content.refusals import refusal_sentence, refusal_words
from pytest_openenv_scale.reporting.content.verdicts import (
    first_breach_sentence,
    further_reasons,
    headline,
    reason_lines,
    stop_words,
)
from pytest_openenv_scale.reporting.content.wording import max_batch_sentence
from pytest_openenv_scale.results.cell import AnsweredErrors, ClientFinding, ServerSamples
from pytest_openenv_scale.results.outcome import ErrorCount, Outcome, Refusal, Sample, WarmUp
from pytest_openenv_scale.verdict import cell as cell_rules
from pytest_openenv_scale.verdict import refusals
from pytest_openenv_scale.verdict import sweep as curve_rules
from pytest_openenv_scale.verdict.refusals import name_refusals
from pytest_openenv_scale.verdict.sweep import CurveView, judge_curve

CUT = (ClientFinding("cut_off", "cut off when the run ended, 3 sessions kept"),)
BUSY = (ClientFinding("cpu", "a load process used 99% of a core"),)
SEEN_LATE = (ClientFinding("http_lag", "HTTP answers were seen late, p50 6 ms and p99 90 ms"),)
A, B = "127.0.0.2:8000", "127.0.0.3:8000"


def viewed(*summaries: CellSummary, batches: tuple[int, ...] = (), slo: Slo | None = None, **limits: Any) -> CurveView:
    """Judge a curve of these cells; what is asked is a limit by name, or an argument of `judge_curve`."""
    options = {name: limits.pop(name) for name in ("repetitions", "cores", "notes", "warm_up") if name in limits}
    curve = a_curve(*(batches or tuple(sorted({summary.batch for summary in summaries})) or (1,)))
    if summaries:
        curve = replace(summaries[0].cell.curve, batches=curve.batches)
    counted, set_aside = split_attempts(summaries)
    return CurveView(curve, counted, judge_curve(curve, summaries, slo or an_slo(**limits), **options), set_aside)


def slow(batch: int = 200, *, phase: str = "total", p99: float = 2.61, unqueued: float = 2.61, **fields: Any) -> Any:
    """All percentiles of a phase are `p99` seconds, and `unqueued` without the client's own queue."""
    times = {phase: stats(p99, batch), f"{phase}_unqueued": stats(unqueued, batch)}
    return a_summary(batch, phases=times, **fields)


def ended(text: str, batch: int = 64, **fields: Any) -> CellSummary:
    return a_summary(batch, server_exit=ExitStatus.parse(text), **fields)


def facts(requests: dict[str, int] | None = None, **fields: Any) -> ProxyFacts:
    return ProxyFacts("Envoy (round_robin)", {A: 2, B: 2} if requests is None else requests, **fields)


def without_phase(summary: CellSummary, word: str) -> CellSummary:
    return replace(summary, phases={name: each for name, each in summary.phases.items() if word not in name})


def repeated(*failed: int, batch: int) -> list[CellSummary]:
    return [a_summary(batch, repetition=number, failed=count) for number, count in enumerate(failed, 1)]


# --- the verdict on a curve

UNKNOWN_TOOL = WarmUp(
    "ws",
    steps=3,
    step_errors=3,
    step_error="unknown tool: 'hello'",
    made_action=True,
    sample=Sample('{"tool_name": "hello"}', '{"observation": {"error": "unknown tool: \'hello\'"}}'),
)
SECONDS = [float(second) for second in range(20)]
STEADY = a_summary(
    64,
    cell=a_cell(64, arrival="steady=20"),
    open_least=58,
    windows=tuple(Window(at, at + 1.0, judged=True, open_least=58 if at == 7.0 else 63) for at in SECONDS),
)

HEADLINES: list[CurveView] = [
    # max_batch
    viewed(a_summary(128), a_summary(256, failed=56), max_batch=128),
    viewed(*repeated(0, 0, 0, batch=128), *repeated(56, 56, 56, batch=256), max_batch=256),
    viewed(*repeated(0, 0, 0, batch=32), *repeated(0, 0, 60, batch=64), max_batch=64),
    viewed(a_summary(64, failed=60), max_batch=64),
    viewed(a_summary(32), max_batch=128, batches=(32, 128)),
    viewed(a_summary(32), max_batch=128, batches=(32, 64, 128)),
    viewed(a_summary(32), max_batch=128),
    viewed(a_summary(32), a_summary(64, findings=BUSY), max_batch=64),
    viewed(
        a_summary(32),
        a_summary(64, failed=60),
        slo=Slo((make_limit("success", 0.9), make_limit("total_p99", 9)), every_cell=False),
    ),
    # batch_per_core
    viewed(a_summary(64), a_summary(128), batch_per_core=64, cores=2),
    viewed(a_summary(128), a_summary(256, failed=99), batch_per_core=100, cores=2),
    viewed(*repeated(0, 0, batch=128), *repeated(9, 99, batch=256), batch_per_core=100, cores=1),
    viewed(a_summary(64), batch_per_core=64, cores=2),
    viewed(a_summary(64), batch_per_core=64),
    # rps
    viewed(a_summary(8, requests_per_second=90.0), rps=80, max_batch=8),
    viewed(a_summary(8, requests_per_second=80.0), rps=100),
    viewed(a_summary(8, requests_per_second=80.0), a_summary(64, findings=BUSY), rps=100, success=0.01),
    viewed(a_summary(8, failed=8), rps=100),
    viewed(a_summary(8, findings=BUSY), rps=100),
    # hosts
    viewed(a_summary(1), hosts=2),
    # what sessions cost
    viewed(*Server(noise=0).sweep(), memory_per_session="2MiB"),
    viewed(*Server(noise=0).sweep(), memory_per_session="512KiB", cpu_per_step="1ms"),
    viewed(*Server().sweep(), memory_per_session="1MiB"),
    viewed(*Server().sweep([4]), threads_per_session=1),
    viewed(*Server().sweep([4]), cpu_per_step="1us"),
    viewed(*Server().sweep([4]), cpu_per_step="500ms"),
    viewed(a_summary(8), descriptors_per_session=2),
    # every cell
    viewed(a_summary(32), a_summary(64), success=0.95),
    viewed(a_summary(32), slo=Slo((make_limit("success", 0.5, "default"), make_limit("hosts", 1)))),
    viewed(a_summary(128), a_summary(256, failed=56), success=0.95),
    viewed(*repeated(4, 0, batch=8), success=0.9),
    viewed(a_summary(32), a_summary(64, findings=BUSY), success=0.9),
    viewed(a_summary(32), success=0.9, batches=(32, 64)),
    # without a limit
    viewed(a_summary(100, failed=5), a_summary(200, failed=11)),
    viewed(a_summary(4), a_summary(8, findings=BUSY), a_summary(16)),
    viewed(a_summary(4, findings=BUSY), a_summary(8)),
    viewed(a_summary(4, failed=4), a_summary(8, findings=BUSY)),
    viewed(a_summary(4, failed=4), a_summary(8, failed=8)),
    viewed(a_summary(2), ended("killed by SIGKILL", 8, failed=8), batches=(2, 8, 32)),
    viewed(ended("the Space went to sleep (stage SLEEPING)", 8, failed=8)),
    viewed(a_summary(2), batches=(2, 8, 32)),
    viewed(),
    viewed(max_batch=8),
    viewed(batches=(8,), warm_up=WarmUp("ws", reset_error="no task 'None'")),
    viewed(batches=(8,), warm_up=WarmUp("ws", steps=1, step_errors=1, step_error="bad")),
    viewed(batches=(8,), warm_up=replace(UNKNOWN_TOOL, made_action=False)),
    viewed(batches=(8,), warm_up=UNKNOWN_TOOL),
    viewed(batches=(8,), warm_up=replace(UNKNOWN_TOOL, made_action=False, guessed_action=True)),
    # rps, of answers that were seen late
    viewed(a_summary(8, requests_per_second=80.0, findings=SEEN_LATE), rps=100),
    viewed(a_summary(1, cell=a_cell(1, arrival="steady=60"), open_least=1), open=2),
]


def test_a_verdict_in_words(golden: Golden) -> None:
    for view in HEADLINES:
        sentences = [line.text for line in reason_lines(view) if line.kind in ("verdict", "no_data")]
        golden(sentences)
        assert headline(view) == sentences[0]


STOPS: list[CurveView] = [
    viewed(a_summary(32, failed=9), a_summary(64, failed=60), batches=(32, 64, 128, 256)),
    viewed(a_summary(32), batches=(32, 128)),
]


def test_why_a_curve_ended_in_words(golden: Golden) -> None:
    for view in STOPS:
        golden(stop_words(view.verdict))
    assert stop_words(viewed(a_summary(32)).verdict) is None


# --- broken limits

FIVE = [ErrorCount("step", None, str(code), 40) for code in range(5)]
IDLE = UnhealthyHost(B, "failed_active_health_check", 3, "first\nOSError: disk full\n")

BREACHES: list[CurveView] = [
    viewed(a_summary(256, failed=56), success=0.95),
    viewed(a_summary(256, failed=200, errors=FIVE, cell=a_cell(256, arrival="burst")), success=0.95),
    viewed(slow(), total_p99="2.5s"),
    viewed(slow(24), total_p99="2.5s"),
    viewed(slow(cell=a_cell(200, steps=2), p99=5.1, unqueued=5.1), latency_factor=2),
    viewed(slow(phase="step"), step_p50="2.5s"),
    viewed(a_summary(8), hosts=2),
    viewed(a_summary(4, host_counts={A: 4}, proxy=facts({A: 4, B: 0}, troubles=(IDLE,))), hosts=2),
    viewed(a_summary(4, host_counts={A: 4}, proxy=facts({A: 4, B: 0})), hosts=2),
    viewed(a_summary(4, host_counts={}, hosts=None, proxy=facts({A: 4, B: 0})), hosts=2),
    viewed(STEADY, open=60),
    viewed(replace(STEADY, windows=()), open=60),
    viewed(Server(noise=0).play(64), rss="100MiB"),
    viewed(ended("exited with code 1"), success=0.9),
    viewed(ended("the Space stopped with an error (stage RUNTIME_ERROR): OOM"), success=0.9),
]


def test_a_broken_limit_in_words(golden: Golden) -> None:
    for view in BREACHES:
        breach = view.verdict.first_breach
        assert breach is not None
        golden([breach_text(view, breach), breach_words(breach)])
        assert first_breach_sentence(view) == f"first limit broken: {breach_text(view, breach)}"


# --- reasons


def limited(code: str | None, message: str | None, count: int = 2) -> CellSummary:
    errors = (ErrorCount("connect", "client_limit", code, count, message),)
    return a_summary(64, client_limited=count, errors=errors)


def lost_sessions(count: int = 2, **fields: Any) -> CellSummary:
    errors = (ErrorCount("step", "closed_early", "1006", count, "closed without a close frame"),)
    return a_summary(4, failed=count, errors=errors, **{"failed_hosts": {B: count}, **fields})


def befallen(*incidents: HostIncident, **fields: Any) -> CellSummary:
    return lost_sessions(proxy=facts(mishaps=incidents), **fields)


DIED = HostIncident(B, "died", 1.2, "killed by SIGKILL", 0.4)
OUT = HostIncident(B, "out", 5.9, "active_hc_timeout")
ODD = WarmUp(
    *("ws", 3),
    unsuccessful_steps=3,
    done_on_reset=True,
    first_done_step=1,
    wait_s=0.1,
    longest_step_s=0.002,
)
NO_WAIT = without_phase(a_summary(4, cell=a_cell(4, wait=None)), "overhead")

DRIFTING = replace(
    STEADY, windows=tuple(Window(at, at + 1.0, judged=True, rss_bytes=10**8 + int(at) * 2 * 10**6) for at in SECONDS)
)

REASONS: list[tuple[CurveView, str]] = [
    (viewed(a_summary(64, findings=BUSY), success=0.9), "client"),
    (viewed(*repeated(0, 0, batch=8), a_summary(8, repetition=3, findings=BUSY), success=0.9), "client"),
    (viewed(limited(None, None, 14), success=0.9), "client"),
    (viewed(limited(None, "no"), success=0.9), "client"),
    (viewed(limited("EMFILE", "no"), success=0.9), "client"),
    (viewed(limited("ENFILE", "no"), success=0.9), "client"),
    (viewed(limited("EADDRNOTAVAIL", "no"), success=0.9), "client"),
    (viewed(limited("EADDRINUSE", "no"), success=0.9), "client"),
    (viewed(limited("EPERM", "no"), success=0.9), "client"),
    (viewed(a_summary(64, findings=(ClientFinding("hold", "no two were open at once"),)), success=0.9), "hold"),
    (viewed(a_summary(64, peak_concurrency=40), success=0.9), "hold"),
    (viewed(a_summary(64, client_limited=64), success=0.9), "no_data"),
    (viewed(NO_WAIT, latency_factor=2), "unmeasurable"),
    (viewed(NO_WAIT, overhead_p99=2), "unmeasurable"),
    (viewed(without_phase(a_summary(4), "connect"), connect_p50="1s"), "unmeasurable"),
    (viewed(slow(unqueued=1.1), total_p99="2.5s"), "queue"),
    (viewed(slow(24, unqueued=1.1), latency_factor=1), "queue"),
    (viewed(a_summary(8, host_counts={}, hosts=None), hosts=2), "hosts"),
    (viewed(befallen(DIED)), "hosts"),
    (viewed(befallen(replace(DIED, out_after_s=None), failed_hosts={A: 1, B: 1})), "hosts"),
    (viewed(befallen(OUT, HostIncident(B, "back", 7.0), failed_hosts={A: 2})), "hosts"),
    (viewed(a_summary(4, proxy=facts(mishaps=(OUT,)))), "hosts"),
    (viewed(lost_sessions(proxy=facts())), "hosts"),
    (viewed(ended("killed by SIGKILL"), success=0.9), "server_died"),
    (viewed(ended("the Space was paused (stage PAUSED)"), success=0.9), "server_died"),
    (viewed(a_summary(32), success=0.9, repetitions=3), "incomplete"),
    (viewed(a_summary(8, notes=("the server still held 9 descriptors",)), success=1.0), "note"),
    (viewed(a_summary(8), notes=["the built-in environment was measured"]), "fallback"),
    (viewed(a_summary(8, answered_errors=AnsweredErrors(3, "invalid move", 5, 2)), success=0.9), "answers"),
    (viewed(a_summary(8, answered_errors=AnsweredErrors(1, "timeout", 1, 0)), success=0.9), "answers"),
    (viewed(a_summary(8, answered_errors=AnsweredErrors(8, "no slot", 3, 0, under_load=True)), success=0.9), "answers"),
    (viewed(a_summary(8, client={"clock_moved_s": 3600.0}), total_p99="2s", step_p99="1s"), "clock"),
    (viewed(a_summary(8, client={"clock_moved_s": 3600.0}), success=0.9), "clock"),
    (viewed(a_summary(8, client={"clock_moved_s": 0.25, "impossible_arrivals": 41}), total_p99="2s"), "clock"),
    (viewed(a_summary(8, client={"clock_moved_s": 0.25, "impossible_arrivals": 1}), success=0.9), "clock"),
    (viewed(a_summary(8, client={"clock_moved_s": 0.0, "impossible_arrivals": 2}), total_p99="2s"), "clock"),
    (viewed(a_summary(8, client={"missed_pongs": 3, "ping_s": 20.0}), total_p99="2s"), "pongs"),
    (viewed(*repeated(0, batch=8), a_summary(8, repetition=2, client={"missed_pongs": 1, "ping_s": 60.0})), "pongs"),
    (viewed(a_summary(8, client={"missed_pongs": 3, "ping_s": 0.3}), success=0.9), "pongs"),
    (viewed(a_summary(8, client={"missed_pongs": 2}), success=0.9), "pongs"),
    (
        viewed(a_summary(8, findings=BUSY, client={"busy_share": 0.97}), a_summary(8, attempt=2), success=0.9),
        "set_aside",
    ),
    (viewed(a_summary(8), warm_up=WarmUp("ws", steps=3, step_errors=1, step_error="invalid move")), "warm_up"),
    (viewed(a_summary(8), warm_up=ODD), "warm_up"),
    (viewed(a_summary(8), warm_up=WarmUp("ws", steps=3, made_action=True)), "warm_up"),
    (viewed(a_summary(8), warm_up=WarmUp("ws", steps=3, wait_s=0.1, guessed_action=True)), "warm_up"),
    (viewed(slow(findings=SEEN_LATE), success=0.9), "client"),
    (viewed(slow(findings=SEEN_LATE, client={"session_lag_max_s": 0.2}), total_p99="2.5s"), "late"),
    (viewed(slow(24, findings=SEEN_LATE), latency_factor=1), "late"),
    (viewed(a_summary(312, cell=a_cell(1000), failed=60, not_started=688), success=0.9), "stopped_early"),
    (viewed(a_summary(3, cell=a_cell(4, arrival="steady=20"), not_started=1), success=0.9), "stopped_early"),
    (viewed(a_summary(3, cell=a_cell(4, arrival="steady=20"), findings=CUT), success=0.9), "cut_off"),
    (viewed(DRIFTING, open=50), "drift"),
    (viewed(a_summary(64), open=50), "unmeasurable"),
    (viewed(a_summary(64), rss="1GiB"), "unmeasurable"),
    (viewed(replace(a_summary(4), phases={}), step_p99="1s"), "unmeasurable"),
]


def test_a_reason_in_words(golden: Golden) -> None:
    for view, kind in REASONS:
        # What decides is told by the first line, and is not told again.
        golden([line.text for line in reason_lines(view)[1:] if line.kind == kind])


def test_a_reason_keeps_the_end_of_a_log() -> None:
    died = viewed(ended("exited with code 1", log_tail="bye"), success=0.9)
    host = viewed(befallen(DIED))
    told = viewed(lost_sessions(proxy=facts(mishaps=(DIED,), troubles=(UnhealthyHost(B, "failed", 0, "the log"),))))
    details = [[line.detail for line in reason_lines(view) if line.detail] for view in (died, host, told)]
    assert details == [["bye"], [], ["the log"]]


def test_a_verdict_in_several_lines(golden: Golden) -> None:
    summaries = [slow(200, findings=BUSY, failed=60), slow(100), a_summary(50)]
    view = viewed(*summaries, success=0.9, max_batch=100, total_p99="2.5s", batches=(50, 100, 200, 400, 800))
    lines = reason_lines(view)
    golden(line.text for line in lines)
    assert [line.kind for line in lines] == ["verdict", "limit", "limit", "client"]
    further = [(line.kind, line.text) for line in further_reasons(view)]
    expected = [("limit", lines[2].text), ("client", lines[3].text), ("incomplete", stop_words(view.verdict))]
    assert further == expected


LIMITS_ASKED = {
    "max_batch": st.sampled_from([4, 8, 16]),
    "success": st.sampled_from([0.25, 0.75, 1.0]),
    "total_p99": st.sampled_from(["5ms", "1s"]),
    "step_p50": st.sampled_from(["5ms", "1s"]),
    "rps": st.sampled_from([1, 1000]),
    "batch_per_core": st.sampled_from([1, 100]),
    "hosts": st.sampled_from([1, 2]),
}


@given(st.fixed_dictionaries({}, optional=LIMITS_ASKED), st.integers(0, 8), st.booleans())
def test_a_verdict_names_every_limit_that_was_judged(limits: dict[str, Any], failed: int, busy: bool) -> None:
    cells = a_summary(4), a_summary(8, failed=failed, findings=BUSY if busy else ())
    view = viewed(*cells, cores=2, **limits)
    text = headline(view) if view.verdict.outcome is Outcome.MET else " ".join(line.text for line in reason_lines(view))
    judged = [each for each in view.verdict.limits if each.limit and each.outcome is not Outcome.INCONCLUSIVE]
    of_cells = () if view.verdict.outcome is Outcome.INCONCLUSIVE else view.verdict.slo.cell_limits
    names = {LIMITS[each.limit or ""].shown_name for each in judged} | {limit.kind.figure for limit in of_cells}
    assert {name for name in names if name not in text} == set()


def test_what_is_no_contradiction_does_not_read_as_one() -> None:
    view = viewed(a_summary(1), a_summary(8, failed=4))
    assert view.verdict.outcome is Outcome.MET
    sentence = "no limit was asked for; max batch 1, as batch 8 misses success ≥ 95 % (default), which fails no test"
    assert headline(view) == f"SLO met: {sentence}"
    assert headline(viewed(a_summary(1), a_summary(8))).endswith("max batch 8 by success ≥ 95 % (default)")


def test_how_many_were_open_beyond_max_batch_is_said() -> None:
    half = [a_summary(32, failed=16, repetition=1), a_summary(32, failed=14, repetition=2)]
    passing = [a_summary(8, repetition=number) for number in (1, 2)]
    assert max_batch_sentence(viewed(*passing, *half, cores=2)) == (
        "max batch 8 (4 per core; 16 were open at batch 32)"
    )
    assert max_batch_sentence(viewed(a_summary(8), a_summary(32, failed=24))) == "max batch 8"
    assert max_batch_sentence(viewed(a_summary(32, failed=30))) == "max batch none (2 were open at batch 32)"
    assert "open" not in max_batch_sentence(viewed(a_summary(8), a_summary(32, findings=BUSY)))


@pytest.mark.parametrize("arrival", ["rate=50", "rate=50,for=10"])
def test_of_sessions_that_arrive_one_by_one_it_is_said_how_many_were_open(arrival: str) -> None:
    cell = a_cell(500, arrival=arrival)
    view = viewed(a_summary(500, cell=cell, peak_concurrency=4), cores=2)
    assert max_batch_sentence(view) == "max batch ≥ 500 (at most 4 open at once): the largest batch asked for passes"


def test_the_same_words_at_several_batches_are_one_line() -> None:
    game = AnsweredErrors(3, "invalid move", 5, 2)
    view = viewed(*(a_summary(batch, answered_errors=game) for batch in (4, 8, 16)), success=0.9)
    (line,) = [line.text for line in reason_lines(view) if line.kind == "answers"]
    assert line.count("invalid move") == 1
    assert line.endswith("; the same at batch 8 and 16")
    other = replace(game, words="no such piece")
    several = viewed(a_summary(4, answered_errors=game), a_summary(8, answered_errors=other), success=0.9)
    assert len([line for line in reason_lines(several) if line.kind == "answers"]) == 2


# --- refusals


def full(active: int, limit: int, count: int) -> ErrorCount:
    message = f"Server at capacity: {active}/{limit} sessions active. Cannot accept new connections."
    return ErrorCount("reset", "capacity", "CAPACITY_REACHED", count, message)


def failing(*errors: ErrorCount, batch: int = 64, target: str = "local", mode: str = "ws", **fields: Any) -> Any:
    cell = a_cell(batch, target=target, mode=mode)
    return a_summary(batch, failed=sum(error.count for error in errors), errors=errors, cell=cell, **fields)


def lost(
    count: int = 8, type: str = "closed_early", code: str | None = None, phase: str = "step", message: str | None = None
) -> ErrorCount:
    return ErrorCount(phase, type, code, count, message)


def status(code: int | str, count: int = 8, message: str = "", phase: str = "connect") -> ErrorCount:
    return ErrorCount(phase, "handshake_status", str(code), count, message or f"HTTP {code}")


def of_environment(code: str | None, phase: str = "step", message: str | None = "bad") -> CellSummary:
    return failing(ErrorCount(phase, "environment", code, 8, message))


REFUSED = lost(10, "refused", "ECONNREFUSED", "connect")
RESET = lost(24, "connection_reset", "ECONNRESET", "connect", "reset before the upgrade was answered")
OWN_503 = "HTTP 503 Service Unavailable from uvicorn: Service Unavailable"
UVICORN = {"server": "uvicorn", "limit_concurrency": 20, "workers": 2}
VANISHED = (LostWorker(4711, "a", 32),)
NO_MEMORY = "exited with code 137: out of memory (its limit is memory=64m; write a larger memory=)"
OVERFLOWS = facts(overflows={"upstream_cx_overflow": 9})
SPACE: dict[str, Any] = {"target": "spaces:alice/env", "peak_concurrency": 40}

URL = "http://127.0.0.1:8000"
UNMARKED = SessionSettings("create_app", "app.py:13", 1, None, "Env", "env.py:4", False)
SHARING = replace(UNMARKED, shared="app.py:9", flag=True)
READING = SessionSettings("create_app", "app.py:13", None, "MAX_CONCURRENT_ENVS", "Env", "env.py:4", True)
CONFIGURED = SessionSettings("ConcurrencyConfig", "app.py:11", 5)

REFUSALS: list[tuple[str, CellSummary]] = [
    ("capacity", failing(full(100, 100, 56), batch=256, limits={"workers": 2})),
    ("capacity", failing(full(5, 5, 3), batch=8, limits={"workers": 1})),
    ("capacity", failing(full(5, 5, 3), batch=8, limits={"workers": 1, "max_envs": 5})),
    ("capacity", failing(full(64, 64, 20), batch=128, limits={"workers": 2})),
    ("capacity", failing(full(100, 100, 56), batch=256, pids=None)),
    ("capacity", failing(lost(32, "capacity"), pids=None)),
    ("capacity", failing(lost(32, "capacity"), pids=None, peak_concurrency=None)),
    ("one_session", failing(full(1, 1, 127), batch=128, limits={"workers": 1})),
    ("one_session", failing(full(1, 1, 124), batch=128, limits={"workers": 4})),
    ("limit_concurrency", failing(status(503, 44, OWN_503), log_tail="WARNING:  Exceeded concurrency limit.")),
    ("limit_concurrency", failing(status(503), mode="http", limits=UVICORN)),
    ("one_session", failing(full(1, 1, 7), batch=8, limits={"workers": 1}, target=URL)),
    ("one_session", failing(full(1, 1, 7), batch=8, limits={"workers": 1}, target=URL, session_settings=UNMARKED)),
    ("one_session", failing(full(1, 1, 7), batch=8, limits={"workers": 1}, target=URL, session_settings=SHARING)),
    ("capacity", failing(full(5, 5, 3), batch=8, limits={"workers": 1}, target=URL)),
    ("capacity", failing(full(5, 5, 3), batch=8, limits={"workers": 1}, session_settings=READING)),
    ("capacity", failing(full(5, 5, 3), batch=8, limits={"workers": 1}, target=URL, session_settings=READING)),
    ("capacity", failing(full(5, 5, 3), batch=8, limits={"workers": 1}, session_settings=CONFIGURED)),
    ("descriptors", failing(lost(), log_tail="OSError: [Errno 24] Too many open files")),
    ("descriptors", failing(lost(), server=ServerSamples(peak=ServerSample(1.0, descriptors=64, descriptor_limit=64)))),
    ("descriptors", failing(lost(message="Too many open files"))),
    ("worker_killed", failing(lost(32), lost_workers=VANISHED, ended_pids=(4711,))),
    ("worker_killed", failing(lost(32), lost_workers=VANISHED * 2, ended_pids=(4711,))),
    ("worker_killed", failing(lost(32), log_tail="INFO:     Child process [4711] died")),
    (
        "worker_killed",
        failing(
            lost(32), lost_workers=VANISHED, ended_pids=(4711,), log_tail="the container was out of memory once (64m)\n"
        ),
    ),
    ("server_died", ended("killed by SIGKILL", errors=(lost(),), failed=8)),
    ("server_died", ended("exited with code 1", errors=(lost(),), failed=8)),
    ("server_died", ended(NO_MEMORY, errors=(lost(),), failed=8)),
    ("server_died", ended("exited with code 137: killed by SIGKILL", errors=(lost(),), failed=8)),
    ("server_died", ended("the Space stopped with an error (stage RUNTIME_ERROR): OOM", errors=(RESET,), failed=24)),
    ("host_lost", befallen(DIED)),
    ("host_lost", befallen(HostIncident(B, "died", 1.2, "exited with code 3"))),
    ("host_lost", befallen(HostIncident(B, "died", 1.2, NO_MEMORY, 0.5), OUT)),
    ("host_lost", befallen(OUT)),
    ("proxy", failing(status(503, 2), proxy=OVERFLOWS, batch=4)),
    ("proxy", failing(status(503, 2), proxy=OVERFLOWS, batch=4, target="envoy:replicas=2")),
    ("proxy", failing(status(504, 976), batch=2000)),
    ("proxy", failing(status(503, 10, "HTTP 503 from envoy: upstream connect error. reset reason: overflow"))),
    ("redirect", failing(status(301, message="HTTP 301 Moved: redirects to https://other/"))),
    ("http_401", failing(status(401))),
    ("http_403", failing(status(403))),
    ("http_404", failing(status(404))),
    ("http_429", failing(status(429, message='HTTP 429 (Retry-After: 7 s): {"detail": "Too many sessions"}'))),
    ("http_502", failing(status(502))),
    ("http_503", failing(status(503))),
    ("http_504", failing(status(504))),
    ("http_418", failing(status(418))),
    ("http", failing(lost(type="handshake_status", message="no status"))),
    ("http_unreachable", failing(status(404, phase="reset"), mode="http", successful=0, target="spaces:alice/env")),
    ("platform_rate", failing(status(429, message="HTTP 429 (Retry-After: 30 s)"), **SPACE)),
    ("platform_connections", failing(RESET, limits={"workers": 2, "max_envs": 100}, **SPACE)),
    ("platform_connections", failing(status(503), limits={"workers": 1, "max_envs": 40}, **SPACE)),
    ("platform_stage", ended("the Space went to sleep (stage SLEEPING)", errors=(RESET,), failed=24)),
    ("platform_stage", ended("the Space was paused (stage PAUSED)", errors=(RESET,), failed=24)),
    ("platform_stage", ended("the Space is being built (stage BUILDING)", errors=(RESET,), failed=24)),
    ("not_listening", failing(replace(REFUSED, count=64))),
    ("not_listening", failing(REFUSED)),
    ("not_listening", failing(REFUSED, peak_concurrency=None)),
    ("environment", of_environment("VALIDATION_ERROR")),
    ("environment", of_environment("422", "reset")),
    ("environment", of_environment("FACTORY_ERROR", "reset")),
    ("environment", of_environment("EXECUTION_ERROR")),
    ("environment", of_environment(None, message=None)),
    ("unnamed", failing(lost(type="timeout", phase="reset", message="no answer in 10 s"))),
    ("unnamed", failing(lost(1, "timeout"), lost(3, "protocol"))),
    ("capacity", failing(full(64, 64, 11), batch=128, pids=None)),
    ("capacity", failing(full(64, 64, 72), batch=200, pids=None)),
    ("one_session", failing(full(1, 1, 6), batch=8, pids=None)),
    ("capacity", failing(full(8, 8, 3), batch=8, limits={"workers": 1})),
    ("cut", failing(lost(2, message="closed without a close frame"))),
    ("cut", failing(lost(2), lost_workers=VANISHED, ended_pids=())),
    ("cut", failing(lost(2, "connection_reset", "ECONNRESET", "reset"), lost_workers=VANISHED)),
    ("restarted", failing(lost(4, code="1012"), listens_again=True)),
    ("restarted", failing(lost(4), listens_again=True)),
    ("restarted", failing(lost(32), lost_workers=VANISHED, ended_pids=(4711,), pids=None)),
    ("closed_1000", failing(lost(4, code="1000", message="the server closed the session"))),
    ("closed_1001", failing(lost(4, code="1001"))),
    ("closed_1008", failing(lost(4, code="1008", message="the server closed the session: no token"))),
    ("closed_1009", failing(lost(4, code="1009"))),
    ("closed_1011", failing(lost(1, code="1011"))),
    ("closed_1013", failing(lost(4, code="1013", phase="reset", message="the server closed the session: full"))),
    ("closed_4000", failing(lost(4, code="4000"))),
    ("not_listening", failing(lost(4, "refused", "EHOSTUNREACH", "connect", "No route to host"))),
]


def test_a_refusal_in_words(golden: Golden) -> None:
    for cause, summary in REFUSALS:
        (refusal,) = name_refusals([summary])
        assert refusal.cause == cause
        golden([*refusal_words(refusal), refusal_sentence(refusal).partition(":")[0]])


def test_a_remedy_is_sized_to_what_is_asked_for(golden: Golden) -> None:
    (refusal,) = name_refusals([failing(full(5, 5, 3), batch=8, limits={"workers": 1})], needed=64)
    golden(refusal_sentence(refusal))


def test_a_refusal_of_the_platform_says_so(golden: Golden) -> None:
    (refusal,) = name_refusals([failing(RESET, **SPACE)])
    golden(refusal_sentence(refusal))


# --- nothing without words


def literals_of(module: ModuleType, function: str, position: int) -> set[str]:
    """The texts that a module's calls of a function pass at this position, by a name or a condition too."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(module))))
    assigned = [(ast.unparse(node.targets[0]), node.value) for node in nodes if isinstance(node, ast.Assign)]

    def texts(value: ast.expr) -> Iterator[str]:
        match value:
            case ast.Constant(str(text)):
                yield text
            case ast.IfExp(_, body, otherwise):
                yield from (*texts(body), *texts(otherwise))
            case ast.Name(name):
                yield from (text for target, source in assigned if target == name for text in texts(source))
            case _:
                pass

    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(function)]
    return {text for call in calls if len(call.args) > position for text in texts(call.args[position])}


def test_every_cause_of_a_verdict_on_a_curve_is_told_above() -> None:
    limits = [limit for view in HEADLINES for limit in view.verdict.limits]
    named = {(limit.limit and LIMITS[limit.limit].family, limit.cause) for limit in limits}
    assert {cause for _, cause in named} == literals_of(curve_rules, "LimitVerdict", 2)
    assert {cause for family, cause in named if family is None} == set(verdicts_in_words._OF_CURVE)
    assert {family for family, _ in named if family} == set(verdicts_in_words._OF_LIMIT)
    outcomes = {"reached": Outcome.MET, "broken": Outcome.MISSED, "open": Outcome.INCONCLUSIVE}
    decided = {(limit.limit, limit.cause, limit.outcome) for limit in limits}
    for name in ("max_batch", "batch_per_core", "rps"):
        assert {(name, cause, outcome) for cause, outcome in outcomes.items()} <= decided
    assert {outcome for _, cause, outcome in decided if cause == "every_cell"} == set(Outcome)
    assert {("rps", "no_passing_cell", Outcome.MISSED), ("rps", "no_passing_cell", Outcome.INCONCLUSIVE)} <= decided


def test_every_family_of_broken_limits_is_told_above() -> None:
    named = {view.verdict.first_breach.limit for view in BREACHES if view.verdict.first_breach}
    assert {LIMITS[name].family for name in named - {"server"}} == set(cells_in_words._OF_BREACH)
    assert set(cells_in_words._OF_BREACH) == {kind.family for kind in LIMITS.values() if kind.scope == "cell"}


def test_every_kind_of_reason_is_told_above() -> None:
    reasons = [reason for view, _ in REASONS for reason in view.verdict.reasons]
    kinds = {reason.kind for reason in reasons}
    assert kinds == set(cells_in_words._OF_REASON)
    assert kinds == literals_of(cell_rules, "case.reason", 0) | literals_of(cell_rules, "Reason", 0)
    assert literals_of(cell_rules, "case.reason", 1) <= {reason.cause for reason in reasons}
    assert {"died", "out", "back"} <= {reason.cause for reason in reasons}
    assert set(cells_in_words._CLIENT_REMEDIES) <= {reason.figures.get("code") for reason in reasons}


def test_every_cause_of_a_refusal_is_told_above() -> None:
    causes = {cause for cause, _ in REFUSALS}
    assert set(refusals_in_words._BY_CAUSE) <= causes
    assert {f"http_{code}" for code in refusals_in_words._STATUSES} <= causes
    assert {f"closed_{code}" for code in refusals_in_words._CLOSED} <= causes
    assert set(refusals_in_words._VERBS) <= causes
    assert literals_of(refusals, "refusal", 0) <= causes


def test_a_cause_without_words_is_an_error(golden: Golden) -> None:
    with pytest.raises(KeyError) as caught:
        refusal_words(Refusal("unheard", 1, 1))
    golden(caught.value)


ODD: list[Mapping[str, Any]] = [
    {},
    {"failed": 1},
    {"findings": BUSY, "failed": 1},
    {"notes": ("noted",)},
    {"server_exit": ExitStatus.parse("killed by SIGKILL"), "log_tail": "a\nb"},
    {"client_limited": 1},
    {"host_counts": {}, "hosts": None},
    {"proxy": facts(mishaps=(DIED, OUT), troubles=(IDLE,)), "failed": 1, "failed_hosts": {B: 1}},
    {"phases": {"total": stats(9.0), "step": stats(9.0), "total_unqueued": stats(0.1)}},
    {"requests_per_second": 1.0, "peak_concurrency": 0},
    {"errors": (lost(1, message="a\nb"),), "failed": 1},
    {"errors": (status(500, 1, "HTTP 500\nx"),), "failed": 1},
    {"errors": (ErrorCount("step", "environment", "X", 1, "a\nb"),), "failed": 1},
]
PLACES = st.tuples(st.sampled_from([1, 8, 64]), st.integers(1, 2))


@given(
    st.dictionaries(PLACES, st.sampled_from(ODD), max_size=6),
    st.lists(st.sampled_from(sorted(LIMITS)), max_size=4),
    st.sampled_from([1, 64]),
    st.sampled_from([None, 1.0]),
    st.sampled_from([None, 2]),
)
def test_every_verdict_has_words_on_one_line(
    cells: dict[tuple[int, int], Mapping[str, Any]],
    limits: list[str],
    limit: int,
    wait: float | None,
    cores: int | None,
) -> None:
    summaries = [
        a_summary(batch, repetition=repetition, cell=a_cell(batch, wait=wait), **fields)
        for (batch, repetition), fields in cells.items()
    ]
    slo = an_slo(**{name: 0.5 if name == "success" else limit for name in limits})
    view = viewed(*summaries, batches=(1, 8, 64), slo=slo, cores=cores)
    texts = [line.text for line in [*reason_lines(view), *further_reasons(view)]]
    texts += [breach_words(breach) for cell in view.verdict.cells for breach in cell.breaches]
    texts += [refusal_sentence(refusal) for refusal in view.verdict.refused]
    assert headline(view) == texts[0]
    assert all(text and "\n" not in text for text in texts)
