"""Limits an endpoint brings along: they decide whether a cell passes, and ask for nothing else."""

from cells import a_curve, a_summary, an_slo

from pytest_openenv_scale.config.limits import Slo, make_limit, merge_slos
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.verdict.sweep import judge_curve

DEFAULT = Slo((make_limit("hosts", 3, "default"),))


def judge(*summaries, slo=DEFAULT):
    return judge_curve(a_curve(*(summary.batch for summary in summaries)), summaries, slo)


def on(batch: int, *hosts: str, **fields):
    counts = {host: batch // len(hosts) for host in hosts}
    return a_summary(batch, hosts=len(hosts), host_counts=counts, **fields)


def test_a_cell_that_missed_a_host_does_not_pass():
    verdict = judge(on(30, "a", "b"))
    assert verdict.outcome is Outcome.MISSED
    assert (verdict.first_breach.limit, verdict.first_breach.observed, verdict.first_breach.allowed) == ("hosts", 2, 3)


def test_a_curve_without_a_written_limit_is_still_judged_as_one_without():
    verdict = judge(on(30, "a", "b", "c"), on(60, "a", "b", "c", failed=30))
    assert (verdict.outcome, verdict.max_batch) == (Outcome.MET, 30)


def test_a_batch_too_small_for_every_host_is_no_reason_for_doubt():
    assert judge(on(1, "a")).outcome is Outcome.MET


def test_what_is_written_outranks_it():
    written = an_slo(hosts=1)
    assert merge_slos(written, DEFAULT).limits == written.limits
    assert judge(on(30, "a", "b"), slo=merge_slos(written, DEFAULT)).outcome is Outcome.MET
