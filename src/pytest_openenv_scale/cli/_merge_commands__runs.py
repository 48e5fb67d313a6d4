"""Which run is meant on a command line."""

from __future__ import annotations

from pathlib import Path


def run_path(name: str, results: Path) -> Path:
    """Return where the run is that somebody calls by its folder, its id below `results`, or latest.

    Whether there is a run is for its reader to say.

    Raises:
        RunError: the latest is asked for and there is none.
    """
    from pytest_openenv_scale.core.run import latest_run

    path = Path(name)
    if path.exists():
        return path
    if (results / name).is_dir():
        return results / name
    return latest_run(results) if name == "latest" else path
