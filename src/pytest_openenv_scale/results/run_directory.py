"""The run directory while it is written: created, kept up to date by several processes, closed."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pytest_openenv_scale.core import files
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.core.measure_lock import LockHolder, measure_lock
from pytest_openenv_scale.core.text import redact_command

from .cell import CellMeta, SessionRow
from .comparison import Comparison
from .location import make_results, new_run_id
from .manifest import FORMAT, MANIFEST, Manifest, Status, SweepRecord, Writer, read_manifest, write_samples
from .outcome import Outcome

if TYPE_CHECKING:
    from .parts import Part
    from .spool import PartWriter

PARTS = "sessions.parquet"
WRITER_LOCK = ".writer.lock"
_MANIFEST_LOCK = ".manifest.lock"


class RunDirectory:
    """A run being written. Any process may `open` it by path; the one that calls `begin` ends it.

    Everything in it is complete at every moment: parts are sealed and the manifest replaced at once, so a
    kill at any point leaves a run that can be read. Where the beginning process is gone, the run reads as
    interrupted.
    """

    def __init__(self, path: Path, *, kept: bool = True) -> None:
        self.path = path
        self.run_id = path.name
        self._kept = kept
        self._writer: files.LifetimeLock | None = None

    @classmethod
    def create(cls, results: Path, run_id: str | None = None, *, kept: bool = True) -> Self:
        """Make the directory of a new run below `results`, which is removed by whoever made it where it is not `kept`.

        Raises:
            RunError: it cannot be written, or the run exists.
        """
        path = results / (run_id or new_run_id())
        try:
            make_results(results)
            (path / PARTS).mkdir(parents=True)
        except OSError as error:
            where = error.filename or path
            raise RunError(
                f"the run directory cannot be made: {where}: {error.strerror}; "
                "give a folder that can be written with --openenv-results, or none"
            ) from None
        return cls(path, kept=kept)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Take part in a run that another process began.

        Raises:
            RunError: there is no run at this path.
        """
        return cls(path, kept=read_manifest(path).kept)

    @property
    def kept_path(self) -> Path | None:
        """Where the run stays; None for a temporary one."""
        return self.path if self._kept else None

    @property
    def parts(self) -> Path:
        """The directory of sealed parts, one per cell and repetition."""
        return self.path / PARTS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def begin(
        self,
        *,
        command: Sequence[str] = (),
        note: str | None = None,
        plan: Mapping[str, Any] | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the first manifest; the run counts as running while this process lives.

        The command line is redacted here.
        """
        self._writer = files.LifetimeLock(self.path / WRITER_LOCK)
        manifest = Manifest(
            format=FORMAT,
            run_id=self.run_id,
            status="running",
            started_at=datetime.now(UTC),
            writer=Writer(os.getpid(), socket.gethostname()),
            kept=self._kept,
            command=redact_command(command),
            note=note,
            plan=plan or {},
            fingerprint=fingerprint or {},
        )
        with files.exclusive_lock(self.path / _MANIFEST_LOCK):
            self.write_manifest(manifest)

    def measure_lock(
        self, on_wait: Callable[[LockHolder], None], timeout_s: float = inf
    ) -> AbstractContextManager[None]:
        """Let one process on this machine measure at a time, of whichever run; see `core.measure_lock`."""
        command = shlex.join(read_manifest(self.path).command)
        return measure_lock(on_wait, timeout_s=timeout_s, command=command, run_id=self.run_id)

    def sweeps(self) -> tuple[SweepRecord, ...]:
        """Return what the manifest says of all sweeps so far."""
        return read_manifest(self.path).sweeps

    def begin_sweep(self, record: SweepRecord) -> SweepRecord:
        """Add a sweep to the manifest and return it with the id it got.

        A test that sweeps the same target again in one run gets an id of its own ("…-2"): use the one returned.
        """

        def add(manifest: Manifest) -> Manifest:
            nonlocal record
            used_ids = {sweep.sweep_id for sweep in manifest.sweeps}
            ids = (record.sweep_id if n == 1 else f"{record.sweep_id}-{n}" for n in range(1, len(used_ids) + 2))
            record = replace(record, sweep_id=next(name for name in ids if name not in used_ids))
            return replace(manifest, sweeps=(*manifest.sweeps, record))

        self._update(add)
        return record

    def replace_sweep(self, record: SweepRecord) -> None:
        """Replace a sweep in the manifest, by its id; samples of its messages go into a file of their own."""
        self._update_sweep(record.sweep_id, lambda sweep: write_samples(self.path, record))

    def finish_sweep(self, sweep_id: str, status: Status, outcome: Outcome | None = None) -> None:
        """Note how a sweep ended and, where it was judged, the outcome."""

        def end(sweep: SweepRecord) -> SweepRecord:
            return replace(sweep, status=status, outcome=outcome, finished_at=_now(sweep.started_at))

        self._update_sweep(sweep_id, end)

    def store_comparison(self, sweep_id: str, comparison: Comparison) -> None:
        """Note how a sweep compares with a baseline, with its figures: the baseline may be gone when this is read."""
        self._update_sweep(sweep_id, lambda sweep: replace(sweep, comparison=comparison))

    def open_part(self, meta: CellMeta) -> PartWriter:
        """Return what keeps the rows of one repetition of a cell as they come and makes its part of them.

        Raises:
            RunError: nothing can be written.
        """
        from .spool import PartWriter

        return PartWriter(self.parts, meta)

    def write_cell(self, rows: Sequence[SessionRow], meta: CellMeta) -> Part:
        """Seal the rows of one repetition of a cell that are all there.

        Raises:
            RunError: the part cannot be written.
        """
        with self.open_part(meta) as writer:
            writer.write(rows)
            return writer.seal(meta)

    def finish(self, status: Status) -> None:
        """Note how the run ended; sweeps that still count as running were interrupted."""

        def end(sweep: SweepRecord) -> SweepRecord:
            return replace(sweep, status="interrupted") if sweep.status == "running" else sweep

        self._update(
            lambda manifest: replace(
                manifest,
                status=status,
                finished_at=_now(manifest.started_at),
                sweeps=tuple(map(end, manifest.sweeps)),
            )
        )

    def close(self) -> None:
        """Stop counting as the living writer; doing so twice is harmless."""
        if self._writer is not None:
            self._writer.release()

    def _update_sweep(self, sweep_id: str, change: Callable[[SweepRecord], SweepRecord]) -> None:
        def update(manifest: Manifest) -> Manifest:
            sweeps = (change(sweep) if sweep.sweep_id == sweep_id else sweep for sweep in manifest.sweeps)
            return replace(manifest, sweeps=tuple(sweeps))

        self._update(update)

    def _update(self, change: Callable[[Manifest], Manifest]) -> None:
        with files.exclusive_lock(self.path / _MANIFEST_LOCK):
            self.write_manifest(change(read_manifest(self.path)))

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest at once.

        Raises:
            RunError: it cannot be written.
        """
        try:
            with files.replacing(self.path / MANIFEST, synced=True) as file:
                file.write(files.json_bytes(manifest.to_json()))
        except OSError as error:
            raise RunError(f"the manifest of the run cannot be written: {self.path}: {error.strerror}") from None


def _now(started_at: datetime | None) -> datetime:
    """Return the time, not before that of the start: the wall clock may have been set back."""
    now = datetime.now(UTC)
    return now if started_at is None else max(now, started_at)
