"""Slurm's own programs, and what they report of a job: its state, why it waits, its nodes, how it ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import TargetError

_MAX_JSON_CHARS = 4 * 1024**2
"""Characters beyond which `squeue --json` is not asked again: older ones list every job of the cluster each time."""

_STATE_FLAGS = frozenset(
    {"COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "POWER_UP_NODE", "RESIZING", "REQUEUED"}
)
_WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
_ALIVE = _WAITING | {"RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT", "COMPLETING"}
_FIELD = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z0-9/:_]*)=")
_EMPTY_WORDS = ("", "None", "(null)", "N/A", "none")


@dataclass(frozen=True)
class Job:
    """A job as Slurm sees it; `state` is Slurm's word, such as PENDING, `reason` "" where there is none.

    `nodes` is a host list such as "node[1-3]", "" while there are none. `cpus` are those of all nodes
    together. `exit_code` is as of `subprocess`: negative for a signal, None where it is not known.
    `starts_at` is when Slurm expects it to start.
    """

    id: int
    state: str
    reason: str = ""
    nodes: str = ""
    node_count: int | None = None
    cpus: int | None = None
    partition: str = ""
    exit_code: int | None = None
    starts_at: datetime | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it has no nodes yet."""
        return self.state in _WAITING

    @property
    def is_running(self) -> bool:
        """Whether its nodes are its own and its script runs."""
        return self.state == "RUNNING"

    @property
    def is_over(self) -> bool:
        """Whether it has ended, however it did."""
        return self.state not in _ALIVE

    @property
    def is_completing(self) -> bool:
        """Whether Slurm is ending it; older versions give the final state only afterwards."""
        return self.state == "COMPLETING"

    @property
    def ending(self) -> ExitStatus:
        """How it ended: "job 7 ended as FAILED (NonZeroExitCode, exited with code 3)"; or that it is being ended."""
        script = ExitStatus.from_returncode(self.exit_code) if self.exit_code else ExitStatus("job", "")
        details = ", ".join(filter(None, [self.reason, script.text]))
        text = f"ended as {self.state}" + (f" ({details})" if details else "")
        if self.is_completing:
            text = "is being ended by Slurm (COMPLETING)"
        memory = self.state == "OUT_OF_MEMORY"
        return replace(script, kind="job", text=f"job {self.id} {text}", stage=self.state, out_of_memory=memory)


class JobReader:
    """Reads jobs from Slurm, as JSON where this version can write it, else as text."""

    def __init__(self) -> None:
        self._json = True

    def read(self, job_id: int) -> Job | None:
        """Return the job, or None where Slurm knows none of that number (any more).

        Raises:
            SlurmError: Slurm does not answer.
        """
        if self._json:
            try:
                text = call("squeue", "--json", f"--jobs={job_id}")
                jobs = {job.id: job for job in parse_json(text)}
            except (SlurmError, ValueError):
                jobs = {}
                self._json = False  # An option it does not know, a plugin that is not installed, other contents.
            else:
                self._json = len(text) < _MAX_JSON_CHARS
            if job_id in jobs:
                return jobs[job_id]
        return _read_text(job_id)


def _read_text(job_id: int) -> Job | None:
    try:
        return parse_record(call("scontrol", "--oneliner", "show", "job", str(job_id)))
    except SlurmError as error:
        if "Invalid job id" in str(error):
            return None
        raise


def parse_json(text: str) -> tuple[Job, ...]:
    """Read `squeue --json`, in the forms of Slurm 22.05 to 25.05.

    Raises:
        ValueError: it is something else.
    """
    try:
        jobs: list[dict[str, Any]] = json.loads(text)["jobs"]
        return tuple(_job_from_json(job) for job in jobs)
    except (KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise ValueError(f"squeue's JSON cannot be read: {type(error).__name__}: {error}") from None


def _job_from_json(job: Mapping[str, Any]) -> Job:
    starts = _unwrap_number(job.get("start_time"))
    return Job(
        id=int(job["job_id"]),
        state=_job_state(job["job_state"]),
        reason=_text_or_empty(job.get("state_description")) or _text_or_empty(job.get("state_reason")),
        nodes=_text_or_empty(job.get("nodes")),
        node_count=_unwrap_number(job.get("node_count")),
        cpus=_unwrap_number(job.get("cpus")),
        partition=_text_or_empty(job.get("partition")),
        exit_code=_exit_code(job.get("exit_code")),
        starts_at=datetime.fromtimestamp(starts) if starts else None,
    )


def _job_state(value: str | list[str]) -> str:
    """Return the state itself; newer versions list it together with flags."""
    states = value if isinstance(value, list) else value.split("+")
    words = [str(state).split()[0] for state in states if str(state).strip()]
    return next((word for word in words if word not in _STATE_FLAGS), words[0] if words else "UNKNOWN")


def _unwrap_number(value: object) -> int | None:
    """Return a number that newer versions wrap: {"set": true, "infinite": false, "number": 2}."""
    if isinstance(value, dict):
        wrapped = cast("dict[str, Any]", value)
        return _unwrap_number(wrapped.get("number")) if wrapped.get("set") and not wrapped.get("infinite") else None
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _exit_code(value: object) -> int | None:
    """Return the exit code of three generations: a wait status, plain numbers, wrapped numbers."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        signal: dict[str, Any] = fields.get("signal") or {}
        number = _unwrap_number(signal.get("signal_id")) or _unwrap_number(signal.get("id"))
        return -number if number else _unwrap_number(fields.get("return_code"))
    status = _unwrap_number(value)
    if status is None:
        return None
    return -(status & 0x7F) if status & 0x7F else status >> 8


def _text_or_empty(value: object) -> str:
    text = value.strip() if isinstance(value, str) else ""
    return "" if text in _EMPTY_WORDS else text


def parse_record(text: str) -> Job | None:
    """Read the first line of `scontrol --oneliner show job`; None where it holds none."""
    record = parse_fields(text.strip().partition("\n")[0])
    if not record.get("JobId", "").isdecimal() or not record.get("JobState"):
        return None
    code, _, signal = record.get("ExitCode", "").partition(":")
    exit_code = (-int(signal) or int(code)) if code.isdecimal() and signal.isdecimal() else None
    return Job(
        id=int(record["JobId"]),
        state=_job_state(record["JobState"]),
        reason=_text_or_empty(record.get("Reason", "").replace("_", " ")),
        nodes=_text_or_empty(record.get("NodeList")),
        node_count=_leading_number(record.get("NumNodes", "")),
        cpus=_leading_number(record.get("NumCPUs", "")),
        partition=_text_or_empty(record.get("Partition")),
        exit_code=exit_code,
        starts_at=_parse_time(record.get("StartTime", "")),
    )


def parse_fields(line: str) -> dict[str, str]:
    """Split a one-line record of scontrol's: `Name=value Name=value …`; a value may hold spaces, as reasons do."""
    matches = list(_FIELD.finditer(line))
    ends = [*(match.start() for match in matches[1:]), len(line)]
    fields: dict[str, str] = {}
    for match, end in zip(matches, ends, strict=False):
        # What a person wrote comes late in a record and must not replace what Slurm wrote.
        fields.setdefault(match[1], line[match.end() : end].strip())
    return fields


def _leading_number(text: str) -> int | None:
    """Return the number a text begins with: NumNodes is "2-2" while a job is pending."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None


def _parse_time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


_CALL_S = 60.0
"""Seconds a program of Slurm's gets: a busy controller lets it wait."""

_PREFIX = re.compile(r"^(?:\w+: )?(?:error|fatal): ")
_SHOWN_LINES = 3


class SlurmError(TargetError):
    """A program of Slurm's is missing or failed; one line, in its own words."""


def call(*command: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program of Slurm's and return what it prints; `env` is added to the environment.

    It runs in a session of its own: a Ctrl-C at the terminal is for us to handle, not for it.

    Raises:
        SlurmError: it is not there, failed, or did not answer within a minute.
    """
    try:
        completed = subprocess.run(
            command,
            input=stdin or "",
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_CALL_S,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise SlurmError(
            f"target slurm: there is no {command[0]} on PATH; run this on a login node of the cluster, "
            "or load its Slurm module first"
        ) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"target slurm: {command[0]} did not answer within {_CALL_S:.0f} s") from None
    except OSError as error:
        raise SlurmError(f"target slurm: {command[0]} cannot be run: {error.strerror}") from None
    if completed.returncode:
        raise SlurmError(f"target slurm: {command[0]}: {error_summary(completed.stderr or completed.stdout)}")
    return completed.stdout


def error_summary(text: str) -> str:
    """Return the first lines a program of Slurm's printed as one line, without its name before each."""
    lines = [_PREFIX.sub("", line.strip()) for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[:_SHOWN_LINES])) or "it failed and said nothing"


_HOPELESS = (
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "BadConstraints",
    "AccountNotAllowed",
    "AccountingPolicy",
    "InvalidAccount",
    "InvalidQOS",
    "QOSNotAllowed",
    "JobHeldAdmin",
    "JobHeldUser",
    "DependencyNeverSatisfied",
)
_REMEDIES = (
    ("PartitionNodeLimit", "the partition has not as many nodes to give: write fewer nodes=, or another partition="),
    ("PartitionTimeLimit", "the partition allows less time: write a shorter time="),
    ("BadConstraints", "no node meets it: see sinfo --Node --long, and change constraint=, mem= or cpus_per_task="),
    ("Account", "write another account="),
    ("InvalidAccount", "write another account="),
    ("QOS", "write another qos=, or wait until its limit has room"),
    ("Assoc", "your account's limit is reached: wait until its other jobs are over"),
    ("JobHeld", "somebody holds it: scontrol release"),
    ("ReqNodeNotAvail", "nodes are drained, down or reserved: see sinfo --list-reasons, and write fewer nodes="),
    ("Nodes required", "nodes are drained, down or reserved: see sinfo --list-reasons, and write fewer nodes="),
    ("Partition", "the partition takes no jobs now: see sinfo, and write another partition="),
    ("Reservation", "nodes are reserved: see scontrol show reservation"),
    ("Resources", "the cluster is busy: wait longer (pending_timeout=), or ask for less"),
    ("Priority", "other jobs come first: wait longer (pending_timeout=), or ask for less"),
)


_REFUSALS = (
    ("partition", "write partition=NAME; sinfo lists them"),
    ("account", "write account=NAME; sacctmgr show associations user=$USER lists yours"),
    ("qos", "write another qos=; sacctmgr show qos lists them"),
    ("time limit", "write a shorter time=; sinfo --format='%P %l' shows each partition's longest"),
    ("memory", "write a smaller mem="),
    ("feature", "write another constraint=; sinfo --format='%N %f' shows what nodes offer"),
    ("More processors", "write fewer nodes= or cpus_per_task=, or another partition=; sinfo shows what there is"),
    ("node", "write fewer nodes= or cpus_per_task=, or another partition=; sinfo shows what there is"),
)


def refusal_remedy(message: str) -> str:
    """Return ": " and what helps against this refusal of sbatch, "" where nothing is known."""
    remedies = (text for word, text in _REFUSALS if word.lower() in message.lower())
    return "".join(f": {text}" for text in [next(remedies, "")] if text)


def is_hopeless(job: Job) -> bool:
    """Say whether a pending job will not start without somebody changing something."""
    return any(job.reason.startswith(word) for word in _HOPELESS)


def pending_remedy(job: Job) -> str:
    """Return what helps a job that is pending, by Slurm's reason."""
    remedies = (text for word, text in _REMEDIES if job.reason.startswith(word))
    return next(remedies, f"see scontrol show job {job.id}, and wait longer with pending_timeout=")


def waiting_words(job: Job) -> str:
    """Return the live line of a job that waits: "pending: Resources (expected to start at 14:02)"."""
    start = f" (expected to start at {job.starts_at:%H:%M})" if job.starts_at else ""
    return f"pending: {job.reason or 'not looked at yet'}{start}"
