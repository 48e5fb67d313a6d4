"""How sessions spread over hosts, counted twice: by the client, from what sessions say, and by the proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.summary import CellSummary
from pytest_openenv_scale.core.view import CurveView

_EACH = 6
"""Up to so many hosts each one's sessions are shown, beyond it the fewest and the most."""

HEADS = ("batch", "repetition", "host", "seen by the client", "sent by the proxy", "failed there", "health")


def spread_sentences(view: CurveView) -> list[str]:
    """Return a sentence per batch of a curve behind a proxy, of its most uneven repetition."""
    worst: dict[int, CellSummary] = {}
    for summary in view.summaries:
        if summary.proxy is None or len(summary.proxy.requests) < 2:
            continue
        known = worst.get(summary.batch)
        if known is None or _unevenness(summary) > _unevenness(known):
            worst[summary.batch] = summary
    return [_sentence(summary) for summary in worst.values()]


def _unevenness(summary: CellSummary) -> int:
    counts = summary.proxy.requests.values() if summary.proxy else ()
    return max(counts, default=0) - min(counts, default=0)


def _sentence(summary: CellSummary) -> str:
    proxy = summary.proxy
    assert proxy is not None
    seen = seen_by_client(summary)
    if seen == proxy.requests:
        return (
            f"spread at batch {summary.batch:,}: {_counts(proxy.requests)} by the client's count and by {proxy.name}'s"
        )
    if seen is None:
        told = "not told to the client"
    elif set(seen) <= set(proxy.requests):
        told = f"{_counts({host: seen.get(host, 0) for host in proxy.requests})} seen by the client"
    else:
        told = f"{_counts(seen)} seen by the client under names of their own"
    # Over HTTP a session is several requests, each of which goes where the proxy likes.
    sent = f"{_counts(proxy.requests)}{' requests' if summary.cell.mode == 'http' else ''} sent by {proxy.name}"
    return f"spread at batch {summary.batch:,}: {told}, {sent}"


def proxy_use_sentence(view: CurveView) -> str | None:
    """Return what the proxy itself used at the largest batch of a curve; None where that is not known."""
    measured = [summary for summary in view.summaries if summary.proxy is not None]
    if not measured:
        return None
    last = max(measured, key=lambda summary: summary.batch)
    proxy = last.proxy
    if proxy is None or proxy.cpu_seconds is None or proxy.rss_bytes is None:
        return None
    used = f"{text_of.seconds(proxy.cpu_seconds)} of CPU, {text_of.size(proxy.rss_bytes)} of memory"
    return f"{proxy.name.partition(' ')[0]} itself used {used} at batch {last.batch:,}"


def seen_by_client(summary: CellSummary) -> Mapping[str, int] | None:
    """Return how many sessions each host answered, failed ones included; None where hosts were never told."""
    hosts = {*summary.host_counts, *summary.failed_hosts}
    counts = {host: summary.host_counts.get(host, 0) + summary.failed_hosts.get(host, 0) for host in sorted(hosts)}
    return counts or None


def _counts(counts: Mapping[str, int]) -> str:
    if len(counts) <= _EACH:
        return " / ".join(text_of.count(count) for count in counts.values())
    return f"{min(counts.values()):,} to {max(counts.values()):,} on each of {len(counts)} hosts"


def spread_rows(view: CurveView) -> Iterator[list[str]]:
    """Yield a row per host of every repetition behind a proxy, in the order of `HEADS`."""
    for summary in view.summaries:
        if summary.proxy is None:
            continue
        seen = seen_by_client(summary) or {}
        troubles = {trouble.host: trouble.trouble for trouble in summary.proxy.troubles}
        for host in {**summary.proxy.requests, **seen}:
            yield [
                text_of.count(summary.batch),
                f"{summary.repetition}",
                host,
                text_of.count(seen.get(host, 0)) if seen else text_of.MISSING,
                text_of.count(summary.proxy.requests.get(host)),
                text_of.count(summary.failed_hosts.get(host, 0)),
                (troubles.get(host) or "healthy") if host in summary.proxy.requests else text_of.MISSING,
            ]
