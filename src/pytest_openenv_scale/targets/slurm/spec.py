"""The specification of a Slurm target: its keys, the job they ask for, and the scripts of deploy/slurm that run it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, Self

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.target_spec import TargetSpec
from pytest_openenv_scale.targets.common.application import Application, find_application
from pytest_openenv_scale.targets.common.files import deploy_file
from pytest_openenv_scale.targets.common.options import (
    StartOptions,
    TargetContext,
    TargetOptions,
    count,
    one_of,
    option,
    read_options,
    seconds,
    tcp_port,
    variables,
    with_argument_as_option,
)
from pytest_openenv_scale.targets.common.readiness import start_s
from pytest_openenv_scale.targets.envoy.config import Policy, backlog_for, breaker_for
from pytest_openenv_scale.targets.local.serving import SERVERS
from pytest_openenv_scale.targets.local.target import ServerOptions, check_options

EnvoyLocation = Literal["node", "client"]

DEFAULT_TIME = "60"
"""Minutes after which Slurm ends a job by itself, whatever became of us."""

PENDING_S = 600.0
"""Seconds a job may wait for its nodes."""

START_S = 180.0
"""Seconds the servers get at least once the job runs: a first import from a shared disk takes its time."""

OWNER_PREFIX = "openenv-scale-owner="
"""What a job's comment begins with; the label of the process it belongs to follows."""

_TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}")
_RESERVED = re.compile(
    r"--(array|chdir|comment|error|export|job-name|nodes|output|parsable|requeue|test-only|time|wait|wrap)\b|-[aDeJNotW]"
)


def _time(value: str, what: str) -> str:
    if not _TIME.fullmatch(value):
        raise GrammarError(f"{what} must be a time as Slurm writes it, got {value!r}; write 30 (minutes) or 2:00:00")
    return value


def _extra(value: str, what: str) -> tuple[str, ...]:
    try:
        words = [word for part in shlex.split(value) for word in shlex.split(part)]
    except ValueError as error:
        raise GrammarError(f"{what} cannot be read: {error}; write extra=--OPTION=VALUE") from None
    for word in words:
        if not word.startswith("-"):
            raise GrammarError(f"{what} holds options of sbatch, got {word!r}; write --OPTION=VALUE without a space")
        if _RESERVED.match(word):
            raise GrammarError(f"{what}: {word} is set by the target itself; use its keys, such as nodes= and time=")
    return tuple(words)


@dataclass(frozen=True)
class JobIdentity:
    """What a job is called, the process its comment names, the folder its logs go to, and the ports it takes.

    They are the ports of every server, of Envoy, of its admin interface and of the reading view of its statistics.
    """

    name: str
    owner: str
    folder: Path
    port: int
    envoy_port: int
    admin_port: int = 9901
    stats_port: int = 10001


_PLAIN_DIRECTIVES = ("partition", "account", "qos", "constraint", "mem")


@dataclass(frozen=True)
class JobOptions:
    """The keys that concern a job that is submitted; `pending_timeout` is how many seconds it may wait for nodes."""

    partition: str | None = option()
    account: str | None = option()
    qos: str | None = option()
    constraint: str | None = option()
    mem: str | None = option()
    cpus_per_task: int | None = option(count)
    time: str | None = option(_time)
    extra: tuple[str, ...] = option(_extra, ())
    pending_timeout: float = option(seconds, PENDING_S)


@dataclass(frozen=True)
class SlurmSpec(TargetOptions, JobOptions, StartOptions):
    """The keys of a Slurm target.

    `envoy` is where Envoy runs if there are several nodes, `start_timeout` how many seconds the servers get once the
    job runs.
    """

    nodes: int | None = option(count)
    app: str | None = option()
    server: Literal["hypercorn", "uvicorn"] | None = option(one_of(*SERVERS))
    port: int | None = option(tcp_port)
    python: str | None = option()
    envoy: EnvoyLocation = option(one_of("node", "client"), "node")
    envoy_port: int | None = option(tcp_port)
    lb: Policy = option(one_of("round_robin", "least_request"), "round_robin")
    dir: str | None = option()
    job: int | None = option(count)
    env: Mapping[str, str] = variables()

    @classmethod
    def parse(cls, spec: TargetSpec) -> Self:
        """Read a specification.

        Raises:
            GrammarError: a key is unknown, does not go with another, or its value cannot be used.
        """
        slurm = read_options(with_argument_as_option(spec), cls)
        if slurm.job is not None and slurm.job_keys:
            raise GrammarError(
                f"target slurm: {slurm.job_keys[0]}= is for a job that is submitted and does not go with job="
            )
        if slurm.envoy_port and slurm.envoy == "client":
            raise GrammarError("target slurm: envoy_port= is for envoy=node; leave it out")
        check_options("slurm", ServerOptions(app=slurm.app))
        return slurm

    @property
    def job_keys(self) -> tuple[str, ...]:
        """The keys that were given and concern a job that is submitted."""
        return tuple(field.name for field in fields(JobOptions) if getattr(self, field.name) != field.default)

    @property
    def attached_job(self) -> int | None:
        """The job to serve in: that of `job=`, or the one this process runs in; None where one is submitted."""
        own_job = os.environ.get("SLURM_JOB_ID", "")
        return self.job or (int(own_job) if own_job.isdecimal() else None)

    def application(self, context: TargetContext) -> Application:
        """Return what is served on every node.

        Raises:
            TargetError: nothing names it.
        """
        return find_application(context, self.app, "slurm")

    def start_s(self, context: TargetContext) -> float:
        """Return how many seconds the servers get once the job runs."""
        return start_s(self.start_timeout, context, START_S)

    def plan(self, context: TargetContext, job: JobIdentity, *, nodes: int, cpus: int | None = None) -> JobPlan:
        """Return the job for `nodes` nodes; `cpus` are those of each server where the allocation is known.

        What `env.NAME=` sets is not in it: Slurm keeps scripts, and whoever may read them.

        Raises:
            TargetError: nothing names the application.
        """
        return JobPlan(
            nodes=nodes,
            directives=() if self.attached_job else self._directives(context.root, job, nodes),
            variables=self._script_variables(context, job, cpus),
            envoy=nodes > 1 and self.envoy == "node",
        )

    def example(self) -> JobIdentity:
        """Return placeholders for what is only known of a job that is started."""
        folder = Path(self.dir or default_folder()) / "openenv-scale-RUN_ID"
        return JobIdentity("openenv-scale-RUN_ID", "PROCESS", folder, self.port or 8000, self.envoy_port or 10000)

    def _directives(self, root: Path, job: JobIdentity, nodes: int) -> tuple[str, ...]:
        directives = [
            f"--job-name={job.name}",
            f"--comment={OWNER_PREFIX}{job.owner}",
            f"--nodes={nodes}",
            "--ntasks-per-node=1",
            f"--time={self.time or DEFAULT_TIME}",
            f"--output={str(job.folder).replace('%', '%%')}/job.log",
            f"--chdir={root}",
            "--no-requeue",
        ]
        if nodes > 1:
            directives.append("--no-kill")  # A node that is lost is to be seen and named, not to end the others.
        directives += [f"--{key}={value}" for key in _PLAIN_DIRECTIVES if (value := getattr(self, key))]
        if self.cpus_per_task:
            directives.append(f"--cpus-per-task={self.cpus_per_task}")
        # What holds a space, or an option's dashes after one, stays one option.
        return tuple(map(shlex.quote, (*directives, *self.extra)))

    def _script_variables(self, context: TargetContext, job: JobIdentity, cpus: int | None) -> dict[str, str]:
        application, backlog = self.application(context), backlog_for(context.largest_batch)
        server_variables: dict[str, str | int | None] = {
            "OPENENV_APP": None if application.built_in else application.name,
            "OPENENV_PATH": os.pathsep.join(map(str, application.paths)) or None,
            "OPENENV_DIR": str(context.root),
            "SERVER": self.server,
            "WORKERS": self.workers,
            "MAX_CONCURRENT_ENVS": self.max_envs,
            "CPUS_PER_WORKER": self.cpus_per_task or cpus,
            "PORT": job.port,
            "BACKLOG": backlog,
            "PYTHON": self.python or sys.executable,
            "START_TIMEOUT": f"{self.start_s(context):.0f}",
            "CONNECTION": f"{job.folder}/openenv-connection.env",
            "LOG_DIR": str(job.folder),
        }
        envoy_variables: dict[str, str | int | None] = {
            "ENVOY_PORT": job.envoy_port,
            "ENVOY_ADMIN_PORT": job.admin_port,
            "ENVOY_STATS_PORT": job.stats_port,
            "ENVOY_BREAKER": breaker_for(context.largest_batch),
            "ENVOY_BACKLOG": backlog,
            "ENVOY_LB": self.lb,
        }
        variables = {**server_variables, **(envoy_variables if self.envoy == "node" else {})}
        return {name: str(value) for name, value in variables.items() if value is not None}


def default_folder() -> Path:
    """Return the folder jobs' logs go below: in the user's cache, as home folders are what nodes most likely share."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "openenv-scale" / "slurm"


SUBMIT_COMMAND = ("sbatch", "--parsable", "--export=ALL")
SINGLE_NODE_SCRIPT, MULTI_NODE_SCRIPT = "slurm/serve_single.sbatch", "slurm/serve_multi.sbatch"
SERVE_SCRIPT = "slurm/serve_multi.sh"
"""The script that both run on every node."""

_SETTINGS_GO_AFTER = "set -euo pipefail"
_COMPLAINT = re.compile(r"^serve_(?:multi\.sh|(?:single|multi)\.sbatch): (.+)$", re.MULTILINE)
_SETTING = re.compile(r'export ([A-Z_]+)="?(.*?)"?')


@dataclass(frozen=True)
class JobPlan:
    """What serves: a job that is submitted, or without `directives` a script for bash in an allocation.

    Each of `directives` is an option of sbatch ("--nodes=2"); `variables` are those that `serve_multi.sh --help`
    lists, without secrets, as Slurm keeps what is submitted. Without `envoy`, clients get the addresses of all servers.
    """

    nodes: int = 1
    directives: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    envoy: bool = True

    @property
    def script(self) -> str:
        """The script of deploy/slurm for as many nodes, with these directives and settings.

        Raises:
            TargetError: the scripts are not installed.
        """
        # Slurm runs a copy of a script, which has to find the one it hands over to.
        variables = {**self.variables, "OPENENV_SCRIPTS": str(deploy_file(SERVE_SCRIPT).parent)}
        if not self.envoy:
            variables["ENVOY"] = "none"
        name = SINGLE_NODE_SCRIPT if self.nodes == 1 else MULTI_NODE_SCRIPT
        shebang, *lines = deploy_file(name).read_text(encoding="utf-8").splitlines()
        # Comments for whoever edits the file are dropped with the directives they explain.
        start = lines.index(_SETTINGS_GO_AFTER)
        head = [shebang, *(f"#SBATCH {directive}" for directive in self.directives), _SETTINGS_GO_AFTER, ""]
        settings = [f"export {name}={shlex.quote(variables[name])}" for name in sorted(variables)]
        return "\n".join([*head, *settings, *lines[start + 1 :], ""])


def read_connection(path: Path) -> dict[str, str] | None:
    """Return the variables of a connection file, or None while there is none: it appears when all are healthy."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return {match[1]: match[2] for line in lines if (match := _SETTING.fullmatch(line))}


def last_complaint(output: str) -> str | None:
    """Return the last error message in a job's output, or None."""
    complaints = _COMPLAINT.findall(output)
    return complaints[-1] if complaints else None
