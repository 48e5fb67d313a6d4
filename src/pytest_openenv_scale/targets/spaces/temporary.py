"""A Space that exists for one run: made, and deleted on every way out."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from pytest_openenv_scale.core.endpoint import TargetError
from pytest_openenv_scale.hub.access import current_token

from .spaces_api import PATIENCE_S, HubTroubleError, SpaceApi
from .spaces_journal import Entry, new_entry
from .spaces_spec import FREE, NEVER, SAFE_SLEEP_S, VCPUS, WORKERS, SpaceSpec
from .termination import uninterrupted

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
    entry = new_entry(space.api.endpoint, space.repo_id, run_id, temporary=True)
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
    uninterrupted(make)
    life.callback(_delete_at_end, space, entry, say)
    asleep = f"; {new.sleeps}" if new.sleeps else ""
    say(f"spaces: made {space.repo_id} for this run, private, {new.hardware}{asleep}")


def delete(space: SpaceApi, entry: Entry) -> bool:
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


def _delete_at_end(space: SpaceApi, entry: Entry, say: Callable[[str], None]) -> None:
    def work() -> None:
        if delete(space, entry):
            say(f"spaces: deleted {space.repo_id}")
        entry.remove()

    try:
        uninterrupted(work)
    except TargetError as error:
        raise TargetError(f"{error}; openenv-scale gc spaces deletes it") from None


def _taken(space: SpaceApi) -> str:
    return (
        f"target spaces: {space.repo_id} exists, and a temporary Space is deleted after the run; "
        "choose another name, or leave out temporary"
    )
