"""The settings of a Space: changed for a run, kept on file until they are put back, whatever happens to the run."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.files import json_bytes, replacing
from pytest_openenv_scale.core.parsing import short_repr
from pytest_openenv_scale.core.target_spec import TargetSpec, names_secret
from pytest_openenv_scale.targets.common import options
from pytest_openenv_scale.targets.common.application import BUILT_IN
from pytest_openenv_scale.targets.common.leftovers import deferring_interrupts, is_alive, owner_label
from pytest_openenv_scale.targets.common.options import variables_for

from .api import RETRY_S, AppliedChanges, HubTroubleError, Runtime, SpaceApi

FREE = "cpu-basic"
"""The hardware every Space has unless it is asked for more; its sleep time is fixed."""

VCPUS = {
    "cpu-basic": 2,
    "cpu-upgrade": 8,
    "t4-small": 4,
    "t4-medium": 8,
    "l40sx1": 8,
    "l40sx4": 48,
    "l40sx8": 192,
    "a10g-small": 4,
    "a10g-large": 12,
    "a10g-largex2": 24,
    "a10g-largex4": 48,
    "a100-large": 12,
}
"""Processors of a Space by the name of its hardware (source: https://huggingface.co/docs/hub/spaces-gpus)."""

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_DURATION = re.compile(r"(\d+)\s*(s|m|h|)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
NEVER = -1
"""The sleep time of a Space that never sleeps, as the Hub's API writes it."""

SAFE_SLEEP_S = 3600
"""Seconds after which hardware asked for a run sleeps, unless told otherwise: a killed run is not billed for ever."""


def sleep_time(value: str, what: str) -> int:
    """Parse seconds ("300", "5m", "1h"), or "never"."""
    if value == "never":
        return NEVER
    match = _DURATION.fullmatch(value)
    if match is None or int(match[1]) == 0:
        raise GrammarError(f"{what} must be a time, got {short_repr(value)}; write 300, 5m, 1h or never")
    return int(match[1]) * _SECONDS[match[2]]


def flag(value: str, what: str) -> bool:
    """Parse a key that stands without a value, as in `,temporary`."""
    if value not in ("yes", "true", "1"):
        raise GrammarError(f"{what} is written without a value, got {short_repr(value)}; leave it out for no")
    return True


@dataclass(frozen=True)
class SpaceSpec(options.TargetOptions, options.StartOptions):
    """A parsed specification; `variables` are those the Space is to have during the run.

    `repo_id` is None for a temporary Space whose name is ours to choose; `sleep_time` is in seconds, or `NEVER`.
    """

    repo_id: str | None = None
    sleep_time: int | None = options.option(sleep_time)
    temporary: bool = options.option(flag, False)
    app: str | None = options.option()
    folder: str | None = options.option()
    variables: Mapping[str, str] = options.variables()


def parse_space(spec: TargetSpec) -> SpaceSpec:
    """Return what `spaces:USER/NAME,key=value…` asks for.

    Raises:
        GrammarError: it names no Space, a key is unknown, or keys do not go together.
    """
    space = options.read_options(spec, SpaceSpec)
    if spec.argument is None and not space.temporary:
        raise GrammarError("target spaces: name the Space, spaces:USER/NAME; or write spaces,temporary for one of ours")
    if spec.argument is not None and not _REPO_ID.fullmatch(spec.argument):
        raise GrammarError(f"target spaces: {short_repr(spec.argument)} names no Space; write spaces:USER/NAME")
    for key, value in (("app", space.app), ("folder", space.folder)):
        if value and not space.temporary:
            raise GrammarError(f"target spaces: {key}= is for a Space made for the run; add ,temporary")
    if space.app == BUILT_IN and space.folder:
        raise GrammarError("target spaces: app=builtin is no app of a folder; leave out folder=")
    if space.sleep_time is not None and space.hardware == FREE:
        raise GrammarError(f"target spaces: the sleep time of {FREE} is fixed to 48 h; leave out sleep_time=")
    for name in space.variables:
        if names_secret(name):
            raise GrammarError(
                f"target spaces: anybody can read the variables of a Space; make {name} one of its secrets, "
                "in its settings, instead of env."
            )
    variables = {**space.variables, **options.variables_for(**space.declared)}
    return replace(space, repo_id=spec.argument, variables=variables)


OFF_STAGES = ("PAUSED", "STOPPED")
"""Stages of a Space that somebody with write access has to start again."""


def change_settings(
    space: SpaceApi,
    spec: SpaceSpec,
    stack: ExitStack,
    run_id: str | None,
    show_progress: Callable[[str], None],
) -> AppliedChanges:
    """Give the Space what `spec` asks for and have `stack` restore what was; starts one that is off.

    Raises:
        TargetError: the Hub refuses, or another run has changed the same Space.
    """
    claimed = _claim(space, run_id, show_progress)
    runtime = space.runtime()
    current = space.variables() if spec.variables else {}
    if spec.sleep_time is not None and (spec.hardware or _hardware(runtime)) == FREE:
        raise TargetError(
            f"target spaces: the sleep time of {FREE} is fixed to 48 h; leave out sleep_time=, or write hardware= too"
        )
    changes = _differing(planned_settings(spec), runtime, current)
    if spec.sleep_time is None and not changes.hardware:
        changes = replace(changes, sleep_time=None)
    before = SpaceSettings(
        hardware=_hardware(runtime) if changes.hardware else None,
        sleep_time=_sleep_time(runtime) if changes.hardware or changes.sleep_time is not None else None,
        variables={name: current.get(name) for name in changes.variables},
        paused=runtime.stage in OFF_STAGES,
    )
    if before == SpaceSettings():
        return AppliedChanges(spec.hardware, restarts=claimed)
    entry = new_pending_change(space.api.endpoint, space.repo_id, run_id, before=before)
    try:
        entry.write()
    except OSError as error:
        raise TargetError(
            f"target spaces: what is changed on {space.repo_id} must be on file, and {error.filename} cannot be "
            f"written: {error.strerror}; set XDG_STATE_HOME to a folder that can"
        ) from None
    stack.callback(undo_change, space, entry, show_progress)
    _apply(space, changes)
    if before.paused:
        show_progress(f"spaces: {space.repo_id} is {runtime.stage.lower()}: restarting it")
        space.request("restart it", lambda: space.api.restart_space(space.repo_id))
    return AppliedChanges(
        spec.hardware,
        # A Space set back to the hardware it still runs on is not known to have restarted.
        changes_hardware=changes.hardware not in (None, runtime.hardware),
        restarts=bool(changes.variables or changes.hardware or before.paused or claimed),
        notes=_notes(before, changes),
    )


def planned_settings(spec: SpaceSpec) -> SpaceSettings:
    """Return the settings a Space is to have during the run; None, or no name in `variables`, is what stays as it is.

    Hardware that is paid for goes to sleep by itself, and our server in a temporary Space gets a worker per core.
    """
    hardware = spec.hardware or (FREE if spec.temporary else None)
    cores = VCPUS.get(hardware or "") if spec.temporary and spec.app == BUILT_IN else None
    sleep_time = None if hardware == FREE else spec.sleep_time or (SAFE_SLEEP_S if hardware else None)
    return SpaceSettings(hardware, sleep_time, {**variables_for(workers=cores), **spec.variables})


def undo_change(space: SpaceApi, entry: PendingChange, show_progress: Callable[[str], None]) -> None:
    """Put the Space back as `entry` says it was; an interrupt waits until that is done.

    Raises:
        TargetError: the Hub refuses; `openenv-scale gc spaces` can do it later.
    """

    def work() -> None:
        restore(space, entry.before, show_progress)
        entry.remove()

    try:
        deferring_interrupts(work)
    except TargetError as error:
        raise TargetError(
            f"{error}; openenv-scale gc spaces does it later, or do it in the settings of the Space: "
            f"{entry.endpoint}/spaces/{entry.repo_id}/settings"
        ) from None


def restore(space: SpaceApi, before: SpaceSettings, show_progress: Callable[[str], None] = lambda line: None) -> None:
    """Give a Space back the settings it had; what is as it was already is left alone.

    Raises:
        HubTroubleError: the Hub refused some of it, which the message names, or cannot be reached.
    """
    not_restored: list[str] = []
    trouble: HubTroubleError | None = None
    for part in _split_settings(before):
        # After an outage nothing more is tried; a refusal may be of this part alone.
        if trouble is None or trouble.status is not None:
            try:
                _restore_part(space, part, show_progress)
                continue
            except HubTroubleError as error:
                trouble = trouble or error
        not_restored += settings_words(part)
    if trouble is not None:
        raise HubTroubleError(
            f"{trouble}; so {space.repo_id} did not get back {', '.join(not_restored)}", trouble.status
        )


def _split_settings(before: SpaceSettings) -> Iterator[SpaceSettings]:
    """Split settings into what is put back by itself; hardware, which may be billed, comes first."""
    if before.hardware or before.sleep_time is not None:
        yield SpaceSettings(hardware=before.hardware, sleep_time=before.sleep_time)
    if before.variables:
        yield SpaceSettings(variables=before.variables)
    if before.paused:
        yield SpaceSettings(paused=True)


def _restore_part(space: SpaceApi, part: SpaceSettings, show_progress: Callable[[str], None]) -> None:
    runtime, variables = (None, space.variables()) if part.variables else (space.runtime(), {})
    differing = _differing(part, runtime, variables)
    if differing != SpaceSettings():
        show_progress(f"spaces: {space.repo_id} gets back {', '.join(settings_words(differing))}")
        _apply(space, differing)


def _differing(wanted: SpaceSettings, runtime: Runtime | None, variables: Mapping[str, str]) -> SpaceSettings:
    """Return what of `wanted` is not so now; without a runtime only variables are looked at."""
    unset = {name: text for name, text in wanted.variables.items() if variables.get(name) != text}
    if runtime is None:
        return SpaceSettings(variables=unset)
    hardware = wanted.hardware if wanted.hardware != _hardware(runtime) else None
    sleep_time = wanted.sleep_time if hardware or wanted.sleep_time != _sleep_time(runtime) else None
    return SpaceSettings(hardware, sleep_time, unset, paused=wanted.paused and runtime.stage not in OFF_STAGES)


def _apply(space: SpaceApi, settings: SpaceSettings) -> None:
    """Give a Space these settings.

    Raises:
        HubTroubleError: the Hub refused, or cannot be reached.
    """
    api, repo_id = space.api, space.repo_id
    hardware, sleep_time = settings.hardware, settings.sleep_time
    for name, text in settings.variables.items():
        if text is None:
            space.request(f"unset {name}", partial(api.delete_space_variable, repo_id, name), RETRY_S)
        else:
            space.request(f"set {name}", partial(api.add_space_variable, repo_id, name, text), RETRY_S)
    if hardware:
        seconds = None if hardware == FREE else sleep_time
        request = partial(api.request_space_hardware, repo_id, hardware, sleep_time=seconds)
        space.request(f"set its hardware to {hardware}", request, RETRY_S)
    elif sleep_time is not None:
        space.request("set its sleep time", partial(api.set_space_sleep_time, repo_id, sleep_time), RETRY_S)
    if settings.paused:
        space.request("pause it again", partial(api.pause_space, repo_id), RETRY_S)


def settings_words(before: SpaceSettings) -> list[str]:
    """Return the settings a Space gets back, in words."""
    words = [f"hardware {before.hardware}"] if before.hardware else []
    if before.sleep_time is not None and before.hardware != FREE:
        words.append("no sleep time" if before.sleep_time == NEVER else f"sleep time {before.sleep_time} s")
    words += [f"{name} unset" if text is None else f"its {name}" for name, text in sorted(before.variables.items())]
    return [*words, "its pause"] if before.paused else words


def _claim(space: SpaceApi, run_id: str | None, show_progress: Callable[[str], None]) -> bool:
    """Check that no other run has changed the Space; undo what a killed run left on it, and say whether one did."""
    undone = False
    for entry in pending_changes():
        if (entry.endpoint, entry.repo_id) != (space.api.endpoint, space.repo_id) or entry.temporary:
            continue
        if not entry.is_leftover and entry.run_id == run_id and entry.owner != owner_label():
            raise TargetError(
                f"target spaces: {space.repo_id}: another pytest-xdist worker of this run has changed its settings; "
                "a Space whose settings are changed is for one worker: run its tests with -n 0, or in one group of "
                "--dist loadgroup"
            )
        if not entry.is_leftover:
            raise TargetError(
                f"target spaces: {space.repo_id}: another run on this machine has changed its settings; "
                "wait until that has ended"
            )
        show_progress(f"spaces: {space.repo_id} still has the settings of a killed run")
        undo_change(space, entry, show_progress)
        undone = True
    return undone


def _hardware(runtime: Runtime) -> str:
    """Return what it is set to, which may not be what it runs on yet."""
    return runtime.requested_hardware or runtime.hardware or FREE


def _sleep_time(runtime: Runtime) -> int:
    return NEVER if runtime.sleep_time is None else runtime.sleep_time


def _notes(before: SpaceSettings, changes: SpaceSettings) -> tuple[str, ...]:
    sleep_time = changes.sleep_time
    words = [f"hardware {before.hardware} → {changes.hardware}"] if changes.hardware else []
    words += ["it never sleeps" if sleep_time == NEVER else f"sleep time {sleep_time} s"] if sleep_time else []
    words += [
        f"{name} {before.variables[name] or 'unset'} → {text}" for name, text in sorted(changes.variables.items())
    ]
    words += ["restarted from its pause"] if before.paused else []
    return (f"changed on the Space for this run, and put back after it: {', '.join(words)}",)


_SUFFIX = ".json"


@dataclass(frozen=True)
class SpaceSettings:
    """Settings of a Space, as they were or are to be; None, or no name in `variables`, is what is not changed.

    `sleep_time` is in seconds, -1 for one that never slept. A variable that was not there is None; `paused`
    says that the Space was off.
    """

    hardware: str | None = None
    sleep_time: int | None = None
    variables: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    paused: bool = False


@dataclass(frozen=True)
class PendingChange:
    """One Space to restore: a temporary one is to be deleted, any other gets its settings back."""

    id: str
    endpoint: str
    repo_id: str
    owner: str
    run_id: str | None = None
    temporary: bool = False
    before: SpaceSettings = field(default_factory=SpaceSettings)

    @property
    def is_leftover(self) -> bool:
        """Whether the run it belongs to is gone."""
        return not is_alive(self.owner)

    def write(self) -> None:
        """Write the entry to its file, whole or not at all, before anything is changed."""
        folder = state_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(folder / f"{self.id}{_SUFFIX}", synced=True) as file:
            file.write(json_bytes(asdict(self)))

    def remove(self) -> None:
        """Delete the file of the entry: everything is as it was."""
        (state_folder() / f"{self.id}{_SUFFIX}").unlink(missing_ok=True)


def new_pending_change(
    endpoint: str, repo_id: str, run_id: str | None, *, temporary: bool = False, before: SpaceSettings | None = None
) -> PendingChange:
    """Return an entry of this process, not yet on file."""
    id = uuid.uuid4().hex[:12]
    return PendingChange(id, endpoint, repo_id, owner_label(), run_id, temporary, before or SpaceSettings())


def pending_changes() -> list[PendingChange]:
    """Return the entries on file; files that cannot be read are skipped."""
    return list(_read_entries())


def state_folder() -> Path:
    """Return where entries are kept: below XDG_STATE_HOME, or ~/.local/state."""
    state_home = os.environ.get("XDG_STATE_HOME", "")
    home = Path(state_home) if state_home.startswith("/") else Path.home() / ".local" / "state"
    return home / "openenv-scale" / "spaces"


def _read_entries() -> Iterator[PendingChange]:
    for path in sorted(state_folder().glob(f"*{_SUFFIX}")):
        try:
            fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            before = SpaceSettings(**fields.pop("before"))
            yield PendingChange(**fields, before=before)
        except (OSError, ValueError, TypeError, KeyError):
            continue
