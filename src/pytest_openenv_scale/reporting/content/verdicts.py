"""Verdicts in words: the headline of a curve, what became of each limit, and everything else there is to say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_openenv_scale.config.limits import LIMITS, Limit
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.results.outcome import Breach, CurveVerdict, LimitVerdict, Outcome, Reason
from pytest_openenv_scale.verdict.sweep import CurveView

from .cell_verdicts import breach_at, breach_text, reason_words
from .refusals import short_refusal
from .searches import search_stop_words
from .server_cost import cost_limit_words


@dataclass(frozen=True, slots=True)
class ReasonLine:
    """One line of why, for people; `kind` is that of a `Reason`, or verdict, limit or fallback."""

    kind: str
    text: str
    detail: str | None = None


def headline(view: CurveView) -> str:
    """Return the verdict in one line: "SLO missed: max_batch 128 < 256 in 3 of 3 repetitions"."""
    return f"SLO {view.verdict.outcome}: {verdict_reason(view)}"


def verdict_reason(view: CurveView) -> str:
    """Return why the verdict is what it is: the headline without the outcome.

    One that is met names every limit that was judged; else `reason_lines` names those that did not decide.
    """
    decisive = view.verdict.decisive
    if view.verdict.outcome is not Outcome.MET:
        return limit_words(view, decisive[0])
    clauses = [limit_words(view, limit) for limit in decisive]
    if all(limit.limit for limit in decisive):
        clauses.append(f"{_names(view.verdict.slo.cell_limits)} at {_passing(view)}")
    return "; ".join(clauses)


def short_verdict(view: CurveView) -> str:
    """Return the verdict in a few words, with what refused: "max_batch 1 < 32 (CAPACITY_REACHED: …)".

    Where nothing refused it is the limit that broke first, unless that is the verdict.
    """
    verdict = view.verdict
    judged, breach = verdict.decisive[0], verdict.first_breach
    if judged.cause == "did_not_play":
        return f"sessions did not play: {_warm_up_error(view)[0]}"
    if judged.cause == "open" and judged.limit is not None:
        return f"{_open_end(view)}, so {verdict.slo.limit(judged.limit)} is not decided"
    if verdict.outcome is not Outcome.MISSED or breach is None:
        return verdict_reason(view)
    broken = breach_at(view, breach)
    cause = _short_cause(verdict, breach)
    if judged.cause in ("every_cell", "none_passes"):
        words = f"{'no cell passes: ' if judged.cause == 'none_passes' else ''}{broken}"
    elif judged.limit is not None and LIMITS[judged.limit].family == "capacity":
        words, cause = limit_words(view, judged), cause or broken
    else:
        return limit_words(view, judged)
    return f"{words} ({cause})" if cause else words


def _short_cause(verdict: CurveVerdict, breach: Breach) -> str | None:
    """Return what refused the sessions that broke a limit; None for one that refusals do not break."""
    if breach.limit != "success" or not verdict.refused:
        return None
    there = [refusal for refusal in verdict.refused if refusal.batch == breach.batch]
    return short_refusal((there or verdict.refused)[0])


def what_to_do(view: CurveView) -> str | None:
    """Return what to do where sessions did not play; other verdicts say it where they say what refused."""
    did_not_play = any(judged.cause == "did_not_play" for judged in view.verdict.decisive)
    return _warm_up_error(view)[1] if did_not_play else None


def _names(limits: Sequence[Limit]) -> str:
    """Return limits as they are judged: "success ≥ 95 % (default), total_p99 ≤ 2 s"."""
    return ", ".join(f"{limit.text}{' (default)' if limit.source == 'default' else ''}" for limit in limits)


def _passing(view: CurveView) -> str:
    passing = [cell.batch for cell in view.verdict.cells if cell.passed]
    return f"batch {formatting.list_of_counts(passing)}"


def _further_limits(view: CurveView, lines: Sequence[ReasonLine]) -> list[str]:
    """Name the limits that were judged and that no line names so far, in one line; those in doubt are not judged."""
    verdict = view.verdict
    if verdict.outcome is Outcome.MET:
        return []
    listed = [limit_words(view, judged) for judged in verdict.limits if judged.outcome is Outcome.MET]
    if verdict.outcome is Outcome.MISSED:
        named = " ".join([*(line.text for line in lines), *listed])
        of_cells = [limit for limit in verdict.slo.cell_limits if f"{limit.kind.figure} " not in named]
        listed += [_names(of_cells)] if of_cells else []
    return [f"judged too: {'; '.join(listed)}"] if listed else []


def reason_lines(view: CurveView) -> list[ReasonLine]:
    """Return all lines about a verdict; the first is its headline."""
    verdict = view.verdict
    kind = "verdict" if view.summaries else "no_data"
    lines = [ReasonLine(kind, headline(view))]
    if verdict.outcome is not Outcome.MET:
        others = (limit_words(view, limit) for limit in verdict.decisive[1:])
        lines += [ReasonLine(kind, f"SLO {verdict.outcome}: {words}") for words in others]
    lines += [ReasonLine("limit", text) for text in _first_breaches(view) if text not in lines[0].text]
    lines += [ReasonLine("limit", text) for text in _further_limits(view, lines)]
    lines += _told_once(verdict.reasons)
    lines += [ReasonLine("fallback", note) for note in verdict.notes]
    lines += [ReasonLine("warm_up", line) for line in warm_up_lines(verdict)]
    return list(dict.fromkeys(lines))


def _told_once(reasons: Sequence[Reason]) -> Iterator[ReasonLine]:
    """Yield a line per reason; those that quote the same words at several batches are one line."""
    batches: dict[tuple[str, str, str | None], dict[int, None]] = {}
    for reason in reasons:
        batches.setdefault((reason.kind, reason.cause, reason.words), {})[reason.batch] = None
    told: set[tuple[str, str, str | None]] = set()
    for reason in reasons:
        key = (reason.kind, reason.cause, reason.words)
        if reason.words is None or len(batches[key]) == 1:
            yield ReasonLine(reason.kind, reason_words(reason), reason.detail)
        elif key not in told:
            told.add(key)
            others = formatting.list_of_counts([batch for batch in batches[key] if batch != reason.batch])
            yield ReasonLine(reason.kind, f"{reason_words(reason)}; the same at batch {others}", reason.detail)


def first_breach_sentence(view: CurveView) -> str | None:
    """Return the limit that broke first, observed against allowed; None where none broke."""
    breach = view.verdict.first_breach
    return None if breach is None else f"first limit broken: {breach_text(view, breach)}"


def further_breach_sentence(view: CurveView) -> str | None:
    """Return the limit that broke first; None where none broke, or the headline says it."""
    breach = view.verdict.first_breach
    return None if breach is None or breach_text(view, breach) in headline(view) else first_breach_sentence(view)


def further_reasons(view: CurveView) -> list[ReasonLine]:
    """Return the reasons of a curve that its headline does not hold, and why it ended early."""
    lines = reason_lines(view)
    headline = (lines[0].text, first_breach_sentence(view) or "")
    stopped = None if view.verdict.search else stop_words(view.verdict)
    further = [line for line in lines[1:] if not any(line.text in text for text in headline)]
    return [*further, ReasonLine("incomplete", stopped)] if stopped else further


def stop_words(verdict: CurveVerdict) -> str | None:
    """Say why a curve has fewer batches than planned, or why its search ended; None where all were measured."""
    if verdict.search is not None:
        return search_stop_words(verdict)
    if verdict.stopped is None:
        return None
    missing = verdict.unmeasured
    unmeasured = f"{_batches(missing)} not measured" if missing else "repetitions were left out"
    if verdict.stopped == "budget":
        return f"what was next would not have fitted into --openenv-budget; {unmeasured}"
    if verdict.stopped == "max_sessions":
        return (
            f"more sessions than --openenv-max-sessions allows on other machines would have been opened; {unmeasured}"
        )
    if verdict.stopped == "ended_early":
        return f"ended early; {unmeasured}"
    last = [cell.batch for cell in verdict.cells if cell.batch < missing[0]][-2:]
    return f"stopped after two failing batches in a row ({formatting.list_of_counts(last)}); {unmeasured}"


def limit_words(view: CurveView, judged: LimitVerdict) -> str:
    """Return what became of a limit: "max_batch 128 < 256 in 3 of 3 repetitions", "max_batch ≥ 64, got 64"."""
    limit = view.verdict.slo.limit(judged.limit) if judged.limit else None
    return _OF_LIMIT[limit.kind.family](view, judged, limit) if limit else _OF_CURVE[judged.cause](view, judged)


def _capacity(view: CurveView, judged: LimitVerdict, limit: Limit) -> str:
    verdict = view.verdict
    if judged.cause == "unknown_cores":
        return f"{limit.text} cannot be judged: the server's cores are not known; write cores=N in the target"
    best, how_often = _max_batch_words(verdict)
    got, advice = f"got {best}{how_often}", ""
    if verdict.search is not None and verdict.search.plan.needed is not None:
        passes, judged_times = verdict.search.tally(verdict.search.plan.needed)
        of_judged = f"passed in {passes} of {formatting.count_of(judged_times, 'repetition')}"
        got = f"which {of_judged if judged_times else 'could not be judged'}"
    elif judged.outcome is Outcome.MISSED and "observed" not in judged.figures:
        return f"{_below(limit, best)}{how_often}"
    if "observed" in judged.figures:
        per_core, cores = formatting.number(judged.figures["observed"]), formatting.count_of(verdict.cores or 0, "core")
        if judged.outcome is Outcome.MISSED:
            return f"{_below(limit, per_core)} (max batch {best}{how_often}; {cores})"
        got = f"got {per_core} ({got}; {cores})"
        advice = f"add a batch ≥ {judged.figures['needed']:.0f}"
    if judged.cause == "open":
        return f"{limit.text} is not decided, {got}: {_open_end(view, advice)}"
    return f"{limit.text}, {got}"


def _below(limit: Limit, observed: str) -> str:
    """Return a lower limit that is missed: "max_batch 128 < 256"."""
    return f"{limit.kind.shown_name} {observed} < {formatting.format_value(limit.kind.unit, limit.allowed)}"


def _rate(view: CurveView, judged: LimitVerdict, limit: Limit) -> str:
    observed = judged.figures.get("observed")
    if observed is None:
        return f"{limit.text}: no passing cell to judge it on"
    figure, at = (
        formatting.format_observed(limit.kind.unit, observed, limit.allowed),
        f"at batch {judged.figures['batch']}",
    )
    if judged.outcome is Outcome.MISSED:
        return f"{_below(limit, figure)} {at}"
    got = f"got {figure} {at}"
    if judged.cause == "open":
        return f"{limit.text} is not decided, {got}: {_open_end(view)}"
    if judged.cause == "late":
        return f"{limit.text} is not decided, {got}: HTTP answers were seen late, which slows sessions down"
    return f"{limit.text}, {got}"


def _too_few_sessions(view: CurveView, judged: LimitVerdict, limit: Limit) -> str:
    largest = judged.figures["largest"]
    return f"{limit.text} needs a batch of at least {limit.allowed:.0f}, the largest measured is {largest}"


_OF_LIMIT: Mapping[str, Callable[[CurveView, LimitVerdict, Limit], str]] = {
    "capacity": _capacity,
    "rate": _rate,
    "hosts": _too_few_sessions,
    "open": _too_few_sessions,
    "cost": lambda view, judged, limit: cost_limit_words(judged, limit),
}
"""What became of a limit that speaks of the curve, by its family."""


def _no_limit(view: CurveView, judged: LimitVerdict) -> str:
    verdict = view.verdict
    by = _names(verdict.slo.cell_limits)
    if any(cell.passed is None for cell in verdict.cells):
        max_batch = "not known" if verdict.max_batch is None else f"at least {formatting.count(verdict.max_batch)}"
        return f"no limit was asked for; max batch by {by} is {max_batch}: {_open_end(view)}"
    best = f"no limit was asked for; max batch {''.join(_max_batch_words(verdict))}"
    failing = next((cell for cell in verdict.cells if cell.passed is False), None)
    if failing is None:
        return f"{best} by {by}"
    broken = {breach.limit for breach in failing.breaches}
    missed = _names([limit for limit in verdict.slo.cell_limits if limit.name in broken])
    return f"{best}, as batch {formatting.count(failing.batch)} misses {missed}, which fails no test"


def _every_cell(view: CurveView, judged: LimitVerdict) -> str:
    verdict = view.verdict
    if judged.outcome is Outcome.INCONCLUSIVE:
        return _open_end(view)
    if judged.outcome is Outcome.MET:
        return f"{_names(verdict.slo.cell_limits)} at {_passing(view)}"
    first = next(cell for cell in verdict.cells if cell.passed is False)
    broken = {breach.repetition for breach in first.breaches}
    where = f", in {len(broken)} of {verdict.repetitions} repetitions" if verdict.repetitions > 1 else ""
    return f"{breach_text(view, first.breaches[0])}{where}"


def _some_cell(view: CurveView, judged: LimitVerdict) -> str:
    verdict = view.verdict
    return f"{_names(verdict.slo.cell_limits)} up to batch {formatting.count(verdict.max_batch)}"


def _server_died(view: CurveView, judged: LimitVerdict) -> str:
    breaches = (breach for cell in view.verdict.cells for breach in cell.breaches)
    return breach_text(view, next(breach for breach in breaches if breach.limit == "server"))


_OF_CURVE: Mapping[str, Callable[[CurveView, LimitVerdict], str]] = {
    "did_not_play": lambda view, judged: _did_not_play(view),
    "nothing_measured": lambda view, judged: "nothing was measured, and without a sample nothing passes",
    "every_cell": _every_cell,
    "server_died": _server_died,
    "ended_early": lambda view, judged: f"not measured to its end: {_open_end(view)}",
    "no_limit": _no_limit,
    "some_cell": _some_cell,
    "none_known": lambda view, judged: f"no cell is known to pass: {_open_end(view)}",
    "none_passes": lambda view, judged: f"no cell passes: {breach_text(view, view.verdict.cells[0].breaches[0])}",
}
"""What became of a curve for which no limit speaks, by the cause."""


def _did_not_play(view: CurveView) -> str:
    error, remedy = _warm_up_error(view)
    return f"sessions did not play: {error}; {remedy}"


def _warm_up_error(view: CurveView) -> tuple[str, str]:
    """Return what a session alone was answered, and what to do."""
    warm_up = view.verdict.warm_up
    assert warm_up is not None
    if warm_up.reset_error is not None:
        what, words, option = "the reset of a session alone", warm_up.reset_error, "--openenv-reset"
    else:
        what = f"{'the step' if warm_up.steps == 1 else f'each of {warm_up.steps} steps'} of a session alone"
        words, option = warm_up.step_error, "--openenv-action"
    sent = ""
    if option == "--openenv-action" and warm_up.sample is not None:
        made = ", made from /schema," if warm_up.made_action else ""
        made = ", a guess, as there is no /schema," if warm_up.guessed_action else made
        sent = f" ({warm_up.sample.action}{made} was sent)"
    return (
        f"{what} was answered with an error: {words}",
        f"write what the environment takes with {option}{sent}, or measure all the same with --openenv-played any",
    )


def warm_up_lines(verdict: CurveVerdict) -> list[str]:
    """Return what is unusual about how sessions play."""
    warm_up = verdict.warm_up
    if warm_up is None:
        return []
    lines: list[str] = []
    if warm_up.played and warm_up.made_action and warm_up.wait_s is None:
        lines.append("the action was made from /schema and may mean nothing: write one of yours with --openenv-action")
    if warm_up.played and warm_up.guessed_action:
        lines.append("the server has no /schema, so the action was a guess: write one of yours with --openenv-action")
    if warm_up.done_on_reset:
        lines.append("done came with the answer to a reset")
    if warm_up.single_turn:
        lines.append("an episode is over with its first step")
    if warm_up.steps and warm_up.unsuccessful_steps == warm_up.steps:
        lines.append("every step of a session alone was answered with success: false")
    if warm_up.ignores_wait:
        wait, longest = formatting.seconds(warm_up.wait_s), formatting.seconds(warm_up.longest_step_s)
        lines.append(
            f"waits are ignored: asked to wait {wait}, no step took longer than {longest}; so waits mean nothing"
        )
    if warm_up.played and warm_up.step_error is not None:
        steps = formatting.count_of(warm_up.steps, "step")
        lines.append(f"{warm_up.step_errors} of {steps} alone answered with an error: {warm_up.step_error}")
    return lines


def _max_batch_words(verdict: CurveVerdict) -> tuple[str, str]:
    """Return what max batch came out, and how the repetitions agree on it: ("64", " in 3 of 3 repetitions")."""
    best = "none" if verdict.max_batch is None else formatting.count(verdict.max_batch)
    if verdict.search is not None:
        if verdict.max_batch is None:
            return best, " that passed as often as was asked"
        passes, judged = verdict.search.tally(verdict.max_batch)
        return best, f" in {passes} of {formatting.count_of(judged, 'repetition')}"
    if verdict.repetitions == 1:
        return best, ""
    same = verdict.max_batches.count(verdict.max_batch)
    larger = sorted({batch for batch in verdict.max_batches if batch is not None and batch > (verdict.max_batch or 0)})
    others = f" ({formatting.list_of_counts(larger)} in the others)" if larger else ""
    return best, f" in {same} of {verdict.repetitions} repetitions{others}"


_RAN_OUT = ("budget", "max_sessions")
"""Why measuring stopped that has nothing to do with what was measured."""


def _open_end(view: CurveView, advice: str = "") -> str:
    """Say why nothing more is known: a batch in doubt, or one that was not measured."""
    verdict = view.verdict
    if (verdict.search is not None and verdict.search.stop_reason != "doubt") or verdict.stopped in _RAN_OUT:
        return stop_words(verdict) or ""
    doubtful = next((cell for cell in verdict.cells if cell.passed is None), None)
    if doubtful is not None:
        return reason_words(doubtful.reasons[0])
    if verdict.unmeasured:
        return f"{_batches(verdict.unmeasured)} not measured"
    return f"no batch larger than {verdict.cells[-1].batch} was measured" + (f"; {advice}" if advice else "")


def _batches(batches: Sequence[int]) -> str:
    return f"{'batch' if len(batches) == 1 else 'batches'} {formatting.list_of_counts(list(batches))}"


def _first_breaches(view: CurveView) -> list[str]:
    """Return the first breach of each kind of limit on the smallest failing batch."""
    first = next((cell for cell in view.verdict.cells if cell.passed is False), None)
    if first is None:
        return []
    return list({breach.limit: breach_text(view, breach) for breach in reversed(first.breaches)}.values())[::-1]
