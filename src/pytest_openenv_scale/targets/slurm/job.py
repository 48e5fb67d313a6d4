"""The life of what serves on Slurm: a job of our own or a script in an allocation; ended on every way out, or later."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.system import wait_for
from pytest_openenv_scale.core.text import LOG_LINES
from pytest_openenv_scale.targets.common.base import Startable, with_log
from pytest_openenv_scale.targets.common.leftovers import Leftover, deferring_interrupts, is_alive, owner_label
from pytest_openenv_scale.targets.common.supervisor import ServerProcess

from .job_info import (
    Job,
    SlurmError,
    call,
    is_hopeless,
    pending_remedy,
    read_job,
    refusal_remedy,
    unusable_nodes,
    waiting_words,
)
from .spec import OWNER_PREFIX, SUBMIT_COMMAND, default_folder, last_complaint

OWNER_FILE = "owner"
LOG_FILE = "job.log"

_POLL_S = 1.0
"""Seconds between two polls of a job that runs; one that waits is polled ever more seldom."""

_LONGEST_POLL_S = 10.0
_ENDING_S = 5.0
"""Seconds within which a job that is being ended mostly has ended; what ignores SIGTERM takes longer."""

_PAUSE_S = 0.2

_CONTROLLER_AWAY_S = 60.0
"""Seconds Slurm may not answer while a job waits."""

_CANCEL_S = 30.0
"""Seconds a cancelled job gets to be gone."""

_COMPLETING_S = 10.0
"""Seconds of them for Slurm to end the last of its processes."""

_STOP_S = 15.0
"""Seconds our script in an allocation gets to end its steps."""

_TAIL_BYTES = 64 * 1024


class ServingJob(Protocol):
    """What runs the servers: a job, or a script in one; `id` is the job's number."""

    id: int

    def exit_status(self, *, now: bool = False) -> ExitStatus | None:
        """Return how it ended, or None while it runs; `now` where an answer that is a second old will not do."""
        ...


class JobFolder(Startable):
    """A folder both this machine and the nodes see, for the logs of one job; `base` is made where it does not exist."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.path = base

    def start(self) -> None:
        """Make the folder.

        Raises:
            TargetError: it cannot be made.
        """
        try:
            self._base.mkdir(parents=True, exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix="job-", dir=self._base)).absolute()
            (self.path / OWNER_FILE).write_text(owner_label(), encoding="utf-8")
        except OSError as error:
            raise TargetError(
                f"target slurm: no folder for the job's logs can be made in {self._base}: {error.strerror}; "
                "write dir=, a folder that the nodes see too"
            ) from None

    def stop(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def tail(self, name: str, lines: int) -> str:
        """Return the last lines of a log in the folder, "" where there is none."""
        try:
            with (self.path / name).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""

    def exit_status(self, name: str) -> ExitStatus | None:
        """Return how a server or an Envoy ended, from the file its script then writes: None while there is none."""
        text = self.tail(name, 1).strip()
        return ExitStatus.from_shell(int(text)) if text.isdecimal() else None

    def with_log(self, message: str) -> str:
        """Return `message` with the last error message the scripts wrote, and the end of their output below."""
        complaint = last_complaint(self.tail(LOG_FILE, 10_000))
        return with_log(
            f"{message}: {complaint}" if complaint else message, self.tail(LOG_FILE, LOG_LINES), "the job's output"
        )


class BatchJob(Startable):
    """A job of our own; a context manager from its submission to its cancellation.

    `env` is put into its environment, not into the script, which Slurm keeps. `show_progress` gets what it
    waits for.
    """

    def __init__(
        self, script: str, name: str, folder: JobFolder, *, env: Mapping[str, str], show_progress: Callable[[str], None]
    ) -> None:
        self.id = 0
        self._script = script
        self._name = name
        self._folder = folder
        self._env = env
        self._show_progress = show_progress
        self._polled_at = 0.0
        self._last_job: Job | None = None

    def start(self) -> None:
        """Submit the job.

        Raises:
            TargetError: Slurm refuses it, or does not answer.
        """
        try:
            self.id = deferring_interrupts(self._submit)
        except BaseException:
            self._cancel_by_name()
            raise

    def stop(self) -> None:
        """Cancel it, whatever state it is in.

        Raises:
            TargetError: it may still run.
        """
        deferring_interrupts(self._cancel)

    def _submit(self) -> int:
        try:
            text = call(*SUBMIT_COMMAND, stdin=self._script, env=self._env)
        except SlurmError as error:
            raise SlurmError(f"{error}{refusal_remedy(str(error))}") from None
        number = text.strip().splitlines()[-1].partition(";")[0] if text.strip() else ""
        if not number.isdecimal():
            raise SlurmError(f"target slurm: sbatch said {text.strip()!r} instead of a job's number")
        return int(number)

    def _cancel_by_name(self) -> None:
        """Cancel a job that may have been accepted although sbatch did not come to say so."""
        try:
            call("scancel", f"--name={self._name}", "--quiet")
        except SlurmError:
            return

    def wait_until_running(self, pending_s: float) -> Job:
        """Return the job once it has its nodes; shows meanwhile what it waits for.

        Raises:
            TargetError: it waits longer than `pending_s` seconds, cannot start, or ended.
        """
        deadline, pause, shown_words = time.monotonic() + pending_s, 0.2, ""
        while True:
            job = self._poll_patiently(deadline)
            if job.is_over:
                raise TargetError(self._folder.with_log(f"target slurm: {job.ending} before it served"))
            if not job.is_waiting and job.nodes:
                return job
            words = waiting_words(job)
            if words != shown_words and job.reason:
                self._show_progress(f"slurm: job {self.id} is {words}")
                shown_words = words
            if is_hopeless(job) or time.monotonic() >= deadline:
                raise TargetError(self._pending_failure(job, pending_s))
            time.sleep(min(pause, max(deadline - time.monotonic(), 0.05)))
            pause = min(pause * 1.3, _LONGEST_POLL_S)

    def _pending_failure(self, job: Job, pending_s: float) -> str:
        state = "cannot start" if is_hopeless(job) else f"was still pending after {pending_s:g} s"
        unusable = unusable_nodes(job.partition or None) if "Node" in job.reason or job.reason == "Resources" else ()
        nodes = f" ({'; '.join(unusable[:4])})" if unusable else ""
        reason = job.reason or "no reason"
        return (
            f"target slurm: job {self.id} {state} and is cancelled; Slurm says {reason}{nodes}: {pending_remedy(job)}"
        )

    def exit_status(self, *, now: bool = False) -> ExitStatus | None:
        """See `ServingJob`; without `now`, Slurm is asked once a second at most."""
        stale = now or time.monotonic() - self._polled_at >= _POLL_S
        if self._last_job is None or (not self._last_job.is_over and stale):
            try:
                _poll_past_completing(self._poll) if now else self._poll()
            except SlurmError:
                return None  # A controller that is away for a moment says nothing about the job.
        return _ending(self._last_job, now=now)

    def _poll_patiently(self, deadline: float) -> Job:
        """Poll, and again where Slurm does not answer: a controller that restarts does not cost a job its place."""
        deadline = min(deadline, time.monotonic() + _CONTROLLER_AWAY_S)
        while True:
            try:
                return self._poll()
            except SlurmError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_S)

    def _poll(self) -> Job:
        self._polled_at = time.monotonic()
        job = read_job(self.id)
        if job is None:
            job = Job(self.id, "gone", "Slurm no longer knows it")
        self._last_job = job
        return job

    def _cancel(self) -> None:
        try:
            call("scancel", "--quiet", str(self.id))
            self._wait_until_gone()
        except SlurmError as error:
            if "Invalid job id" not in str(error):
                raise TargetError(f"{error}; job {self.id} may still run: scancel {self.id}") from None

    def _wait_until_gone(self) -> None:
        """Wait until its processes are gone too: what they write must not outlive their folder."""
        began, pause = time.monotonic(), 0.05
        command = ("squeue", "--noheader", f"--user={os.getuid()}", f"--name={self._name}", "--format=%T")
        while states := call(*command).split():
            waited = time.monotonic() - began
            if waited >= _COMPLETING_S and set(states) == {"COMPLETING"}:
                return  # It is cancelled: Slurm waits for a node that does not answer, which may take minutes.
            if waited >= _CANCEL_S:
                raise SlurmError(f"target slurm: job {self.id} was cancelled, and is {states[0]} {waited:.0f} s later")
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)


class AttachedScript(Startable):
    """Our script on this machine, whose steps serve in the allocation `job`; the allocation stays as it is.

    `nodes` is the host list of those of its nodes that are used.
    """

    def __init__(
        self, script: str, job: Job, nodes: tuple[str, ...], folder: JobFolder, root: Path, *, env: Mapping[str, str]
    ) -> None:
        self.id = job.id
        job_variables = {
            "SLURM_JOB_ID": str(job.id),
            "SLURM_JOBID": str(job.id),
            "SLURM_JOB_NODELIST": ",".join(nodes),
            "SLURM_NODELIST": ",".join(nodes),
            "SLURM_JOB_NUM_NODES": str(len(nodes)),
            "SLURM_NNODES": str(len(nodes)),
        }
        other_variables = {name: text for name, text in os.environ.items() if not name.startswith(("SLURM_", "SRUN_"))}
        slurm_config = {name: os.environ[name] for name in ("SLURM_CONF", "SLURM_CLUSTERS") if name in os.environ}
        self._process = ServerProcess(
            ["bash", "-c", script],
            env={**other_variables, **slurm_config, **job_variables, **env},
            cwd=root,
            log_path=folder.path / LOG_FILE,
            stop_s=_STOP_S,
            # It ends its steps by itself, which nobody else would.
            orphan_signal=signal.SIGTERM,
        )

    def start(self) -> None:
        """Start the script."""
        self._process.start()

    def stop(self) -> None:
        """End it and its steps."""
        deferring_interrupts(self._process.stop)

    def exit_status(self, *, now: bool = False) -> ExitStatus | None:
        """See `ServingJob`; the job itself is looked at only with `now`, or once the script is gone."""
        status = self._process.exit_status()
        if status is None and not now:
            return None
        try:
            job = _poll_past_completing(lambda: read_job(self.id))
        except SlurmError:
            job = None
        return _ending(job, now=now) or (status.of(f"the script in job {self.id}") if status else None)


def _poll_past_completing(poll: Callable[[], Job | None]) -> Job | None:
    """Return the job; where Slurm is just ending it, poll for up to `_ENDING_S` until its final state is known."""
    return wait_for(poll, _ENDING_S, _PAUSE_S, until=lambda job: job is None or not job.is_completing)


def _ending(job: Job | None, *, now: bool) -> ExitStatus | None:
    if job is None or not (job.is_over or (now and job.is_completing)):
        return None
    return job.ending


def running_job(job_id: int) -> Job:
    """Return the allocation to attach to.

    Raises:
        TargetError: there is none of that number, or it has no nodes (any more).
    """
    job = read_job(job_id)
    if job is None or job.is_over or job.is_waiting or not job.nodes:
        state = "there is no such job" if job is None else f"it is {job.state}"
        raise TargetError(
            f"target slurm: job={job_id} cannot be attached to: {state}; see squeue --me, "
            "or leave out job= to submit one"
        )
    return job


def leftover_jobs() -> Iterator[Leftover]:
    """Yield the jobs whose run is gone, and their folders; what a process may still use, here or elsewhere, is none.

    Raises:
        TargetError: there is no Slurm here, or it does not answer.
    """
    folders = _abandoned_folders()
    listing = call("squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%j|%k")
    for number, name, owner in parse_jobs(listing):
        if not is_alive(owner):
            yield Leftover(f"Slurm job {number} ({name})", partial(call, "scancel", "--quiet", number))
    for folder in folders:
        yield Leftover(f"logs of a job {folder}", partial(shutil.rmtree, folder, ignore_errors=True))


def parse_jobs(text: str) -> list[tuple[str, str, str]]:
    """Read `squeue --format=%i|%j|%k`: number, name and owner of each job that one of our runs submitted."""
    jobs: list[tuple[str, str, str]] = []
    for line in text.splitlines():
        number, _, rest = line.strip().partition("|")
        name, _, comment = rest.rpartition("|")
        if comment.startswith(OWNER_PREFIX):
            jobs.append((number, name, comment.removeprefix(OWNER_PREFIX).strip()))
    return jobs


def _abandoned_folders() -> list[Path]:
    folders = [owner.parent for owner in default_folder().glob(f"job-*/{OWNER_FILE}")]
    return sorted(folder for folder in folders if not is_alive(_read_owner(folder / OWNER_FILE)))


def _read_owner(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
