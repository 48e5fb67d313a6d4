"""Runs as a dataset on the Hub: where their files lie, the table of their cells, and the card."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content.tables import verdicts_table
from pytest_openenv_scale.reporting.content.wording import curve_tally, run_problems
from pytest_openenv_scale.reporting.markdown import escape, inline_code, table_lines
from pytest_openenv_scale.results.manifest import MANIFEST, SAMPLES, fact_group, git_state
from pytest_openenv_scale.results.run_directory import PARTS
from pytest_openenv_scale.results.spool import STREAM_SUFFIX
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

from .access import join_card, split_card

BEGIN, END = "<!-- openenv-scale: begin -->", "<!-- openenv-scale: end -->"
_GENERATED = re.compile(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
_SECTION = re.compile(r"<!-- run ([A-Za-z0-9._-]+) -->\n.*?\n<!-- end of run \1 -->", re.DOTALL)
_TAGS = ("openenv", "benchmark", "load-testing")
RUNS = "runs"
SESSIONS_GLOB = f"{RUNS}/*/{PARTS}/*.parquet"
CELLS = "cells"
CELLS_GLOB = f"{CELLS}/*.parquet"
_CONFIGS = (("cells", CELLS_GLOB), ("sessions", SESSIONS_GLOB))
_PICTURES = (".png", ".svg", ".jpg")


@dataclass(frozen=True)
class RunSection:
    """What the card says of one run; `files` are those of its directory, relative to it."""

    run: Run
    files: Sequence[str]


def updated_card(card: str | None, name: str, sections: Sequence[RunSection], configs: Collection[str]) -> str:
    """Return a card with these runs added or updated; `card` is the existing one, `name` the dataset's.

    `configs` says which of cells and sessions the dataset has files of: the viewer cannot show one without.

    Raises:
        HubError: the front matter of the existing card cannot be read.
    """
    front_matter, text = split_card(card or "", "the README.md of the dataset")
    metadata = _merged_metadata(front_matter, name, configs)
    generated = _GENERATED.search(text)
    run_sections = {match[1]: match[0] for match in _SECTION.finditer(generated[0])} if generated else {}
    run_sections |= {section.run.run_id: _run_section(section) for section in sections}
    body = "\n".join(
        [BEGIN, *_intro(configs), *(f"\n{run_sections[run_id]}" for run_id in sorted(run_sections, reverse=True)), END]
    )
    if generated:
        text = text[: generated.start()] + body + text[generated.end() :]
    else:
        head = text.rstrip() or f"# {escape(metadata['pretty_name'])}"
        text = f"{head}\n\n{body}\n"
    return join_card(metadata, text)


def _merged_metadata(front_matter: Mapping[str, Any], name: str, configs: Collection[str]) -> dict[str, Any]:
    """Return the front matter with our tags and configurations; all other keys, tags and configurations stay."""
    merged = {"pretty_name": name.partition("/")[2], **front_matter}
    tags: object = front_matter.get("tags") or []
    theirs = cast("list[object]", tags if isinstance(tags, list) else [tags])
    merged["tags"] = [*theirs, *(tag for tag in _TAGS if tag not in theirs)]
    others = [
        config
        for config in _config_list(front_matter.get("configs"))
        if config.get("config_name") not in dict(_CONFIGS)
    ]
    ours: list[dict[str, Any]] = [
        {"config_name": name, "data_files": [{"split": "train", "path": glob}]}
        for name, glob in _CONFIGS
        if name in configs
    ]
    if ours and not any(config.get("default") for config in others):
        ours[0]["default"] = True
    merged["configs"] = [*ours, *others]
    if not merged["configs"]:
        del merged["configs"]
    return merged


def _config_list(configs: object) -> list[dict[str, Any]]:
    items = cast("list[object]", configs) if isinstance(configs, list) else []
    return [cast("dict[str, Any]", config) for config in items if isinstance(config, dict)]


def _intro(configs: Collection[str]) -> list[str]:
    lines = [
        "Runs of pytest-openenv-scale: how many sessions OpenEnv environment servers hold at once.",
        "",
    ]
    if configs:
        descriptions = {"cells": "one row per batch and repetition", "sessions": "one row per session"}
        lines += [*(f"- `{name}`: {descriptions[name]}" for name, _ in _CONFIGS if name in configs), ""]
    return [
        *lines,
        "`openenv-scale pull` brings the runs back as directories to report and compare. "
        "What stands between these markers is written anew at each push.",
    ]


def _run_section(section: RunSection) -> str:
    run = section.run
    folder = f"{RUNS}/{run.run_id}"
    facts = f"{run.record.started_at:%Y-%m-%d %H:%M} UTC · {run.status} · {curve_tally(run.sweeps)}"
    lines = [f"<!-- run {run.run_id} -->", f"### {escape(facts)}", ""]
    lines += [f"> {escape(run.record.note)}", ""] if run.record.note else []
    lines += [*(f"- **{escape(problem)}**" for problem in run_problems(run)), ""] if run_problems(run) else []
    curves = ((view.infrastructure, view, curve) for view in run.sweeps for curve in view.curves)
    lines += table_lines(verdicts_table(curves))
    lines += [_origin_line(run, folder, section.files), ""]
    lines += [f"![{PurePosixPath(file).stem}]({folder}/{file})\n" for file in _pictures(section.files)]
    # A marker in what a test is called must not end the section.
    body = "\n".join(lines[1:]).rstrip().replace("<!--", "&lt;!--")
    return f"{lines[0]}\n{body}\n<!-- end of run {run.run_id} -->"


def _origin_line(run: Run, folder: str, files: Sequence[str]) -> str:
    parts = [f"Run {inline_code(run.run_id)}"]
    if commit := git_state(run.record).commit:
        parts.append(f"commit {inline_code(commit[:12])}")
    machine = fact_group(run.record.fingerprint, "machine")
    parts += [escape(str(machine["cpu"]))] if machine.get("cpu") else []
    parts.append(f"[report]({folder}/report.md)" if "report.md" in files else f"[files](tree/main/{folder})")
    return " · ".join(parts)


def _pictures(files: Sequence[str]) -> list[str]:
    """Return the figures to show; of a figure in several formats, the first format of `_PICTURES`."""
    best: dict[str, str] = {}
    for suffix in _PICTURES:
        for file in files:
            if file.startswith("figures/") and file.endswith(suffix):
                best.setdefault(file.removesuffix(suffix), file)
    return [best[stem] for stem in sorted(best)]


_PHASES = ("connect", "reset", "step", "total", "overhead")
_STATISTICS = ("p50", "p90", "p95", "p99", "min", "mean", "max")
_SECONDS = pa.float64()

SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("run_started_at", pa.timestamp("us", "UTC")),
        ("run_status", pa.string()),
        ("version", pa.string()),
        ("git_commit", pa.string()),
        ("test", pa.string()),
        ("target", pa.string()),
        ("infrastructure", pa.string()),
        ("hardware", pa.string()),
        ("cores", pa.int32()),
        ("mode", pa.string()),
        ("wait", _SECONDS),
        ("steps", pa.int32()),
        ("think", pa.string()),
        ("arrival", pa.string()),
        ("max_batch", pa.int32()),
        ("outcome", pa.string()),
        ("batch_size", pa.int32()),
        ("repetition", pa.int32()),
        ("passed", pa.bool_()),
        ("started_at", pa.timestamp("us", "UTC")),
        ("asked", pa.int32()),
        ("successful", pa.int32()),
        ("failed", pa.int32()),
        ("client_limited", pa.int32()),
        ("not_started", pa.int32()),
        ("unjudged", pa.int32()),
        ("success_rate", pa.float64()),
        ("wall_s", _SECONDS),
        ("requests_per_second", pa.float64()),
        ("effective_concurrency", pa.float64()),
        ("peak_concurrency", pa.int32()),
        ("open_least", pa.int32()),
        ("pids", pa.int32()),
        ("sessions", pa.int32()),
        ("hosts", pa.int32()),
        *((f"{phase}_{statistic}", _SECONDS) for phase in _PHASES for statistic in _STATISTICS),
        ("server_peak_rss_bytes", pa.int64()),
        ("cpu_per_step", _SECONDS),
    ]
)
"""One row per cell and repetition. Latencies are seconds, shares fractions of 1, null where there is nothing.

`max_batch` and `outcome` are the curve's, `passed` the batch's over all repetitions (null: inconclusive).
"""


def cells_table(run: Run) -> pa.Table:
    """Return the cells of a run in the order they are reported; of one that measured none, an empty table."""
    rows = list(_cell_rows(run))
    columns = [pa.array([row[name] for row in rows], SCHEMA.field(name).type) for name in SCHEMA.names]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def cells_parquet(run: Run, path: Path) -> None:
    """Write the cells of a run as a Parquet file; equal runs make equal files."""
    pq.write_table(cells_table(run), path, compression="zstd")


def _cell_rows(run: Run) -> Iterator[dict[str, Any]]:
    for view in run.sweeps:
        for curve in view.curves:
            for summary in curve.summaries:
                yield {**_run_columns(run), **_curve_columns(view, curve), **_cell_columns(curve, summary)}


def _run_columns(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "run_started_at": run.record.started_at,
        "run_status": run.status,
        "version": fact_group(run.record.fingerprint, "packages").get("pytest-openenv-scale"),
        "git_commit": git_state(run.record).commit,
    }


def _curve_columns(view: SweepView, curve: CurveView) -> dict[str, Any]:
    return {
        "test": view.test,
        "target": view.target,
        "infrastructure": view.infrastructure,
        "mode": curve.curve.mode,
        "wait": curve.curve.wait,
        "steps": curve.curve.steps,
        "think": curve.curve.think,
        "arrival": curve.curve.arrival,
        "max_batch": curve.verdict.max_batch,
        "outcome": str(curve.verdict.outcome),
    }


def _cell_columns(curve: CurveView, summary: CellSummary) -> dict[str, Any]:
    copied = (
        *("hardware", "cores", "repetition", "started_at", "asked", "successful", "failed", "client_limited"),
        *("not_started", "unjudged", "success_rate", "wall_s", "requests_per_second", "effective_concurrency"),
        *("peak_concurrency", "open_least"),
        *("pids", "sessions", "hosts", "cpu_per_step"),
    )
    judged = curve.verdict.cell(summary.batch)
    peak = summary.server.peak
    row = {name: getattr(summary, name) for name in copied}
    row |= {"batch_size": summary.batch, "passed": judged.passed if judged else None}
    row["server_peak_rss_bytes"] = peak.rss_bytes if peak else None
    for phase in _PHASES:
        stats = summary.phase(phase)
        row |= {f"{phase}_{name}": getattr(stats, name) if stats else None for name in _STATISTICS}
    return row


CARD = "README.md"
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_IN_RUN = re.compile(rf"{RUNS}/({_RUN_ID.pattern})/(.+)")


def run_files(run: Path) -> list[Path]:
    """Return the files of a run directory, relative to it: no locks, samples, links, and no reports half written."""
    files = (path for path in run.rglob("*") if path.is_file() and not path.is_symlink())
    inside = (path.relative_to(run) for path in files)
    return sorted(path for path in inside if path != Path(SAMPLES) and _belongs_to_run(path))


def _belongs_to_run(path: PurePath) -> bool:
    """Say whether a path in a run directory is one of its results: nothing hidden is, but rows that a kill cut off."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden or (path.parent == PurePath(PARTS) and path.suffix == STREAM_SUFFIX)


def path_in_dataset(run_id: str, file: Path) -> str:
    """Return where a file of a run lies in the dataset."""
    return f"{RUNS}/{run_id}/{file.as_posix()}"


def cells_path(run_id: str) -> str:
    """Return where the table of a run's cells lies in the dataset."""
    return f"{CELLS}/{run_id}.parquet"


def runs_in_dataset(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return the runs of a dataset by id: the paths of their files, relative to the run.

    Folders without a manifest are left out, and so are paths that no run is pushed with.
    """
    runs: dict[str, list[str]] = {}
    for path in paths:
        match = _IN_RUN.fullmatch(path)
        if match and _belongs_to_run(PurePosixPath(match[2])):
            runs.setdefault(match[1], []).append(match[2])
    return {run_id: sorted(files) for run_id, files in sorted(runs.items()) if MANIFEST in files}


def is_measured(file: str) -> bool:
    """Say whether a file of a run holds what was measured; reports are rendered from that again and may differ."""
    return file == MANIFEST or file.startswith(f"{PARTS}/")


def git_oid(content: bytes) -> str:
    """Return git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    """Return the Hub's name for the content of a large file."""
    return hashlib.sha256(content).hexdigest()
