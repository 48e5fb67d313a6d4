"""Slurm's commands, and what they report: the state of a job, why it waits, how it ended, its nodes."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.system import resolve_host, url_host

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
    cpus: int | None = None
    partition: str = ""
    exit_code: int | None = None
    starts_at: datetime | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it has no nodes yet."""
        return self.state in _WAITING

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


def read_job(job_id: int) -> Job | None:
    """Return the job, or None where Slurm knows none of that number (any more).

    Raises:
        SlurmError: Slurm does not answer.
    """
    try:
        return parse_record(call("scontrol", "--oneliner", "show", "job", str(job_id)))
    except SlurmError as error:
        if "Invalid job id" in str(error):
            return None
        raise


def parse_record(text: str) -> Job | None:
    """Read the first line of `scontrol --oneliner show job`; None where it holds none."""
    record = parse_fields(text.strip().partition("\n")[0])
    if not record.get("JobId", "").isdecimal() or not record.get("JobState"):
        return None
    code, _, signal = record.get("ExitCode", "").partition(":")
    exit_code = (-int(signal) or int(code)) if code.isdecimal() and signal.isdecimal() else None
    texts = {name: "" if text in _EMPTY_WORDS else text for name, text in record.items()}
    cpus = re.match(r"\d+", texts.get("NumCPUs", ""))  # "4-4" while a job is pending.
    return Job(
        id=int(record["JobId"]),
        state=_job_state(record["JobState"]),
        reason=texts.get("Reason", "").replace("_", " "),
        nodes=texts.get("NodeList", ""),
        cpus=int(cpus[0]) if cpus else None,
        partition=texts.get("Partition", ""),
        exit_code=exit_code,
        starts_at=_parse_time(record.get("StartTime", "")),
    )


def _job_state(text: str) -> str:
    """Return the state itself of "CANCELLED+COMPLETING" or "CANCELLED by 1000"."""
    words = [state.split()[0] for state in text.split("+") if state.strip()]
    return next((word for word in words if word not in _STATE_FLAGS), words[0] if words else "UNKNOWN")


def parse_fields(line: str) -> dict[str, str]:
    """Split a one-line record of scontrol's: `Name=value Name=value …`; a value may hold spaces, as reasons do."""
    matches = list(_FIELD.finditer(line))
    ends = [*(match.start() for match in matches[1:]), len(line)]
    fields: dict[str, str] = {}
    for match, end in zip(matches, ends, strict=False):
        # What a person wrote comes late in a record and must not replace what Slurm wrote.
        fields.setdefault(match[1], line[match.end() : end].strip())
    return fields


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


@dataclass(frozen=True)
class Node:
    """A node of the cluster and the IP address it is reached at."""

    name: str
    address: str

    def url(self, port: int) -> str:
        """Return the base URL of a server on this node."""
        return f"http://{url_host(self.address)}:{port}"

    def server_label(self, port: int) -> str:
        """Return how a server on this node is named in an error: "node2 (127.0.0.3:8000)"."""
        return f"{self.name} ({url_host(self.address)}:{port})"


def find_nodes(hostlist: str) -> tuple[Node, ...]:
    """Return the nodes of a host list such as "node[1-3]", in Slurm's order, each with its address.

    Raises:
        TargetError: Slurm does not answer, or a node's address is a name that does not resolve here.
    """
    names = call("scontrol", "show", "hostnames", hostlist).split()
    addresses = parse_addresses(call("scontrol", "--oneliner", "show", "node", hostlist))
    return tuple(Node(name, _resolve_address(name, addresses.get(name, name))) for name in names)


def parse_addresses(text: str) -> dict[str, str]:
    """Read `scontrol --oneliner show node`: the address of each node, by its name."""
    records = [parse_fields(line) for line in text.splitlines()]
    return {
        record["NodeName"]: record.get("NodeAddr") or record["NodeName"] for record in records if "NodeName" in record
    }


def _resolve_address(name: str, address: str) -> str:
    """Return the IP address of a node whose address Slurm has as an IP address or as a name."""
    try:
        return resolve_host(address)
    except socket.gaierror:
        raise TargetError(
            f"target slurm: node {name} has the address {address!r} (NodeAddr in scontrol show node {name}), which "
            "does not resolve on this machine; run this where it does, such as on a login node, or in the job itself"
        ) from None


def unusable_nodes(partition: str | None = None) -> tuple[str, ...]:
    """Return a line for each node an administrator, or Slurm itself, has taken out: "node3 is drained: bad disk"."""
    command = ["sinfo", "--noheader", "--Node", "--format=%N|%T|%E"]
    try:
        return parse_unusable(call(*command, *([f"--partition={partition}"] if partition else [])))
    except SlurmError:
        return ()  # It would only have explained another error.


_UNUSABLE_STATES = ("drain", "down", "fail", "maint", "unknown", "no_respond", "error")


def parse_unusable(text: str) -> tuple[str, ...]:
    """Read `sinfo --Node --format=%N|%T|%E`; a node stands there once for each of its partitions."""
    unusable: dict[str, None] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("|")
        state, _, reason = rest.partition("|")
        if any(word in state.lower() for word in _UNUSABLE_STATES) or state.endswith("*"):
            why = f": {reason.strip()}" if reason.strip() not in ("", "none", "None") else ""
            unusable[f"{name.strip()} is {state.rstrip('*').strip()}{why}"] = None
    return tuple(unusable)


def format_nodes(nodes: Sequence[Node]) -> str:
    """Return the names of nodes for a sentence, the first and the last of many."""
    names = [node.name for node in nodes]
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:2])}, …, {names[-1]} ({len(names)} nodes)"
