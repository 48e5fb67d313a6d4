"""What a terminal shows of a sweep: a block per curve, and a line per finished cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_openenv_scale.analysis.study import BatchPoint, probe_points
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.core.text import LEFT_OUT, on_one_line, shorten
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting.content import cell_verdicts, verdicts, wording
from pytest_openenv_scale.reporting.content.refusals import error_words, refusal_sentence
from pytest_openenv_scale.reporting.content.searches import search_sentences
from pytest_openenv_scale.reporting.content.server_cost import cost_sentence
from pytest_openenv_scale.reporting.content.tables import host_spread_sentences, proxy_use_sentence
from pytest_openenv_scale.reporting.content.windows import windows_sentences
from pytest_openenv_scale.reporting.content.wording import batch_mark, batch_remark, render_seconds, visible_columns
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.verdict.cell import set_aside_reason
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

from .page import DEFAULT_WIDTH, GAP, Line, TextPage, lay_out

_ROW_MARKUP: dict[str, dict[str, bool]] = {"✓": {}, "✗": {"red": True}, "?": {"yellow": True}}


@dataclass(frozen=True, slots=True)
class BlockStyle:
    """How much a block says: `log` lines of the server's log, and with `details` how sure and how costly it all is.

    What refused, and what to do about it, may stand elsewhere (`refusals`), as in the message of a failing test.
    """

    log: int = 5
    details: bool = True
    refusals: bool = True


def curve_lines(
    record: SweepRecord,
    view: CurveView,
    *,
    width: int = DEFAULT_WIDTH,
    encoding: str | None = None,
) -> list[Line]:
    """Return the block of one curve; only log lines and the rerun command may exceed `width`.

    `encoding` is that of the stream it will be printed to.
    """
    return sweep_lines(SweepView(record, (view,), view.verdict.outcome), width=width, encoding=encoding)


def sweep_lines(
    view: SweepView,
    *,
    width: int = DEFAULT_WIDTH,
    encoding: str | None = None,
    style: BlockStyle | None = None,
) -> list[Line]:
    """Return the blocks of all curves of a sweep; what several share is said once."""
    page = TextPage(width, encoding)
    style = style or BlockStyle()
    said: set[str] = set()
    for curve in view.curves:
        if style.details:
            page.add_blank()
        _add_curve_block(page, view.record, curve, style, said, first=curve is view.curves[0])
    _add_notes(page, [row for curve in view.curves for row in probe_points(curve)])
    _add_evidence(page, view, style)
    return page.lines


def cell_line(summary: CellSummary, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> Line:
    """Return one finished repetition of a cell as one line of live progress, cut at `width`."""
    parts, ok = _cell_name(summary), f"ok {formatting.percent(summary.success_rate)}"
    if summary.is_steady:
        sessions = formatting.count_of(summary.successful + summary.failed, "session")
        parts += [sessions, ok, f"open at least {formatting.count(summary.open_least)}"]
    else:
        parts += [ok, f"open {formatting.count(summary.peak_concurrency)}"]
    total = summary.phase("total")
    parts += [f"total p50/p99 {render_seconds([[total.p50, total.p99]])[0]}"] if total else []
    parts += [error_words(error) for error in summary.errors[:2]]
    good = summary.success_rate == 1 and not summary.findings
    return _progress_line(parts, {} if good else {"yellow": True}, width, encoding)


def set_aside_line(summary: CellSummary, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> Line:
    """Return an attempt that was set aside as one line of live progress, cut at `width`."""
    reason = set_aside_reason(summary, 1)
    return _progress_line(
        [*_cell_name(summary), cell_verdicts.set_aside_words(reason)], {"yellow": True}, width, encoding
    )


def _cell_name(summary: CellSummary) -> list[str]:
    cell = summary.cell
    wait = "" if cell.wait is None else f" wait {format_number(cell.wait)} s"
    parts = [cell.infrastructure, f"{cell.mode}{wait}", wording.load_name(cell)]
    return parts + ([f"rep {summary.repetition}"] if summary.repetition > 1 else [])


def _progress_line(parts: Sequence[str], markup: dict[str, bool], width: int, encoding: str | None) -> Line:
    page = TextPage(width, encoding)
    return Line(shorten(page.printable(on_one_line(" · ".join(parts))), page.width), markup)


def _add_curve_block(
    page: TextPage, record: SweepRecord, view: CurveView, style: BlockStyle, said: set[str], *, first: bool
) -> None:
    """Add what is known of one curve; sentences that were `said` of an earlier curve of the sweep are left out."""
    rows = probe_points(view)
    _add_heading(page, record, view, name_test=first)
    if rows:
        _add_table(page, view, rows)
    _add_verdict(page, view)
    if style.details:
        page.add_sentence(wording.certainty_sentence(view) or "", light=True)
    sentences = [*windows_sentences(view), *search_sentences(view), verdicts.further_breach_sentence(view)]
    if style.details:
        sentences += [*host_spread_sentences(view), proxy_use_sentence(view), cost_sentence(view.verdict)]
    if style.refusals:
        sentences += map(refusal_sentence, view.verdict.refused)
    sentences += [reason.text for reason in verdicts.further_reasons(view)]
    for sentence in sentences:
        if sentence and sentence not in said:
            page.add_sentence(sentence)
    said.update(filter(None, sentences))


def _add_heading(page: TextPage, record: SweepRecord, view: CurveView, *, name_test: bool) -> None:
    facts = page.printable(wording.curve_facts(record, view.curve))
    test = page.printable(on_one_line(record.test)) if name_test else ""
    gap = page.width - len(facts) - len(test)
    if test and gap >= 2:
        page.add_line(f"{facts}{' ' * gap}{test}", bold=True)
        return
    page.add_sentence(facts, indent=0, bold=True)
    if test:
        page.add_line(test, bold=True)


def _add_table(page: TextPage, view: CurveView, rows: Sequence[BatchPoint]) -> None:
    columns = visible_columns(view, rows)
    groups, titles = ([*heads, ""] for heads in zip(*((column.group, column.title) for column in columns), strict=True))
    cells = zip(*(column.texts(rows) for column in columns), map(batch_mark, rows), strict=True)
    droppable = sorted((at for at, column in enumerate(columns) if column.drop), key=lambda at: -columns[at].drop)
    table = lay_out(page, [groups, titles, *cells], right=groups, drop=droppable)
    for heads in table.lines[:2]:
        page.add_line(heads, bold=True)
    for row, line in zip(rows, table.lines[2:], strict=True):
        markup = _ROW_MARKUP[batch_mark(row)]
        remark = page.printable(on_one_line(batch_remark(row)))
        if remark and len(line) + 1 + len(remark) <= page.width:
            page.add_line(f"{line} {remark}", **markup)
            continue
        page.add_line(line, **markup)
        if remark and not _is_said_below(view, row):
            page.add_sentence(remark, indent=len(GAP) + table.widths[0] + len(GAP), **markup)
    left_out = [column.group or column.title for at, column in enumerate(columns) if at not in table.widths]
    if left_out:
        page.add_sentence(f"not shown at this width: {', '.join(left_out)}", light=True)


def _is_said_below(view: CurveView, row: BatchPoint) -> bool:
    """Say whether a batch broke no other limit than the one that is said to have broken first."""
    breach, broken = view.verdict.first_breach, row.verdict.breaches if row.verdict else ()
    return breach is not None and {each.limit for each in broken} == {breach.limit}


def _add_verdict(page: TextPage, view: CurveView) -> None:
    """Add the verdict, and max batch with it unless the verdict is about nothing else."""
    outcome = view.verdict.outcome
    markup = {"bold": True, wording.OUTCOME_COLOURS[outcome]: True}
    headline, max_batch = verdicts.headline(view), wording.max_batch_sentence(view)
    if any(judged.cause == "no_limit" for judged in view.verdict.decisive):
        page.add_sentence(f"{wording.OUTCOME_MARKS[outcome]} {headline}", **markup)
        page.add_sentence(max_batch, bold=True)
    else:
        page.add_sentence(f"{wording.OUTCOME_MARKS[outcome]} {headline}; {max_batch}", **markup)


def _add_notes(page: TextPage, rows: Sequence[BatchPoint]) -> None:
    notes = [note for note in (wording.repetitions_note(rows), wording.few_sessions_note(rows)) if note]
    page.add_sentence("; ".join(notes), light=True)


def _add_evidence(page: TextPage, view: SweepView, style: BlockStyle) -> None:
    """Add the end of the server's log and the command that measures again, where a curve was not met."""
    not_met = [curve for curve in view.curves if curve.verdict.outcome is not Outcome.MET]
    tail = wording.server_log_tail((cell for curve in not_met for cell in curve.summaries), style.log)
    if tail:
        fault = "what failed and the " if LEFT_OUT in tail else ""
        page.add_sentence(f"server log, {fault}last {formatting.count_of(len(tail) - (2 if fault else 0), 'line')}:")
        for line in tail:
            page.add_line(f"    {line}", light=True)
    for command in wording.rerun_commands(view.record, [curve.curve for curve in not_met]):
        page.add_line(f"  rerun: {command}")
