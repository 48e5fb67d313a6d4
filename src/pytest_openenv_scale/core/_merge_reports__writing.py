"""A report's file, replaced at once: complete or not there."""

from __future__ import annotations

import secrets
from pathlib import Path

from pytest_openenv_scale.core.run import RunError


def replace_file(path: Path, content: str) -> Path:
    """Write a file and return its path; its directory is made where it is missing.

    Raises:
        RunError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content.encode("utf-8", "replace"))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError as error:
        raise RunError(f"the report cannot be written: {path}: {error.filename} is a file, not a folder") from None
    except OSError as error:
        raise RunError(f"the report cannot be written: {path}: {error.strerror}") from None
    return path
