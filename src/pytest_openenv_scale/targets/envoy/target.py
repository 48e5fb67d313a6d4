"""`envoy:replicas=N`: servers of one application behind a real Envoy, as one endpoint of several hosts."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.system import usable_cores
from pytest_openenv_scale.core.target_spec import TargetSpec, redact_target, redact_url
from pytest_openenv_scale.targets.common import options
from pytest_openenv_scale.targets.common.options import TargetContext, cpus, memory
from pytest_openenv_scale.targets.common.readiness import wait_until_ready
from pytest_openenv_scale.targets.docker.image import PULL
from pytest_openenv_scale.targets.local.application import ServerOptions, backlog_notes, check_options
from pytest_openenv_scale.targets.local.serving import SERVERS

from .config import Backend, EnvoySettings, Policy, backlog_for, breaker_for, envoys_needed, threads_for
from .container_replicas import ContainerReplicas, ImageOptions
from .endpoint import EnvoyEndpoint
from .pool import LocalEnvoyPool, find_envoy
from .replicas import GivenReplicas, LocalReplicas, Replicas

_SESSION_S = 30.0
"""Seconds the first session through Envoy gets; every replica has answered one by then."""

_MOST_ENVOYS = 32
"""Each takes some 40 MB and a thread or more: beyond this, what is missing is descriptors."""


class EnvoyTarget:
    """Starts replicas, or takes those given, and puts Envoy in front of them for as long as the context lasts.

    Raises:
        GrammarError: the specification has an unknown key or a value that cannot be used.
    """

    def __init__(self, spec: TargetSpec, context: TargetContext) -> None:
        self.spec = redact_target(spec)
        self._context = context
        self.asked = EnvoySpec(spec)
        self._life = ExitStack()

    def __enter__(self) -> Endpoint:
        """Start everything and return once a session was answered through Envoy; see `Target`."""
        with ExitStack() as life:
            endpoint = self._start(life)
            self._life = life.pop_all()
        return endpoint

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop Envoy, then the replicas that were started."""
        self._life.close()

    def _start(self, life: ExitStack) -> Endpoint:
        asked, given = self.asked, self.asked.given
        executable, count = find_envoy(), self._envoys()  # Before anything else is started in vain.
        began = time.monotonic()
        headers = dict(self._context.headers)
        replicas = life.enter_context(self.replicas())
        late = replicas.wait(headers)
        fleet = life.enter_context(self._fleet(executable, count, replicas))
        fleet.wait()
        front = EnvoyEndpoint(replicas, fleet, asked.policy)
        life.callback(front.stop)
        limits = {"replicas": asked.replicas, **asked.told_limits, **replicas.limits}
        endpoint = Endpoint(
            urls=(fleet.url,),
            label=given.text("label") or f"envoy-{asked.kind}",
            target=self.spec,
            cores=given.count("cores") or replicas.cores,
            hosts=asked.replicas,
            limits={**limits, "lb": asked.policy, "envoys": fleet.count},
            headers=headers,
            hardware=given.text("hardware"),
            notes=(*replicas.notes, *late, *backlog_notes(self._context.largest_batch)),
            sampler=replicas.sample,
            log_reader=front.log_tail,
            exit_reader=front.exit_status,
            proxy_reader=front.snapshot,
        )
        self._play_through(endpoint, front)
        return replace(endpoint, startup_s=time.monotonic() - began)

    def replicas(self) -> Replicas:
        """Return what stands behind Envoy, before it is started."""
        asked = self.asked
        if asked.kind == "urls":
            return GivenReplicas(asked.urls, self._context)
        if asked.kind == "docker":
            return ContainerReplicas(asked.image, self._context, count=asked.replicas, target=self.spec)
        return LocalReplicas(asked.server, self._context, count=asked.replicas, target=self.spec)

    def _envoys(self) -> int:
        largest = self._context.largest_batch
        nofile = self.asked.given.count("nofile") or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        count = envoys_needed(largest, nofile)
        if count > _MOST_ENVOYS:
            raise TargetError(
                f"target envoy: a batch of {largest} takes {count} Envoys of {nofile} open files each, and at most "
                f"{_MOST_ENVOYS} are started; write a larger nofile=, or raise ulimit -Hn"
            )
        return count

    def settings(self, backends: tuple[Backend, ...]) -> EnvoySettings:
        """Return what Envoy is configured with in front of these servers."""
        given, largest = self.asked.given, self._context.largest_batch
        return EnvoySettings(
            port=given.count("port") or 0,
            backends=backends,
            policy=self.asked.policy,
            breaker=given.count("max_connections") or breaker_for(largest),
            backlog=backlog_for(largest),
        )

    def _fleet(self, executable: str, count: int, replicas: Replicas) -> LocalEnvoyPool:
        given, settings = self.asked.given, self.settings(replicas.backends)
        threads = given.count("threads") or threads_for(usable_cores(), count)
        return LocalEnvoyPool(executable, settings, count=count, threads=threads, nofile=given.count("nofile"))

    def _play_through(self, endpoint: Endpoint, front: EnvoyEndpoint) -> None:
        try:
            wait_until_ready(endpoint.urls, endpoint.headers, _SESSION_S, front.exit_status, modes=self._context.modes)
        except TargetError as error:
            log = front.log_tail(20)
            message = f"target {self.spec}: every replica answers a session, but not through Envoy: {error}"
            raise TargetError(f"{message}\n{log}" if log.strip() else message) from None


Kind = Literal["local", "docker", "urls"]
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
_OWN_KEYS: Mapping[Kind, Mapping[str, options.Parser]] = {
    "local": {"replicas": options.count, "app": options.text, "server": options.one_of(*SERVERS)},
    "docker": {
        "replicas": options.count,
        "image": options.text,
        "cpus": cpus,
        "memory": memory,
        "pull": options.one_of(*PULL),
    },
    "urls": {"urls": options.text},
}
_MOST_REPLICAS = 250


class EnvoySpec:
    """What an Envoy target is asked for; `given` holds the keys that are read as they stand.

    Raises:
        GrammarError: a key is unknown, does not go with another, or its value cannot be used.
    """

    def __init__(self, spec: TargetSpec) -> None:
        asked = options.with_argument_as_option(spec)
        self.kind = _kind(asked)
        self.given = options.read_options(asked, {**_COMMON_KEYS, **_OWN_KEYS[self.kind]}, env=self.kind != "urls")
        self.urls = _read_urls(self.given.text("urls")) if self.kind == "urls" else ()
        self.replicas = len(self.urls) or _read_replicas(self.given)
        check_options("envoy", self.server)

    @property
    def policy(self) -> Policy:
        """How sessions are spread."""
        policy: Any = self.given.text("lb") or "round_robin"
        return policy

    @property
    def server(self) -> ServerOptions:
        """How each replica of kind "local" is served."""
        server: Any = self.given.text("server") or "hypercorn"
        return ServerOptions(
            app=self.given.text("app"),
            server=server,
            # A replica is one process unless asked otherwise: so replicas compare, and so they are deployed.
            workers=self.given.count("workers") or 1,
            max_envs=self.given.count("max_envs"),
            nofile=self.given.count("nofile"),
            env=self.given.env,
        )

    @property
    def image(self) -> ImageOptions:
        """How each replica of kind "docker" is run."""
        return ImageOptions(
            image=self.given.text("image") or "",
            pull=self.given.text("pull") or PULL[0],
            workers=self.given.count("workers"),
            max_envs=self.given.count("max_envs"),
            cpus=self.given.values.get("cpus"),
            memory=self.given.values.get("memory"),
            nofile=self.given.count("nofile"),
            env=self.given.env,
        )

    @property
    def told_limits(self) -> dict[str, str | int]:
        """The limits of servers that somebody else started, as far as they are told."""
        return {key: number for key in ("workers", "max_envs") if (number := self.given.count(key)) is not None}


def _kind(spec: TargetSpec) -> Kind:
    """Return what stands behind Envoy.

    Raises:
        GrammarError: a key does not go with what decides that.
    """
    kind: Kind = (
        "urls" if spec.option("urls") is not None else "docker" if spec.option("image") is not None else "local"
    )
    others = {key for own in _OWN_KEYS.values() for key in own} - set(_OWN_KEYS[kind])
    for key, _ in spec.options:
        if key in others and kind != "local":
            raise GrammarError(f"target envoy: {key}= does not go with {'urls' if kind == 'urls' else 'image'}=")
        if key in others:
            raise GrammarError(f"target envoy: {key}= is for containers; add image=IMAGE or image=PATH")
    return kind


def _read_replicas(given: options.TargetOptions) -> int:
    count = given.count("replicas")
    if count is None:
        raise GrammarError("target envoy: how many servers? write envoy:replicas=2, or envoy:urls=URL|URL")
    if count > _MOST_REPLICAS:
        raise GrammarError(f"target envoy: replicas must be at most {_MOST_REPLICAS}, got {count}")
    return count


def _read_urls(text: str | None) -> tuple[str, ...]:
    urls = tuple(url.strip().rstrip("/") for url in (text or "").split("|"))
    for url in urls:
        problem = _problem_with(url)
        if problem:
            raise GrammarError(
                f"target envoy: urls: {redact_url(url)!r} {problem}; write http://HOST:PORT|http://HOST:PORT"
            )
    if len(set(urls)) < len(urls):
        raise GrammarError("target envoy: urls: a server is named twice; write each once")
    return urls


def _problem_with(url: str) -> str | None:
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
