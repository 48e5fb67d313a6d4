"""A wheel of this very package, made from the files that run: an image then measures the code of this installation."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_PROJECT = "pytest-openenv-scale"
_WHEEL = "Wheel-Version: 1.0\nGenerator: openenv-scale\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_SAME_DATE = (1980, 1, 1, 0, 0, 0)
"""Equal files make an equal wheel, so that an image's layers are found again."""


def write_own_wheel(folder: Path) -> Path:
    """Write the wheel into `folder` and return its path; its requirements are not declared."""
    version = _version()
    info = f"{_PROJECT.replace('-', '_')}-{version}"
    path = folder / f"{info}-py3-none-any.whl"
    described = f"Metadata-Version: 2.1\nName: {_PROJECT}\nVersion: {version}\n"
    files = dict(_sources())
    files |= {f"{info}.dist-info/METADATA": described.encode(), f"{info}.dist-info/WHEEL": _WHEEL.encode()}
    record = [f"{name},sha256={_hash(content)},{len(content)}" for name, content in files.items()]
    files[f"{info}.dist-info/RECORD"] = "\n".join([*record, f"{info}.dist-info/RECORD,,", ""]).encode()
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _SAME_DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, content)
    return path


def _sources() -> Iterator[tuple[str, bytes]]:
    for path in sorted(_PACKAGE.rglob("*")):
        inside = path.relative_to(_PACKAGE)
        if path.suffix == ".py" and inside.parts[0] != "deploy":
            yield f"{_PACKAGE.name}/{inside.as_posix()}", path.read_bytes()


def _version() -> str:
    try:
        return metadata(_PROJECT)["Version"]
    except PackageNotFoundError:
        return "0"


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
