"""What a target is given besides its specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class TargetContext:
    """The run a target is opened for.

    `largest_batch` is the most sessions any cell will ask for (backlogs are sized to it), `root` the
    directory whose `openenv.yaml` counts, `log_path` where a started server's output goes (None: an
    unnamed temporary file), `modes` the protocols that will be spoken. `headers` are sent with every
    request and never shown.
    """

    root: Path
    largest_batch: int = 1
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    log_path: Path | None = None
    modes: tuple[str, ...] = ("ws",)
