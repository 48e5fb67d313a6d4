"""The text of an Envoy target: its keys, which go together, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pytest_openenv_scale.core.grammar import GrammarError, TargetSpec, redact_url

from . import keys
from .application import ServerOptions, check_options
from .docker import cpus, memory
from .envoy_config import Policy
from .envoy_containers import ImageOptions
from .images import PULL
from .serving import SERVERS

Kind = Literal["local", "docker", "urls"]
"""What stands behind Envoy: servers started here, containers, or servers that run already."""

_COMMON_KEYS = {
    "lb": keys.one_of("round_robin", "least_request"),
    "port": keys.port,
    "threads": keys.count,
    "max_connections": keys.count,
    "nofile": keys.count,
    "label": keys.text,
    "cores": keys.count,
    "hardware": keys.text,
    "workers": keys.count,
    "max_envs": keys.count,
}
_OWN_KEYS: Mapping[Kind, Mapping[str, keys.Parser]] = {
    "local": {"replicas": keys.count, "app": keys.text, "server": keys.one_of(*SERVERS)},
    "docker": {
        "replicas": keys.count,
        "image": keys.text,
        "cpus": cpus,
        "memory": memory,
        "pull": keys.one_of(*PULL),
    },
    "urls": {"urls": keys.text},
}
_MOST_REPLICAS = 250


class EnvoySpec:
    """What an Envoy target is asked for; `given` holds the keys that are read as they stand.

    Raises:
        GrammarError: a key is unknown, does not go with another, or its value cannot be used.
    """

    def __init__(self, spec: TargetSpec) -> None:
        asked = keys.with_argument_as_option(spec)
        self.kind = _kind(asked)
        self.given = keys.read_options(asked, {**_COMMON_KEYS, **_OWN_KEYS[self.kind]}, env=self.kind != "urls")
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


def _read_replicas(given: keys.TargetOptions) -> int:
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
