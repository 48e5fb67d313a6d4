"""The rule by which the older experiments judged max batch, to name where it and ours differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pytest_openenv_scale.core.grammar import format_number
from pytest_openenv_scale.core.run import load_run
from pytest_openenv_scale.core.slo import DEFAULT_SUCCESS
from pytest_openenv_scale.core.summary import CellSummary


def older_max_batch(summaries: Sequence[CellSummary]) -> int | None:
    """Return the largest batch whose success rate, averaged over repetitions, reached 0.95.

    Smaller batches that failed were not looked at.
    """
    rates: dict[int, list[float]] = {}
    for summary in summaries:
        rates.setdefault(summary.batch, []).append(summary.successful / summary.asked)
    return max((batch for batch, found in rates.items() if fmean(found) >= DEFAULT_SUCCESS), default=None)


def older_rule_notes(path: Path) -> dict[str, list[str]]:
    """Return a note for each curve of a run on which the older rule gives another max batch, by sweep id."""
    notes: dict[str, list[str]] = {}
    for sweep in load_run(path).sweeps:
        for view in sweep.curves:
            older, ours = older_max_batch(view.summaries), view.verdict.max_batch
            if older != ours:
                wait = "" if view.curve.wait is None else f", wait {format_number(view.curve.wait)} s"
                text = (
                    f"{view.curve.mode}{wait}: the older rule (success averaged over repetitions, smaller batches not "
                    f"looked at) gave max batch {older or 'none'}, the rule of this report gives {ours or 'none'}"
                )
                notes.setdefault(sweep.record.sweep_id, []).append(text)
    return notes
