"""Which application a target serves: one that is named, that of the nearest `openenv.yaml`, or the built-in one."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pytest_openenv_scale.core.errors import TargetError

from .options import TargetContext

MANIFEST = "openenv.yaml"
BUILT_IN = "builtin"
"""How the built-in environment is named: `local:builtin`, elsewhere `app=builtin`."""

BUILT_IN_APP = "pytest_openenv_scale.server.app:app"
_REPOSITORY = (".git", ".hg")
_EVERYBODYS = stat.S_ISVTX | stat.S_IWOTH
_WAYS_TO_NAME_ONE = {
    "local": "write --openenv-target local:module:app or --openenv-target local:./folder for yours, or "
    "--openenv-target local:builtin for the built-in environment",
    "spaces": "add app=module:app or folder=./folder for yours, or app=builtin for the built-in environment",
}


@dataclass(frozen=True)
class Application:
    """What is served: `name` (module:app) is imported with `paths` in front of PYTHONPATH."""

    name: str
    paths: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def built_in(self) -> bool:
        """Whether it is the benchmark environment of this package."""
        return self.name == BUILT_IN_APP


def find_application(context: TargetContext, app: str | None, target: str) -> Application:
    """Return the application that `app` names, else the `openenv.yaml` in the root of `context`.

    Raises:
        TargetError: neither names one; the line says where was looked, and what to write for `target`.
    """
    if app == BUILT_IN:
        return Application(BUILT_IN_APP)
    if app is not None:
        return Application(app, import_paths(context))
    declared_app = manifest_app(context.root)
    if declared_app is None:
        raise TargetError(missing_environment(context, target))
    manifest = context.root / MANIFEST
    short = manifest.relative_to(context.base) if manifest.is_relative_to(context.base) else manifest
    notes = () if context.root == context.base else (f"served: {declared_app} of {short}",)
    return Application(declared_app, import_paths(context), notes)


def missing_environment(context: TargetContext, target: str) -> str:
    """Return the line that says where an `openenv.yaml` was looked for in vain, and what to write instead."""
    folders = [str(folder) for folder in dict.fromkeys(context.searched or (context.root,))]
    looked = " or ".join([", ".join(folders[:-1]), folders[-1]] if len(folders) > 1 else folders)
    upward = "upward from" if context.searched else "in"
    default = "add app=module:app for yours, or app=builtin for the built-in environment"
    return f"target {target}: there is no {MANIFEST} {upward} {looked}; {_WAYS_TO_NAME_ONE.get(target, default)}"


def find_environment(starts: Iterable[Path]) -> Path | None:
    """Return the folder of the nearest `openenv.yaml` upward from the first start that has one above it, or None.

    What lies above a repository's root is never looked at; nor, outside of a repository, a folder that is everybody's.
    """
    return next((folder for start in starts for folder in _upward(start) if (folder / MANIFEST).is_file()), None)


def _upward(start: Path) -> Iterator[Path]:
    folders = (start, *start.parents)
    repository = next((folder for folder in folders if any((folder / name).exists() for name in _REPOSITORY)), None)
    for folder in folders:
        if repository is None and folder != start and _is_everybodys(folder):
            return
        yield folder
        if folder == repository:
            return


def _is_everybodys(folder: Path) -> bool:
    """Say whether others may put a file there, as in /tmp, or the folder is the home of more than a project."""
    shared = folder.is_dir() and folder.stat().st_mode & _EVERYBODYS == _EVERYBODYS
    return shared or folder in (folder.parent, Path.home())


def manifest_app(root: Path) -> str | None:
    """Return the `module:app` that `openenv.yaml` in `root` names, or None where there is no such file.

    Raises:
        TargetError: the file is there but is not YAML, or names no app.
    """
    import yaml

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
        raise TargetError(
            f"{path} names no app; add 'app: server.app:app', "
            "or write --openenv-target local:./folder,app=module:app with the folder of that file"
        )
    if not isinstance(app, str) or not is_app_name(app):
        raise TargetError(f"{path}: app {app!r} is not module:app; write for example 'app: server.app:app'")
    return app


def is_app_name(text: str) -> bool:
    """Say whether `text` has the form `module:attribute`, both dotted names."""
    module, colon, attribute = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")])


def import_paths(context: TargetContext) -> tuple[Path, ...]:
    """Return the folders an application is imported from, the first one first.

    They are the root, its `src`, the entries of pytest's `pythonpath`, and where the root has an `openenv.yaml` what
    its package is imported from.
    """
    root = context.root
    source = root / "src"
    paths = [root, *([source] if source.is_dir() else []), *context.pythonpath]
    if (root / MANIFEST).is_file():
        paths += [root.parent, package_of(root)[0]]
    return tuple(dict.fromkeys([*paths, context.base]))


def package_of(folder: Path) -> tuple[Path, str | None]:
    """Return from where a folder is imported as a package, and its dotted name with the packages it lies in.

    The name is None where the folder's own is no package's, such as my-env.
    """
    names = [folder.name]
    base = folder.parent
    while (base / "__init__.py").is_file() and base.name.isidentifier():
        names.insert(0, base.name)
        base = base.parent
    return base, ".".join(names) if folder.name.isidentifier() else None
