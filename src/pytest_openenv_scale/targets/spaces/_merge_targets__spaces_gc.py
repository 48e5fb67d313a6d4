"""Puts right what runs left on Spaces that were killed before they could do it themselves."""

from __future__ import annotations

import sys

from pytest_openenv_scale.core.endpoint import TargetError
from pytest_openenv_scale.gc import PartlyCollectedError

from .spaces_api import HubTroubleError, SpaceApi, connect_to_hub
from .spaces_journal import Entry, entries
from .spaces_settings import restore, told
from .spaces_temporary import delete


def collect(*, dry_run: bool = False) -> list[str]:
    """Delete temporary Spaces and put back settings whose run is gone, and return a line for each.

    `dry_run` only looks. What belongs to a process that may still run stays, as does what was changed on
    another Hub than the one HF_ENDPOINT names.

    Raises:
        PartlyCollectedError: the Hub refused some of it, which stays on file.
        TargetError: the Hub cannot be asked.
    """
    found = entries()
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


def _put_right(space: SpaceApi, entry: Entry) -> bool:
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


def _line(entry: Entry) -> str:
    run = entry.run_id or "unknown"
    if entry.temporary:
        return f"temporary Space {entry.repo_id} (run {run})"
    return f"changed settings of the Space {entry.repo_id}: {', '.join(told(entry.before))} (run {run})"
