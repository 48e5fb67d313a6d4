"""Refusals that an HTTP status tells: by the server, by a platform or by a proxy in front of it."""

from __future__ import annotations

from collections.abc import Iterator

from . import format as text_of
from .evidence import Evidence, total
from .outcome import Refusal
from .summary import ErrorCount

ENVOY_DEFAULT = 1024
"""Envoy's circuit breakers open at exactly this many connections and requests unless they are raised."""

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
        "it limits the rate of requests",
        "ask the platform for a higher limit, or start fewer sessions at once",
    ),
    502: ("a proxy could not reach the server behind it", "check that the server runs where the proxy looks"),
    503: ("it has no room, or a proxy in front of it has none", "see the log of the server and of the proxy"),
    504: (
        "a proxy gave up waiting for the server behind it",
        "raise the proxy's connection limits and timeouts, or give the server more workers",
    ),
}


def by_proxy(evidence: Evidence) -> Refusal | None:
    """Envoy's circuit breakers: 503 or 504 from Envoy, or at exactly its default number of connections."""
    at_default = evidence.summary.held == ENVOY_DEFAULT
    is_envoy = evidence.summary.cell.target.startswith("envoy") or evidence.said(r"\benvoy\b|upstream")
    counted = evidence.summary.proxy is not None  # Then its breakers are known to have refused nothing.
    if counted or (not at_default and not is_envoy):
        return None
    claimed = evidence.claim(lambda error: error.code in ("503", "504"))
    if not claimed:
        return None
    held = text_of.count_of(evidence.summary.held, "session")
    default = ", the default of Envoy's circuit breakers" if at_default else ""
    codes = " and ".join(sorted({str(error.code) for error in claimed}))
    return Refusal(
        "proxy",
        total(claimed),
        evidence.batch,
        f"HTTP {codes} from a proxy with {held} open{default}",
        f"raise max_connections and max_requests together, to {evidence.needed} or more"
        " (and max_pending_requests for bursts)",
    )


def by_status(evidence: Evidence) -> Iterator[Refusal]:
    """Every other status, each with what it usually means."""
    told = evidence.claim(lambda error: error.type == "handshake_status")
    for status in sorted({error.code or "" for error in told}):
        yield _explain(status, [error for error in told if (error.code or "") == status], evidence)


def _explain(code: str, errors: list[ErrorCount], evidence: Evidence) -> Refusal:
    status = int(code) if code.isdecimal() else 0
    message = (errors[0].message or f"HTTP {code}").strip()[:200]
    if 300 <= status < 400:
        remedy = "write the URL it redirects to as the target"
        return Refusal("redirect", total(errors), evidence.batch, message, remedy)
    meaning, remedy = _STATUSES.get(status, ("no session can begin", "see the server's log"))
    cause = f"http_{code}" if code else "http"
    return Refusal(cause, total(errors), evidence.batch, f"{message}: {meaning}", remedy)
