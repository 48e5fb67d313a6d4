"""What a target is given besides its specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def _say_nothing(text: str) -> None:
    pass


@dataclass(frozen=True)
class TargetContext:
    """The run a target is opened for.

    `largest_batch` is the most sessions any cell will ask for (backlogs are sized to it), `root` the
    directory whose `openenv.yaml` counts, `log_path` where a started server's output goes (None: an
    unnamed temporary file), `modes` the protocols that will be spoken. `headers` are sent with every
    request and never shown. `run_id` names the run on what is started outside this process (None: none).
    `say` shows a line of what goes on while a target opens, such as a build's output.
    """

    root: Path
    largest_batch: int = 1
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    log_path: Path | None = None
    modes: tuple[str, ...] = ("ws",)
    run_id: str | None = None
    say: Callable[[str], None] = field(default=_say_nothing, repr=False)
