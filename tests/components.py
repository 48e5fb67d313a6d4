"""A component that this machine lacks: its tests are skipped, and fail under CI=true, where nothing may be lacking."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest


def lacking(reason: str) -> NoReturn:
    """Skip the test that needs what is not here; under CI=true fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def shellcheck(*options_and_files: str | Path) -> str:
    """What shellcheck finds in scripts."""
    if shutil.which("shellcheck") is None:
        lacking("shellcheck is not installed")
    return subprocess.run(["shellcheck", *options_and_files], capture_output=True, text=True, check=False).stdout
