"""What refused sessions, and what to do about it, in words: one function per cause."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.results.outcome import ErrorCount, HostIncident, Refusal
from pytest_openenv_scale.verdict.refusals import ENVOY_DEFAULT, Capacity

from .remedies import breakers_words, environment_remedy, steps_words

_MOST_WORDS = 200
"""Most characters of what a server says."""

_LOG = "see the server's log"
_LAST_LINES = "see the last lines of its log"
_MEMORY = "give it more memory (memory= of a docker target), fewer workers, or fewer sessions"
_KILLED = "it was killed from outside or for lack of memory: see dmesg, give it more memory or fewer sessions"

_Words = tuple[str, str]
"""What refused, and the remedy."""


def refusal_sentence(refusal: Refusal) -> str:
    """Return what kept sessions from going on, and what to do about it, in one line."""
    text, remedy = refusal_words(refusal)
    return f"{_opening(refusal)}: {text}{f' → {remedy}' if remedy else ''}"


_VERBS = {
    "cut": "{sessions} {were} lost",
    "descriptors": "{sessions} failed",
    "environment": "{sessions} failed in {phase}",
    "host_lost": "{sessions} {were} lost",
    "http_404": "{sessions} could not begin",
    "http_502": "{sessions} could not begin",
    "http_504": "{sessions} could not begin",
    "http_unreachable": "{sessions} could not begin",
    "not_listening": "{sessions} could not connect",
    "platform_connections": "the platform refused {sessions}",
    "platform_rate": "the platform refused {sessions}",
    "platform_stage": "{sessions} {were} lost",
    "proxy": "the proxy refused {sessions}",
    "redirect": "{sessions} could not begin",
    "restarted": "{sessions} {were} lost",
    "server_died": "{sessions} {were} lost",
    "unnamed": "{sessions} failed",
    "worker_killed": "{sessions} {were} lost",
}
"""What became of sessions, by the cause: refused is only what was turned away."""


def _opening(refusal: Refusal) -> str:
    where = f"at batch {refusal.batch}"
    if not refusal.count:
        return where
    closed = refusal.cause.startswith("closed") and refusal.figures.get("code") != _TRY_LATER
    verb = _VERBS.get(refusal.cause, "{sessions} {were} lost" if closed else "the server refused {sessions}")
    sessions, were = formatting.count_of(refusal.count, "session"), "was" if refusal.count == 1 else "were"
    return f"{verb.format(sessions=sessions, were=were, phase=refusal.figures.get('phase'))} {where}"


def refusal_words(refusal: Refusal) -> _Words:
    """Return what refused sessions, and the remedy, each as a sentence without its end."""
    text, remedy = _describe(refusal)
    shared = refusal.figures.get("shared")
    first = f"all sessions get the one environment made at {shared}: " if shared else ""
    return first + " ".join(text.split()), remedy


def _describe(refusal: Refusal) -> _Words:
    describe = _BY_CAUSE.get(refusal.cause) or _BY_FAMILY.get(refusal.cause.partition("_")[0])
    if describe is None:
        raise KeyError(f"nothing says in words what refuses for the cause {refusal.cause!r}")
    return describe(refusal)


def short_refusal(refusal: Refusal) -> str:
    """Return in a few words what refused: "CAPACITY_REACHED: max_concurrent_envs=1"."""
    match refusal.cause:
        case "one_session":
            return "CAPACITY_REACHED: max_concurrent_envs=1"
        case "limit_concurrency":
            return f"uvicorn's {_concurrency_option(refusal)}"
        case "unnamed":
            return error_words(refusal.errors[0]) if refusal.errors else "nothing named a limit"
        case _:
            text, _ = _describe(refusal)
            return _CLAUSE_END.split(" ".join(text.split()), maxsplit=1)[0]


_CLAUSE_END = re.compile(r"[;:,] | \(")


def error_words(error: ErrorCount) -> str:
    """Return one kind of failure with its count: "12 × handshake status 503 during connect"."""
    return f"{error.count:,} × {error_kind(error.type, error.code, error.phase)}"


def error_kind(error_type: str | None, code: str | None, phase: str | None) -> str:
    """Return one kind of failure: "CAPACITY_REACHED during reset", "client limit EMFILE during connect"."""
    name = (error_type or "failure").replace("_", " ")
    if code:
        name = code if error_type == "capacity" else f"{name} {code}"
    return f"{name} during {phase}" if phase else name


def incident_words(incident: HostIncident, proxy: str) -> str:
    """Return what befell a host: "127.0.0.1:8001 died 2.1 s after the cell's start (killed by SIGKILL), and …"."""
    when = f"{incident.at_s:.1f} s after the cell's start"
    who = proxy.partition(" ")[0]
    if incident.kind == "back":
        return f"{who} sent sessions to {incident.host} again from {when} on"
    if incident.kind == "out":
        return f"{incident.host} stopped answering: {who} took it out {when} ({incident.text})"
    died = f"{incident.host} died {when} ({incident.ending})"
    if incident.out_after_s is None:
        return f"{died}, and {who} had not taken it out at the end"
    return f"{died}, and {who} took it out {incident.out_after_s:.1f} s later"


def _number(refusal: Refusal, name: str) -> int | None:
    value = refusal.figures.get(name)
    return int(value) if isinstance(value, int | float) else None


def _words(refusal: Refusal) -> str:
    """Return the words of the server, as far as a line has room for them."""
    return (refusal.words or "")[:_MOST_WORDS]


def _needed(refusal: Refusal) -> int:
    return _number(refusal, "needed") or refusal.batch


def _capacity(refusal: Refusal) -> _Words:
    held, limit, workers = (_number(refusal, name) for name in ("held", "limit", "workers"))
    got_in = formatting.count_of(_number(refusal, "successful") or 0, "session")
    refused = f"CAPACITY_REACHED; {got_in} got in"
    if held is not None:
        refused = f"CAPACITY_REACHED at {formatting.count_of(held, 'session')}"
    remedy = steps_words(refusal.steps, _scope(refusal))
    if limit is None or workers is None:
        limit_text = "" if limit is None else f"; each worker holds {limit:,}"
        return f"{refused}{limit_text}", remedy
    fits = Capacity(held or 0, limit, workers, at_least=bool(refusal.figures.get("at_least")))
    slots, arithmetic, equals = workers * limit, str(fits), "=" if fits.held == fits.slots else "of"
    if workers == 1 and held is not None and held < limit:
        if limit >= _needed(refusal):
            remedy = "end the other clients; slots that nobody holds come back with a restart only"
        return f"{refused} of {arithmetic}: the others are another client's, or leaked", remedy
    if workers == 1 or slots < _needed(refusal):
        return f"{refused} {equals} {arithmetic}", remedy
    uneven = "connections split unevenly over workers, and one was full"
    return f"{refused}, though {arithmetic} = {slots:,} slots are enough for {refusal.batch:,}: {uneven}", remedy


def _scope(refusal: Refusal) -> str:
    """Say of which worker a setting is, and how its value was found."""
    workers, busiest, of = (_number(refusal, name) for name in ("workers", "busiest", "of"))
    held, limit = _number(refusal, "held"), _number(refusal, "limit")
    if workers == 1 or (workers is None and held is not None and held == limit):
        return ""  # All others met one worker that was full.
    if busiest is not None and of is not None:
        return f", per worker: one of {workers} got up to {busiest:,} of {of:,}, and chance adds to that"
    several = "" if workers is None else f" over {workers}"
    return f", per worker: connections split unevenly{several}, and one may get them all"


def _one_session(refusal: Refusal) -> _Words:
    workers = _number(refusal, "workers") or 1
    least = "at least " if refusal.figures.get("at_least") else ""
    per_worker = f"per worker ({least}{workers} workers)" if workers > 1 else "at a time"
    return (
        f"CAPACITY_REACHED: the environment is configured for one session {per_worker} (max_concurrent_envs=1)",
        steps_words(refusal.steps, _scope(refusal)),
    )


def _limit_concurrency(refusal: Refusal) -> _Words:
    workers = _number(refusal, "workers") or 1
    setting = _concurrency_option(refusal)
    each = f" in each of {workers} workers" if workers > 1 else ""
    return (
        f"{_words(refusal)}: uvicorn's {setting}{each} (it counts every connection, WebSockets too)",
        steps_words(refusal.steps),
    )


def _concurrency_option(refusal: Refusal) -> str:
    limit = refusal.figures.get("limit")
    return "--limit-concurrency" if limit is None else f"--limit-concurrency {limit}"


def _host_lost(refusal: Refusal) -> _Words:
    proxy = str(refusal.figures.get("proxy"))
    text = "; ".join(incident_words(incident, proxy) for incident in refusal.incidents)
    ending = refusal.incidents[0].ending
    if ending is None:
        return text, "see its log; a step that blocks its server for seconds also keeps it from answering health checks"
    if ending.out_of_memory:
        return text, "give each replica more memory (memory= in the target), or spread over more replicas"
    return text, _KILLED if ending.was_killed else _LAST_LINES


def _server_died(refusal: Refusal) -> _Words:
    status = refusal.exit or ExitStatus("other", "ended")
    remedy = _MEMORY if status.out_of_memory else _KILLED if status.was_killed else _LAST_LINES
    return f"the server died: {status}", remedy


_STAGES = {
    "SLEEPING": "give it a longer sleep_time= (cpu-basic has a fixed one), and measure again",
    "PAUSED": "restart it, and measure again",
}


def _platform_stage(refusal: Refusal) -> _Words:
    stage = refusal.exit.stage if refusal.exit else None
    return str(refusal.exit), _STAGES.get(stage or "", "measure again once it runs; nobody may change it meanwhile")


def _descriptors(refusal: Refusal) -> _Words:
    used, limit = _number(refusal, "used"), _number(refusal, "limit")
    usage = f"{used:,} of {limit:,} in use" if used is not None and limit is not None else ""
    quoted = f"its log says {refusal.words!r}" if refusal.words else ""
    facts = ", ".join(fact for fact in (usage, quoted) if fact)
    return (
        "the server ran out of file descriptors" + (f" ({facts})" if facts else ""),
        f"{steps_words(refusal.steps)}, for {_needed(refusal)} sessions of one or two each",
    )


def _worker_killed(refusal: Refusal) -> _Words:
    pid, sessions, workers = (_number(refusal, name) for name in ("pid", "sessions", "workers"))
    text = "a worker of the server ended with its sessions"
    if pid is not None:
        text = f"process {pid} of the server vanished with all its {sessions:,} sessions, others went on"
    text += f", and {workers - 1} more vanished" if workers and workers > 1 else ""
    text += f"; its log says {refusal.words!r}" if refusal.words else ""
    if refusal.figures.get("out_of_memory"):
        return text, _MEMORY
    if refusal.figures.get("supervised"):
        return text, (
            "look for a kill for lack of memory in dmesg; uvicorn, too, kills a worker that is silent for 5 s: "
            f"{steps_words(refusal.steps)}"
        )
    return text, "look for a kill for lack of memory in dmesg, and for a supervisor's deadline in the server's log"


def _restarted(refusal: Refusal) -> _Words:
    pid = _number(refusal, "pid")
    text = f"process {pid} of the server ended" if pid is not None else "the server ended"
    if refusal.figures.get("code") is not None:
        text = "closed by the server as it stops or restarts (1012)"
    if refusal.figures.get("listens_again"):
        text += "; a server listens again"
    return text, "look for what ended it: its log, its supervisor, a deployment, dmesg"


def _cut(refusal: Refusal) -> _Words:
    text = f"{_AMID.get(refusal.figures.get('phase'), 'cut')} by the server or something in front of it"
    pid, sessions = _number(refusal, "pid"), _number(refusal, "sessions")
    if refusal.figures.get("lives"):
        text += f"; process {pid} of the server lives"
    elif pid is not None and refusal.figures.get("others"):
        text += f"; process {pid} lost all its {sessions:,} sessions, others went on"
    if refusal.words:
        text += f" ({_words(refusal)})"
    return text, f"{_LOG}, and the timeouts of a proxy, load balancer or firewall in front of it"


_AMID: Mapping[float | str | bool | None, str] = {
    "reset": "cut in their reset",
    "hold": "cut while they waited for the others",
    "step": "cut in mid-step",
    "close": "cut as they closed",
}

_TRY_LATER = 1013
_CLOSED = {
    1000: ("it said no reason", _LOG),
    1001: ("it goes away, as one does that stops or restarts", _LOG),
    1008: ("its policy forbids them", f"{_LOG}, and check the token"),
    1009: ("a message was too long for it", "raise its limit (ws_max_size of uvicorn), or send less"),
    1011: ("it failed inside", _LOG),
    _TRY_LATER: ("it asks to try again later", "start fewer sessions at once, or ask whoever limits it for more"),
}
"""What the codes of close frames mean (RFC 6455, section 7.4, and IANA's registry), and what to do."""


def _closed(refusal: Refusal) -> _Words:
    code, phase = _number(refusal, "code"), refusal.figures.get("phase")
    meaning, remedy = _CLOSED.get(code or 0, ("", _LOG))
    text = f"closed by the server with {refusal.cause.partition('_')[2]} in {phase}"
    words = _words(refusal).removeprefix("the server closed the session").removeprefix(": ")
    return f"{text}{f': {meaning}' if meaning else ''}{f' ({words})' if words else ''}", remedy


def _proxy(refusal: Refusal) -> _Words:
    held = formatting.count_of(_number(refusal, "held") or 0, "session")
    by_key = refusal.figures.get("is_key_of_target")
    remedy = steps_words(refusal.steps) if by_key else breakers_words(refusal.steps)
    if name := refusal.figures.get("proxy"):
        return f"{str(name).partition(' ')[0]}'s circuit breakers opened with {held} open ({refusal.words})", remedy
    default = ", the default of Envoy's circuit breakers" if _number(refusal, "held") == ENVOY_DEFAULT else ""
    words = _words(refusal) or f"HTTP {refusal.figures.get('codes')}"
    return f"{words}, with {held} open{default}", remedy


def _redirect(refusal: Refusal) -> _Words:
    remedy = (
        "write the URL it redirects to as the target, or where only a trailing slash differs, leave it out of the route"
    )
    return _words(refusal), remedy


_STATUSES = {
    401: ("it asks for credentials", "give them with --openenv-header 'Authorization: Bearer …'"),
    403: (
        "it forbids the request",
        "check the token, and that /ws exists below this URL; behind Envoy the route needs upgrade_configs",
    ),
    404: (
        "nothing answers at this path",
        "check the URL and its prefix; /ws exists from openenv-core 0.2.0 on",
    ),
    429: (
        "it takes no more requests or sessions for now",
        "ask whoever limits it for more, or start fewer sessions at once",
    ),
    502: ("a proxy could not reach the server behind it", "check that the server runs where the proxy looks"),
    503: (
        "it is full, starting or stopping, or a proxy in front of it is",
        "see the log of the server and of the proxy",
    ),
    504: (
        "a proxy gave up waiting for the server behind it",
        "raise the proxy's connection limits and timeouts, or give the server more workers",
    ),
}


def _http_status(refusal: Refusal) -> _Words:
    meaning, remedy = _STATUSES.get(_number(refusal, "status") or 0, ("", _LOG))
    return f"{_words(refusal)}{f': {meaning}' if meaning else ''}", remedy


def _platform_rate(refusal: Refusal) -> _Words:
    held = formatting.count_of(_number(refusal, "held") or 0, "session")
    return (
        f"{_words(refusal)}, from the platform in front of the Space, with {held} open",
        "start sessions more slowly (--openenv-arrival rate=R), or keep to fewer on one Space",
    )


def _platform_connections(refusal: Refusal) -> _Words:
    held, slots = _number(refusal, "held") or 0, _number(refusal, "slots")
    own_limit = f", whose own limit is {slots:,}," if slots is not None and slots > held else ""
    return (
        f"connections to the Space were turned away in the handshake ({refusal.words})"
        f" with {formatting.count_of(held, 'session')} open; the server{own_limit} did not say it was full",
        f"keep to {held:,} sessions on one Space, or spread them over several: their URLs, joined by commas",
    )


def _http_unreachable(refusal: Refusal) -> _Words:
    status = refusal.figures.get("status")
    return (
        f"the HTTP endpoints of this Space cannot be reached (POST /reset was answered {status})",
        "measure it over its WebSocket: --openenv-modes ws",
    )


def _not_listening(refusal: Refusal) -> _Words:
    if refusal.figures.get("code") in ("EHOSTUNREACH", "ENETUNREACH"):
        return f"no way leads to the address ({_words(refusal)})", "correct the URL, or see the network between"
    if not _number(refusal, "successful"):
        return "nothing listens at the address", "start the server, or correct the URL and its port"
    held = _number(refusal, "held")
    text = "connections were refused, though others were served"
    if held is not None:
        text = f"connections were refused while {held:,} sessions were held"
    return text, "see whether the server stopped or restarted in its log"


def _environment(refusal: Refusal) -> _Words:
    code, phase = refusal.figures.get("code"), refusal.figures.get("phase")
    message = f": {_words(refusal)}" if refusal.words else ""
    remedy = environment_remedy(str(code), str(phase))
    if code == "FACTORY_ERROR":
        return f"the environment could not be made for a session{message}", remedy
    if code == "422":
        return f"the environment rejected what the {phase} sent{message}", remedy
    if code == "VALIDATION_ERROR":
        return f"what the {phase} sent, or what {phase}() made of it, does not fit its class{message}", remedy
    return f"the environment failed in {phase}{f' ({code})' if code else ''}{message}", remedy


def _unnamed(refusal: Refusal) -> _Words:
    kinds = ", ".join(error_words(error) for error in refusal.errors)
    first = f"; the first: {_words(refusal)}" if refusal.words else ""
    busy = "; one that is busy answers late: more workers or cores"
    # No answer was waited for as long as the timeout where the patience was shorter: a longer one would change nothing.
    longer = "" if refusal.figures.get("patience_ended") else ", or a longer --openenv-timeout"
    return (
        f"nothing named a limit: {kinds}{first}",
        f"{_LOG}{f'{busy}{longer}' if refusal.figures.get('silent') else ''}",
    )


_BY_FAMILY: Mapping[str, Callable[[Refusal], _Words]] = {"http": _http_status, "closed": _closed}
"""Causes that end in a status of HTTP, or in the code of a close frame."""

_BY_CAUSE: Mapping[str, Callable[[Refusal], _Words]] = {
    "capacity": _capacity,
    "cut": _cut,
    "descriptors": _descriptors,
    "environment": _environment,
    "host_lost": _host_lost,
    "http_unreachable": _http_unreachable,
    "limit_concurrency": _limit_concurrency,
    "not_listening": _not_listening,
    "one_session": _one_session,
    "platform_connections": _platform_connections,
    "platform_rate": _platform_rate,
    "platform_stage": _platform_stage,
    "proxy": _proxy,
    "redirect": _redirect,
    "restarted": _restarted,
    "server_died": _server_died,
    "unnamed": _unnamed,
    "worker_killed": _worker_killed,
}
