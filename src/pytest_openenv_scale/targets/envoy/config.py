"""How Envoy is set up: how many Envoys, how large their limits, and the configuration they read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_openenv_scale.targets.common.files import deploy_file

Policy = Literal["round_robin", "least_request"]
TEMPLATE = "envoy/envoy.yaml.j2"

CHECK_INTERVAL_S = 0.5
CHECK_TIMEOUT_S = 2.0
UNHEALTHY_AFTER = 2
"""Failed health checks in a row after which Envoy sends no more sessions to a replica."""

UNHEALTHY_DETECTION_S = UNHEALTHY_AFTER * (CHECK_INTERVAL_S + CHECK_TIMEOUT_S) + 1.0
"""Seconds within which even a replica that only hangs is taken out, one for Envoy itself included."""

_OWN_DESCRIPTORS = 256
"""What an Envoy needs besides sessions: 25 when idle, and room for health checks and closing connections."""

_USABLE_SHARE = 0.9
"""The share of an Envoy's room to plan with where several share a port: the kernel spreads by hash, not evenly."""

_MIN_BREAKER = 1024
_MIN_BACKLOG = 2048


@dataclass(frozen=True)
class Backend:
    """Where one replica answers: an IP address and a port; its name is that of Envoy's statistics."""

    address: str
    port: int

    @property
    def name(self) -> str:
        """The replica as reports name it: "127.0.0.2:8000"."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class EnvoySettings:
    """What the template is filled with.

    `breaker` is the size of all circuit breakers. The admin interface takes a free port where
    `admin_port` is 0. Other machines can read its statistics, and nothing else of it, at `stats_port`; 0 for none.
    """

    port: int
    backends: tuple[Backend, ...]
    policy: Policy = "round_robin"
    breaker: int = _MIN_BREAKER
    backlog: int = _MIN_BACKLOG
    address: str = "127.0.0.1"
    admin_port: int = 0
    stats_port: int = 0


def envoys_needed(largest_batch: int, nofile: int) -> int:
    """Return how many Envoys hold `largest_batch` WebSockets if each may open `nofile` descriptors.

    A WebSocket takes two: that of the client and that of the replica.
    """
    capacity = max((nofile - _OWN_DESCRIPTORS) // 2, 1)
    return 1 if largest_batch <= capacity else math.ceil(largest_batch / (capacity * _USABLE_SHARE))


def threads_for(cores: int, envoys: int) -> int:
    """Return the worker threads of each Envoy: half of the cores together, at least one each.

    The servers and the clients on the same machine need the other half. Each thread goes round robin by itself,
    so the fewer the threads, the more even the spread.
    """
    return max(1, cores // 2 // envoys)


def breaker_for(largest_batch: int) -> int:
    """Return the size of circuit breakers that a batch never reaches: sessions that close may overlap the next."""
    return max(2 * largest_batch + 64, _MIN_BREAKER)


def backlog_for(largest_batch: int) -> int:
    """Return how many connections may wait to be accepted."""
    return max(largest_batch, _MIN_BACKLOG)


def render(settings: EnvoySettings) -> str:
    """Return Envoy's configuration as YAML.

    Raises:
        TargetError: the template is not installed.
    """
    import jinja2

    template = jinja2.Template(
        deploy_file(TEMPLATE).read_text(encoding="utf-8"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return template.render(
        address=settings.address,
        port=settings.port,
        admin_port=settings.admin_port,
        stats_port=settings.stats_port,
        backlog=settings.backlog,
        breaker=settings.breaker,
        lb_policy=settings.policy.upper(),
        retries=max(len(settings.backends) - 1, 1),
        check_interval_s=CHECK_INTERVAL_S,
        check_timeout_s=CHECK_TIMEOUT_S,
        unhealthy_after=UNHEALTHY_AFTER,
        backends=_backend_entries(settings.backends),
    )


def _backend_entries(backends: Sequence[Backend]) -> list[dict[str, str | int]]:
    return [{"address": backend.address, "port": backend.port} for backend in backends]
