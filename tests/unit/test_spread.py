"""A proxy's own count of a cell: what lies between two looks, and what the verdict and the reports say of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cells import a_cell, a_curve, a_failure, a_meta, a_row, a_summary, a_table, an_slo, summary_of

from goldens import Golden
from pytest_openenv_scale.core.endpoint import (
    ExitStatus,
    HostEvent,
    HostIncident,
    HostSnapshot,
    ProxyFacts,
    ProxySnapshot,
    UnhealthyHost,
    proxy_facts_between,
)
from pytest_openenv_scale.metrics.summary import summarise
from pytest_openenv_scale.reporting.content.tables import host_spread_sentences, proxy_host_rows, proxy_use_sentence
from pytest_openenv_scale.results.cell import CellMeta
from pytest_openenv_scale.results.outcome import ErrorCount, Outcome, Reason
from pytest_openenv_scale.verdict.refusals import name_refusals
from pytest_openenv_scale.verdict.sweep import CurveView, judge_curve

A, B = "127.0.0.2:8000", "127.0.0.3:8000"


def look(*hosts: HostSnapshot, **fields: Any) -> ProxySnapshot:
    return ProxySnapshot("Envoy (round_robin)", hosts, **fields)


def event(host: str, kind: Any, seconds: float, text: str = "") -> HostEvent:
    return HostEvent(host, kind, 100.0 + seconds, text)


def facts(requests: dict[str, int] | None = None, **fields: Any) -> ProxyFacts:
    return ProxyFacts("Envoy (round_robin)", {A: 2, B: 2} if requests is None else requests, **fields)


def counted(before: ProxySnapshot | None, after: ProxySnapshot | None, batch: int = 8) -> ProxyFacts | None:
    return proxy_facts_between(before, after, started_s=100.0, batch=batch)


def judged(summary: Any, **slo: Any) -> Any:
    return judge_curve(a_curve(summary.batch), [summary], an_slo(**slo), repetitions=1)


def viewed(summary: Any, **slo: Any) -> CurveView:
    return CurveView(a_curve(summary.batch), (summary,), judged(summary, **slo))


def test_requests_are_the_difference_of_two_looks() -> None:
    counts = counted(look(HostSnapshot(A, 100), HostSnapshot(B, 7)), look(HostSnapshot(A, 104), HostSnapshot(B, 7)))
    assert counts is not None
    assert counts.requests == {A: 4, B: 0}
    assert (counts.hosts, counts.idle) == (1, (B,))


def test_a_proxy_that_was_not_seen_twice_tells_nothing() -> None:
    assert counted(None, look()) is None
    assert counted(look(), None) is None


def test_a_host_that_is_new_or_whose_proxy_began_again_counts_from_zero() -> None:
    counts = counted(look(HostSnapshot(A, 100)), look(HostSnapshot(A, 3), HostSnapshot(B, 5)))
    assert counts is not None
    assert counts.requests == {A: 0, B: 5}


def test_only_overflows_of_this_cell_are_told() -> None:
    before = look(overflows={"upstream_cx_overflow": 4, "upstream_rq_pending_overflow": 1})
    after = look(overflows={"upstream_cx_overflow": 9, "upstream_rq_pending_overflow": 1})
    counts = counted(before, after)
    assert counts is not None
    assert counts.overflows == {"upstream_cx_overflow": 5}


def test_a_host_left_out_is_in_trouble_only_if_there_were_sessions_for_every_host() -> None:
    before = look(HostSnapshot(A, 0), HostSnapshot(B, 0, connect_failures=1))
    after = look(HostSnapshot(A, 1), HostSnapshot(B, 0, connect_failures=4, log="last words"))
    few, enough = counted(before, after, batch=1), counted(before, after, batch=2)
    assert few is not None
    assert enough is not None
    assert few.troubles == ()
    assert enough.troubles == (UnhealthyHost(B, "", 3, "last words"),)


def test_the_proxys_own_use_is_memory_at_the_end_and_cpu_in_between() -> None:
    counts = counted(look(rss_bytes=5, cpu_seconds=1.0), look(rss_bytes=9, cpu_seconds=3.5))
    assert counts is not None
    assert (counts.rss_bytes, counts.cpu_seconds) == (9, 2.5)


def test_a_death_is_told_with_the_time_until_the_host_was_taken_out() -> None:
    events = (
        event(A, "out", -5.0, "before the cell"),
        event(B, "died", 1.25, "killed by SIGKILL"),
        event(B, "out", 2.0, "failed_active_health_check"),
    )
    counts = counted(look(), look(events=events))
    assert counts is not None
    assert counts.mishaps == (HostIncident(B, "died", 1.25, "killed by SIGKILL", 0.75),)


def test_a_host_that_hangs_is_out_and_may_come_back() -> None:
    counts = counted(look(), look(events=(event(B, "out", 3.0, "active_hc_timeout"), event(B, "back", 4.0))))
    assert counts is not None
    assert counts.mishaps == (HostIncident(B, "out", 3.0, "active_hc_timeout"), HostIncident(B, "back", 4.0))


def test_the_facts_survive_the_run_directory() -> None:
    proxy = facts(
        overflows={"upstream_cx_overflow": 1},
        troubles=(UnhealthyHost(B, "failed", 2, "log"),),
        mishaps=(HostIncident(B, "died", 1.0, "killed by SIGKILL", None),),
        rss_bytes=1,
        cpu_seconds=0.5,
    )
    meta = a_meta(proxy=proxy)
    assert CellMeta.from_json(meta.to_json()) == meta
    assert summarise(a_table([a_row()], meta), meta).proxy == proxy


def test_failed_sessions_are_counted_where_they_had_been_answered() -> None:
    failure = {"type": "closed_early", "code": "1006", "phase": "step"}
    rows = [a_row(host_url=A), a_failure(1, host_url=B, **failure), a_failure(2, host_url=None, **failure)]
    assert summary_of(rows).failed_hosts == {B: 1}


def test_hosts_that_sessions_do_not_tell_are_judged_by_the_proxys_count() -> None:
    silent = a_summary(4, host_counts={}, hosts=None)
    assert judged(silent, hosts=2).outcome is Outcome.INCONCLUSIVE
    assert judged(replace(silent, proxy=facts()), hosts=2).outcome is Outcome.MET
    missed = judged(replace(silent, proxy=facts({A: 4, B: 0})), hosts=2)
    assert missed.outcome is Outcome.MISSED
    assert (missed.first_breach.limit, missed.first_breach.observed, missed.first_breach.allowed) == ("hosts", 1, 2)


def lost_sessions(count: int = 2, **fields: Any) -> Any:
    errors = (ErrorCount("step", "closed_early", "1006", count, "closed without a close frame"),)
    return a_summary(4, failed=count, errors=errors, failed_hosts={B: count}, **fields)


def of_hosts(summary: Any) -> list[Reason]:
    return [reason for reason in judged(summary).reasons if reason.kind == "hosts"]


def test_a_dead_host_is_named_with_the_sessions_it_took() -> None:
    died = HostIncident(B, "died", 1.2, "killed by SIGKILL", 0.4)
    summary = lost_sessions(
        proxy=facts(mishaps=(died,), troubles=(UnhealthyHost(B, "failed", 0, "the log"),)),
        server_exit=ExitStatus.from_returncode(-9).of(f"replica {B}"),
    )
    (refusal,) = name_refusals([summary])
    assert (refusal.cause, refusal.count, refusal.incidents) == ("host_lost", 2, (died,))
    assert refusal.figures["proxy"] == "Envoy (round_robin)"
    (reason,) = of_hosts(summary)
    assert (reason.cause, reason.batch, reason.incident, reason.detail) == ("died", 4, died, "the log")
    assert reason.figures == {"proxy": "Envoy (round_robin)", "failed": 2, "failed_there": 2}


def test_a_host_that_hung_is_named_and_failures_elsewhere_are_not_laid_on_it() -> None:
    out = facts(mishaps=(HostIncident(B, "out", 5.9, "active_hc_timeout"),))
    summary = replace(lost_sessions(3, proxy=out), failed_hosts={B: 2, A: 1})
    (reason,) = of_hosts(summary)
    assert (reason.cause, reason.incident) == ("out", out.mishaps[0])
    assert (reason.figures["failed"], reason.figures["failed_there"]) == (3, 2)
    assert name_refusals([summary])[0].cause == "host_lost"
    elsewhere = replace(summary, failed_hosts={A: 3})
    assert name_refusals([elsewhere])[0].cause != "host_lost"


def test_failures_on_one_host_only_are_noted_without_a_mishap() -> None:
    (reason,) = of_hosts(lost_sessions(proxy=facts()))
    assert (reason.cause, reason.words, reason.figures) == ("all_failed", B, {"failed": 2})


def test_what_a_breaker_refused_is_named_by_the_proxys_own_counters() -> None:
    errors = (
        ErrorCount("connect", "handshake_status", "503", 1, "HTTP 503 from envoy: reset reason: overflow"),
        ErrorCount("connect", "timeout", None, 1, "no answer within 5 s"),
    )
    proxy = facts(overflows={"upstream_cx_overflow": 9})
    summary = a_summary(4, failed=2, errors=errors, proxy=proxy)
    (refusal,) = name_refusals([summary], needed=64)
    assert (refusal.cause, refusal.count, refusal.words) == ("proxy", 2, "upstream_cx_overflow 9")
    figures = {"needed": 64, "proxy": "Envoy (round_robin)", "held": 2, "is_key_of_target": False}
    assert refusal.figures == figures
    ours = replace(summary, cell=a_cell(4, target="envoy:replicas=2"))
    assert name_refusals([ours], needed=64)[0].figures == {**figures, "is_key_of_target": True}


def test_a_503_is_not_laid_on_breakers_that_refused_nothing() -> None:
    errors = (ErrorCount("connect", "handshake_status", "503", 2, "HTTP 503 from envoy: connection failure"),)
    cell = a_cell(4, target="envoy:replicas=2")
    for proxy in (None, facts()):
        assert name_refusals([a_summary(4, failed=2, errors=errors, cell=cell, proxy=proxy)])[0].cause == "http_503"


def test_capacity_is_counted_over_the_workers_of_all_replicas() -> None:
    summary = a_summary(64, failed=32, limits={"replicas": 2, "workers": 1, "max_envs": 16})
    figures = name_refusals([summary])[0].figures
    assert (figures["held"], figures["workers"], figures["limit"]) == (32, 2, 16)


def test_a_spread_both_sides_agree_on_is_told_once(golden: Golden) -> None:
    summary = a_summary(4, host_counts={A: 2, B: 2}, proxy=facts())
    golden(host_spread_sentences(viewed(summary)))


def test_where_the_counts_differ_both_are_told(golden: Golden) -> None:
    refused = a_summary(4, host_counts={A: 2}, proxy=facts())
    silent = a_summary(4, host_counts={}, proxy=facts())
    renamed = a_summary(4, host_counts={"box-1:8000": 4}, proxy=facts())
    golden(host_spread_sentences(viewed(refused)))
    golden(host_spread_sentences(viewed(silent))[0])
    golden(host_spread_sentences(viewed(renamed))[0])


def test_over_http_the_proxy_counts_requests(golden: Golden) -> None:
    summary = a_summary(4, cell=a_cell(4, mode="http"), host_counts={A: 2, B: 2}, proxy=facts({A: 5, B: 3}))
    golden(host_spread_sentences(viewed(summary)))


def test_what_the_proxy_used_is_told_of_the_largest_batch(golden: Golden) -> None:
    summary = a_summary(4, proxy=facts(rss_bytes=545_000_000, cpu_seconds=5.1))
    golden(proxy_use_sentence(viewed(summary)))
    assert proxy_use_sentence(viewed(a_summary(4, proxy=facts()))) is None
    assert proxy_use_sentence(viewed(a_summary(4))) is None


def test_many_hosts_are_told_by_the_fewest_and_the_most(golden: Golden) -> None:
    many = {f"h{number}": 10 + number for number in range(8)}
    summary = a_summary(108, host_counts=many, proxy=facts(many))
    golden(host_spread_sentences(viewed(summary))[0])


def test_of_several_repetitions_the_most_uneven_is_told(golden: Golden) -> None:
    even = a_summary(4, host_counts={A: 2, B: 2}, proxy=facts())
    uneven = a_summary(4, repetition=2, host_counts={A: 3, B: 1}, proxy=facts({A: 3, B: 1}))
    view = CurveView(a_curve(4), (even, uneven), judged(even))
    golden(host_spread_sentences(view))


def test_without_a_proxy_or_with_one_host_behind_it_nothing_is_told() -> None:
    assert host_spread_sentences(viewed(a_summary(4))) == []
    assert host_spread_sentences(viewed(a_summary(4, proxy=facts({A: 4})))) == []
    assert list(proxy_host_rows(viewed(a_summary(4)))) == []


def test_the_table_has_every_host_of_every_cell() -> None:
    trouble = UnhealthyHost(B, "failed_active_health_check")
    summary = lost_sessions(host_counts={A: 2}, proxy=facts(troubles=(trouble,)))
    assert list(proxy_host_rows(viewed(summary))) == [
        ["4", "1", A, "2", "2", "0", "healthy"],
        ["4", "1", B, "2", "2", "2", "failed_active_health_check"],
    ]
