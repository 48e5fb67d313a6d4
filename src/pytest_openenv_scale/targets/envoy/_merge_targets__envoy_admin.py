"""What an Envoy tells of itself: its admin interface, read and summed over several Envoys."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CLUSTER = "replicas"
_OVERFLOWS = ("upstream_cx_overflow", "upstream_rq_pending_overflow", "upstream_rq_retry_overflow")
_LOOK_S = 2.0
_WELL = {"eds_health_status": "HEALTHY"}


class AdminError(Exception):
    """The admin interface does not answer, or not as Envoy does."""


@dataclass(frozen=True)
class HostState:
    """One replica in an Envoy's eyes since its start; `trouble` joins its health flags, "" if healthy."""

    host: str
    requests: int
    connect_failures: int
    trouble: str


class Admin:
    """The admin interface at `address`, such as "127.0.0.1:9901"."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ready(self) -> bool:
        """Say whether this Envoy takes connections."""
        try:
            return self._get("/ready").strip() == "LIVE"
        except AdminError:
            return False

    def hosts(self) -> tuple[HostState, ...]:
        """Return what this Envoy knows of each replica.

        Raises:
            AdminError: it does not answer.
        """
        return parse_clusters(self._get("/clusters?format=json"))

    def overflows(self) -> dict[str, int]:
        """Return how often a circuit breaker refused, by Envoy's names.

        Raises:
            AdminError: it does not answer.
        """
        return parse_overflows(self._get(f"/stats?format=json&filter=^cluster.{CLUSTER}.upstream_.*_overflow$"))

    def _get(self, path: str) -> str:
        connection = http.client.HTTPConnection(self.address, timeout=_LOOK_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise AdminError(f"Envoy's admin interface at {self.address} does not answer: {error}") from None
        finally:
            connection.close()


def parse_clusters(text: str) -> tuple[HostState, ...]:
    """Read `/clusters?format=json`: the replicas of our cluster. A number that is zero has no `value` there.

    Raises:
        AdminError: it is not what Envoy writes.
    """
    try:
        clusters: list[dict[str, Any]] = json.loads(text)["cluster_statuses"]
        hosts = next(cluster for cluster in clusters if cluster["name"] == CLUSTER).get("host_statuses", [])
        return tuple(_host(host) for host in hosts)
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise AdminError(f"Envoy's /clusters cannot be read: {type(error).__name__}: {error}") from None


def _host(status: Mapping[str, Any]) -> HostState:
    where = status["address"]["socket_address"]
    stats = {stat["name"]: int(stat.get("value", 0)) for stat in status.get("stats", [])}
    address = where["address"]
    name = f"[{address}]" if ":" in address else address
    flags = [_flag(key, value) for key, value in status.get("health_status", _WELL).items() if _ill(key, value)]
    return HostState(
        f"{name}:{where['port_value']}",
        stats.get("rq_total", 0),
        stats.get("cx_connect_fail", 0),
        ", ".join(flags),
    )


def _ill(key: str, value: object) -> bool:
    return value is True or (isinstance(value, str) and _WELL.get(key) != value)


def _flag(key: str, value: object) -> str:
    return key if value is True else f"{key} {value}"


def parse_overflows(text: str) -> dict[str, int]:
    """Read the overflow counters of `/stats?format=json`.

    Raises:
        AdminError: it is not what Envoy writes.
    """
    try:
        stats: list[dict[str, Any]] = json.loads(text)["stats"]
        counts = {stat["name"].rpartition(".")[2]: int(stat.get("value", 0)) for stat in stats if "name" in stat}
    except (ValueError, KeyError, TypeError) as error:
        raise AdminError(f"Envoy's /stats cannot be read: {type(error).__name__}: {error}") from None
    return {name: count for name, count in counts.items() if name in _OVERFLOWS}


def summed(looks: Iterable[Iterable[HostState]]) -> tuple[HostState, ...]:
    """Add up what several Envoys know of the same replicas; trouble for one of them is trouble."""
    found: dict[str, HostState] = {}
    for look in looks:
        for host in look:
            known = found.get(host.host, HostState(host.host, 0, 0, ""))
            found[host.host] = HostState(
                host.host,
                known.requests + host.requests,
                known.connect_failures + host.connect_failures,
                known.trouble or host.trouble,
            )
    return tuple(found.values())
