"""Files that a repository may hold and that carry the names of the standard library: imported, each raises."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

_LIBRARY = [entry for entry in sys.path if entry.endswith((f"python3.{sys.version_info.minor}", "lib-dynload"))]
NAMES = tuple(sorted(name for name in sys.stdlib_module_names if PathFinder.find_spec(name, _LIBRARY)))
"""Every module of the standard library that lies in a file: what is built in cannot be shadowed."""


def write_shadows(folder: Path, names: Iterable[str] = NAMES) -> None:
    for name in names:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('my own {name}.py was imported')\n")
