"""A search in words: what it asked, what it came to, why it ended, and what a curve is like at its edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pytest_openenv_scale.config.search import SearchPlan
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.results.outcome import CurveVerdict, SearchOutcome, StopReason
from pytest_openenv_scale.verdict.sweep import CurveView


def search_sentences(view: CurveView) -> list[str]:
    """Return what is to be said of a search beneath its curve; nothing of a grid, or where none began."""
    verdict, search = view.verdict, view.verdict.search
    if search is None or (search.stop_reason in ("interrupted", "running") and not search.probes):
        return []
    facts = [*_edge_facts(verdict, search)]
    unit = "slot" if any(summary.is_steady for summary in view.summaries) else "session"
    asked = f"{formatting.count_of(len(search.probes), 'repetition')}, {formatting.count_of(search.sessions, unit)}"
    sentences = [f"searched {range_words(search.plan)}: {asked}" + (f"; {', '.join(facts)}" if facts else "")]
    sentences += [search_stop_words(verdict)] if search.stop_reason not in ("precision", "holds", "fails") else []
    sentences += [*_served_beyond(view), *_irregularities(verdict, search)]
    return sentences


def range_words(plan: SearchPlan) -> str:
    """Say which batches a search may ask for, and how near it comes: "1 to 16,384, to 5 %", "whether 64 holds"."""
    if plan.needed is not None:
        return f"whether {formatting.count(plan.needed)} holds"
    if plan.low == plan.high:
        return f"{formatting.count(plan.low)} alone"
    precision = "exact" if not plan.precision else f"to {format_number(round(plan.precision * 100, 6))} %"
    return f"{formatting.count(plan.low)} to {formatting.count(plan.high)}, {precision}"


def _edge_facts(verdict: CurveVerdict, search: SearchOutcome) -> Iterator[str]:
    """Yield what passes and what fails, each with its repetitions, and whether passing ends at once."""
    plan = search.plan
    if plan.needed is not None:
        yield _tally_words(search, plan.needed)
        return
    best, worst = verdict.feasible_max, verdict.infeasible_min
    if best is not None:
        yield _tally_words(search, best)
    else:
        once = max((probe.batch for probe in search.probes if probe.passed), default=None)
        yield "nothing passed" if once is None else f"none as often as was asked, {_tally_words(search, once)}"
    yield "nothing failed" if worst is None else _tally_words(search, worst)
    if search.shape is not None and search.stop_reason in ("precision", "slope"):
        yield "a cliff" if search.shape == "cliff" else "a slope"


def _tally_words(search: SearchOutcome, batch: int) -> str:
    passes, judged = search.tally(batch)
    if not judged:
        return f"{formatting.count(batch)} could not be judged"
    failed = judged - passes > passes or (search.stop_reason == "fails" and passes < judged)
    number, verb = (judged - passes, "fails") if failed else (passes, "passes")
    return f"{formatting.count(batch)} {verb} in {number} of {judged}"


def _served_beyond(view: CurveView) -> Iterator[str]:
    """Yield that a batch passes of which not all were open: some may fail, and the server refuses the rest."""
    verdict = view.verdict
    success = next((limit for limit in verdict.slo.cell_limits if limit.name == "success"), None)
    best = [summary.held for summary in view.summaries if summary.batch == verdict.max_batch]
    if verdict.max_batch is None or success is None or not best or not verdict.refused:
        return
    if max(best) < verdict.max_batch:
        passing = f"{formatting.count(verdict.max_batch)} pass {success.text}"
        yield f"{passing}; {formatting.count(max(best))} were open at once, the server refuses beyond"


def _irregularities(verdict: CurveVerdict, search: SearchOutcome) -> Iterator[str]:
    if search.exceptions:
        batches = ", ".join(_exception_words(verdict, search, batch) for batch in search.exceptions[:4])
        more = f" and {len(search.exceptions) - 4} more" if len(search.exceptions) > 4 else ""
        yield f"not monotonic: {batches}{more}"
    if search.drift is not None and search.stop_reason != "drift":
        yield _drift_words(search)
    if search.grown_bytes is not None:
        size = formatting.size(round(search.grown_bytes))
        grew = f"the server's memory grew by {size} a session although no more were open than before"
        yield f"{grew}; whether it leaks, the suite tells: pytest --pyargs pytest_openenv_scale.suite -m churn"


def _exception_words(verdict: CurveVerdict, search: SearchOutcome, batch: int) -> str:
    """Say how often a batch failed that is smaller than max batch, or one passed that is larger than what fails."""
    passes, judged = search.tally(batch)
    if verdict.infeasible_min is not None and batch > verdict.infeasible_min:
        return f"{formatting.count(batch)} passed in {passes} of {judged}"
    return f"{formatting.count(batch)} failed in {judged - passes} of {judged}"


def _drift_words(search: SearchOutcome) -> str:
    """Say that what a server holds changed, by probes that contradict each other."""
    if search.drift is None:  # By other limits than those it was searched with.
        return CUT_SHORT["drift"]
    fell = search.drift == "fell"
    earlier: list[int] = []
    contradiction = ""
    for probe in search.probes:
        if probe.passed is fell:
            earlier.append(probe.batch)
        elif probe.passed is not None and earlier and not contradiction:
            extreme = max(earlier) if fell else min(earlier)
            if (probe.batch < extreme) is fell and probe.batch != extreme:
                first, then = ("passed", "failed") if fell else ("failed", "passed")
                contradiction = f" ({formatting.count(extreme)} {first} before {formatting.count(probe.batch)} {then})"
    return f"what the server holds {search.drift} while it was searched{contradiction}"


def search_stop_words(verdict: CurveVerdict) -> str:
    """Say why a search ended."""
    search = verdict.search
    assert search is not None
    words = _CONCLUSIONS.get(search.stop_reason)
    return CUT_SHORT[search.stop_reason] if words is None else words(verdict, search)


def _slope_words(verdict: CurveVerdict, search: SearchOutcome) -> str:
    low, high = verdict.feasible_max or 0, verdict.infeasible_min or search.plan.high
    between = f"{formatting.count(low)} and {formatting.count(high)}"
    return f"between {between} batches pass in a part of their repetitions, so that no closer bracket means anything"


def _doubt_words(verdict: CurveVerdict, search: SearchOutcome) -> str:
    of_none = "the smallest batch that may be asked for" if search.plan.needed is None else "the one batch in question"
    return f"{of_none if verdict.max_batch is None else 'a larger batch'} could not be judged, asked twice"


def _top_words(verdict: CurveVerdict, search: SearchOutcome) -> str:
    top = formatting.count(search.plan.high)
    if search.plan.bound == "client":
        return f"{top} is what this client can open at once: raise ulimit -Hn, or use more --openenv-processes"
    return f"the largest batch that may be asked for ({top}) passes: write a wider --openenv-search"


CUT_SHORT: Mapping[StopReason, str] = {
    "unsteady": "the server answered differently every time, so that the search came to no end",
    "server_died": "the server died, which ended the search",
    "budget": "the next repetition would not have fitted into --openenv-budget: it was not asked",
    "max_sessions": (
        "the next repetition would have opened more sessions than --openenv-max-sessions allows: it was not asked"
    ),
    "drift": "what the server holds changed while it was searched",
    "interrupted": "the search was interrupted",
    "running": "the search goes on",
}
"""Why a search ended that did not come to its end, by its stop reason."""

_CONCLUSIONS: Mapping[StopReason, Callable[[CurveVerdict, SearchOutcome], str]] = {
    "precision": lambda verdict, search: "what passes and what fails are as near to each other as was asked for",
    "slope": _slope_words,
    "top": _top_words,
    "bottom": lambda verdict, search: f"the smallest batch that may be asked for ({search.plan.low}) does not pass",
    "holds": lambda verdict, search: "the one batch that was in question holds",
    "fails": lambda verdict, search: "the one batch that was in question does not hold",
    "doubt": _doubt_words,
    "drift": lambda verdict, search: _drift_words(search),
}
"""Why others ended, with what they found."""
