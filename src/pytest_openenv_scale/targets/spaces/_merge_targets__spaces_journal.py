"""What a run has changed on Spaces, on file as long as it is not undone: a `kill -9` leaves no other trace of it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .owner import is_alive, owner_label

_SUFFIX = ".json"


@dataclass(frozen=True)
class Settings:
    """How a Space was before; None, or no name in `variables`, is what was not changed.

    `sleep_time` is in seconds, -1 for one that never slept. A variable that was not there is None; `paused`
    says that the Space was off.
    """

    hardware: str | None = None
    sleep_time: int | None = None
    variables: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    paused: bool = False


@dataclass(frozen=True)
class Entry:
    """One Space to put right: a temporary one is to be deleted, any other gets its settings back."""

    id: str
    endpoint: str
    repo_id: str
    owner: str
    run_id: str | None = None
    temporary: bool = False
    before: Settings = field(default_factory=Settings)

    @property
    def is_left(self) -> bool:
        """Whether the run it belongs to is gone."""
        return not is_alive(self.owner)

    def write(self) -> None:
        """Put it on file, whole or not at all, before anything is changed."""
        folder = state_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = folder / f".{self.id}.new"
        with new.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / f"{self.id}{_SUFFIX}")

    def remove(self) -> None:
        """Take it off: everything is as it was."""
        (state_folder() / f"{self.id}{_SUFFIX}").unlink(missing_ok=True)


def new_entry(
    endpoint: str, repo_id: str, run_id: str | None, *, temporary: bool = False, before: Settings | None = None
) -> Entry:
    """Return an entry of this process, not yet on file."""
    id = uuid.uuid4().hex[:12]
    return Entry(id, endpoint, repo_id, owner_label(), run_id, temporary, before or Settings())


def entries() -> list[Entry]:
    """Return what is on file; what cannot be read is nobody's."""
    return list(_read())


def state_folder() -> Path:
    """Return where entries are kept: below XDG_STATE_HOME, or ~/.local/state."""
    given = os.environ.get("XDG_STATE_HOME", "")
    home = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    return home / "openenv-scale" / "spaces"


def _read() -> Iterator[Entry]:
    for path in sorted(state_folder().glob(f"*{_SUFFIX}")):
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            before = Settings(**found.pop("before"))
            yield Entry(**found, before=before)
        except (OSError, ValueError, TypeError, KeyError):
            continue
