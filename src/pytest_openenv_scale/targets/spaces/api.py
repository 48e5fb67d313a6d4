"""One Space on the Hub: requests about it, and the stages it goes through until it runs."""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.system import install_extra
from pytest_openenv_scale.core.text import LOG_LINES
from pytest_openenv_scale.hub.access import HubError, connect, current_token, explain_error, without_secrets

if TYPE_CHECKING:
    from huggingface_hub import SpaceInfo

_T = TypeVar("_T")
_REQUEST_S = 60.0
"""Seconds a request to the Hub may be silent; without it huggingface_hub waits for ever."""

_LOG_S = 10.0
RETRY_S = 60.0
"""Seconds within which the Hub may fail in ways that pass."""

FIRST_RETRY_S = 10.0
"""The same for the first request of all: nothing is lost, and there may be no network at all."""

_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 30.0
_TRANSIENT_ERRORS = ("ConnectError", "ConnectTimeout", "ReadTimeout", "ReadError", "RemoteProtocolError")


@dataclass(frozen=True)
class Runtime:
    """The state of a Space: `hardware` is what it runs on, `requested_hardware` what it is set to.

    `sleep_time` is in seconds, None for never.
    """

    stage: str
    hardware: str | None
    requested_hardware: str | None
    sleep_time: int | None
    replicas: int
    error: str


class HubTroubleError(TargetError):
    """A request to the Hub failed; `status` is its HTTP status, where there was an answer."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


class SpaceApi:
    """Requests about one Space, with the token of `huggingface_hub`; `show_progress` gets a line where one is repeated.

    Raises:
        TargetError: from every method: one line, without a token.
    """

    def __init__(self, api: Any, repo_id: str, show_progress: Callable[[str], None] = lambda line: None) -> None:
        self.api = api  # An HfApi, whose types are partly unknown.
        self.repo_id = repo_id
        self._show_progress = show_progress

    def info(self) -> SpaceInfo:
        """Return what the Hub knows of the Space."""
        read = partial(self.api.space_info, self.repo_id, timeout=_REQUEST_S)
        return self.request("read the Space", read, FIRST_RETRY_S)

    def runtime(self, retry_s: float = RETRY_S) -> Runtime:
        """Return its stage and hardware."""
        return _runtime(self.request("see its stage", lambda: self.api.get_space_runtime(self.repo_id), retry_s))

    def variables(self) -> dict[str, str]:
        """Return its variables, which only those who may change it can read here."""
        response = self.request("read its variables", lambda: self.api.get_space_variables(self.repo_id), RETRY_S)
        return {name: variable.value for name, variable in response.items()}

    def exists(self) -> bool:
        """Say whether there is such a Space."""
        return self.request(
            "look for the Space", lambda: self.api.repo_exists(self.repo_id, repo_type="space"), RETRY_S
        )

    def log(self, lines: int, *, build: bool = False) -> str:
        """Return the end of its log, or of its build's; empty where the token may not read it."""
        last_lines: deque[str] = deque(maxlen=lines)

        def read() -> None:
            try:
                for piece in self.api.fetch_space_logs(self.repo_id, build=build):
                    last_lines.extend(piece.splitlines())
            except Exception:
                return  # A log is extra: the caller has a message without it.

        # In a thread: a stream that is kept open, but silent, would hold its reader.
        reader = threading.Thread(target=read, name="openenv-scale-space-log", daemon=True)
        reader.start()
        reader.join(_LOG_S)
        return without_secrets("\n".join(list(last_lines)))

    def exit_status(self) -> ExitStatus | None:
        """Return why the Space can no longer be measured; None while it answers, or where the Hub does not."""
        try:
            return exit_status(self.runtime(retry_s=0.0))
        except TargetError:
            return None

    def request(self, purpose: str, call: Callable[[], _T], retry_s: float = 0.0) -> _T:
        """Return what `call` returns; errors that may pass by themselves are retried for `retry_s` seconds.

        Raises:
            HubTroubleError: "target spaces: USER/NAME: cannot <purpose>: why".
        """
        deadline = time.monotonic() + retry_s
        repeated = False
        while True:
            try:
                with ignoring_warnings():
                    return call()
            except Exception as error:
                status, pause = _status(error), _retry_after(error)
                transient = type(error).__name__ in _TRANSIENT_ERRORS or status == 429 or (status or 0) >= 500
                why = _failure_words(error, status, pause)
                if not transient or time.monotonic() + pause > deadline:
                    # Not chained: a traceback of the original would show the request.
                    raise HubTroubleError(f"target spaces: {self.repo_id}: cannot {purpose}: {why}", status) from None
            if not repeated:
                self._show_progress(f"spaces: {self.repo_id}: cannot {purpose} yet, trying for {retry_s:.0f} s: {why}")
            repeated = True
            time.sleep(min(pause, _LONGEST_PAUSE_S))


@contextmanager
def ignoring_warnings() -> Generator[None]:
    """Ignore warnings of the client's libraries, which a test run may turn into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def connect_to_hub() -> Any:
    """Return the client of the Hub, an `HfApi`.

    Raises:
        TargetError: `huggingface_hub` is missing or too old.
    """
    try:
        api = connect()
    except HubError as error:
        raise TargetError(f"target spaces: {error}") from None
    import huggingface_hub

    version = huggingface_hub.__version__
    if int(version.partition(".")[0]) < 2:
        raise TargetError(
            f"target spaces: huggingface_hub {version} is too old; upgrade it with {install_extra('spaces')}"
        )
    session: Any = huggingface_hub.get_session()
    if session.timeout.read is None:
        session.timeout = _REQUEST_S
    return api


def space_url(info: SpaceInfo) -> str | None:
    """Return where a Space answers; None where it has no address."""
    subdomain = f"https://{info.subdomain}.hf.space" if info.subdomain else None
    return (info.host or subdomain or "").rstrip("/") or None


def _runtime(response: Any) -> Runtime:
    raw: dict[str, Any] = response.raw
    replica_counts: dict[str, Any] = raw.get("replicas") or {}
    replicas = replica_counts.get("current")
    return Runtime(
        stage=str(response.stage),
        hardware=response.hardware,
        requested_hardware=response.requested_hardware,
        sleep_time=response.sleep_time,
        replicas=replicas if isinstance(replicas, int) and replicas > 0 else 1,
        error=" ".join(str(raw.get("errorMessage") or "").split())[:200],
    )


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _retry_after(error: Exception) -> float:
    """Return the seconds the Hub asks to wait, or a short pause where it says nothing."""
    headers: Any = getattr(getattr(error, "response", None), "headers", {})
    text = str(headers.get("retry-after", ""))
    return float(text) if text.isdecimal() else _PAUSE_S


def _failure_words(error: Exception, status: int | None, pause: float) -> str:
    if type(error).__name__ == "RepositoryNotFoundError":
        if current_token() is None:
            return "there is no such Space, or it is private; check the name, or run hf auth login (or set HF_TOKEN)"
        return "there is no such Space, or the token may not see it; check the name, and hf auth whoami"
    if status == 402:
        message = " ".join(str(getattr(error, "server_message", "") or "payment required").split())
        return (
            f"the Hub asks for payment (402): {without_secrets(message)[:200]}; "
            "see https://huggingface.co/settings/billing, or use hardware the account has"
        )
    if status == 429 and pause != _PAUSE_S:
        return f"the Hub asks for fewer requests (429); try again in {pause:.0f} s"
    return explain_error(error)


START_S = 1800.0
"""Seconds a Space gets at least to be built and to start: images take minutes, and hardware may queue."""

_SETTLE_S = 20.0
"""Seconds a Space that was told to restart may still be seen as it was before."""

_WAKE_S = 30.0
"""Seconds of requests to a Space that sleeps, after which it is restarted, where the token may do that."""

_FIRST_LOOK_PAUSE_S, _LONGEST_LOOK_PAUSE_S = 0.2, 5.0
_BUILD_FAILED = ("BUILD_ERROR", "CONFIG_ERROR", "NO_APP_FILE")
_RUN_FAILED = ("RUNTIME_ERROR", "DELETING", "STOPPED", "PAUSED")
_STAGE_WORDS = {
    "BUILDING": "is being built",
    "RUNNING_BUILDING": "runs, while its next version is being built",
    "APP_STARTING": "starts",
    "RUNNING_APP_STARTING": "runs, while its next version starts",
    "SLEEPING": "sleeps: waking it",
    "RUNNING": "runs",
    "PAUSED": "is paused",
    "STOPPED": "is stopped",
    "BUILD_ERROR": "could not be built",
    "CONFIG_ERROR": "has a mistake in the YAML of its README",
    "NO_APP_FILE": "has no files to build from",
    "RUNTIME_ERROR": "stopped with an error",
    "DELETING": "is being deleted",
}


@dataclass(frozen=True)
class AppliedChanges:
    """What was changed on a Space for a run.

    `hardware` is what has to run afterwards (None: any); `restarts` and `changes_hardware` are what the Space does
    because of it, and `notes` say so in words.
    """

    hardware: str | None = None
    changes_hardware: bool = False
    restarts: bool = False
    notes: tuple[str, ...] = ()


def wait_until_running(
    space: SpaceApi,
    expected: AppliedChanges,
    request_page: Callable[[], object],
    show_progress: Callable[[str], None],
    *,
    start_s: float,
) -> Runtime:
    """Return the runtime of a Space that runs as expected; shows each stage, and calls `request_page` while it sleeps.

    Raises:
        TargetError: it failed to build or to start, with the end of its log, or takes longer than `start_s` seconds.
    """
    began = time.monotonic()
    pause, shown_stage, changed = _FIRST_LOOK_PAUSE_S, "", not (expected.restarts or expected.changes_hardware)
    asleep_since: float | None = None
    while True:
        runtime = space.runtime()
        stage, waited = runtime.stage, time.monotonic() - began
        changed = changed or stage not in ("RUNNING", *_RUN_FAILED, *_BUILD_FAILED) or waited >= _SETTLE_S
        if stage != shown_stage:
            show_progress(f"spaces: {space.repo_id} {stage_words(stage)}{_elapsed_words(waited)}")
            pause, shown_stage = _FIRST_LOOK_PAUSE_S, stage
        ready = expected.hardware is None or runtime.hardware == expected.hardware
        # Other hardware than before that runs is proof of a restart.
        if stage == "RUNNING" and ready and (changed or expected.changes_hardware):
            return runtime
        if changed and stage in (*_BUILD_FAILED, *_RUN_FAILED):
            raise TargetError(_failure_text(space, runtime))
        if waited >= start_s:
            build = "BUILDING" in stage
            raise TargetError(
                with_log(
                    f"target spaces: {space.repo_id} {_timeout_words(runtime, expected)} "
                    f"after {start_s / 60:.0f} minutes; write a longer start_timeout=",
                    space.log(LOG_LINES, build=build),
                )
            )
        if stage == "SLEEPING":
            asleep_since = asleep_since or time.monotonic()
            asleep_since = _wake(space, request_page, asleep_since)
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_LOOK_PAUSE_S)


def stage_words(stage: str) -> str:
    """Return what a stage means, as the rest of a sentence that begins with the Space."""
    return _STAGE_WORDS.get(stage, f"is in stage {stage}")


def with_log(text: str, log: str) -> str:
    """Return a message with the end of a log below it, where there is one."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    return "\n".join([text, *(f"  {line}" for line in lines)])


def exit_status(runtime: Runtime) -> ExitStatus | None:
    """Return why a Space that ran can no longer be measured, or None while it answers."""
    stage = runtime.stage
    if stage.startswith("RUNNING"):
        return None
    words = {"SLEEPING": "went to sleep", "PAUSED": "was paused"}.get(stage, stage_words(stage))
    text = f"the Space {words} (stage {stage})" + (f": {runtime.error}" if runtime.error else "")
    return ExitStatus("stage", text, stage=stage, out_of_memory="out of memory" in runtime.error)


def _wake(space: SpaceApi, request_page: Callable[[], object], since: float) -> float:
    """Request a page, which wakes the Space, or restart it after `_WAKE_S`; return when the waiting began."""
    request_page()
    if time.monotonic() - since < _WAKE_S:
        return since
    space.request("restart it, as it goes on sleeping", lambda: space.api.restart_space(space.repo_id))
    return time.monotonic()


def _failure_text(space: SpaceApi, runtime: Runtime) -> str:
    stage = runtime.stage
    reason = f": {runtime.error}" if runtime.error else ""
    text = f"target spaces: {space.repo_id} {stage_words(stage)} ({stage}){reason}"
    if stage in ("PAUSED", "STOPPED"):
        return f"{text}; restart it in its settings, or with a token that may do so"
    if stage == "NO_APP_FILE":
        return f"{text}; put a Dockerfile and a README with sdk: docker into it (openenv-scale deploy spaces does)"
    return with_log(text, space.log(LOG_LINES, build=stage in _BUILD_FAILED))


def _timeout_words(runtime: Runtime, expected: AppliedChanges) -> str:
    if expected.hardware is not None and runtime.hardware != expected.hardware:
        return f"has {runtime.hardware or 'no hardware'} and waits for {expected.hardware} ({runtime.stage})"
    return f"{stage_words(runtime.stage).partition(':')[0]} still ({runtime.stage})"


def _elapsed_words(waited_s: float) -> str:
    return f" (after {waited_s:.0f} s)" if waited_s >= 1 else ""
