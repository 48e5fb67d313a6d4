"""`report.md`: verdicts first, then every curve, then where and how it was measured."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.grammar import format_number
from pytest_openenv_scale.core.manifest import SweepRecord
from pytest_openenv_scale.core.run import Run
from pytest_openenv_scale.core.view import CurveView, SweepView

from . import phrases, protocols, replicas, spread
from .columns import chosen, rows_of
from .overview import TITLES, entries, problems, tally
from .text import collapse, plain

_LOG_LINES = 20
_BACKTICKS = re.compile(r"`+")
_SIGNS = re.compile(r"[\\`*\[\]|~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|<(?=[A-Za-z/!?])|^>|&(?=#?\w+;)")


def render(run: Run) -> str:
    """Return the report of a run, whole or not; everything in it comes from the run directory."""
    sections = [overview(run), *(curve_section(view.record, curve) for view in run.sweeps for curve in view.curves)]
    sections += [_targets(run.sweeps), _workloads(run.sweeps), _environment(run), _again(run)]
    return "\n".join(section for section in sections if section)


def overview(run: Run) -> str:
    """Return the head of the report: what the run is, what is wrong with it, the verdicts, the comparisons."""
    record = run.record
    when = f"started {record.started_at:%Y-%m-%d %H:%M:%S} UTC"
    if record.finished_at is not None:
        when += f", took {text_of.seconds((record.finished_at - record.started_at).total_seconds())}"
    lines = ["# OpenEnv scaling", "", f"Run {code(run.run_id)} · {run.status} · {when} · {tally(run.sweeps)}", ""]
    lines += [f"> {text(record.note)}", ""] if record.note else []
    lines += [f"- **{text(problem)}**" for problem in problems(run)]
    lines += [""] if problems(run) else []
    found = [
        [code(entry.test, in_table=True), *map(text, entry.cells), f"**{entry.verdict}**", text(entry.reason)]
        for entry in entries(run.sweeps)
    ]
    if found:
        heads = ["test", *TITLES, "verdict", "because"]
        lines += ["## Verdicts", "", *table(heads, found, right=("wait", "max batch", "per core")), ""]
    scaling = [line for axis in replicas.AXES for line in _scaling(run.sweeps, axis)]
    return "\n".join([*lines, *_protocols(run.sweeps), *scaling])


def _protocols(sweeps: Iterable[SweepView]) -> list[str]:
    """Return the comparison of ws and http; nothing where there is only one mode."""
    found = protocols.entries(sweeps)
    if not found:
        return []
    rows = [
        [code(entry.test, in_table=True), *map(text, entry.cells), entry.batch or text_of.MISSING, *entry.figures]
        for entry in found
    ]
    heads = ["test", *protocols.HEADS, "at batch", *(f"{name} ws / http" for name, _ in protocols.AT)]
    notes = [f"- {text(f'{entry.cells[0]}, wait {entry.cells[1]}: {note}')}" for entry in found for note in entry.notes]
    lines = [f"## {protocols.TITLE.capitalize()}", "", *table(heads, rows, right=(*protocols.RIGHT, *heads[7:])), ""]
    return [*lines, *notes, *([""] if notes else []), f"{text(protocols.FOOTNOTE)}.", ""]


def curve_section(record: SweepRecord, view: CurveView) -> str:
    """Return the section of one curve: its verdict, table, refusals, failures, log and rerun command."""
    verdict = view.verdict
    rows = rows_of(view)
    lines = [f"## {text(phrases.curve_facts(record, view.curve))}", "", code(collapse(record.test)), ""]
    lines += [f"**{phrases.MARKS[verdict.outcome]} {text(verdict.headline)}**", ""]
    if rows:
        columns = chosen(view, rows)
        cells = zip(*([text(cell.strip()) for cell in column.texts(rows)] for column in columns), strict=True)
        heads = [column.heading for column in columns]
        body = [[*row, text(f"{of.mark} {of.remark}")] for row, of in zip(cells, rows, strict=True)]
        lines += [*table([*heads, ""], body, right=heads), ""]
    said = [phrases.max_batch_sentence(verdict), phrases.first_broken(verdict), phrases.by_repetition(view)]
    said += [phrases.refusal(found) for found in verdict.refused]
    said += [reason.text for reason in phrases.remarks(verdict)]
    said += [phrases.repetitions_note(rows), phrases.few_note(rows), spread.proxy_use_sentence(view)]
    lines += [*(f"- {text(sentence)}" for sentence in said if sentence), ""]
    return "\n".join([*lines, *_hosts(view), *_failures(view), *_log(view), *_rerun(record, view)])


def _hosts(view: CurveView) -> list[str]:
    found = [[text(cell) for cell in row] for row in spread.spread_rows(view)]
    if not found:
        return []
    numbers = ("batch", "repetition", "seen by the client", "sent by the proxy", "failed there")
    return ["Sessions per host:", "", *table(spread.HEADS, found, right=numbers), ""]


def _failures(view: CurveView) -> list[str]:
    found = [
        [
            text_of.count(summary.batch),
            f"{summary.repetition}",
            text(error.phase or text_of.MISSING),
            text(error.type or text_of.MISSING),
            text(error.code or text_of.MISSING),
            text_of.count(error.count),
            text(collapse(error.message or "")[:300]),
        ]
        for summary in view.summaries
        for error in summary.errors
    ]
    if not found:
        return []
    heads = ["batch", "repetition", "phase", "type", "code", "sessions", "first message"]
    return ["Failed sessions:", "", *table(heads, found, right=("batch", "repetition", "sessions")), ""]


def _log(view: CurveView) -> list[str]:
    tail = phrases.log_of(view.summaries, _LOG_LINES)
    return ["The server's log, last lines:", "", *block("\n".join(tail)), ""] if tail else []


def _rerun(record: SweepRecord, view: CurveView) -> list[str]:
    command = phrases.rerun(record, view.curve)
    return ["Measure this curve again:", "", *block(plain(command), "sh"), ""] if command else []


def _scaling(sweeps: Iterable[SweepView], axis: replicas.Axis) -> list[str]:
    lines: list[str] = []
    for found in replicas.scaling_tables(sweeps, (axis,)):
        rows = [[text(cell) for cell in replicas.cells(row)] for row in found.rows]
        lines += [f"### {text(replicas.heading(found))}", "", code(collapse(found.test)), ""]
        lines += [*table(found.titles, rows, right=found.titles), ""]
        lines += [*(f"- {text(remark)}" for remark in replicas.remarks(found)), ""]
    return [f"## {axis.title()}", "", *lines] if lines else []


def _targets(sweeps: Iterable[SweepView]) -> str:
    found: dict[str, list[str]] = {}
    for view in sweeps:
        record = view.record
        limits = ", ".join(f"{name} {value}" for name, value in record.limits.items())
        found[f"{record.infrastructure} {record.target}"] = [
            text(record.infrastructure),
            code(record.target, in_table=True),
            text_of.seconds(record.startup_s),
            text_of.count(record.cores),
            text_of.count(record.hosts),
            text(record.hardware or text_of.MISSING),
            text(limits or text_of.MISSING),
        ]
    if not found:
        return ""
    heads = ["target", "specification", "start-up", "cores", "hosts", "hardware", "settings"]
    rows = table(heads, list(found.values()), right=("start-up", "cores", "hosts"))
    return "\n".join(["## Targets", "", *rows, ""])


def _workloads(sweeps: Iterable[SweepView]) -> str:
    rows: list[list[str]] = []
    for view in sweeps:
        for curve, slo in zip(view.record.curves, view.record.slos, strict=True):
            wait = text_of.MISSING if curve.wait is None else f"{format_number(curve.wait)} s"
            rows.append(
                [
                    code(view.test, in_table=True),
                    text(view.infrastructure),
                    curve.mode,
                    wait,
                    ", ".join(map(text_of.count, curve.batches)),
                    text_of.count(view.record.reps),
                    text_of.count(curve.steps),
                    text(curve.arrival),
                    text_of.seconds(view.record.timeout_s),
                    text(", ".join(limit.text for limit in slo.limits) or text_of.MISSING),
                    text(", ".join(f"{name} {value}" for name, value in view.record.settings.items())),
                ]
            )
    if not rows:
        return ""
    heads = ["test", "target", "mode", "wait", "batches", "reps", "steps", "arrival", "timeout", "SLO", "workload"]
    return "\n".join(["## Plan and workload", "", *table(heads, rows, right=("wait", "reps", "steps", "timeout")), ""])


def _environment(run: Run) -> str:
    rows = [[text(name), text(value)] for name, value in flat(run.record.fingerprint)]
    return "\n".join(["## Environment", "", *table(["", "value"], rows), ""]) if rows else ""


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as pairs of a dotted name and a text; what is unknown is left out."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += flat(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        elif value is not None:
            size = name.endswith("_bytes") and isinstance(value, int)
            found.append((f"{prefix}{name.removesuffix('_bytes') if size else name}", _value(value, size)))
    return found


def _value(value: object, is_size: bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return text_of.number(value)
    return text_of.size(value) if is_size and isinstance(value, int) else f"{value}"


def _again(run: Run) -> str:
    folder = shlex.quote(f"{run.path.parent.name}/{run.path.name}")
    commands = [shlex.join(run.record.command)] if run.record.command else []
    commands.append(f"openenv-scale report {folder}")
    return "\n".join(["## Again", "", "The run, and this report of it:", "", *block("\n".join(commands), "sh"), ""])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[str] = ()) -> list[str]:
    """Return a Markdown table padded so that it also reads as text; its cells are escaped already."""
    aligned = [head in set(right) for head in heads]
    widths = [max(3, *(len(row[at]) for row in (heads, *rows))) for at in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(cells, widths, aligned, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * (width - 1)}{':' if is_right else '-'}" for width, is_right in zip(widths, aligned, strict=True)]
    return [line(heads), line(rule), *(line(row) for row in rows)]


def text(value: str) -> str:
    """Return text in which nothing is taken for Markdown or HTML, on one line."""
    return _SIGNS.sub(lambda match: f"\\{match[0]}", collapse(value))


def code(value: str, *, in_table: bool = False) -> str:
    """Return text as inline code, whatever backticks it holds."""
    value = collapse(value)
    fence = "`" * (max(map(len, _BACKTICKS.findall(value)), default=0) + 1)
    pad = " " if "`" in value else ""
    spanned = f"{fence}{pad}{value}{pad}{fence}"
    return spanned.replace("|", r"\|") if in_table else spanned


def block(value: str, language: str = "") -> list[str]:
    """Return text as a fenced block, whatever fences it holds."""
    fence = "`" * max(3, max(map(len, _BACKTICKS.findall(value)), default=0) + 1)
    return [f"{fence}{language}", *value.splitlines(), fence]
