"""The outcome of a run as lines NAME=value, for the jobs of a CI that come after it."""

from __future__ import annotations

from pathlib import Path

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import smallest_max_batch, study_of
from pytest_openenv_scale.core.text import on_one_line


def append_outputs(run: Run, path: Path) -> None:
    """Append verdict, max batch and directory of a run to a file, as GITHUB_OUTPUT and GitLab's dotenv reports take it.

    Max batch is the smallest of all curves. A value that is not known is empty.

    Raises:
        OSError: the file cannot be written.
    """
    curves = study_of(run).curves
    max_batch = smallest_max_batch(curves).verdict.max_batch if curves else None
    values = {
        "openenv_verdict": run.outcome.value,
        "openenv_max_batch": "" if max_batch is None else str(max_batch),
        "openenv_run": on_one_line(str(run.path.absolute())) if run.record.kept else "",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
