"""The table of limits: each has a judge, words and a measure that reads what its name says."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
from cells import a_cell, a_curve, a_failure, a_row, a_summary, summary_of

from pytest_openenv_scale.config import limits
from pytest_openenv_scale.config.limits import LIMITS, PHASES, STATISTICS, Limit, Slo
from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.metrics.percentiles import PhaseStats
from pytest_openenv_scale.reporting.content import cell_verdicts, verdicts
from pytest_openenv_scale.results.cell import ServerSamples
from pytest_openenv_scale.verdict import cell, sweep

OF_CELL = {name: kind for name, kind in LIMITS.items() if kind.scope == "cell"}
OF_CURVE = {name: kind for name, kind in LIMITS.items() if kind.scope == "curve"}


def test_every_limit_of_a_cell_is_judged_and_told_by_its_family():
    families = {kind.family for kind in OF_CELL.values()}
    assert families == set(cell._JUDGES) == set(cell_verdicts._OF_BREACH)


def test_every_limit_of_a_curve_is_judged_by_its_name_and_told_by_its_family():
    assert set(OF_CURVE) == set(sweep._JUDGES)
    assert {kind.family for kind in OF_CURVE.values()} <= set(verdicts._OF_LIMIT)


PLACE = {name: position for position, name in enumerate((*PHASES, *STATISTICS), 1)}
FIGURES = {
    f"{phase}_{statistic}": 10.0 * PLACE[phase] + PLACE[statistic] for phase in PHASES for statistic in STATISTICS
}
OTHERS = {"success": 0.75, "rps": 12.5, "hosts": 3, "open": 7, "rss": 9}
MEASURED = {**FIGURES, "latency_factor": FIGURES["total_p99"], **OTHERS}


@pytest.mark.parametrize("name", LIMITS)
def test_a_measure_reads_the_figure_its_name_says(name):
    none = PhaseStats(1, *[0.0] * 7)
    phases = {
        phase: replace(none, **{statistic: FIGURES[f"{phase}_{statistic}"] for statistic in STATISTICS})
        for phase in PHASES
    }
    server = ServerSamples(peak=ServerSample(0.0, rss_bytes=9))
    figures = {"success_rate": 0.75, "requests_per_second": 12.5, "hosts": 3, "open_least": 7, "server": server}
    summary = replace(a_summary(8), **figures, phases=phases)
    assert LIMITS[name].measure(summary) == MEASURED.get(name)
    assert (name in MEASURED) is (LIMITS[name].family not in ("capacity", "cost"))


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(
    "summary", [summary_of([a_row(), a_failure(1)]), summary_of([a_failure()]), summary_of([], a_cell(1))]
)
def test_a_measure_of_a_real_summary_is_a_number_or_none(name, summary):
    measured = LIMITS[name].measure(summary)
    assert measured is None or isinstance(measured, float | int)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_that_nobody_judges_is_an_error(name, monkeypatch):
    odd = replace(LIMITS[name], name="odd", family="odd")
    monkeypatch.setattr(limits, "LIMITS", MappingProxyType({**LIMITS, "odd": odd}))
    with pytest.raises(KeyError, match="odd"):
        sweep.judge_curve(a_curve(4), [a_summary(4)], Slo((Limit("odd", 1.0),)))
