"""The files under `deploy/` that operators and targets share: in the wheel, or in the checkout it was made from."""

from __future__ import annotations

from pathlib import Path

from pytest_openenv_scale.core.endpoint import TargetError

_PACKAGE = Path(__file__).resolve().parents[1]


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
