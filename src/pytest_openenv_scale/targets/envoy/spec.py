"""What an Envoy target is asked for: its keys, which depend on what stands behind Envoy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.target_spec import TargetSpec, redact_url
from pytest_openenv_scale.targets.common.options import (
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
from pytest_openenv_scale.targets.local.application import ServerOptions, check_options

from .config import Policy

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
class EnvoyOptions(TargetOptions):
    """The keys whatever stands behind Envoy; `lb` is how sessions are spread."""

    lb: Policy = option(one_of("round_robin", "least_request"), "round_robin")
    port: int | None = option(tcp_port)
    threads: int | None = option(count)
    max_connections: int | None = option(count)
    nofile: int | None = option(count)
    workers: int | None = option(count)
    max_envs: int | None = option(count)


@dataclass(frozen=True)
class LocalOptions(EnvoyOptions, ServerOptions):
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

    @property
    def variables(self) -> dict[str, str]:
        """The variables every container is given."""
        settings = {"WORKERS": self.workers, "MAX_CONCURRENT_ENVS": self.max_envs}
        return {**{name: str(value) for name, value in settings.items() if value is not None}, **self.env}


@dataclass(frozen=True)
class UrlOptions(EnvoyOptions):
    """Servers that run already."""

    urls: tuple[str, ...] = option(_urls, ())

    @property
    def replicas(self) -> int:
        """How many they are."""
        return len(self.urls)


def parse_envoy(spec: TargetSpec) -> LocalOptions | ImageOptions | UrlOptions:
    """Read a specification.

    Raises:
        GrammarError: a key is unknown, does not go with another, or its value cannot be used.
    """
    normalized = with_argument_as_option(spec)
    kind = (
        UrlOptions
        if normalized.option("urls") is not None
        else ImageOptions
        if normalized.option("image") is not None
        else LocalOptions
    )
    others = {key for other in (LocalOptions, ImageOptions, UrlOptions) for key in option_names(other)}
    for key, _ in normalized.options:
        if key not in others - set(option_names(kind)):
            continue
        if kind is LocalOptions:
            raise GrammarError(f"target envoy: {key}= is for containers; add image=IMAGE or image=PATH")
        raise GrammarError(f"target envoy: {key}= does not go with {'urls' if kind is UrlOptions else 'image'}=")
    options = read_options(normalized, kind)
    if not options.replicas:
        raise GrammarError("target envoy: how many servers? write envoy:replicas=2, or envoy:urls=URL|URL")
    if isinstance(options, LocalOptions):
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
