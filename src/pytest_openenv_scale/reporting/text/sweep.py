"""What a terminal shows of a sweep: a block per curve, a line per finished cell, the message of a failing test."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import on_one_line, shorten
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content import wording
from pytest_openenv_scale.reporting.content.tables import proxy_use_sentence, spread_sentences
from pytest_openenv_scale.reporting.content.wording import Column, Row, chosen, rows_of, seconds
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.verdict.evidence import error_words
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

from .page import DEFAULT_WIDTH, Line, TextPage

_ROW_MARKUP: dict[str, dict[str, bool]] = {"✓": {}, "✗": {"red": True}, "?": {"yellow": True}}

_GAP = "  "


def curve_lines(
    record: SweepRecord,
    view: CurveView,
    *,
    width: int = DEFAULT_WIDTH,
    encoding: str | None = None,
    log: int = 5,
) -> list[Line]:
    """Return the block of one curve; only log lines and the rerun command may exceed `width`.

    `encoding` is that of the stream it will be printed to; `log` is how many lines of the server's log to
    show where something failed.
    """
    page = TextPage(width, encoding)
    _block(page, record, view, log, told=set())
    return page.lines


def sweep_lines(
    view: SweepView, *, width: int = DEFAULT_WIDTH, encoding: str | None = None, log: int = 5
) -> list[Line]:
    """Return the blocks of all curves of a sweep, an empty line between them; the same log is shown once."""
    page = TextPage(width, encoding)
    told: set[str] = set()
    for curve in view.curves:
        page.blank()
        _block(page, view.record, curve, log, told)
    return page.lines


def failure_text(view: SweepView, *, width: int = DEFAULT_WIDTH, encoding: str | None = None, log: int = 10) -> str:
    """Return the message of a failing test: every curve that was not met, why, and how to see it again.

    Says which cell broke which limit, observed against allowed and over the repetitions, the limit of the
    server that refused, the last lines of its log and the command that reruns just that curve.
    """
    page = TextPage(width, encoding)
    told: set[str] = set()
    for curve in view.curves:
        if curve.verdict.outcome is not Outcome.MET:
            page.blank()
            _failure(page, view.record, curve, log, told)
    return page.text


def cell_line(summary: CellSummary, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> Line:
    """Return one finished repetition of a cell as one line of live progress, cut at `width`."""
    page = TextPage(width, encoding)
    cell = summary.cell
    wait = "" if cell.wait is None else f" wait {format_number(cell.wait)} s"
    parts = [f"{cell.mode}{wait} · batch {cell.batch}"]
    parts += [f"rep {summary.repetition}"] if summary.repetition > 1 else []
    parts += [f"ok {formatting.percent(summary.success_rate)}", f"open {formatting.count(summary.peak_concurrency)}"]
    total = summary.phase("total")
    parts += [f"total p50/p99 {seconds([[total.p50, total.p99]])[0]}"] if total else []
    parts += [error_words(error) for error in summary.errors[:2]]
    good = summary.success_rate == 1 and not summary.findings
    return Line(shorten(page.fit(on_one_line(" · ".join(parts))), page.width), {} if good else {"yellow": True})


def _block(page: TextPage, record: SweepRecord, view: CurveView, log: int, told: set[str]) -> None:
    rows = rows_of(view)
    _heading(page, record, view)
    if rows:
        _table(page, view, rows)
    notes = [note for note in (wording.repetitions_note(rows), wording.few_note(rows)) if note]
    page.say("; ".join(notes), light=True)
    for sentence in spread_sentences(view):
        page.say(sentence)
    page.say(proxy_use_sentence(view) or "", light=True)
    page.say(wording.max_batch_sentence(view.verdict), bold=True)
    page.say(wording.first_broken(view.verdict) or "")
    for found in view.verdict.refused:
        page.say(wording.refusal(found))
    _verdict(page, view)
    _evidence(page, record, view, log, told)


def _heading(page: TextPage, record: SweepRecord, view: CurveView) -> None:
    facts, test = page.fit(wording.curve_facts(record, view.curve)), page.fit(on_one_line(record.test))
    gap = page.width - len(facts) - len(test)
    if gap >= 2:
        page.verbatim(f"{facts}{' ' * gap}{test}", bold=True)
    else:
        page.say(facts, indent=0, bold=True)
        page.verbatim(test, bold=True)


def _table(page: TextPage, view: CurveView, rows: Sequence[Row]) -> None:
    columns, left_out = _fitting(page, chosen(view, rows), rows)
    texts = [[page.fit(text) for text in column.texts(rows)] for column in columns]
    widths = [_width(page, column, rows) for column in columns]
    for heads in ([column.group for column in columns], [column.title for column in columns]):
        head = _GAP.join(page.fit(text).rjust(width) for text, width in zip(heads, widths, strict=True))
        page.verbatim(f"{_GAP}{head}", bold=True)
    for row, cells in zip(rows, zip(*texts, strict=True), strict=True):
        line = _GAP.join(text.rjust(width) for text, width in zip(cells, widths, strict=True))
        line = f"{_GAP}{line}{_GAP}{page.fit(row.mark)}"
        remark = page.fit(on_one_line(row.remark))
        if remark and len(line) + 1 + len(remark) <= page.width:
            page.verbatim(f"{line} {remark}", **_ROW_MARKUP[row.mark])
            continue
        page.verbatim(line, **_ROW_MARKUP[row.mark])
        if remark:
            page.say(remark, indent=len(_GAP) + widths[0] + len(_GAP), **_ROW_MARKUP[row.mark])
    if left_out:
        page.say(f"not shown at this width: {', '.join(left_out)}", light=True)


def _width(page: TextPage, column: Column, rows: Sequence[Row]) -> int:
    return max(len(page.fit(text)) for text in (column.group, column.title, *column.texts(rows)))


def _fitting(page: TextPage, columns: list[Column], rows: Sequence[Row]) -> tuple[list[Column], list[str]]:
    """Return the columns that fit the width with room for a mark, and the names of those that do not."""
    width = {column.name: _width(page, column, rows) for column in columns}
    kept = columns
    while sum(width[column.name] + len(_GAP) for column in kept) + len(_GAP) + 1 > page.width:
        last = max(kept, key=lambda column: column.drop)
        if last.drop == 0:
            break
        kept = [column for column in kept if column is not last]
    return kept, [column.name for column in columns if column not in kept]


def _verdict(page: TextPage, view: CurveView) -> None:
    outcome = view.verdict.outcome
    page.say(f"{wording.MARKS[outcome]} {view.verdict.headline}", bold=True, **{wording.COLOURS[outcome]: True})
    for reason in wording.remarks(view.verdict):
        page.say(reason.text, indent=4)


def _evidence(page: TextPage, record: SweepRecord, view: CurveView, log: int, told: set[str]) -> None:
    """Add the end of the server's log, unless it was `told` already, and the command that measures again."""
    if view.verdict.outcome is Outcome.MET:
        return
    tail = wording.log_of(view.summaries, log)
    if tail and "\n".join(tail) not in told:
        told.add("\n".join(tail))
        page.say(f"server log, last {formatting.count_of(len(tail), 'line')}:")
        for line in tail:
            page.verbatim(f"    {line}", light=True)
    command = wording.rerun(record, view.curve)
    if command:
        page.verbatim(f"  rerun: {command}")


def _failure(page: TextPage, record: SweepRecord, view: CurveView, log: int, told: set[str]) -> None:
    page.say(view.verdict.headline, indent=0)
    page.say(wording.curve_facts(record, view.curve))
    page.say(wording.max_batch_sentence(view.verdict))
    page.say(wording.first_broken(view.verdict) or "")
    page.say(wording.by_repetition(view) or "")
    for reason in wording.remarks(view.verdict):
        page.say(reason.text)
    for found in view.verdict.refused:
        page.say(wording.refusal(found))
    for error in _errors_of(view):
        page.say(f"failed: {error}")
    _evidence(page, record, view, log, told)


def _errors_of(view: CurveView) -> list[str]:
    """Return the ways sessions failed in the batch that failed first; nothing where a refusal explains them."""
    if view.verdict.refused:
        return []
    batch = view.verdict.infeasible_min
    cells = [summary for summary in view.summaries if summary.errors and batch in (None, summary.batch)]
    return [wording.error_sentence(error) for error in cells[0].errors[:3]] if cells else []
