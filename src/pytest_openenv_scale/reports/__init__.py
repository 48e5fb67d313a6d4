"""What people and programs are told: every report is a function of a run or a sweep, and nothing else."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from pytest_openenv_scale.core.run import Run, RunError

from . import json, markdown
from .github import append_step_summary
from .junit import junit_properties
from .overview import run_lines, summary_lines
from .terminal import cell_line, curve_lines, failure_text, sweep_lines
from .text import Line

__all__ = [
    "FORMATS",
    "Line",
    "append_step_summary",
    "cell_line",
    "curve_lines",
    "failure_text",
    "junit_properties",
    "run_lines",
    "summary_lines",
    "sweep_lines",
    "write_json",
    "write_reports",
]

FORMATS: Mapping[str, tuple[str, Callable[[Run], str]]] = {"md": ("report.md", markdown.render)}
"""The reports that can be asked for: the name of each file and what renders it."""


def write_reports(run: Run, *, formats: tuple[str, ...] = ("md",), directory: Path | None = None) -> list[Path]:
    """Write `report.json` and the formats asked for, each file complete or not there; return their paths.

    They go into `directory`, by default that of the run; a run that is not kept gets none there. Any run
    can be reported, also one that was interrupted or is damaged.

    Raises:
        RunError: a file cannot be written.
    """
    folder = directory or (run.path if run.record.kept else None)
    if folder is None:
        return []
    paths = [write_json(run, folder / "report.json")]
    for name in formats:
        file, render = FORMATS[name]
        paths.append(_write(folder / file, render(run)))
    return paths


def write_json(run: Run, path: Path) -> Path:
    """Write the JSON report to a path of its own and return it.

    Raises:
        RunError: the file cannot be written.
    """
    return _write(path, json.render(run))


def _write(path: Path, content: str) -> Path:
    """Replace a file at once and return its path; its directory is made where it is missing."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.encode("utf-8", "replace"))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError as error:
        raise RunError(f"the report cannot be written: {path}: {error.filename} is a file, not a folder") from None
    except OSError as error:
        raise RunError(f"the report cannot be written: {path}: {error.strerror}") from None
    return path
