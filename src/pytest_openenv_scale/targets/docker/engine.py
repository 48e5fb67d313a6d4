"""A container engine: the calls of the docker package that are used, typed, with errors in one line."""

from __future__ import annotations

import gc
import importlib
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from pytest_openenv_scale.core.endpoint import ExitStatus, ServerSample
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.system import install_extra
from pytest_openenv_scale.core.target_spec import redact_url
from pytest_openenv_scale.targets.common.options import format_memory

_ANSWER_S = 15
"""Seconds an engine gets for its first answer."""

_REQUEST_S = 120
"""Seconds it gets for each later one; builds and pulls have no limit."""

_DEFAULT_URL = "unix:///var/run/docker.sock"


class Engine:
    """A connection to the engine that DOCKER_HOST, else the docker command's context, names.

    `error_prefix` begins every error and names the target. `client` is a `docker.DockerClient`.
    """

    def __init__(self, client: Any, error_prefix: str = "target docker") -> None:
        self.client = client
        self.error_prefix = error_prefix
        info = self.call(client.info, "tell about itself")
        self.cores: int = int(info.get("NCPU") or 1)
        """The processors of the engine's machine."""
        networks = self.call(client.networks.list, "list its networks")
        self.has_bridge = any(network.attrs.get("Driver") == "bridge" for network in networks)
        """Whether there is a bridge network, without which the engine ignores ports to publish."""
        self.address = _engine_address(client)
        """Where this machine reaches a port that the engine publishes."""

    @classmethod
    def connect(cls, error_prefix: str = "target docker") -> Engine:
        """Return the engine that answers.

        Raises:
            TargetError: the docker package is missing, or no engine answers.
        """
        try:
            docker: Any = importlib.import_module("docker")
        except ImportError:
            raise TargetError(f"{error_prefix}: needs the docker package: {install_extra('docker')}") from None
        with warnings.catch_warnings():
            # The package leaves the socket of a connection that failed to the garbage collector.
            warnings.simplefilter("ignore", ResourceWarning)
            client, failure = _connect_client(docker)
            if failure is not None:
                gc.collect()
        if failure is not None:
            raise TargetError(f"{error_prefix}: {failure}")
        client.api.timeout = _REQUEST_S
        return cls(client, error_prefix)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    @property
    def is_local(self) -> bool:
        """Whether the engine is reached through this machine and not over a network."""
        return self.address == "127.0.0.1"

    def cores_within(self, limit: float | None) -> int:
        """Return how many of its processors a container with a limit of processors may use."""
        return self.cores if limit is None else min(math.ceil(limit), self.cores)

    def call(self, request: Callable[..., Any], purpose: str, **arguments: Any) -> Any:
        """Return what the engine answers to `request`; `purpose` completes "the engine cannot …".

        Raises:
            TargetError: it refuses, with its own words, or does not answer.
        """
        try:
            return request(**arguments)
        except Exception as error:
            raise TargetError(f"{self.error_prefix}: the engine cannot {purpose}: {explain_error(error)}") from None

    def ensure_image(self, image: str, pull: str, show_progress: Callable[[str], None]) -> None:
        """Make sure that `image` is there; `pull` is "missing", "always" or "never".

        Raises:
            TargetError: it is not there, and could not or must not be pulled.
        """
        is_present = self.image_id(image) is not None
        if pull == "never" and not is_present:
            raise TargetError(
                f"{self.error_prefix}: the engine has no image {image!r} and pull=never; "
                f"build it (docker build -t {image} FOLDER), correct the name, or write pull=missing"
            )
        if pull == "always" or not is_present:
            show_progress(f"docker: pulling {image}")
            self._pull(image, is_present)

    def image_id(self, image: str) -> str | None:
        """Return the id of an image, or None where the engine has none of that name."""
        try:
            return str(self.client.images.get(image).id)
        except Exception as error:
            if is_not_found(error):
                return None
            raise TargetError(
                f"{self.error_prefix}: the engine cannot look up {image!r}: {explain_error(error)}"
            ) from None

    def image_config(self, image: str) -> Mapping[str, Any]:
        """Return what an image says about running it: Env, ExposedPorts and the like."""
        engine_image = self.call(self.client.images.get, f"look up {image!r}", name=image)
        config: Mapping[str, Any] | None = engine_image.attrs.get("Config")
        return config or {}

    def _pull(self, image: str, is_present: bool) -> None:
        repository, tag = split_tag(image)
        try:
            for message in self.client.api.pull(repository, tag=tag, stream=True, decode=True):
                if "error" in message:
                    raise TargetError(self._pull_failure(image, is_present, str(message["error"])))
        except TargetError:
            raise
        except Exception as error:
            raise TargetError(self._pull_failure(image, is_present, explain_error(error))) from None

    def _pull_failure(self, image: str, is_present: bool, reason: str) -> str:
        remedy = (
            "the engine has an older one: write pull=missing to use it"
            if is_present
            else f"build it (docker build -t {image} FOLDER), correct the name, or docker login where it is private"
        )
        return f"{self.error_prefix}: the image {image!r} cannot be pulled: {' '.join(reason.split())}; {remedy}"


def split_tag(image: str) -> tuple[str, str | None]:
    """Return repository and tag; an image named by its digest has no tag, one without either gets "latest"."""
    if "@" in image:
        return image, None
    match = re.fullmatch(r"(.+):([^/:]+)", image)
    return (match[1], match[2]) if match else (image, "latest")


def explain_error(error: Exception) -> str:
    """Return one line: the engine's own words where it answered, else the error's."""
    message = getattr(error, "explanation", None) or getattr(error, "msg", None) or str(error) or type(error).__name__
    line = " ".join(str(message).split())
    # runc tells its whole call stack, innermost last.
    return re.sub(r"^.*(?:unable to start container process|OCI runtime create failed): ", "", line)


def is_not_found(error: Exception) -> bool:
    """Say whether the engine answered that it has no such thing."""
    return getattr(getattr(error, "response", None), "status_code", None) == 404


def _engine_address(client: Any) -> str:
    """Return the host of an engine that is reached over a network; else the loopback address."""
    url = str(os.environ.get("DOCKER_HOST") or getattr(client.api, "base_url", ""))
    parts = urlsplit(url)
    if parts.scheme not in ("tcp", "http", "https", "ssh"):
        return "127.0.0.1"
    # docker gives sockets, pipes and ssh a made-up host of their own.
    host = parts.hostname or "localhost"
    return "127.0.0.1" if host in ("localhost", "localunixsocket", "localnpipe", "::1", "127.0.0.1") else host


def _connect_client(docker: Any) -> tuple[Any, str | None]:
    """Return a client whose engine has answered, or why there is none."""
    context_name = os.environ.get("DOCKER_CONTEXT")
    try:
        if context_name and not os.environ.get("DOCKER_HOST") and docker.ContextAPI.get_context(context_name) is None:
            # The package would take the default engine instead.
            missing = f"there is no docker context {context_name!r} (DOCKER_CONTEXT)"
            return None, f"{missing}; docker context ls shows which there are"
        client = docker.from_env(timeout=_ANSWER_S)
        client.ping()
    except Exception as error:  # docker, requests and the transports each have errors of their own.
        return None, _connection_failure(error)
    return client, None


def _connection_failure(error: Exception) -> str:
    """Say why no engine answers, and what to do about it."""
    docker_host = os.environ.get("DOCKER_HOST")
    shown_host = redact_url(docker_host) if docker_host and "@" in docker_host else docker_host
    message = " ".join(str(error).split())
    if "Permission denied" in message or "PermissionError" in message:
        return (
            f"this user may not use the Docker engine at {shown_host or _DEFAULT_URL}; "
            "add the user to the group docker (usermod -aG docker USER), or run docker rootless"
        )
    if "paramiko" in message:
        return f"DOCKER_HOST={shown_host} needs paramiko: pip install 'docker[ssh]'"
    location = f"at {shown_host} (DOCKER_HOST)" if shown_host else f"({_context_words()})"
    return (
        f"no Docker engine answers {location}: {_failure_reason(message)}; "
        f"start one (systemctl start docker, or Docker Desktop), or {'correct' if shown_host else 'set'} DOCKER_HOST"
    )


def _context_words() -> str:
    context_name = os.environ.get("DOCKER_CONTEXT")
    return f"docker context {context_name!r}" if context_name else "the docker context in use, or " + _DEFAULT_URL


def _failure_reason(message: str) -> str:
    if "No such file" in message or "FileNotFoundError" in message:
        return "there is no such socket"
    if "refused" in message:
        return "connection refused"
    if "timed out" in message or "timeout" in message.lower():
        return f"no answer within {_ANSWER_S} s"
    if "resolve" in message or "Name or service" in message:
        return "its host name does not resolve"
    return message.removeprefix("Error while fetching server API version: ")[:200]


def read_stats(stats: Mapping[str, Any], at_s: float) -> ServerSample | None:
    """Return the figures of one answer of the engine's statistics; None for a container that does not run."""
    memory: dict[str, Any] = stats.get("memory_stats") or {}
    usage: int | None = memory.get("usage")
    if usage is None:
        return None
    details: dict[str, int] = memory.get("stats") or {}
    # The names of control groups version 1 and 2; what the docker command leaves out as well.
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    cpu: dict[str, Any] = stats.get("cpu_stats") or {}
    used: dict[str, int] = cpu.get("cpu_usage") or {}
    tasks: dict[str, int] = stats.get("pids_stats") or {}
    return ServerSample(
        at_s=at_s,
        cpu_seconds=used.get("total_usage", 0) / 1e9,
        rss_bytes=max(usage - cache, 0),
        threads=tasks.get("current"),
    )


def read_exit(state: Mapping[str, Any], memory: int | None) -> ExitStatus:
    """Return how a container ended, from the State that the engine tells; `memory` is its limit in bytes."""
    status = ExitStatus.from_returncode(int(state.get("ExitCode") or 0))
    killed = bool(state.get("OOMKilled"))
    why = str(state.get("Error") or "").strip()
    if killed:
        why = f"out of memory ({memory_words(memory)})"
    elif status.signal is not None:
        why = f"killed by {status.signal}"
    return replace(status, text=f"{status}: {why}" if why else status.text, out_of_memory=killed)


def memory_words(memory: int | None) -> str:
    """Name the limit that a container ran into, and the key that sets it."""
    if memory is None:
        return "the engine's machine has no more; memory= would limit it earlier"
    return f"its limit is memory={format_memory(memory)}; write a larger memory="
