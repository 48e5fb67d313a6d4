"""Removes containers of runs that were killed before they could remove them."""

from __future__ import annotations

import contextlib
from typing import Any

from .container import OWNER_LABEL, RUN_LABEL
from .engine import Engine, is_not_found
from .owner import is_alive


def collect(*, dry_run: bool = False) -> list[str]:
    """Remove the containers whose run is gone and return a line for each; `dry_run` only looks.

    What belongs to a process that may still run, here or on another machine, stays.

    Raises:
        TargetError: no engine answers, or it refuses.
    """
    engine = Engine.connect("docker")
    with contextlib.closing(engine):
        containers: list[Any] = engine.asked(
            engine.client.containers.list,
            "list its containers",
            all=True,
            ignore_removed=True,
            filters={"label": OWNER_LABEL},
        )
        left = [container for container in containers if not is_alive(container.labels.get(OWNER_LABEL, ""))]
        return [_line(container) for container in left if dry_run or _remove(engine, container)]


def _remove(engine: Engine, container: Any) -> bool:
    """Remove one; False where it is gone already."""

    def remove() -> bool:
        try:
            container.remove(force=True, v=True)
        except Exception as error:
            if is_not_found(error):
                return False
            raise
        return True

    return bool(engine.asked(remove, f"remove the container {container.name}"))


def _line(container: Any) -> str:
    run = container.labels.get(RUN_LABEL) or "unknown"
    image = container.attrs.get("Config", {}).get("Image", "")
    return f"container {container.name} of {image} (run {run})"
