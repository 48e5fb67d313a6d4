"""A stored run read from its directory, and judged by the functions that judged it when it was measured."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_openenv_scale.core.files import is_locked
from pytest_openenv_scale.metrics.summary import CellSummary, summarise_part
from pytest_openenv_scale.results.manifest import MANIFEST, Manifest, Status, read_manifest, with_samples
from pytest_openenv_scale.results.outcome import (
    CheckRecord,
    Outcome,
    combine_outcomes,
    combine_with_checks,
    read_checks,
)
from pytest_openenv_scale.results.parts import Part, PartError, join_parts, read_parts
from pytest_openenv_scale.results.run_directory import PARTS, WRITER_LOCK
from pytest_openenv_scale.results.spool import cut_off_parts
from pytest_openenv_scale.verdict.sweep import SweepView, view_sweep

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Run", "load_run"]


@dataclass(frozen=True, slots=True)
class Run:
    """Everything known of a run; `problems` names, one per line, the parts that could not be read."""

    path: Path
    record: Manifest
    sweeps: tuple[SweepView, ...]
    problems: tuple[str, ...] = ()
    checks: tuple[CheckRecord, ...] = ()

    @property
    def run_id(self) -> str:
        """The id of the run, which sorts by time."""
        return self.record.run_id

    @property
    def status(self) -> Status:
        """Running, complete, failed or interrupted (also one whose process is gone)."""
        return self.record.status

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest as JSON, with the status as of now."""
        return self.record.to_json()

    @property
    def outcome(self) -> Outcome:
        """Missed if any sweep or check is, met if all are, else inconclusive; checks that were skipped do not count."""
        sweeps = combine_outcomes(sweep.outcome for sweep in self.sweeps) if self.sweeps else None
        return combine_with_checks(sweeps, self.checks)

    def parts(self, on_problem: Callable[[str], None]) -> Iterator[Part]:
        """Yield the parts that can be read, those that a killed process left unfinished last.

        Problems are told in one line each.
        """
        return _read_parts(self.path, self.status, on_problem)

    def table(self) -> pa.Table:
        """Read the rows of all parts that can be read."""
        return join_parts(self.parts(_ignore), _ignore)


def load_run(path: Path, measured: Mapping[str, SweepView] | None = None, *, samples: bool = True) -> Run:
    """Read a run and judge it again from its rows; damaged parts are named in `Run.problems`.

    `measured` are the sweeps whoever asks has measured itself, by their id: these are neither read nor judged again.
    Without `samples` nothing of what sessions said is in it.

    Raises:
        RunError: there is no run at this path, or its manifest cannot be read.
    """
    path = path.parent if path.name == MANIFEST and path.is_file() else path
    manifest = with_samples(read_manifest(path), path) if samples else read_manifest(path)
    if manifest.status == "running" and not is_locked(path / WRITER_LOCK):
        manifest = _as_interrupted(manifest)
    problems: list[str] = []
    known = dict(measured or {})
    sweep_ids = {sweep.sweep_id for sweep in manifest.sweeps}
    summaries: dict[str, list[CellSummary]] = {}
    if not sweep_ids or sweep_ids - known.keys():
        for summary in _read_summaries(_read_parts(path, manifest.status, problems.append), known.keys(), problems):
            summaries.setdefault(summary.sweep_id, []).append(summary)
    unknown = sorted(summaries.keys() - sweep_ids)
    problems += [f"the manifest has no sweep {sweep_id}, though there are parts of it" for sweep_id in unknown]
    sweeps = tuple(
        replace(known[sweep.sweep_id], record=sweep)
        if sweep.sweep_id in known
        else view_sweep(sweep, summaries.get(sweep.sweep_id, ()))
        for sweep in manifest.sweeps
    )
    checks = read_checks(path, problems)
    return Run(path, manifest, sweeps, tuple(problems), checks)


def _as_interrupted(manifest: Manifest) -> Manifest:
    """Return the manifest of a run whose process is gone."""
    sweeps = (replace(sweep, status="interrupted") if sweep.status == "running" else sweep for sweep in manifest.sweeps)
    return replace(manifest, status="interrupted", sweeps=tuple(sweeps))


def _read_parts(path: Path, status: Status, on_problem: Callable[[str], None]) -> Iterator[Part]:
    """Yield the parts of a run; one that is running is still writing what a killed one would have left unfinished."""
    yield from read_parts(path / PARTS, on_problem)
    if status != "running":
        yield from cut_off_parts(path / PARTS)


def _ignore(problem: str) -> None:
    """Do without: the problem is among those of the run."""


def _read_summaries(parts: Iterable[Part], measured: Container[str], problems: list[str]) -> Iterator[CellSummary]:
    """Summarise parts, but those of `measured` sweeps; damaged ones are added to `problems`."""
    for part in parts:
        if part.meta.sweep_id in measured:
            continue
        try:
            yield summarise_part(part)
        except PartError as error:
            problems.append(str(error))
