"""Why a cell did not pass, in words: each limit that it broke, and each doubt."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pytest_openenv_scale.config.limits import LIMITS, Limit
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import UnhealthyHost
from pytest_openenv_scale.core.formatting import format_value
from pytest_openenv_scale.core.parsing import format_number
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import Breach, Reason
from pytest_openenv_scale.verdict.sweep import CurveView

from .refusals import error_words, incident_words


def breach_words(breach: Breach) -> str:
    """Return a broken limit in short: "success 78.1 % < 95 %", "total_p99 3.1 s > 2.5 s"."""
    kind = LIMITS.get(breach.limit)
    if kind is None or breach.observed is None or breach.allowed is None:
        return "the server died"
    sign = "<" if kind.direction == ">=" else ">"
    observed = formatting.format_observed(kind.figure_unit, breach.observed, breach.allowed)
    return f"{kind.figure} {observed} {sign} {format_value(kind.figure_unit, breach.allowed)}"


def breach_at(view: CurveView, breach: Breach) -> str:
    """Return a broken limit in short with its batch: "success 78.1 % < 95 % at batch 256"."""
    if breach.limit == "server":
        return breach_text(view, breach)
    return f"{breach_words(breach)} at batch {formatting.count(breach.batch)}"


def breach_text(view: CurveView, breach: Breach) -> str:
    """Return a broken limit with its place and evidence: "success 78 % < 95 % at batch 256 (56 of 256 failed: …)"."""
    position = (breach.batch, breach.repetition)
    summary = next(summary for summary in view.summaries if (summary.batch, summary.repetition) == position)
    repetitions = view.verdict.repetitions
    if view.verdict.search is not None:
        repetitions = sum(summary.batch == breach.batch for summary in view.summaries)
    where = _where(breach.batch, breach.repetition, repetitions)
    if breach.limit == "server":
        status = summary.server_exit
        if status is not None and status.kind == "stage":
            return f"{status} at {where}"
        return f"the server died at {where}: {status}"
    kind = LIMITS[breach.limit]
    return _OF_BREACH[kind.family](view, breach, summary, where)


def _success_breach(view: CurveView, breach: Breach, summary: CellSummary, where: str) -> str:
    return f"{breach_words(breach)} at {where} ({_failures(summary)})"


def _latency_breach(view: CurveView, breach: Breach, summary: CellSummary, where: str) -> str:
    limit = view.verdict.slo.limit(breach.limit)
    stats = summary.phase(breach.phase or "")
    text = _latency(limit, breach.observed or 0.0, breach.allowed or 0.0, stats.count if stats else 0)
    return f"{text} at {where}"


def _hosts_breach(view: CurveView, breach: Breach, summary: CellSummary, where: str) -> str:
    by_proxy = not summary.hosts_known and summary.proxy is not None
    counts = summary.proxy.requests if by_proxy and summary.proxy else summary.host_counts
    serving = ", ".join(host for host, count in counts.items() if count)
    return f"hosts {breach.observed:.0f} < {breach.allowed:.0f} at {where} (seen: {serving}){_idle_hosts(summary)}"


def _open_breach(view: CurveView, breach: Breach, summary: CellSummary, where: str) -> str:
    judged = [window for window in summary.windows if window.judged and window.open_least is not None]
    fewest = min(judged, key=lambda window: window.open_least or 0, default=None)
    when = "" if fewest is None else f", from {format_number(fewest.start_s)} s to {format_number(fewest.end_s)} s"
    return f"open {breach.observed:,.0f} < {breach.allowed:,.0f} at {where}{when}"


_OF_BREACH: Mapping[str, Callable[[CurveView, Breach, CellSummary, str], str]] = {
    "share": _success_breach,
    "latency": _latency_breach,
    "hosts": _hosts_breach,
    "open": _open_breach,
    "memory": lambda view, breach, summary, where: f"{breach_words(breach)} at {where}",
}
"""A broken limit of a cell in words, by its family."""


def _latency(limit: Limit | None, observed: float, allowed: float, samples: int) -> str:
    """Return "total_p99 3.1 s (of 12) > 2.5 s", with the factor it comes from where it is one."""
    kind = limit.kind if limit else LIMITS["total_p99"]
    few = formatting.small_sample_note(samples, kind.statistic or "")
    bound = format_value("seconds", allowed)
    if limit is not None and limit.kind.unit == "factor":
        bound = f"{bound} ({limit.text})"
    return f"{kind.figure} {formatting.format_observed('seconds', observed, allowed)}{few} > {bound}"


def _failures(summary: CellSummary) -> str:
    """Return the failures of a repetition in words: "56 × CAPACITY_REACHED during reset", of several kinds in all."""
    judged = summary.successful + summary.failed
    kinds = [error for error in summary.errors if error.type != "client_limit"]
    if len(kinds) == 1 and kinds[0].count == summary.failed and judged == summary.batch:
        return error_words(kinds[0])
    listed = ", ".join(error_words(error) for error in kinds[:4])
    more = f" and {len(kinds) - 4} more kinds" if len(kinds) > 4 else ""
    return f"{summary.failed:,} of {judged:,} failed" + (f": {listed}{more}" if listed else "")


_LOG_LINE = 160
"""Characters of a log line quoted in a sentence."""


def _idle_hosts(summary: CellSummary) -> str:
    """Return, for the message that hosts are too few, what the proxy knows of each that got nothing."""
    proxy = summary.proxy
    if proxy is None:
        return ""
    troubles = {trouble.host: trouble for trouble in proxy.troubles}
    name = proxy.name.partition(" ")[0]
    return "".join(f"; {host} got nothing: {_trouble(troubles.get(host), name)}" for host in proxy.idle)


def _trouble(trouble: UnhealthyHost | None, proxy: str) -> str:
    if trouble is None:
        return f"it is healthy to {proxy}"
    text = f"{proxy} says {trouble.trouble}" if trouble.trouble else f"it is healthy to {proxy}"
    if trouble.connect_failures:
        text += f", {formatting.count_of(trouble.connect_failures, 'connection')} to it failed"
    lines = [line.strip() for line in trouble.log.splitlines() if line.strip()]
    return f"{text}, its log ends {lines[-1][:_LOG_LINE]!r}" if lines else text


def _where(batch: int, repetition: int | None, repetitions: int) -> str:
    """Return the place: "batch 256" or "batch 256, repetition 2 of 3"."""
    if repetition is None or repetitions == 1:
        return f"batch {batch}"
    return f"batch {batch}, repetition {repetition} of {repetitions}"


def reason_words(reason: Reason) -> str:
    """Return why a cell is in doubt, or what else is to be said of it, in one line."""
    return _OF_REASON[reason.kind](reason, _where(reason.batch, reason.repetition, reason.repetitions))


_CLIENT_REMEDIES = {
    "EADDRINUSE": "widen net.ipv4.ip_local_port_range, or spread the sessions over several URLs",
    "EADDRNOTAVAIL": "widen net.ipv4.ip_local_port_range, or spread the sessions over several URLs",
    "EMFILE": "use more load processes with --openenv-processes, or raise ulimit -Hn",
    "ENFILE": "raise fs.file-max",
}


def _client(reason: Reason, where: str) -> str:
    if reason.cause != "client_limit":
        return f"{reason.words} ({where})"
    sessions = formatting.count_of(int(reason.figures["sessions"] or 0), "session")
    code = reason.figures.get("code")
    why = f" ({f'{code}: ' if code else ''}{reason.words})" if reason.words else ""
    remedy = _CLIENT_REMEDIES.get(str(code)) if reason.words else None
    text = f"{sessions} of {reason.figures['asked']:,} could not be started by the client{why}"
    return f"{text}{f': {remedy}' if remedy else ''} ({where})"


def _hold(reason: Reason, where: str) -> str:
    if reason.cause != "not_all_open":
        return f"{reason.words} ({where})"
    opened, requested, failed = (int(reason.figures[name] or 0) for name in ("open", "asked", "failed"))
    return f"only {opened:,} of {requested:,} sessions ({failed:,} failed) were open at once ({where})"


def _unmeasurable(reason: Reason, where: str) -> str:
    limit = reason.limit
    lack = {
        "no_wait": "the curve has no wait",
        "no_phase": f"no {limit.kind.phase if limit else ''} time was measured",
        "none_ended": "no session that began after the ramp had ended when time was up; make the steady state longer",
        "not_steady": "no steady state was measured",
        "unseen": "the server's processes cannot be seen from here",
    }[reason.cause]
    return f"{limit} cannot be judged at {where}: {lack}"


def _queue(reason: Reason, where: str) -> str:
    observed, allowed, unqueued = (float(reason.figures[name] or 0) for name in ("observed", "allowed", "unqueued"))
    text = _latency(reason.limit, observed, allowed, int(reason.figures["samples"] or 0))
    own = f"without the client's own queue it is {formatting.seconds(unqueued)}"
    return f"{text} at {where}, but {own}: the client was too slow"


def _late(reason: Reason, where: str) -> str:
    observed, allowed = (float(reason.figures[name] or 0) for name in ("observed", "allowed"))
    text = _latency(reason.limit, observed, allowed, int(reason.figures["samples"] or 0))
    late = reason.figures.get("late")
    most = "" if late is None else f" by up to {formatting.seconds(float(late))}"
    return f"{text} at {where}, but HTTP answers were seen late{most}: the client may be what broke it"


def _host_reason(reason: Reason, where: str) -> str:
    if reason.cause == "unknown":
        return f"{reason.limit} cannot be judged at {where}: the environment does not tell its host"
    failed = int(reason.figures["failed"] or 0)
    if reason.incident is None:
        return f"all {formatting.count_of(failed, 'failed session')} were on {reason.words} (at {where})"
    text = incident_words(reason.incident, str(reason.figures["proxy"]))
    there = int(reason.figures["failed_there"] or 0)
    if reason.incident.kind != "back" and failed:
        alone = f": its {formatting.count_of(there, 'session')} failed, and no other"
        text += alone if there == failed else f": {there:,} of the {failed:,} failed sessions were there"
    return f"{text} (at {where})"


def _clock(reason: Reason, where: str) -> str:
    moved_s, unstamped = float(reason.figures["moved"] or 0), int(reason.figures.get("unstamped") or 0)
    timed = f"{formatting.count_of(unstamped, 'answer')} timed by {'its' if unstamped == 1 else 'their'} reading"
    if not moved_s:
        return f"{timed}, as the wall clock's stamps cannot be right ({where})"
    moved = f"the wall clock, which stamps replies, was set by {formatting.seconds(moved_s)}"
    also = f" ({timed})" if unstamped else ""
    if reason.limit is None:
        return f"{moved} during {where}{also}: its latencies say nothing"
    return f"{reason.limit} cannot be judged at {where}: {moved} meanwhile{also}"


def _pongs(reason: Reason, where: str) -> str:
    missed, after_s = int(reason.figures["missed"] or 0), reason.figures["after"]
    late = "when the next was due" if after_s is None else f"{format_value('seconds', float(after_s))} later"
    text = f"{formatting.count_of(missed, 'ping')} {'was' if missed == 1 else 'were'} unanswered {late} at {where}"
    if reason.cause != "ended":
        return text
    return f"{text}: the stock client would have ended {'that session' if missed == 1 else 'those sessions'}"


def _answers(reason: Reason, where: str) -> str:
    sessions, requested, alone, errors_alone = (
        int(reason.figures[name] or 0) for name in ("sessions", "asked", "alone", "errors_alone")
    )
    text = f"{sessions:,} of {formatting.count_of(requested, 'session')} {'was' if sessions == 1 else 'were'} "
    text += f"answered with an error at {where} ({reason.words})"
    if errors_alone:
        same = f"{errors_alone} of {formatting.count_of(alone, 'session')} alone"
        return f"{text}, as were {same}: part of the game, not counted as failures"
    compared = f"none of {formatting.count_of(alone, 'session')} alone"
    if reason.cause == "under_load":
        return f"{text}, and {compared}: errors of load, counted as failures"
    return f"{text}, and {compared}, too few to tell: not counted as failures"


def set_aside_words(reason: Reason) -> str:
    """Return what was amiss with an attempt: "set aside: a load process stood still 412 ms, 31 % steal"."""
    figures = reason.figures
    lag_s, seen_s = (float(figures.get(name) or 0.0) for name in ("loop_lag_max_s", "answer_lag_p99_s"))
    words = {
        "loop_lag": f"a load process stood still {formatting.seconds(lag_s)}",
        "cpu": f"a load process worked or waited for a core {_whole_percent(figures.get('busy_share'))} of the time",
        "http_lag": f"answers were seen {formatting.seconds(seen_s)} late (p99)",
        "process_died": "a load process was lost",
    }[reason.cause]
    steal = float(figures.get("steal_share") or 0.0)
    return f"set aside: {words}" + (f", {_whole_percent(steal)} steal" if steal >= _LEAST_STEAL else "")


def _whole_percent(share: float | str | None) -> str:
    return f"{float(share or 0.0) * 100:.0f} %"


_LEAST_STEAL = 0.01
"""The least share of steal that is worth a word."""


def _drift(reason: Reason, where: str) -> str:
    write, story = _DRIFTING[reason.cause]
    start, slope, low, high, per_hour, length_s = (
        float(reason.figures[name] or 0.0) for name in ("start", "slope", "low", "high", "per_hour", "length")
    )
    grown, least, most = (write(figure * length_s) for figure in (slope, low, high))
    pace = f", {write(per_hour)} an hour at this pace" if reason.cause in _USED_UP else ""
    return (
        f"{story} at {where}: {write(start)} at first, {grown} more in {format_value('seconds', length_s)}"
        f" (99 % interval {least} to {most}){pace}"
    )


_DRIFTING: Mapping[str, tuple[Callable[[float], str], str]] = {
    "latency": (formatting.seconds, "steps take longer and longer (p50)"),
    "memory": (formatting.size, "the server's memory grows"),
    "threads": (formatting.number, "the server's threads grow in number"),
    "descriptors": (formatting.number, "the server's open descriptors grow in number"),
    "failures": (formatting.percent, "more and more sessions fail"),
}
"""How a figure that drifts is written, and what is said of it."""

_USED_UP = frozenset({"memory", "threads", "descriptors"})
"""What a server runs out of, so that its pace tells when."""


def _stopped_early(reason: Reason, where: str) -> str:
    begun, batch, failed = (int(reason.figures.get(name) or 0) for name in ("begun", "batch", "failed"))
    if reason.cause == "slots":
        return f"only {begun:,} of {formatting.count_of(batch, 'slot')} began before time was up ({where})"
    sessions = f"{begun:,} of {formatting.count_of(batch, 'session')} {'was' if begun == 1 else 'were'} begun"
    return f"stopped early: {sessions}, as {failed:,} had failed ({where})"


def _died(reason: Reason, where: str) -> str:
    status = reason.exit
    stopped = status is not None and status.kind == "stage"
    return f"{status} at {where}" if stopped else f"the server died at {where}: {status}"


_OF_REASON: Mapping[str, Callable[[Reason, str], str]] = {
    "answers": _answers,
    "client": _client,
    "clock": _clock,
    "cut_off": lambda reason, where: f"{reason.words} ({where})",
    "drift": _drift,
    "hold": _hold,
    "hosts": _host_reason,
    "late": _late,
    "incomplete": lambda reason, where: (
        f"{where} was measured in {reason.figures['measured']} of {reason.repetitions} repetitions"
    ),
    "no_data": lambda reason, where: f"no session was measured at {where}, and without a sample nothing passes",
    "pongs": _pongs,
    "note": lambda reason, where: f"{reason.words}, at {where}",
    "queue": _queue,
    "server_died": _died,
    "stopped_early": _stopped_early,
    "set_aside": lambda reason, where: f"{set_aside_words(reason)} (attempt {reason.figures['attempt']} at {where})",
    "unmeasurable": _unmeasurable,
}
"""A reason in words, by its kind."""
