"""Ids of runs. The controller of xdist workers makes one before anything is measured, so this imports little."""

from __future__ import annotations

import os
from datetime import UTC, datetime


def new_run_id() -> str:
    """Return an id for a run that sorts by time and is unique: "20261121T101530.042Z-3fa9c21b"."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{os.urandom(4).hex()}"
