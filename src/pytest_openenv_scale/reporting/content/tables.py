"""The tables around the figures as plain text, for Markdown and HTML alike: targets, plan, environment, failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.grammar import format_number
from pytest_openenv_scale.core.view import CurveView, SweepView

from . import phrases, spread
from .columns import Row
from .text import collapse

_MESSAGE = 300
"""So many characters of a server's message are shown."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of text that nothing has been escaped in; `right` and `code` name columns by their head."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    code: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.rows)


def _table(heads: str, rows: Iterable[Sequence[str]], *, right: str = "", code: str = "") -> TextTable:
    def names(text: str) -> list[str]:
        return [name.strip() for name in text.split("|") if name.strip()]

    return TextTable(
        tuple(names(heads)), tuple(tuple(row) for row in rows), frozenset(names(right)), frozenset(names(code))
    )


def targets(sweeps: Iterable[SweepView]) -> TextTable:
    """Return a row per target: what it was, how long it took to start, what it stands on."""
    found: dict[str, tuple[str, ...]] = {}
    for view in sweeps:
        record = view.record
        limits = ", ".join(f"{name} {value}" for name, value in record.limits.items())
        found[f"{record.infrastructure} {record.target}"] = (
            record.infrastructure,
            record.target,
            text_of.seconds(record.startup_s),
            text_of.count(record.cores),
            text_of.count(record.hosts),
            record.hardware or text_of.MISSING,
            limits or text_of.MISSING,
        )
    heads = "target|specification|start-up|cores|hosts|hardware|settings"
    return _table(heads, found.values(), right="start-up|cores|hosts", code="specification")


def workloads(sweeps: Iterable[SweepView]) -> TextTable:
    """Return a row per curve: what was asked of it and what its sessions said."""
    rows = [
        (
            view.test,
            view.infrastructure,
            curve.mode,
            text_of.MISSING if curve.wait is None else f"{format_number(curve.wait)} s",
            ", ".join(map(text_of.count, curve.batches)),
            text_of.count(view.record.reps),
            text_of.count(curve.steps),
            curve.arrival,
            text_of.seconds(view.record.timeout_s),
            ", ".join(limit.text for limit in slo.limits) or text_of.MISSING,
            ", ".join(f"{name} {value}" for name, value in view.record.settings.items()),
        )
        for view in sweeps
        for curve, slo in zip(view.record.curves, view.record.slos, strict=True)
    ]
    heads = "test|target|mode|wait|batches|reps|steps|arrival|timeout|SLO|workload"
    return _table(heads, rows, right="wait|reps|steps|timeout", code="test")


def failures(view: CurveView) -> TextTable:
    """Return a row per way sessions of a curve failed, in every repetition."""
    rows = [
        (
            text_of.count(summary.batch),
            f"{summary.repetition}",
            error.phase or text_of.MISSING,
            error.type or text_of.MISSING,
            error.code or text_of.MISSING,
            text_of.count(error.count),
            collapse(error.message or "")[:_MESSAGE],
        )
        for summary in view.summaries
        for error in summary.errors
    ]
    heads = "batch|repetition|phase|type|code|sessions|first message"
    return _table(heads, rows, right="batch|repetition|sessions")


def hosts(view: CurveView) -> TextTable:
    """Return a row per host of every repetition that was measured behind a proxy."""
    numbers = "batch|repetition|seen by the client|sent by the proxy|failed there"
    return _table("|".join(spread.HEADS), spread.spread_rows(view), right=numbers)


def environment(fingerprint: Mapping[str, Any]) -> TextTable:
    """Return a row per fact about the machine that measured; the first head is empty."""
    return TextTable(("", "value"), tuple(_flat(fingerprint)))


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as pairs of a dotted name and a text; what is unknown is left out."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
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


def curve_remarks(view: CurveView, rows: Sequence[Row]) -> list[str]:
    """Return everything that is to be said of a curve beneath its table, refusals included."""
    verdict = view.verdict
    said = [phrases.max_batch_sentence(verdict), phrases.first_broken(verdict), phrases.by_repetition(view)]
    said += [phrases.refusal(found) for found in verdict.refused]
    said += [reason.text for reason in phrases.remarks(verdict)]
    said += [phrases.repetitions_note(rows), phrases.few_note(rows), spread.proxy_use_sentence(view)]
    return [sentence for sentence in said if sentence]
