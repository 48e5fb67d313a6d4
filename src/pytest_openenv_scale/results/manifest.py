"""The manifest of a run: what was measured, with which settings, by which code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from pytest_openenv_scale.config.limits import Slo
from pytest_openenv_scale.config.plan import Curve
from pytest_openenv_scale.config.search import SearchPlan
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.files import json_bytes, replacing
from pytest_openenv_scale.core.serialization import Count, FileName, Jsonable, JsonError, Ordinal, UtcTime

from .comparison import Comparison
from .outcome import Outcome, Sample, StopReason, WarmUp

Status = Literal["running", "complete", "failed", "interrupted"]

MANIFEST = "manifest.json"
"""The name of the manifest file."""

SAMPLES = "samples.json"
"""The file of a run that holds what sessions said, apart from the manifest: it is not pushed with it."""

FORMAT = 1
"""The version of the run directory's layout; a reader refuses a larger one."""


@dataclass(frozen=True, slots=True)
class SweepRecord(Jsonable):
    """One test on one target: everything about a sweep that is not measured cell by cell.

    `target` is canonical and redacted. `slos` has one entry per curve, in the same order. `settings` are
    those that matter for reading the results, `rerun` is the command that repeats the sweep, `notes` are
    said in reports and verdicts (such as the fall-back to the built-in environment), `warm_ups` one per mode, of the
    sessions that played alone before, `left_out` names curves whose limits are below their waits. Durations are
    seconds; a timeout is None where it is not known. By the id of a curve, `searches` are the plans of those that are
    searched, and `stops` why they ended, or why others did early. `spent_s` is how long measuring took, `sessions` how
    many were opened for it, `backlog` how many connections the server's kernel lets wait. `think_mean_s` is the mean
    think time, `planned_curves` how many curves there were to be before it was known which can be measured.
    """

    sweep_id: str
    test: str
    target: str
    infrastructure: str
    curves: tuple[Curve, ...]
    slos: tuple[Slo, ...]
    steps: Count
    arrival: str
    reps: Ordinal
    timeout_s: float | None
    hardware: str | None = None
    cores: Count | None = None
    hosts: Count | None = None
    limits: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    startup_s: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rerun: str | None = None
    notes: tuple[str, ...] = ()
    status: Status = "running"
    outcome: Outcome | None = None
    comparison: Comparison | None = None
    started_at: UtcTime | None = None
    finished_at: UtcTime | None = None
    warm_ups: tuple[WarmUp, ...] = ()
    left_out: tuple[str, ...] = ()
    searches: Mapping[str, SearchPlan] = field(default_factory=dict[str, SearchPlan])
    stops: Mapping[str, StopReason] = field(default_factory=dict[str, StopReason])
    spent_s: float = 0.0
    sessions: Count = 0
    backlog: Count | None = None
    think_mean_s: float = 0.0
    planned_curves: Count = 0

    def __post_init__(self) -> None:
        if len(self.slos) != len(self.curves):
            raise ValueError(f"{len(self.curves)} curves have {len(self.slos)} SLOs")

    def warm_up(self, mode: str) -> WarmUp | None:
        """Return what the session of a mode was answered that played alone before the sweep."""
        return next((warm_up for warm_up in self.warm_ups if warm_up.mode == mode), None)

    def backlog_notes(self, largest_batch: int) -> tuple[str, ...]:
        """Return a note where the kernel lets fewer connections wait than the largest batch measured has sessions."""
        if self.backlog is None or largest_batch <= self.backlog:
            return ()
        return (
            f"the kernel lets {self.backlog} connections wait, the largest batch is {largest_batch}: "
            f"sysctl net.core.somaxconn={largest_batch}",
        )


@dataclass(frozen=True, slots=True)
class Writer(Jsonable):
    """The process that began the run."""

    pid: int
    host: str


@dataclass(frozen=True, slots=True)
class Manifest(Jsonable):
    """The content of `manifest.json`; `command` is redacted, `kept` is false for a temporary run."""

    format: int
    run_id: FileName
    status: Status
    started_at: UtcTime
    writer: Writer
    kept: bool = True
    finished_at: UtcTime | None = None
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
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(_no_run_message(path)) from None
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}") from None
    try:
        version = _Layout.read_json(content).format
        if version > FORMAT:
            newer = f"{file} has format {version}, this version reads up to {FORMAT}"
            raise RunError(f"{newer}: upgrade pytest-openenv-scale")
        return Manifest.read_json(content)
    except JsonError as error:
        raise RunError(f"{file} is damaged: {error}") from None


@dataclass(frozen=True, slots=True)
class _Samples(Jsonable):
    """What sessions said, by the id of a sweep and the mode."""

    sweeps: Mapping[str, Mapping[str, Sample]] = field(default_factory=dict[str, Mapping[str, Sample]])


def write_samples(path: Path, record: SweepRecord) -> SweepRecord:
    """Write what sessions of a sweep said beside the manifest; return the record as the manifest holds it, without."""
    samples = {warm_up.mode: warm_up.sample for warm_up in record.warm_ups if warm_up.sample is not None}
    if samples:
        stored = _Samples({**_read_samples(path).sweeps, record.sweep_id: samples})
        with replacing(path / SAMPLES) as file:
            file.write(json_bytes(stored.to_json()))
    return replace(record, warm_ups=tuple(replace(warm_up, sample=None) for warm_up in record.warm_ups))


def with_samples(manifest: Manifest, path: Path) -> Manifest:
    """Return the manifest of the run at a path with what its sessions said, as far as that is there."""
    samples = _read_samples(path).sweeps

    def filled(record: SweepRecord) -> SweepRecord:
        own = samples.get(record.sweep_id, {})
        warm_ups = tuple(replace(warm_up, sample=own.get(warm_up.mode)) for warm_up in record.warm_ups)
        return replace(record, warm_ups=warm_ups)

    return replace(manifest, sweeps=tuple(map(filled, manifest.sweeps)))


def _read_samples(path: Path) -> _Samples:
    """Return the samples of a run; none where there are none, or the file is damaged."""
    try:
        return _Samples.read_json((path / SAMPLES).read_bytes())
    except (OSError, ValueError):
        return _Samples()


def _no_run_message(path: Path) -> str:
    if not path.exists():
        return f"there is no run at {path}"
    if not path.is_dir():
        return f"{path} is no run: a run is a folder with a {MANIFEST}"
    runs = run_paths([path])
    hint = f"; it holds runs, name one, such as {runs[-1]}" if runs else ""
    return f"{path} is no run: it has no {MANIFEST}{hint}"


def run_paths(folders: Iterable[Path]) -> list[Path]:
    """Return the run directories directly below folders, the oldest first."""
    paths: list[Path] = []
    for folder in folders:
        with suppress(OSError):
            paths += (path.parent for path in folder.glob(f"*/{MANIFEST}"))
    return sorted(paths, key=lambda path: path.name)


def fact_group(fingerprint: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a group of the facts that a fingerprint tells, such as git; none where it has no such group."""
    values = fingerprint.get(name)
    return cast("Mapping[str, Any]", values) if isinstance(values, Mapping) else {}


class GitState(NamedTuple):
    """The checkout that a run was made from, as far as it is known."""

    commit: str | None = None
    branch: str | None = None
    dirty: bool | None = None


def git_state(manifest: Manifest) -> GitState:
    """Return what the fingerprint of a run tells of its checkout."""
    git = fact_group(manifest.fingerprint, "git")
    commit, branch = (name if isinstance(name := git.get(key), str) else None for key in ("commit", "branch"))
    dirty = git.get("dirty")
    return GitState(commit, branch, dirty if isinstance(dirty, bool) else None)
