"""What a terminal shows of a sweep: a block per curve, a line per finished cell, the message of a failing test."""

from __future__ import annotations

from collections.abc import Sequence

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
    _add_curve_block(page, record, view, log, printed_logs=set())
    return page.lines


def sweep_lines(
    view: SweepView, *, width: int = DEFAULT_WIDTH, encoding: str | None = None, log: int = 5
) -> list[Line]:
    """Return the blocks of all curves of a sweep, an empty line between them; the same log is shown once."""
    page = TextPage(width, encoding)
    printed_logs: set[str] = set()
    for curve in view.curves:
        page.add_blank()
        _add_curve_block(page, view.record, curve, log, printed_logs)
    return page.lines


def sweep_failure_text(
    view: SweepView, *, width: int = DEFAULT_WIDTH, encoding: str | None = None, log: int = 10
) -> str:
    """Return the message of a failing test: every curve that was not met, why, and how to see it again.

    Says which cell broke which limit, observed against allowed and over the repetitions, the limit of the
    server that refused, the last lines of its log and the command that reruns just that curve.
    """
    page = TextPage(width, encoding)
    printed_logs: set[str] = set()
    for curve in view.curves:
        if curve.verdict.outcome is not Outcome.MET:
            page.add_blank()
            _add_failure(page, view.record, curve, log, printed_logs)
    return page.text


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


def _add_curve_block(page: TextPage, record: SweepRecord, view: CurveView, log: int, printed_logs: set[str]) -> None:
    rows = probe_points(view)
    _add_heading(page, record, view)
    if rows:
        _add_table(page, view, rows)
    notes = [note for note in (wording.repetitions_note(rows), wording.few_sessions_note(rows)) if note]
    page.add_sentence("; ".join(notes), light=True)
    for sentence in windows_sentences(view):
        page.add_sentence(sentence)
    for sentence in host_spread_sentences(view):
        page.add_sentence(sentence)
    page.add_sentence(proxy_use_sentence(view) or "", light=True)
    page.add_sentence(cost_sentence(view.verdict) or "", light=True)
    page.add_sentence(wording.max_batch_sentence(view), bold=True)
    page.add_sentence(wording.certainty_sentence(view) or "", light=True)
    for sentence in search_sentences(view):
        page.add_sentence(sentence)
    page.add_sentence(verdicts.first_breach_sentence(view) or "")
    for refusal in view.verdict.refused:
        page.add_sentence(refusal_sentence(refusal))
    _add_verdict(page, view)
    _add_evidence(page, record, view, log, printed_logs)


def _add_heading(page: TextPage, record: SweepRecord, view: CurveView) -> None:
    facts, test = page.printable(wording.curve_facts(record, view.curve)), page.printable(on_one_line(record.test))
    gap = page.width - len(facts) - len(test)
    if gap >= 2:
        page.add_line(f"{facts}{' ' * gap}{test}", bold=True)
    else:
        page.add_sentence(facts, indent=0, bold=True)
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
        if remark:
            page.add_sentence(remark, indent=len(GAP) + table.widths[0] + len(GAP), **markup)
    left_out = [column.name for at, column in enumerate(columns) if at not in table.widths]
    if left_out:
        page.add_sentence(f"not shown at this width: {', '.join(left_out)}", light=True)


def _add_verdict(page: TextPage, view: CurveView) -> None:
    outcome = view.verdict.outcome
    page.add_sentence(
        f"{wording.OUTCOME_MARKS[outcome]} {verdicts.headline(view)}",
        bold=True,
        **{wording.OUTCOME_COLOURS[outcome]: True},
    )
    for reason in verdicts.further_reasons(view):
        page.add_sentence(reason.text, indent=4)


def _add_evidence(page: TextPage, record: SweepRecord, view: CurveView, log: int, printed_logs: set[str]) -> None:
    """Add the end of the server's log, unless it is in `printed_logs` already, and the command that measures again."""
    if view.verdict.outcome is Outcome.MET:
        return
    tail = wording.server_log_tail(view.summaries, log)
    if tail and "\n".join(tail) not in printed_logs:
        printed_logs.add("\n".join(tail))
        fault = "what failed and the " if LEFT_OUT in tail else ""
        page.add_sentence(f"server log, {fault}last {formatting.count_of(len(tail) - (2 if fault else 0), 'line')}:")
        for line in tail:
            page.add_line(f"    {line}", light=True)
    command = wording.rerun_command(record, view.curve)
    if command:
        page.add_line(f"  rerun: {command}")


def _add_failure(page: TextPage, record: SweepRecord, view: CurveView, log: int, printed_logs: set[str]) -> None:
    page.add_sentence(verdicts.headline(view), indent=0)
    page.add_sentence(wording.curve_facts(record, view.curve))
    page.add_sentence(wording.max_batch_sentence(view))
    for sentence in search_sentences(view):
        page.add_sentence(sentence)
    page.add_sentence(verdicts.first_breach_sentence(view) or "")
    page.add_sentence(wording.breach_by_repetition(view) or "")
    for reason in verdicts.further_reasons(view):
        page.add_sentence(reason.text)
    for refusal in view.verdict.refused:
        page.add_sentence(refusal_sentence(refusal))
    for error in _first_errors(view):
        page.add_sentence(f"failed: {error}")
    _add_evidence(page, record, view, log, printed_logs)


def _first_errors(view: CurveView) -> list[str]:
    """Return the ways sessions failed in the batch that failed first; nothing where a refusal explains them."""
    if view.verdict.refused:
        return []
    batch = view.verdict.infeasible_min
    cells = [summary for summary in view.summaries if summary.errors and batch in (None, summary.batch)]
    return [wording.error_sentence(error) for error in cells[0].errors[:3]] if cells else []
