"""Reads `raw.jsonl` and `summary.csv` into runs that every report can read."""

from __future__ import annotations

import itertools
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from statistics import fmean

from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.config.limits import DEFAULT_SUCCESS, Slo
from pytest_openenv_scale.config.plan import Cell, Curve
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.formatting import count_of
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.target_spec import parse_target, redact_target
from pytest_openenv_scale.core.text import redact_text
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.cell import CellMeta
from pytest_openenv_scale.results.manifest import FORMAT, Manifest, SweepRecord, Writer, read_manifest
from pytest_openenv_scale.results.run_directory import RunDirectory

from .files import (
    RAW,
    SUMMARY,
    Block,
    LegacyError,
    SummaryMatcher,
    SummaryRow,
    read_raw,
    read_summary,
    session_row,
    split_blocks,
    summary_differences,
)

OLDER_SUMMARY, OLDER_POSITION = "older_summary", "older_place"
"""Where `CellMeta.client` keeps the line of `summary.csv`, column by column, as it stood there, and the part's place in
`raw.jsonl`, counted in repetitions of cells."""

ARRIVAL = "burst"
"""How the older script started its sessions: all at once, each running through."""

_DATE = re.compile(r"\d{4}-?\d\d-?\d\d.*")


@dataclass(frozen=True, slots=True)
class OlderFiles:
    """Files that belong together; `infrastructure` is the label of what they measured."""

    raw: Path
    summary: Path | None
    infrastructure: str


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The runs that were made, those there were already, and what a reader should know, one line each."""

    made: tuple[Path, ...]
    present: tuple[Path, ...]
    notes: tuple[str, ...]


def find_sources(paths: Sequence[Path], infrastructure: str | None = None) -> list[OlderFiles]:
    """Find the older results in files and folders, at any depth.

    The infrastructure is that which is given, or is read off `…/<infrastructure>/<date>/raw.jsonl`.

    Raises:
        LegacyError: there are none, or the infrastructure cannot be told.
    """
    sources: list[OlderFiles] = []
    for path in paths:
        if not path.exists():
            raise LegacyError(f"{path} does not exist; give a {RAW} or a folder that holds one")
        raws = sorted(path.rglob(RAW)) if path.is_dir() else [path.with_name(RAW) if path.name == SUMMARY else path]
        if not raws or not raws[0].exists():
            raise LegacyError(f"{path}: there is no {RAW} in it; without the sessions nothing can be judged")
        for raw in raws:
            summary = raw.with_name(SUMMARY)
            label = infrastructure or _infrastructure(raw.resolve())
            sources.append(OlderFiles(raw, summary if summary.exists() else None, label))
    unique = {source.raw.resolve(): source for source in sources}
    return list(unique.values())


def _infrastructure(raw: Path) -> str:
    if not _DATE.fullmatch(raw.parent.name):
        raise LegacyError(
            f"{raw}: where it was measured is not known, as its folder is not …/INFRASTRUCTURE/DATE/; "
            "write --infrastructure NAME"
        )
    return raw.parent.parent.name


def import_older(
    source: OlderFiles, results: Path, *, cores: int | None = None, note: str | None = None
) -> ImportResult:
    """Make a run of each run the files hold; `cores` are the server's, where known.

    Importing the same files again changes nothing.

    Raises:
        LegacyError: the files cannot be used; then nothing is written.
        RunError: the results folder cannot be written.
    """
    notes: list[str] = []
    lines = read_summary(source.summary) if source.summary else []
    if source.summary is None:
        notes.append(
            f"{source.raw}: there is no {SUMMARY} beside it, so wall times and rates are not known, and what was "
            "appended to the file later counts as more repetitions"
        )
    staging = results / f".import-{secrets.token_hex(4)}"
    made: list[Path] = []
    present: list[Path] = []
    try:
        runs = list(_stage_runs(source, lines, staging, cores, note, notes))
        for run in runs:
            final = results / run.name
            if final.exists():
                present.append(final)
                notes += _ignored_options(final, cores, note)
            else:
                run.replace(final)
                made.append(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ImportResult(tuple(made), tuple(present), tuple(notes))


def _ignored_options(path: Path, cores: int | None, note: str | None) -> Iterator[str]:
    """Return a note on the options that an existing run was not imported with; nothing where there are none."""
    manifest = read_manifest(path)
    same_cores = all(sweep.cores == cores for sweep in manifest.sweeps)
    ignored = [
        *(["--cores"] if cores and not same_cores else []),
        *(["--note"] if note and note != manifest.note else []),
    ]
    if ignored:
        yield f"{path} is left as it is, without this {' and '.join(ignored)}; delete it to import it anew"


def _stage_runs(
    source: OlderFiles,
    lines: Sequence[SummaryRow],
    staging: Path,
    cores: int | None,
    note: str | None,
    notes: list[str],
) -> Iterator[Path]:
    """Write the runs of a source into a folder of their own, so that no incomplete directory is taken for a run."""
    digest = sha256(source.infrastructure.encode())
    for path in (source.raw, source.summary):
        digest.update(path.read_bytes() if path else b"")
    matcher = SummaryMatcher(lines)
    incomplete: dict[tuple[str, float | None, int], int] = {}
    run: _RunImport | None = None
    for block in split_blocks(read_raw(source.raw, notes)):
        line = matcher.take_line(block)
        if len(block.rows) < block.batch:
            incomplete[block.key] = incomplete.get(block.key, 0) + 1
        number = matcher.run_number(line)
        if run is None or number != run.number:
            if run is not None:
                yield run.finish(notes)
            run = _RunImport(source, number, f"{digest.hexdigest()[:8]}", staging, cores, note, block.started_at)
        run.add(block, line)
    if run is None:
        raise LegacyError(f"{source.raw}: it holds no sessions")
    notes += [_incomplete_note(source.raw, key, count) for key, count in incomplete.items()]
    unmatched = matcher.unmatched
    run.unmatched = unmatched
    notes += [
        f"{source.summary}:{row.line}: its sessions are not in {source.raw.name}; "
        "the line is kept with the run, but cannot be judged"
        for row in unmatched
    ]
    yield run.finish(notes)


def _incomplete_note(raw: Path, key: tuple[str, float | None, int], count: int) -> str:
    mode, wait, batch = key
    where = mode if wait is None else f"{mode}, wait {format_number(wait)} s"
    what = count_of(count, "repetition")
    return f"{raw}: {what} of batch {batch} ({where}) without all the sessions, so the batch cannot be judged"


@dataclass(slots=True)
class _RunImport:
    """One run while its parts are being written."""

    source: OlderFiles
    number: int
    digest: str
    staging: Path
    cores: int | None
    note: str | None
    first: datetime
    last: datetime = field(init=False)
    unmatched: list[SummaryRow] = field(default_factory=list[SummaryRow])
    _directory: RunDirectory = field(init=False)
    _parts: dict[tuple[str, str | None], list[CellMeta]] = field(
        default_factory=dict[tuple[str, str | None], list[CellMeta]]
    )

    def __post_init__(self) -> None:
        moment = f"{self.first:%Y%m%dT%H%M%S}.{self.first.microsecond // 1000:03d}Z"
        self._directory = RunDirectory.create(self.staging, f"{moment}-{self.digest}{self.number or ''}")
        self.last = self.first

    def add(self, block: Block, line: SummaryRow | None) -> None:
        """Write the part of one repetition."""
        hardware = block.rows[0].hardware
        target = _target(line, self.source.infrastructure)
        sweep = self._parts.setdefault((target, hardware), [])
        mode, wait, batch = block.key
        cell = Cell(
            test="imported",
            target=target,
            infrastructure=self.source.infrastructure,
            mode=mode,
            wait=wait,
            batch=batch,
            steps=1,
            arrival=ARRIVAL,
        )
        meta = CellMeta(
            run_id=self._directory.run_id,
            sweep_id=_sweep_id(target, hardware),
            cell=cell,
            repetition=1 + sum(part.cell == cell for part in sweep),
            wall_s=line.wall_s if line else 0.0,
            started_at=block.started_at,
            hardware=hardware,
            cores=self.cores,
            client={
                OLDER_POSITION: sum(map(len, self._parts.values())),
                **({OLDER_SUMMARY: dict(line.texts)} if line else {}),
            },
            notes=summary_differences(block, line),
        )
        self._directory.write_cell([session_row(row) for row in block.rows], meta)
        sweep.append(meta)
        self.last = max(self.last, *(row.moment for row in block.rows))

    def finish(self, notes: list[str]) -> Path:
        """Write the manifest and return the directory."""
        path = self._directory.path
        sweeps = tuple(self._sweep(target, hardware, parts) for (target, hardware), parts in self._parts.items())
        plan = {
            "imported": [str(path) for path in (self.source.raw, self.source.summary) if path],
            **(
                {"summary_lines_without_sessions": [dict(row.texts) for row in self.unmatched]}
                if self.unmatched
                else {}
            ),
        }
        manifest = Manifest(
            format=FORMAT,
            run_id=self._directory.run_id,
            status="complete",
            started_at=self.first,
            writer=Writer(os.getpid(), socket.gethostname()),
            finished_at=self.last,
            note=self.note,
            plan=plan,
            sweeps=sweeps,
        )
        self._directory.write_manifest(manifest)
        rule_notes = older_rule_notes(path)
        if rule_notes:
            self._directory.write_manifest(_with_notes(manifest, rule_notes))
        notes += [f"{self._directory.run_id}: {note}" for note in itertools.chain.from_iterable(rule_notes.values())]
        return path

    def _sweep(self, target: str, hardware: str | None, parts: Sequence[CellMeta]) -> SweepRecord:
        curves: dict[str, Curve] = {}
        for meta in parts:
            curve = meta.cell.curve
            previous = curves.get(curve.id)
            batches = {*curve.batches, *(previous.batches if previous else ())}
            curves[curve.id] = replace(curve, batches=tuple(sorted(batches)))
        return SweepRecord(
            sweep_id=_sweep_id(target, hardware),
            test="imported",
            target=target,
            infrastructure=self.source.infrastructure,
            curves=tuple(curves.values()),
            slos=tuple(Slo() for _ in curves),
            steps=1,
            arrival=ARRIVAL,
            reps=max(meta.repetition for meta in parts),
            timeout_s=None,
            hardware=hardware,
            cores=self.cores,
            status="complete",
            started_at=min(meta.started_at for meta in parts),
            finished_at=self.last,
        )


def _with_notes(manifest: Manifest, notes: dict[str, list[str]]) -> Manifest:
    """Return the manifest with these notes added to its sweeps, by sweep id."""
    sweeps = (replace(sweep, notes=(*sweep.notes, *notes.get(sweep.sweep_id, ()))) for sweep in manifest.sweeps)
    return replace(manifest, sweeps=tuple(sweeps))


def _sweep_id(target: str, hardware: str | None) -> str:
    return sha256(f"imported\0{target}\0{hardware}".encode()).hexdigest()[:10]


def _target(line: SummaryRow | None, infrastructure: str) -> str:
    url = line.texts.get("url", "").strip() if line else ""
    try:
        return redact_target(parse_target(url)) if url else infrastructure
    except GrammarError:
        return redact_text(url)


def older_max_batch(summaries: Sequence[CellSummary]) -> int | None:
    """Return the largest batch whose success rate, averaged over repetitions, reached 0.95.

    Smaller batches that failed were not looked at.
    """
    rates: dict[int, list[float]] = {}
    for summary in summaries:
        rates.setdefault(summary.batch, []).append(summary.successful / summary.asked)
    return max((batch for batch, batch_rates in rates.items() if fmean(batch_rates) >= DEFAULT_SUCCESS), default=None)


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
