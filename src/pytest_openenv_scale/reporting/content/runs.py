"""A stored run in a few words: for the list of runs, and the table above the experiment log."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_openenv_scale.analysis.compare import side_of
from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import study_of
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.comparison import Side

from .wording import OUTCOME_MARKS, max_batch_text


@dataclass(frozen=True, slots=True)
class RunWords:
    """What a run is, in texts that nothing has been escaped in; a dash stands for what is not known."""

    run_id: str
    started: str
    status: str
    outcome: str
    infrastructures: str
    max_batch: str
    commit: str
    note: str


def run_words(run: Run) -> RunWords:
    """Return a run in a few words."""
    study = study_of(run)
    best = "; ".join(dict.fromkeys(f"{curve.mode} {max_batch_text(curve.verdict)}" for curve in study.curves))
    judged = bool(run.sweeps or run.checks)
    return RunWords(
        run.run_id,
        f"{run.record.started_at:%Y-%m-%d %H:%M}",
        run.status,
        f"{OUTCOME_MARKS[run.outcome]} {run.outcome}" if judged else formatting.MISSING,
        ", ".join(study.infrastructures) or formatting.MISSING,
        best or formatting.MISSING,
        commit_text(side_of(run)),
        run.record.note or formatting.MISSING,
    )


def commit_text(run: Side) -> str:
    """Return the commit of a run, "+" behind it where there were changes that were not committed."""
    return f"{run.commit[:10]}{'+' if run.dirty else ''}" if run.commit else formatting.MISSING
