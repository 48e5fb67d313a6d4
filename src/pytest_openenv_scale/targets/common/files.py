"""Files that targets need: those under `deploy/`, and a wheel of this package."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from pytest_openenv_scale.core.errors import TargetError

_PACKAGE = Path(__file__).resolve().parents[2]
_PROJECT = "pytest-openenv-scale"
_WHEEL = "Wheel-Version: 1.0\nGenerator: openenv-scale\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_FIXED_DATE = (1980, 1, 1, 0, 0, 0)
"""Equal files make an equal wheel, so that an image's layers are found again."""


def write_own_wheel(folder: Path) -> Path:
    """Write the wheel into `folder` and return its path; its requirements are not declared."""
    version = _version()
    info = f"{_PROJECT.replace('-', '_')}-{version}"
    path = folder / f"{info}-py3-none-any.whl"
    metadata_text = f"Metadata-Version: 2.1\nName: {_PROJECT}\nVersion: {version}\n"
    files = dict(_sources())
    files |= {f"{info}.dist-info/METADATA": metadata_text.encode(), f"{info}.dist-info/WHEEL": _WHEEL.encode()}
    record = [f"{name},sha256={_hash(content)},{len(content)}" for name, content in files.items()]
    files[f"{info}.dist-info/RECORD"] = "\n".join([*record, f"{info}.dist-info/RECORD,,", ""]).encode()
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _FIXED_DATE)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, content)
    return path


def _sources() -> Iterator[tuple[str, bytes]]:
    for path in sorted(_PACKAGE.rglob("*")):
        relative = path.relative_to(_PACKAGE)
        if path.suffix == ".py" and relative.parts[0] != "deploy":
            yield f"{_PACKAGE.name}/{relative.as_posix()}", path.read_bytes()


def _version() -> str:
    try:
        return metadata(_PROJECT)["Version"]
    except PackageNotFoundError:
        return "0"


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def deploy_file(name: str) -> Path:
    """Return the file or folder `name` below `deploy/`, for example "docker/Dockerfile".

    Raises:
        TargetError: there is none, as after an installation that left files out.
    """
    # The build copies deploy/ into the wheel; an editable installation runs from src/ beside it.
    for folder in (_PACKAGE / "deploy", _PACKAGE.parents[1] / "deploy"):
        path = folder / name
        if path.exists():
            return path
    raise TargetError(f"deploy/{name} is missing from {_PACKAGE}; install pytest-openenv-scale again from its wheel")
