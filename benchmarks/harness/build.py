"""The C programs, built afresh for every run of a benchmark."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .problem import Problem

SOURCES = Path(__file__).resolve().parents[1] / "c"


@dataclass(frozen=True)
class Programs:
    """The built C programs."""

    null_server: Path
    ws_floor: Path


@contextmanager
def built_programs() -> Iterator[Programs]:
    """Build the C files with `cc -O2` (or `$CC`) into a temporary folder that is removed at the end.

    Raises:
        Problem: there is no C compiler, or it refuses a file.
    """
    with tempfile.TemporaryDirectory(prefix="openenv-scale-bench-") as folder:
        yield Programs(_build("null_server", Path(folder)), _build("ws_floor", Path(folder)))


def _build(name: str, folder: Path) -> Path:
    compiler = os.environ.get("CC") or "cc"
    if shutil.which(compiler) is None:
        raise Problem(f"there is no C compiler {compiler!r}: install gcc or clang, or name yours in CC")
    program, source = folder / name, SOURCES / f"{name}.c"
    done = subprocess.run([compiler, "-O2", "-o", program, source], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), f"exit code {done.returncode}")
        raise Problem(f"{compiler} does not build {source.name}: {reason}")
    return program
