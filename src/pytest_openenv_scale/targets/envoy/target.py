"""`envoy:replicas=N`: servers of one application behind a real Envoy, as one endpoint of several hosts."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlsplit

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.core.target_spec import TargetSpec, redact_url
from pytest_openenv_scale.targets.common import options
from pytest_openenv_scale.targets.common.base import StartedTarget
from pytest_openenv_scale.targets.common.options import TargetContext, cpus, memory
from pytest_openenv_scale.targets.common.readiness import NotReadyError, wait_until_ready
from pytest_openenv_scale.targets.docker.image import PULL_POLICIES
from pytest_openenv_scale.targets.local.application import ServerOptions, backlog_notes, check_options
from pytest_openenv_scale.targets.local.serving import SERVERS

from .config import Backend, EnvoySettings, Policy, backlog_for, breaker_for, envoys_needed, threads_for
from .container_replicas import ContainerReplicas, ImageOptions
from .endpoint import EnvoyEndpoint
from .pool import LocalEnvoyPool, find_envoy
from .replicas import AttachedReplicas, LocalReplicas, Replicas

_SESSION_S = 30.0
"""Seconds the first session through Envoy gets; every replica has answered one by then."""

_MAX_ENVOYS = 32
"""Each takes some 40 MB and a thread or more; a batch that needs more of them needs more descriptors instead."""


class EnvoyTarget(StartedTarget):
    """Starts replicas, or attaches to those of `urls=`, and puts Envoy in front of them while the context lasts."""

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        super().__init__(spec, context)
        self.envoy_spec = EnvoySpec(spec)

    def start(self, stack: ExitStack) -> Endpoint:
        """Start everything and return once a session was answered through Envoy."""
        envoy_spec, target_options = self.envoy_spec, self.envoy_spec.options
        executable, count = find_envoy(), self._envoy_count()  # Before anything else is started in vain.
        began = time.monotonic()
        headers = dict(self.context.headers)
        replicas = self.replicas()
        replicas.start(stack)
        late_notes = replicas.wait(headers)
        pool = self._make_pool(executable, count, replicas)
        pool.start(stack)
        pool.wait()
        envoy_endpoint = EnvoyEndpoint(replicas, pool, envoy_spec.policy)
        stack.callback(envoy_endpoint.stop)
        limits = {"replicas": envoy_spec.replicas, **envoy_spec.declared_limits, **replicas.limits}
        endpoint = Endpoint(
            urls=(pool.url,),
            label=target_options.text("label") or f"envoy-{envoy_spec.kind}",
            target=self.spec,
            cores=target_options.count("cores") or replicas.cores,
            hosts=envoy_spec.replicas,
            limits={**limits, "lb": envoy_spec.policy, "envoys": pool.count},
            headers=headers,
            hardware=target_options.text("hardware"),
            notes=(*replicas.notes, *late_notes, *backlog_notes(self.context.largest_batch)),
            sampler=replicas.sample,
            log_reader=envoy_endpoint.log_tail,
            exit_reader=envoy_endpoint.exit_status,
            proxy_reader=envoy_endpoint.snapshot,
        )
        self._check_through_envoy(endpoint, envoy_endpoint)
        return replace(endpoint, startup_s=time.monotonic() - began)

    def replicas(self) -> Replicas:
        """Return what stands behind Envoy, before it is started."""
        envoy_spec = self.envoy_spec
        if envoy_spec.kind == "urls":
            return AttachedReplicas(envoy_spec.urls, self.context)
        if envoy_spec.kind == "docker":
            return ContainerReplicas(envoy_spec.image, self.context, count=envoy_spec.replicas, target=self.spec)
        return LocalReplicas(envoy_spec.server, self.context, count=envoy_spec.replicas, target=self.spec)

    def _envoy_count(self) -> int:
        largest = self.context.largest_batch
        nofile = self.envoy_spec.options.count("nofile") or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        count = envoys_needed(largest, nofile)
        if count > _MAX_ENVOYS:
            raise TargetError(
                f"target envoy: a batch of {largest} takes {count} Envoys of {nofile} open files each, and at most "
                f"{_MAX_ENVOYS} are started; write a larger nofile=, or raise ulimit -Hn"
            )
        return count

    def settings(self, backends: tuple[Backend, ...]) -> EnvoySettings:
        """Return what Envoy is configured with in front of these servers."""
        target_options, largest = self.envoy_spec.options, self.context.largest_batch
        return EnvoySettings(
            port=target_options.count("port") or 0,
            backends=backends,
            policy=self.envoy_spec.policy,
            breaker=target_options.count("max_connections") or breaker_for(largest),
            backlog=backlog_for(largest),
        )

    def _make_pool(self, executable: str, count: int, replicas: Replicas) -> LocalEnvoyPool:
        target_options, settings = self.envoy_spec.options, self.settings(replicas.backends)
        threads = target_options.count("threads") or threads_for(usable_cores(), count)
        return LocalEnvoyPool(executable, settings, count=count, threads=threads, nofile=target_options.count("nofile"))

    def _check_through_envoy(self, endpoint: Endpoint, envoy_endpoint: EnvoyEndpoint) -> None:
        try:
            wait_until_ready(
                endpoint.urls, endpoint.headers, _SESSION_S, envoy_endpoint.exit_status, modes=self.context.modes
            )
        except NotReadyError as error:
            log, why = envoy_endpoint.log_tail(20), error.exit or error
            message = f"target {self.spec}: every replica answers a session, but not through Envoy: {why}"
            raise TargetError(f"{message}\n{log}" if log.strip() else message) from None


ReplicaKind = Literal["local", "docker", "urls"]
"""What stands behind Envoy: servers started here, containers, or servers that run already."""

_COMMON_KEYS = {
    "lb": options.one_of("round_robin", "least_request"),
    "port": options.port,
    "threads": options.count,
    "max_connections": options.count,
    "nofile": options.count,
    "label": options.text,
    "cores": options.count,
    "hardware": options.text,
    "workers": options.count,
    "max_envs": options.count,
}
_OWN_KEYS: Mapping[ReplicaKind, Mapping[str, options.Parser]] = {
    "local": {"replicas": options.count, "app": options.text, "server": options.one_of(*SERVERS)},
    "docker": {
        "replicas": options.count,
        "image": options.text,
        "cpus": cpus,
        "memory": memory,
        "pull": options.one_of(*PULL_POLICIES),
    },
    "urls": {"urls": options.text},
}
_MAX_REPLICAS = 250


class EnvoySpec:
    """The parsed specification of an Envoy target; `options` holds the keys that are read as they stand.

    Raises:
        GrammarError: a key is unknown, does not go with another, or its value cannot be used.
    """

    def __init__(self, spec: TargetSpec) -> None:
        normalized = options.with_argument_as_option(spec)
        self.kind = _replica_kind(normalized)
        self.options = options.read_options(
            normalized, {**_COMMON_KEYS, **_OWN_KEYS[self.kind]}, env=self.kind != "urls"
        )
        self.urls = _read_urls(self.options.text("urls")) if self.kind == "urls" else ()
        self.replicas = len(self.urls) or _read_replicas(self.options)
        check_options("envoy", self.server)

    @property
    def policy(self) -> Policy:
        """How sessions are spread."""
        policy: Any = self.options.text("lb") or "round_robin"
        return policy

    @property
    def server(self) -> ServerOptions:
        """How each replica of kind "local" is served."""
        server: Any = self.options.text("server") or "hypercorn"
        return ServerOptions(
            app=self.options.text("app"),
            server=server,
            # A replica is one process unless asked otherwise: so replicas compare, and so they are deployed.
            workers=self.options.count("workers") or 1,
            max_envs=self.options.count("max_envs"),
            nofile=self.options.count("nofile"),
            env=self.options.env,
        )

    @property
    def image(self) -> ImageOptions:
        """How each replica of kind "docker" is run."""
        return ImageOptions(
            image=self.options.text("image") or "",
            pull=self.options.text("pull") or PULL_POLICIES[0],
            workers=self.options.count("workers"),
            max_envs=self.options.count("max_envs"),
            cpus=self.options.values.get("cpus"),
            memory=self.options.values.get("memory"),
            nofile=self.options.count("nofile"),
            env=self.options.env,
        )

    @property
    def declared_limits(self) -> dict[str, str | int]:
        """The limits of servers that run already, as far as the specification names them."""
        return {key: number for key in ("workers", "max_envs") if (number := self.options.count(key)) is not None}


def _replica_kind(spec: TargetSpec) -> ReplicaKind:
    """Return what stands behind Envoy.

    Raises:
        GrammarError: a key does not go with what decides that.
    """
    kind: ReplicaKind = (
        "urls" if spec.option("urls") is not None else "docker" if spec.option("image") is not None else "local"
    )
    others = {key for keys in _OWN_KEYS.values() for key in keys} - set(_OWN_KEYS[kind])
    for key, _ in spec.options:
        if key in others and kind != "local":
            raise GrammarError(f"target envoy: {key}= does not go with {'urls' if kind == 'urls' else 'image'}=")
        if key in others:
            raise GrammarError(f"target envoy: {key}= is for containers; add image=IMAGE or image=PATH")
    return kind


def _read_replicas(target_options: options.TargetOptions) -> int:
    count = target_options.count("replicas")
    if count is None:
        raise GrammarError("target envoy: how many servers? write envoy:replicas=2, or envoy:urls=URL|URL")
    if count > _MAX_REPLICAS:
        raise GrammarError(f"target envoy: replicas must be at most {_MAX_REPLICAS}, got {count}")
    return count


def _read_urls(text: str | None) -> tuple[str, ...]:
    urls = tuple(url.strip().rstrip("/") for url in (text or "").split("|"))
    for url in urls:
        problem = _url_problem(url)
        if problem:
            raise GrammarError(
                f"target envoy: urls: {redact_url(url)!r} {problem}; write http://HOST:PORT|http://HOST:PORT"
            )
    if len(set(urls)) < len(urls):
        raise GrammarError("target envoy: urls: a server is named twice; write each once")
    return urls


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
