"""The `openenv.yaml` of an environment repository: which application it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from pytest_openenv_scale.core.endpoint import TargetError

MANIFEST = "openenv.yaml"


def app_of(root: Path) -> str | None:
    """Return the `module:app` that `openenv.yaml` in `root` names, or None where there is no such file.

    Raises:
        TargetError: the file is there but is not YAML, or names no app.
    """
    path = root / MANIFEST
    try:
        content: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TargetError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise TargetError(f"{path}{line} is not YAML; write for example 'app: server.app:app' in it") from None
    app = cast("dict[str, Any]", content).get("app") if isinstance(content, dict) else None
    if app is None:
        raise TargetError(f"{path} names no app; add 'app: server.app:app' or use --openenv-target local:module:app")
    if not isinstance(app, str) or not is_app_name(app):
        raise TargetError(f"{path}: app {app!r} is not module:app; write for example 'app: server.app:app'")
    return app


def is_app_name(text: str) -> bool:
    """Say whether `text` has the form `module:attribute`, both dotted names."""
    module, colon, attribute = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")])
