"""What an `envoy` target asks for, and how the Envoys are set up: how many, how large their limits, what they read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Self
from urllib.parse import urlsplit

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.system import url_host
from pytest_openenv_scale.core.target_spec import TargetSpec, redact_url
from pytest_openenv_scale.targets.common.files import deploy_file
from pytest_openenv_scale.targets.common.options import (
    StartOptions,
    TargetOptions,
    count,
    memory_size,
    one_of,
    option,
    option_names,
    processors,
    read_options,
    tcp_port,
    variables,
    with_argument_as_option,
)
from pytest_openenv_scale.targets.docker.image import PULL_POLICIES
from pytest_openenv_scale.targets.local.target import ServerOptions, check_options

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
        return f"{url_host(self.address)}:{self.port}"


@dataclass(frozen=True)
class EnvoySettings:
    """What the template is filled with.

    `breaker` is the size of all circuit breakers. The admin interface takes a free port where
    `admin_port` is 0. Other machines can read its statistics, and nothing else of it, at `stats_port`; 0 for none.
    """

    port: int = 0
    backends: tuple[Backend, ...] = ()
    policy: Policy = "round_robin"
    breaker: int = _MIN_BREAKER
    backlog: int = _MIN_BACKLOG
    address: str = "127.0.0.1"
    admin_port: int = 0
    stats_port: int = 0

    @classmethod
    def for_batch(cls, largest_batch: int, policy: Policy, *, port: int = 0, breaker: int | None = None) -> Self:
        """Return settings whose limits a batch never reaches."""
        return cls(
            port=port,
            policy=policy,
            breaker=breaker or breaker_for(largest_batch),
            backlog=backlog_for(largest_batch),
        )


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
        **asdict(settings),
        lb_policy=settings.policy.upper(),
        retries=max(len(settings.backends) - 1, 1),
        check_interval_s=CHECK_INTERVAL_S,
        check_timeout_s=CHECK_TIMEOUT_S,
        unhealthy_after=UNHEALTHY_AFTER,
    )


_MAX_REPLICAS = 250


def _replicas(value: str, what: str) -> int:
    number = count(value, what)
    if number > _MAX_REPLICAS:
        raise GrammarError(f"{what} must be at most {_MAX_REPLICAS}, got {number}")
    return number


def _urls(value: str, what: str) -> tuple[str, ...]:
    urls = tuple(url.strip().rstrip("/") for url in value.split("|"))
    for url in urls:
        problem = _url_problem(url)
        if problem:
            raise GrammarError(f"{what}: {redact_url(url)!r} {problem}; write http://HOST:PORT|http://HOST:PORT")
    if len(set(urls)) < len(urls):
        raise GrammarError(f"{what}: a server is named twice; write each once")
    return urls


@dataclass(frozen=True)
class EnvoyOptions(TargetOptions, StartOptions):
    """The keys whatever stands behind Envoy; `lb` is how sessions are spread."""

    lb: Policy = option(one_of("round_robin", "least_request"), "round_robin")
    port: int | None = option(tcp_port)
    threads: int | None = option(count)
    max_connections: int | None = option(count)
    nofile: int | None = option(count)


@dataclass(frozen=True)
class LocalReplicaOptions(EnvoyOptions, ServerOptions):
    """Servers that are started here, each one process unless asked otherwise: so they compare, and are deployed."""

    replicas: int = option(_replicas, 0)
    workers: int | None = option(count, 1)


@dataclass(frozen=True)
class ImageOptions(EnvoyOptions):
    """Containers of an image, as `ContainerOptions` has them; `workers` None: the image decides."""

    replicas: int = option(_replicas, 0)
    image: str = option(default="")
    pull: str = option(one_of(*PULL_POLICIES), PULL_POLICIES[0])
    cpus: float | None = option(processors)
    memory: int | None = option(memory_size)
    env: Mapping[str, str] = variables()


@dataclass(frozen=True)
class UrlReplicaOptions(EnvoyOptions):
    """Servers that run already."""

    urls: tuple[str, ...] = option(_urls, ())

    @property
    def replicas(self) -> int:
        """How many they are."""
        return len(self.urls)


def parse_envoy(spec: TargetSpec) -> LocalReplicaOptions | ImageOptions | UrlReplicaOptions:
    """Read a specification.

    Raises:
        GrammarError: a key is unknown, does not go with another, or its value cannot be used.
    """
    normalized = with_argument_as_option(spec)
    kind = (
        UrlReplicaOptions
        if normalized.option("urls") is not None
        else ImageOptions
        if normalized.option("image") is not None
        else LocalReplicaOptions
    )
    others = {key for other in (LocalReplicaOptions, ImageOptions, UrlReplicaOptions) for key in option_names(other)}
    for key, _ in normalized.options:
        if key not in others - set(option_names(kind)):
            continue
        if kind is LocalReplicaOptions:
            raise GrammarError(f"target envoy: {key}= is for containers; add image=IMAGE or image=PATH")
        raise GrammarError(f"target envoy: {key}= does not go with {'urls' if kind is UrlReplicaOptions else 'image'}=")
    options = read_options(normalized, kind)
    if not options.replicas:
        raise GrammarError("target envoy: how many servers? write envoy:replicas=2, or envoy:urls=URL|URL")
    if isinstance(options, LocalReplicaOptions):
        check_options("envoy", options)
    return options


def _url_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme not in ("http", "ws") or not parts.hostname:
        return "does not begin with http://, which is what Envoy speaks to the servers behind it"
    if "@" in parts.netloc:
        return "has a user or password in it; give it with --openenv-header"
    if parts.path or parts.query or parts.fragment:
        return "has more than a host and a port"
    return None
