"""Where the run of a pytest invocation goes, as plain values that travel to xdist workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Where the run of this invocation goes, the same in every process of it; made when it is first needed."""

    results: Path
    run_id: str
    kept: bool
    command: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The directory of the run."""
        return self.results / self.run_id

    def to_worker(self) -> dict[str, Any]:
        """Return the place as plain values that travel to an xdist worker."""
        return {
            "results": str(self.results),
            "run_id": self.run_id,
            "kept": self.kept,
            "command": list(self.command),
        }

    @classmethod
    def from_worker(cls, sent: Mapping[str, Any]) -> RunPlace:
        """Read what `to_worker` sent."""
        return cls(Path(sent["results"]), sent["run_id"], sent["kept"], tuple(sent["command"]))
