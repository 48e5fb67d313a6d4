"""Cancels jobs of runs that were killed before they could cancel them, and removes their folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .owner import is_alive
from .slurm_command import call
from .slurm_job import OWNER_FILE
from .slurm_spec import OWNER, default_folder


def collect(*, dry_run: bool = False) -> list[str]:
    """Cancel the jobs whose run is gone and return a line for each leftover; `dry_run` only looks.

    What belongs to a process that may still run, here or on another machine, stays.

    Raises:
        TargetError: there is no Slurm here, or it does not answer.
    """
    folders = _abandoned_folders()
    jobs = [
        (number, name)
        for number, name, owner in parse_jobs(
            call("squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%j|%k")
        )
        if not is_alive(owner)
    ]
    if not dry_run:
        for number, _ in jobs:
            call("scancel", "--quiet", number)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    return [f"Slurm job {number} ({name})" for number, name in jobs] + [f"logs of a job {path}" for path in folders]


def parse_jobs(text: str) -> list[tuple[str, str, str]]:
    """Read `squeue --format=%i|%j|%k`: number, name and owner of each job that one of our runs submitted."""
    found: list[tuple[str, str, str]] = []
    for line in text.splitlines():
        number, _, rest = line.strip().partition("|")
        name, _, comment = rest.rpartition("|")
        if comment.startswith(OWNER):
            found.append((number, name, comment.removeprefix(OWNER).strip()))
    return found


def _abandoned_folders() -> list[Path]:
    folders = [owner.parent for owner in default_folder().glob(f"job-*/{OWNER_FILE}")]
    return sorted(folder for folder in folders if not is_alive(_read(folder / OWNER_FILE)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
