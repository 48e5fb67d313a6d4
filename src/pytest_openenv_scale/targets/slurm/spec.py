"""The text of a Slurm target: its keys, which go together, and the job they ask for."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pytest_openenv_scale.core.grammar import GrammarError, TargetSpec, parse_seconds

from . import keys
from .application import ServerOptions, check_options
from .envoy_config import Policy, backlog_for, breaker_for
from .openenv_yaml import MANIFEST, app_of
from .serving import SERVERS
from .slurm_scripts import SlurmRequest

EnvoyPlace = Literal["node", "client"]

DEFAULT_TIME = "60"
"""Minutes after which Slurm ends a job by itself, whatever became of us."""

PENDING_S = 600.0
"""Seconds a job may wait for its nodes."""

START_S = 180.0
"""Seconds the servers get once the job runs: a first import from a shared disk takes its time."""

OWNER = "openenv-scale-owner="
"""What a job's comment begins with; the label of the process it belongs to follows."""

_TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}")
_RESERVED = re.compile(
    r"--(array|chdir|comment|error|export|job-name|nodes|output|parsable|requeue|test-only|time|wait|wrap)\b|-[aDeJNotW]"
)


def _seconds(value: str, what: str) -> float:
    return parse_seconds(value, positive=True, what=what)


def _time(value: str, what: str) -> str:
    if not _TIME.fullmatch(value):
        raise GrammarError(f"{what} must be a time as Slurm writes it, got {value!r}; write 30 (minutes) or 2:00:00")
    return value


def _extra(value: str, what: str) -> tuple[str, ...]:
    try:
        options = [option for part in shlex.split(value) for option in shlex.split(part)]
    except ValueError as error:
        raise GrammarError(f"{what} cannot be read: {error}; write extra=--OPTION=VALUE") from None
    for option in options:
        if not option.startswith("-"):
            raise GrammarError(f"{what} holds options of sbatch, got {option!r}; write --OPTION=VALUE without a space")
        if _RESERVED.match(option):
            raise GrammarError(f"{what}: {option} is set by the target itself; use its keys, such as nodes= and time=")
    return tuple(options)


_SERVING_KEYS: Mapping[str, keys.Parser] = {
    "nodes": keys.count,
    "app": keys.text,
    "server": keys.one_of(*SERVERS),
    "workers": keys.count,
    "max_envs": keys.count,
    "port": keys.port,
    "python": keys.text,
    "envoy": keys.one_of("node", "client"),
    "envoy_port": keys.port,
    "lb": keys.one_of("round_robin", "least_request"),
    "start_timeout": _seconds,
    "dir": keys.text,
    "label": keys.text,
    "hardware": keys.text,
    "cores": keys.count,
}
_PLAIN_DIRECTIVES = ("partition", "account", "qos", "constraint", "mem")
_JOB_KEYS: Mapping[str, keys.Parser] = {
    **dict.fromkeys(_PLAIN_DIRECTIVES, keys.text),
    "cpus_per_task": keys.count,
    "time": _time,
    "extra": _extra,
    "pending_timeout": _seconds,
}


@dataclass(frozen=True)
class Ports:
    """The ports of one job: of every server, of Envoy, and of the reading view of Envoy's statistics."""

    server: int
    envoy: int
    admin: int
    stats: int


@dataclass(frozen=True)
class JobNames:
    """What a job is called, what its comment says, and the folder its logs go to."""

    name: str
    comment: str
    folder: Path


class SlurmSpec:
    """What a Slurm target is asked for; `given` holds the keys that are read as they stand.

    Raises:
        GrammarError: a key is unknown, does not go with another, or its value cannot be used.
    """

    def __init__(self, spec: TargetSpec) -> None:
        asked = keys.with_argument_as_option(spec)
        parsers = {**_SERVING_KEYS, **_JOB_KEYS, "job": keys.count}
        self.given = keys.read_options(asked, parsers, env=True)
        self.job = self.given.count("job")
        if self.job is not None and self.job_keys:
            raise GrammarError(
                f"target slurm: {self.job_keys[0]}= is for a job that is submitted and does not go with job="
            )
        if self.given.text("envoy_port") and self.envoy == "client":
            raise GrammarError("target slurm: envoy_port= is for envoy=node; leave it out")
        server: Any = self.given.text("server") or "hypercorn"
        check_options("slurm", ServerOptions(app=self.given.text("app"), server=server))

    @property
    def job_keys(self) -> tuple[str, ...]:
        """The keys that were given and concern a job that is submitted."""
        return tuple(key for key in _JOB_KEYS if self.given.values.get(key) is not None)

    @property
    def attached(self) -> int | None:
        """The job to serve in: that of `job=`, or the one this process runs in; None where one is submitted."""
        inside = os.environ.get("SLURM_JOB_ID", "")
        return self.job or (int(inside) if inside.isdecimal() else None)

    @property
    def nodes(self) -> int | None:
        """The number of nodes asked for; None where it was not said."""
        return self.given.count("nodes")

    @property
    def envoy(self) -> EnvoyPlace:
        """Where Envoy runs if there are several nodes."""
        place: Any = self.given.text("envoy") or "node"
        return place

    @property
    def policy(self) -> Policy:
        """How Envoy spreads sessions."""
        policy: Any = self.given.text("lb") or "round_robin"
        return policy

    @property
    def pending_s(self) -> float:
        """Seconds a job may wait for its nodes."""
        return self.given.values.get("pending_timeout") or PENDING_S

    @property
    def start_s(self) -> float:
        """Seconds the servers get once the job runs."""
        return self.given.values.get("start_timeout") or START_S

    def request(
        self, root: Path, names: JobNames, ports: Ports, *, largest_batch: int, nodes: int, cpus: int | None = None
    ) -> SlurmRequest:
        """Return the job for `nodes` nodes; `cpus` are those of each server where the allocation is known.

        What `env.NAME=` sets is not in it: Slurm keeps scripts, and whoever may read them.
        """
        return SlurmRequest(
            nodes=nodes,
            directives=self._directives(root, names, nodes),
            knobs=self._knobs(root, names, ports, largest_batch, cpus),
            envoy=nodes > 1 and self.envoy == "node",
        )

    def example_request(self, root: Path, *, largest_batch: int = 1) -> SlurmRequest:
        """Return the job with names that say what will stand there; nothing is started or reached."""
        folder = Path(self.given.text("dir") or default_folder()) / "openenv-scale-RUN_ID"
        names = JobNames("openenv-scale-RUN_ID", f"{OWNER}PROCESS", folder)
        ports = Ports(self.given.count("port") or 8000, self.given.count("envoy_port") or 10000, 9901, 10001)
        return self.request(root, names, ports, largest_batch=largest_batch, nodes=self.nodes or 1)

    def _directives(self, root: Path, names: JobNames, nodes: int) -> tuple[str, ...]:
        given = self.given
        directives = [
            f"--job-name={names.name}",
            f"--comment={names.comment}",
            f"--nodes={nodes}",
            "--ntasks-per-node=1",
            f"--time={given.text('time') or DEFAULT_TIME}",
            f"--output={str(names.folder).replace('%', '%%')}/job.log",
            f"--chdir={root}",
            "--no-requeue",
        ]
        if nodes > 1:
            directives.append("--no-kill")  # A node that is lost is to be seen and named, not to end the others.
        directives += [f"--{key}={value}" for key in _PLAIN_DIRECTIVES if (value := given.text(key))]
        if cpus := given.count("cpus_per_task"):
            directives.append(f"--cpus-per-task={cpus}")
        # What holds a space, or an option's dashes after one, stays one option.
        return tuple(map(shlex.quote, (*directives, *(given.values.get("extra") or ()))))

    def _knobs(self, root: Path, names: JobNames, ports: Ports, largest_batch: int, cpus: int | None) -> dict[str, str]:
        given = self.given
        app = given.text("app") or app_of(root)
        paths = ([root, root.parent] if (root / MANIFEST).exists() else [root]) if app else []
        knobs: dict[str, str | int | None] = {
            "OPENENV_APP": app,
            "OPENENV_PATH": os.pathsep.join(map(str, paths)) or None,
            "OPENENV_DIR": str(root),
            "SERVER": given.text("server"),
            "WORKERS": given.count("workers"),
            "MAX_CONCURRENT_ENVS": given.count("max_envs"),
            "CPUS_PER_WORKER": given.count("cpus_per_task") or cpus,
            "PORT": ports.server,
            "BACKLOG": backlog_for(largest_batch),
            "PYTHON": given.text("python") or sys.executable,
            "START_TIMEOUT": f"{self.start_s:.0f}",
            "CONNECTION": f"{names.folder}/openenv-connection.env",
            "LOG_DIR": str(names.folder),
        }
        envoy: dict[str, str | int | None] = {
            "ENVOY_PORT": ports.envoy,
            "ENVOY_ADMIN_PORT": ports.admin,
            "ENVOY_STATS_PORT": ports.stats,
            "ENVOY_BREAKER": breaker_for(largest_batch),
            "ENVOY_BACKLOG": backlog_for(largest_batch),
            "ENVOY_LB": self.policy,
        }
        known = {**knobs, **(envoy if self.envoy == "node" else {})}
        return {name: str(value) for name, value in known.items() if value is not None}


def default_folder() -> Path:
    """Return the folder jobs' logs go below: in the user's cache, as home folders are what nodes most likely share."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "openenv-scale" / "slurm"
