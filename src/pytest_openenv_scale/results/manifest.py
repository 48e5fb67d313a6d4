"""The manifest of a run: what was asked, of whom, by which code; kept up to date while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from .comparison import Comparison
from .jsonable import Jsonable, JsonError
from .outcome import Outcome
from .plan import Curve
from .slo import Slo

Status = Literal["running", "complete", "failed", "interrupted"]

MANIFEST = "manifest.json"
"""The name of the file."""

FORMAT = 1
"""The version of the run directory's layout; a reader refuses a larger one."""


class RunError(Exception):
    """A run directory that cannot be written, read or found: one line saying which, why and what to do."""


@dataclass(frozen=True, slots=True)
class SweepRecord(Jsonable):
    """One test on one target: everything about a sweep that is not measured cell by cell.

    `target` is canonical and redacted. `slos` has one entry per curve, in the same order. `settings` are
    those that matter for reading the results, `rerun` is the command that repeats the sweep, `notes` are
    said in reports and verdicts (such as the fall-back to the built-in environment). Durations are
    seconds; a timeout is None where it is not known.
    """

    sweep_id: str
    test: str
    target: str
    infrastructure: str
    curves: tuple[Curve, ...]
    slos: tuple[Slo, ...]
    steps: int
    arrival: str
    reps: int
    timeout_s: float | None
    hardware: str | None = None
    cores: int | None = None
    hosts: int | None = None
    limits: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    startup_s: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rerun: str | None = None
    notes: tuple[str, ...] = ()
    status: Status = "running"
    outcome: Outcome | None = None
    comparison: Comparison | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    def __post_init__(self) -> None:
        if len(self.slos) != len(self.curves):
            raise ValueError(f"{len(self.curves)} curves have {len(self.slos)} SLOs")


@dataclass(frozen=True, slots=True)
class Writer(Jsonable):
    """The process that began the run."""

    pid: int
    host: str


@dataclass(frozen=True, slots=True)
class Manifest(Jsonable):
    """The content of `manifest.json`; `command` is redacted, `kept` is false for a temporary run."""

    format: int
    run_id: str
    status: Status
    started_at: datetime
    writer: Writer
    kept: bool = True
    finished_at: datetime | None = None
    command: tuple[str, ...] = ()
    note: str | None = None
    plan: Mapping[str, Any] = field(default_factory=dict[str, Any])
    fingerprint: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sweeps: tuple[SweepRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class _Layout(Jsonable):
    """What a manifest of any format has."""

    format: int


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a run directory.

    Raises:
        RunError: there is no run at this path, its manifest is damaged, or it is of a newer format.
    """
    file = path / MANIFEST
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(_no_run(path)) from None
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise RunError(f"{file} is damaged: {error}") from None
    try:
        version = _Layout.from_json(content).format
        if version > FORMAT:
            newer = f"{file} has format {version}, this version reads up to {FORMAT}"
            raise RunError(f"{newer}: upgrade pytest-openenv-scale")
        return Manifest.from_json(content)
    except JsonError as error:
        raise RunError(f"{file} is damaged: {error}") from None


def _no_run(path: Path) -> str:
    if not path.exists():
        return f"there is no run at {path}"
    if not path.is_dir():
        return f"{path} is no run: a run is a folder with a {MANIFEST}"
    runs = run_paths(path)
    hint = f"; it holds runs, name one, such as {runs[-1]}" if runs else ""
    return f"{path} is no run: it has no {MANIFEST}{hint}"


def run_paths(results: Path) -> list[Path]:
    """Return the run directories directly below `results`, the oldest first."""
    try:
        return sorted(path.parent for path in results.glob(f"*/{MANIFEST}"))
    except OSError:
        return []
