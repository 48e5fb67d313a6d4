"""A Space that exists for one run, deleted on every way out; and what killed runs left on Spaces is put right."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from pytest_openenv_scale.core.errors import PartlyCollectedError, TargetError
from pytest_openenv_scale.hub.access import current_token
from pytest_openenv_scale.targets.common.leftovers import deferring_interrupts

from .api import PATIENCE_S, HubTroubleError, SpaceApi, connect_to_hub
from .settings import PendingChange, new_pending_change, pending_changes, restore, told
from .spec import FREE, NEVER, SAFE_SLEEP_S, VCPUS, WORKERS, SpaceSpec

MARK = "OPENENV_SCALE_TEMPORARY"
"""The variable that tells a Space made for a run from one of the same name that somebody made later."""


@dataclass(frozen=True)
class NewSpace:
    """What a temporary Space is set to; `sleep_time` is in seconds, `NEVER`, or None where the hardware fixes it."""

    hardware: str
    sleep_time: int | None
    variables: dict[str, str]

    @classmethod
    def asked(cls, spec: SpaceSpec) -> Self:
        """Return what `spec` asks for: hardware that goes to sleep by itself, and for our server a worker per core."""
        hardware = spec.hardware or FREE
        cores = None if spec.app or spec.folder else VCPUS.get(hardware)
        sleeps = None if hardware == FREE else spec.sleep_time or SAFE_SLEEP_S
        return cls(hardware, sleeps, {**({WORKERS: str(cores)} if cores else {}), **spec.variables})

    @property
    def sleeps(self) -> str:
        """When it sleeps, in words; empty where it never does or the hardware fixes it."""
        return "" if self.sleep_time in (None, NEVER) else f"sleeps after {self.sleep_time} s without a request"


def name_of(api: Any, spec: SpaceSpec) -> str:
    """Return USER/NAME of the temporary Space `spec` asks for, with a name of ours where it has none.

    Raises:
        TargetError: the token is missing or not accepted.
    """
    if current_token() is None:
        raise TargetError(
            "target spaces: a temporary Space needs a token with write access; run hf auth login, or set HF_TOKEN"
        )
    if spec.repo_id is not None:
        return spec.repo_id
    user: Any = SpaceApi(api, "a temporary Space").ask("find out whose token it is", api.whoami)
    return f"{user['name']}/openenv-scale-{secrets.token_hex(3)}"


def create(space: SpaceApi, spec: SpaceSpec, run_id: str | None, life: ExitStack, say: Callable[[str], None]) -> None:
    """Make an empty private Space with the settings of `spec` and have `life` delete it.

    Raises:
        TargetError: there is one of that name, or the Hub refuses.
    """
    if space.exists():
        raise TargetError(_taken(space))
    entry = new_pending_change(space.api.endpoint, space.repo_id, run_id, temporary=True)
    new = NewSpace.asked(spec)
    variables = {**new.variables, MARK: entry.id}

    def make() -> None:
        entry.write()
        try:
            space.ask(
                "make it",
                lambda: space.api.create_repo(
                    space.repo_id,
                    repo_type="space",
                    private=True,
                    space_sdk="docker",
                    space_hardware=None if new.hardware == FREE else new.hardware,
                    space_sleep_time=new.sleep_time,
                    space_variables=[{"key": name, "value": text} for name, text in variables.items()],
                ),
            )
        except HubTroubleError as error:
            if error.status is not None and error.status < 500:
                entry.remove()  # Refused: there is nothing of ours.
            if error.status == 409:
                raise TargetError(_taken(space)) from None
            raise

    # What a request makes is known to be there before an interrupt is raised.
    deferring_interrupts(make)
    life.callback(_delete_at_end, space, entry, say)
    asleep = f"; {new.sleeps}" if new.sleeps else ""
    say(f"spaces: made {space.repo_id} for this run, private, {new.hardware}{asleep}")


def delete(space: SpaceApi, entry: PendingChange) -> bool:
    """Delete the Space of `entry`; False where it is gone, or is another one of its name.

    Raises:
        TargetError: the Hub refuses.
    """
    if not space.exists() or space.variables().get(MARK) != entry.id:
        return False
    space.ask(
        "delete it",
        lambda: space.api.delete_repo(space.repo_id, repo_type="space", missing_ok=True),
        PATIENCE_S,
    )
    return True


def _delete_at_end(space: SpaceApi, entry: PendingChange, say: Callable[[str], None]) -> None:
    def work() -> None:
        if delete(space, entry):
            say(f"spaces: deleted {space.repo_id}")
        entry.remove()

    try:
        deferring_interrupts(work)
    except TargetError as error:
        raise TargetError(f"{error}; openenv-scale gc spaces deletes it") from None


def _taken(space: SpaceApi) -> str:
    return (
        f"target spaces: {space.repo_id} exists, and a temporary Space is deleted after the run; "
        "choose another name, or leave out temporary"
    )


def collect_spaces(*, dry_run: bool = False) -> list[str]:
    """Delete temporary Spaces and put back settings whose run is gone, and return a line for each.

    `dry_run` only looks. What belongs to a process that may still run stays, as does what was changed on
    another Hub than the one HF_ENDPOINT names.

    Raises:
        PartlyCollectedError: the Hub refused some of it, which stays on file.
        TargetError: the Hub cannot be asked.
    """
    found = pending_changes()
    left = [entry for entry in found if entry.is_left]
    if not left:
        return []
    api = connect_to_hub()
    busy = {entry.repo_id for entry in found if not entry.is_left}
    ours = [entry for entry in left if entry.endpoint == api.endpoint and entry.repo_id not in busy]
    lines: list[str] = []
    problems: list[str] = []
    for entry in ours:
        try:
            if dry_run or _put_right(SpaceApi(api, entry.repo_id, _tell), entry):
                lines.append(_line(entry))
        except TargetError as error:
            problems.append(str(error).removeprefix("target "))
    elsewhere = {entry.endpoint for entry in left} - {api.endpoint}
    problems += [f"spaces: something is left on {hub}; set HF_ENDPOINT to it" for hub in sorted(elsewhere)]
    if problems:
        raise PartlyCollectedError(lines, problems)
    return lines


def _put_right(space: SpaceApi, entry: PendingChange) -> bool:
    """Undo one entry and take it off; False where its Space is gone, or is another one."""
    done = True
    if entry.temporary:
        done = delete(space, entry)
    else:
        try:
            restore(space, entry.before)
        except HubTroubleError as error:
            if error.status not in (401, 404) or space.exists():
                raise
            done = False
    entry.remove()
    return done


def _tell(line: str) -> None:
    """Say on the terminal why it takes long; what is collected is what is returned."""
    print(line, file=sys.stderr)


def _line(entry: PendingChange) -> str:
    run = entry.run_id or "unknown"
    if entry.temporary:
        return f"temporary Space {entry.repo_id} (run {run})"
    return f"changed settings of the Space {entry.repo_id}: {', '.join(told(entry.before))} (run {run})"
