"""The message of a failing test: the verdict first, what refused and what to do, and where all the rest is shown."""

from __future__ import annotations

from pytest_openenv_scale.reporting.content.failures import (
    LET_PASS,
    curve_names,
    curves_not_met,
    failure_reasons,
    remedy_sentences,
)
from pytest_openenv_scale.results.comparison import Judgement
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.verdict.sweep import SweepView

from .comparison import comparison_lines
from .page import DEFAULT_WIDTH, TextPage
from .sweep import BlockStyle, sweep_lines

SECTION = "OpenEnv scaling"
"""The title above the blocks of all curves at the end of a run."""

BASELINE_SECTION = f"{SECTION}: compared with the baseline"
"""The title above the comparison."""


def failure_text(
    view: SweepView,
    no_baseline: str | None = None,
    *,
    width: int = DEFAULT_WIDTH,
    encoding: str | None = None,
) -> str:
    """Return the message of a test that fails: its first line is the verdict in short, and whole however wide it is.

    `no_baseline` is why there is no baseline to compare with, where one is asked for.
    """
    page = TextPage(width, encoding)
    (first, *reasons), missed = failure_reasons(view, no_baseline)
    page.add_line(first)
    for reason in reasons:
        page.add_sentence(reason, indent=0)
    for sentence in remedy_sentences(view):
        page.add_sentence(sentence)
    if not missed:
        page.add_sentence(LET_PASS)
    curves = curves_not_met(view)
    if curves:
        page.add_sentence(f'see "{SECTION}" below: {view.infrastructure}, {curve_names(view, curves)}')
    if _is_compared(view):
        page.add_sentence(f'see "{BASELINE_SECTION}" below')
    return page.text


def failure_section(
    view: SweepView, *, refusals: bool = False, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> str:
    """Return what the message of a failing test refers to: the blocks of its curves, and the comparison.

    The blocks say what refused where the message does not (`refusals`).
    """
    page = TextPage(width, encoding)
    if view.outcome is not Outcome.MET:
        page.add_lines(sweep_lines(view, width=width, encoding=encoding, style=BlockStyle(log=10, refusals=refusals)))
    if view.record.comparison is not None and _is_compared(view):
        page.add_blank()
        page.add_lines(comparison_lines(view.record.comparison, width=width, encoding=encoding))
    return page.text


def _is_compared(view: SweepView) -> bool:
    """Say whether the comparison with the baseline is a reason to fail."""
    comparison = view.record.comparison
    return comparison is not None and comparison.outcome in (Judgement.REGRESSED, Judgement.INCONCLUSIVE)
