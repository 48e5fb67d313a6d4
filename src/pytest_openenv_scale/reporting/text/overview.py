"""A run at a glance: one table of max batch and verdict per test, target, mode and wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.grammar import format_number
from pytest_openenv_scale.core.outcome import Outcome
from pytest_openenv_scale.core.run import Run
from pytest_openenv_scale.core.view import CurveView, SweepView

from . import phrases, protocols
from .checks import check_lines, check_tally
from .replicas import scaling_lines
from .terminal import sweep_lines
from .text import DEFAULT_WIDTH, Line, Page, collapse, cut

TITLES = ("target", "mode", "wait", "max batch", "per core")
_RIGHT = ("wait", "max batch", "per core")
_GAP = "  "
_SHORTEST_NAME = 6


@dataclass(frozen=True, slots=True)
class Entry:
    """One curve of the table: `cells` follow `TITLES`, `reason` says why the outcome is what it is."""

    test: str
    cells: tuple[str, ...]
    outcome: Outcome
    reason: str

    @property
    def verdict(self) -> str:
        """The outcome with its mark: "✗ missed"."""
        return f"{phrases.MARKS[self.outcome]} {self.outcome}"


def entries(sweeps: Iterable[SweepView]) -> list[Entry]:
    """Return an entry per curve of these sweeps, in the order they were measured."""
    return [_entry(view, curve) for view in sweeps for curve in view.curves]


def _entry(view: SweepView, curve: CurveView) -> Entry:
    verdict = curve.verdict
    wait = curve.curve.wait
    cells = (
        collapse(view.infrastructure),
        curve.curve.mode,
        text_of.MISSING if wait is None else f"{format_number(wait)} s",
        phrases.max_batch(verdict),
        text_of.number(verdict.max_batch_per_core),
    )
    reason = collapse(verdict.headline).removeprefix(f"SLO {verdict.outcome}: ")
    return Entry(collapse(view.test), cells, verdict.outcome, reason)


def tally(sweeps: Iterable[SweepView]) -> str:
    """Return how the curves came out: "3 curves: 1 met, 1 missed, 1 inconclusive"."""
    outcomes = [curve.verdict.outcome for view in sweeps for curve in view.curves]
    counts = [f"{outcomes.count(outcome)} {outcome}" for outcome in Outcome if outcome in outcomes]
    return f"{text_of.count_of(len(outcomes), 'curve')}{': ' if counts else ''}{', '.join(counts)}"


def run_tally(run: Run) -> str:
    """Return how curves and checks of a run came out: "1 curve: 1 met · 12 checks: 11 met, 1 missed"."""
    parts = [tally(run.sweeps)] if run.sweeps or not run.checks else []
    return " · ".join([*parts, *([check_tally(run.checks)] if run.checks else [])])


def summary_lines(
    sweeps: Sequence[SweepView], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the table of all curves of a run, and below it the protocol comparison where there are two modes.

    No line is wider than `width`; there is nothing where there are no curves. A test is a line of its own above
    its curves; a reason that does not fit its row stands beneath it.
    """
    page = Page(width, encoding)
    found = entries(sweeps)
    if not found:
        return []
    texts = [[page.fit(text) for text in cells] for cells in (TITLES, *(entry.cells for entry in found))]
    verdict_width = max(len(text) for text in ("  verdict", *(entry.verdict for entry in found)))
    widths = _widths(texts, page.width - verdict_width - 3 * len(_GAP))
    page.verbatim(f"{_aligned(texts[0], widths)}{_GAP}  verdict", bold=True)
    test = ""
    for entry, row in zip(found, texts[1:], strict=True):
        if entry.test != test:
            test = entry.test
            page.verbatim(_GAP + cut(page.fit(test), page.width - len(_GAP), left=True))
        _row(page, entry, f"{_aligned(row, widths)}{_GAP}{page.fit(entry.verdict)}")
    protocols.add_lines(page, sweeps)
    return page.lines


def _widths(texts: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the widths of the columns; where there is no room, names are cut and sessions per core left out."""
    widths = [max(len(row[at]) for row in texts) for at in range(len(TITLES))]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - room
    if over > widths[0] - _SHORTEST_NAME:
        over -= widths.pop() + len(_GAP)
    widths[0] = max(widths[0] - max(over, 0), _SHORTEST_NAME)
    return widths


def _row(page: Page, entry: Entry, line: str) -> None:
    colour = {phrases.COLOURS[entry.outcome]: True}
    reason = page.fit(entry.reason)
    if len(line) + 2 + len(reason) <= page.width:
        page.verbatim(f"{line}: {reason}", **colour)
        return
    page.verbatim(line, **colour)
    if entry.outcome is not Outcome.MET:
        page.say(reason, indent=8, **colour)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        f"{cut(text, width):{'>' if title in _RIGHT else '<'}{width}}"
        for title, text, width in zip(TITLES, row, widths, strict=False)
    ]
    return _GAP * 2 + _GAP.join(cells)


def run_lines(run: Run, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> list[Line]:
    """Return a whole run: what it is and what is wrong with it, every curve, and the table at the end."""
    page = Page(width, encoding)
    page.say(f"run {run.run_id} · {run.status} · {run_tally(run)}", indent=0, bold=True)
    if run.record.note:
        page.say(f"note: {run.record.note}")
    for problem in problems(run):
        page.say(f"! {problem}", yellow=True)
    if run.checks:
        page.blank()
        page.extend(check_lines(run.checks, width=width, encoding=encoding))
    for view in run.sweeps:
        page.blank()
        page.extend(sweep_lines(view, width=width, encoding=encoding))
    page.blank()
    page.extend(summary_lines(run.sweeps, width=width, encoding=encoding))
    page.blank()
    page.extend(scaling_lines(run.sweeps, width=width, encoding=encoding))
    return page.lines


def problems(run: Run) -> list[str]:
    """Return what keeps a run from being whole: its status, sweeps that ended early, parts that are damaged."""
    found = {
        "running": ["the run is still going on; this is what it measured so far"],
        "interrupted": ["the run was interrupted; what it measured until then is shown"],
        "failed": ["the run failed; what it measured until then is shown"],
    }.get(run.status, [])
    if not run.sweeps and not run.checks:
        found = [*found, "the run holds no sweep: nothing was measured"]
    cut_short = [view for view in run.sweeps if view.record.status in ("interrupted", "failed")]
    if run.status == "complete":
        found += [f"{view.test} on {view.infrastructure}: the sweep {_ending(view)}" for view in cut_short]
    return [*found, *run.problems]


def _ending(view: SweepView) -> str:
    return "was interrupted" if view.record.status == "interrupted" else "failed"
