"""A Space that exists for one run and is deleted after it; and the removal of what killed runs left on Spaces."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.hub.access import current_token
from pytest_openenv_scale.targets.common.leftovers import Leftover, deferring_interrupts

from .api import RETRY_S, HubTroubleError, SpaceApi, connect_to_hub
from .settings import PendingChange, new_pending_change, pending_changes, planned_settings, restore, settings_words
from .spec import FREE, NEVER, SpaceSpec

MARK_VARIABLE = "OPENENV_SCALE_TEMPORARY"
"""The variable that distinguishes a Space made for a run from one of the same name that somebody made later."""


def choose_name(api: Any, spec: SpaceSpec) -> str:
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
    user: Any = SpaceApi(api, "a temporary Space").request("find out whose token it is", api.whoami)
    return f"{user['name']}/openenv-scale-{secrets.token_hex(3)}"


def create(
    space: SpaceApi, spec: SpaceSpec, run_id: str | None, stack: ExitStack, show_progress: Callable[[str], None]
) -> None:
    """Make an empty private Space with the settings of `spec` and have `stack` delete it.

    Raises:
        TargetError: there is one of that name, or the Hub refuses.
    """
    if space.exists():
        raise TargetError(_name_taken(space))
    entry = new_pending_change(space.api.endpoint, space.repo_id, run_id, temporary=True)
    new = planned_settings(spec)
    variables = {**new.variables, MARK_VARIABLE: entry.id}

    def make() -> None:
        entry.write()
        try:
            space.request(
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
                raise TargetError(_name_taken(space)) from None
            raise

    # What a request makes is known to be there before an interrupt is raised.
    deferring_interrupts(make)
    stack.callback(_delete_at_end, space, entry, show_progress)
    asleep = "" if new.sleep_time in (None, NEVER) else f"; sleeps after {new.sleep_time} s without a request"
    show_progress(f"spaces: made {space.repo_id} for this run, private, {new.hardware}{asleep}")


def delete(space: SpaceApi, entry: PendingChange) -> bool:
    """Delete the Space of `entry`; False where it is gone, or is another one of its name.

    Raises:
        TargetError: the Hub refuses.
    """
    if not space.exists() or space.variables().get(MARK_VARIABLE) != entry.id:
        return False
    space.request(
        "delete it",
        lambda: space.api.delete_repo(space.repo_id, repo_type="space", missing_ok=True),
        RETRY_S,
    )
    return True


def _delete_at_end(space: SpaceApi, entry: PendingChange, show_progress: Callable[[str], None]) -> None:
    def work() -> None:
        if delete(space, entry):
            show_progress(f"spaces: deleted {space.repo_id}")
        entry.remove()

    try:
        deferring_interrupts(work)
    except TargetError as error:
        raise TargetError(f"{error}; openenv-scale gc spaces deletes it") from None


def _name_taken(space: SpaceApi) -> str:
    return (
        f"target spaces: {space.repo_id} exists, and a temporary Space is deleted after the run; "
        "choose another name, or leave out temporary"
    )


def leftover_spaces() -> Iterator[Leftover]:
    """Yield temporary Spaces and changed settings whose run is gone, but for those of a Space that another run uses.

    What was changed on another Hub than the one HF_ENDPOINT names cannot be removed.

    Raises:
        TargetError: the Hub cannot be asked.
    """
    entries = pending_changes()
    leftovers = [entry for entry in entries if entry.is_leftover]
    if not leftovers:
        return
    api = connect_to_hub()
    busy = {entry.repo_id for entry in entries if not entry.is_leftover}
    for entry in leftovers:
        if entry.endpoint == api.endpoint and entry.repo_id not in busy:
            yield Leftover(_leftover_line(entry), partial(_undo_entry, SpaceApi(api, entry.repo_id, _report), entry))
    for hub in sorted({entry.endpoint for entry in leftovers} - {api.endpoint}):
        yield Leftover(f"spaces: something is left on {hub}; set HF_ENDPOINT to it", None)


def _undo_entry(space: SpaceApi, entry: PendingChange) -> bool:
    """Undo one entry and delete its file; False where its Space is gone, or is another one."""
    undone = True
    if entry.temporary:
        undone = delete(space, entry)
    else:
        try:
            restore(space, entry.before)
        except HubTroubleError as error:
            if error.status not in (401, 404) or space.exists():
                raise
            undone = False
    entry.remove()
    return undone


def _report(line: str) -> None:
    """Print to stderr, as stdout is for the list of what was collected."""
    print(line, file=sys.stderr)


def _leftover_line(entry: PendingChange) -> str:
    run = entry.run_id or "unknown"
    if entry.temporary:
        return f"temporary Space {entry.repo_id} (run {run})"
    return f"changed settings of the Space {entry.repo_id}: {', '.join(settings_words(entry.before))} (run {run})"
