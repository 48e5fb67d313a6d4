"""What the source of an application says of its sessions: read as text, never imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import psutil

from pytest_openenv_scale.core.endpoint import SessionSettings

from .application import BUILT_IN_APP, Application, is_app_name

FLAG = "SUPPORTS_CONCURRENT_SESSIONS"
ARGUMENT = "max_concurrent_envs"

_CONFIG = "ConcurrencyConfig"
_POSITIONS = {"create_app": 4, "create_fastapi_app": 3, "HTTPEnvServer": 3, _CONFIG: 0}
"""What makes an app or a configuration, and the position of the limit among its arguments."""

_MAKERS = ("create_app", "create_fastapi_app", "HTTPEnvServer")
_BASES = ("Environment", "MCPEnvironment")
"""OpenEnv's own base classes, none of which sets the flag."""

_CACHES = ("cache", "lru_cache")
_LOOKUPS = ("os.getenv", "getenv", "os.environ.get", "environ.get")
_MAPPINGS = ("os.environ", "environ")
_DEFAULT_LIMIT = 1
_MOST_BYTES = 2**20
_MOST_HOPS = 6
"""How often a name is followed to where it comes from."""

_Followed = frozenset[tuple[Path, str]]
"""The names that were followed already, each in its file: none is followed in a circle."""


_BUILT_IN = SessionSettings("create_app", BUILT_IN_APP, variable="MAX_CONCURRENT_ENVS", flag=True)


def read_session_settings(app: str, paths: Sequence[Path]) -> SessionSettings | None:
    """Return what the source of `module:app`, imported with `paths`, says of its sessions; None where it says nothing.

    What its source leaves open (a limit that is computed, a class from elsewhere) is None in it.
    """
    name, _, attribute = app.partition(":")
    try:
        module = _find_module(name, tuple(paths))
        calls = _app_calls(module, attribute.partition(".")[0]) if module is not None else []
        readings = [_read_call(place) for place in calls]
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # The parser's word for nested too deep.
        return None
    return _agreed(readings) if readings else None


def settings_of_application(application: Application) -> SessionSettings | None:
    """Return what the source of an application says of its sessions; None where it says nothing."""
    if application.built_in:
        return _BUILT_IN
    return read_session_settings(application.name, application.paths)


def settings_of_process(pid: int) -> SessionSettings | None:
    """Return what the source of the application says that a process of this machine serves; None where it is hidden.

    The application is the first `module:app` of its command line, or else the module or script that it runs.
    """
    try:
        process = psutil.Process(pid)
        words, folder = process.cmdline(), Path(process.cwd())
        entries = process.environ().get("PYTHONPATH", "").split(":")
    except (psutil.Error, OSError):
        return None
    paths = [folder, *(folder / entry for entry in entries if entry)]
    if "--app-dir" in words[:-1]:
        paths.insert(0, folder / words[words.index("--app-dir") + 1])
    if "pytest_openenv_scale.server" in words or any(word.endswith("openenv-scale") for word in words[:2]):
        option = next((word.partition("=")[0] for word in words if re.match(r"--max-envs\b", word)), None)
        return replace(_BUILT_IN, option=option)
    app = next((word for word in words[1:] if is_app_name(word)), None)
    return read_session_settings(app or _own_module(words), paths)


def _own_module(words: Sequence[str]) -> str:
    """Return `module:app` of `python -m module` and `python folder/module.py`."""
    if "-m" in words[:-1]:
        return f"{words[words.index('-m') + 1]}:app"
    script = next((word for word in words[1:] if word.endswith(".py")), "")
    return f"{script.removesuffix('.py').replace('/', '.')}:app"


@dataclass(frozen=True)
class _Module:
    """A file of source, and the folders that its absolute imports are looked for in."""

    path: Path
    paths: tuple[Path, ...]

    @cached_property
    def text(self) -> str:
        if self.path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{self.path} is too large for source")
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text)))

    @property
    def shown(self) -> str:
        """The file as it is named to people."""
        below = [path for path in self.paths if self.path.is_relative_to(path)]
        return str(self.path.relative_to(below[0])) if below else str(self.path)


@dataclass(frozen=True)
class _Place:
    """A node of the source of a module; `outside` names where something comes from that is not there."""

    module: _Module
    node: ast.AST
    outside: str = ""

    def of(self, node: ast.AST) -> _Place:
        return replace(self, node=node)

    def __str__(self) -> str:
        return f"{self.module.shown}:{getattr(self.node, 'lineno', 1)}"


def _find_module(name: str, paths: tuple[Path, ...]) -> _Module | None:
    for folder in paths:
        file = folder.joinpath(*name.split("."))
        for path in (file.with_name(file.name + ".py"), file / "__init__.py"):
            if path.is_file():
                return _Module(path, paths)
    return None


def _imported(module: _Module, statement: ast.ImportFrom) -> _Module | None:
    if not statement.level:
        return _find_module(statement.module or "", module.paths)
    if statement.level > len(module.path.parents):
        return None
    folder = module.path.parents[statement.level - 1]
    found = _find_module(statement.module or "__init__", (folder,))
    return _Module(found.path, module.paths) if found else None


def _function_name(call: ast.AST) -> str:
    return ast.unparse(call.func).rpartition(".")[2] if isinstance(call, ast.Call) else ""


def _assigned(nodes: Sequence[ast.AST], name: str) -> Iterator[ast.expr]:
    for node in nodes:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
            targets = [node.target]
        value = getattr(node, "value", None)
        if value is not None and any(isinstance(target, ast.Name) and target.id == name for target in targets):
            yield value


def _definitions(module: _Module, name: str, followed: _Followed = frozenset()) -> Iterator[_Place]:
    """Yield all that `name` may be in a module: classes, functions, values; what is imported, from its own module."""
    if (module.path, name) in followed or len(followed) > _MOST_HOPS:
        return
    for node in module.nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            yield _Place(module, node)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) != name:
                    continue
                source = _imported(module, node)
                if source is None:
                    yield _Place(module, node, f"{node.module}.{alias.name}")
                else:
                    yield from _definitions(source, alias.name, followed | {(module.path, name)})
    yield from (_Place(module, value) for value in _assigned(module.nodes, name))


def _app_calls(module: _Module, attribute: str) -> list[_Place]:
    """Return the calls that make the app: those `attribute` is the value of, else all of the module it comes from."""
    places = list(_definitions(module, attribute))
    made = [place for place in places if _function_name(place.node) in _MAKERS]
    modules = {place.module.path: place.module for place in places} or {module.path: module}
    return made or [
        _Place(source, node) for source in modules.values() for node in source.nodes if _function_name(node) in _MAKERS
    ]


def _argument(call: ast.Call, name: str, position: int) -> ast.expr | Literal["hidden"] | None:
    """Return an argument of a call; None where it is left out, "hidden" where it may be in `*args` or `**kwargs`."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    if any(keyword.arg is None for keyword in call.keywords) or any(isinstance(a, ast.Starred) for a in call.args):
        return "hidden"
    return call.args[position] if position < len(call.args) else None


def _read_call(place: _Place) -> SessionSettings:
    call = place.node
    assert isinstance(call, ast.Call)
    environment = _argument(call, "env", 0)
    made = list(_made_by(place.of(environment))) if isinstance(environment, ast.AST) else []
    limited = _config(place, call) or place
    argument, variable = _limit(limited)
    classes = {str(item.place): item.place for item in made}
    shared = {item.shared for item in made}
    only = next(iter(classes.values())) if len(classes) == 1 else None
    return SessionSettings(
        function=_function_name(limited.node),
        call=str(limited),
        argument=argument,
        variable=variable,
        environment=getattr(only.node, "name", None) if only else None,
        class_at=str(only) if only else None,
        flag=_flag(only, place.module) if only else None,
        shared=shared.pop() if len(shared) == 1 else None,
    )


def _config(place: _Place, call: ast.Call) -> _Place | None:
    """Return the call that makes the `concurrency_config` of an app, where it has one."""
    value = _argument(call, "concurrency_config", 10**6)
    if not isinstance(value, ast.AST):
        return None
    values = [place.of(value)] if not isinstance(value, ast.Name) else list(_definitions(place.module, value.id))
    return next((item for item in values if _function_name(item.node) == _CONFIG), None)


def _limit(place: _Place) -> tuple[int | None, str | None]:
    """Return the number that limits sessions, or the variable that it is read from."""
    call = place.node
    assert isinstance(call, ast.Call)
    value = _argument(call, ARGUMENT, _POSITIONS[_function_name(call)])
    if value is None:
        return _DEFAULT_LIMIT, None
    if value == "hidden":
        return None, None
    values = list(_values(place.of(value), set()))
    if any(isinstance(part, ast.BinOp) for item in values for part in _parts_of_value(item.node)):
        return None, None  # What the number or the variable has to be for a limit is another question.
    variables = {name for item in values for name in _variables(item.node)}
    numbers = {item.node.value if isinstance(item.node, ast.Constant) else None for item in values}
    if len(variables) == 1:
        return None, variables.pop()
    number = numbers.pop() if len(numbers) == 1 else None
    return (number if isinstance(number, int) and not isinstance(number, bool) else None), None


def _values(place: _Place, followed: set[str]) -> Iterator[_Place]:
    """Yield the expressions that a name stands for, and those of the names in them; others as they are."""
    names = {node.id for node in _parts_of_value(place.node) if isinstance(node, ast.Name)} - followed
    followed |= names
    definitions = [
        item for name in names for item in _definitions(place.module, name) if isinstance(item.node, ast.expr)
    ]
    if not isinstance(place.node, ast.Name) or not definitions:
        yield place
    for item in definitions:
        yield from _values(item, followed)


def _parts_of_value(expression: ast.AST) -> Iterator[ast.AST]:
    """Yield what a value is made of: not the condition that chooses between two."""
    yield expression
    for child in ast.iter_child_nodes(expression):
        if not isinstance(expression, ast.IfExp) or child is not expression.test:
            yield from _parts_of_value(child)


def _variables(expression: ast.AST) -> Iterator[str]:
    for node in _parts_of_value(expression):
        key = None
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) in _LOOKUPS:
            key = node.args[0]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) in _MAPPINGS:
            key = node.slice
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value


@dataclass(frozen=True)
class _Made:
    """A class whose objects sessions get; `shared` is where the one object is made that all of them get."""

    place: _Place
    shared: str | None = None


def _made_by(place: _Place, followed: _Followed = frozenset()) -> Iterator[_Made]:
    """Yield the classes of what a class, a factory or a name of one of them makes."""
    node = place.node
    if isinstance(node, ast.ClassDef):
        yield _Made(place)
    elif isinstance(node, ast.Name):
        for definition in _definitions(place.module, node.id, followed):
            yield from _made_by(definition, followed | {(place.module.path, node.id)})
    elif isinstance(node, ast.IfExp):
        for branch in (node.body, node.orelse):
            yield from _made_by(place.of(branch), followed)
    elif isinstance(node, ast.Lambda):
        yield from _returned(place.of(node.body), (), followed)
    elif isinstance(node, ast.FunctionDef):
        cached = any(ast.unparse(item).partition("(")[0].rpartition(".")[2] in _CACHES for item in node.decorator_list)
        body = list(ast.walk(node))
        for value in (item.value for item in body if isinstance(item, ast.Return) and item.value is not None):
            for made in _returned(place.of(value), body, followed):
                yield replace(made, shared=str(place)) if cached else made
    elif isinstance(node, ast.Call):
        inner = node.args[0] if _function_name(node) == "partial" and node.args else node.func
        yield from _made_by(place.of(inner), followed)


def _returned(place: _Place, body: Sequence[ast.AST], followed: _Followed) -> Iterator[_Made]:
    """Yield the classes of what a factory returns: made there, or one object of the module."""
    node = place.node
    if isinstance(node, ast.Call):
        yield from _made_by(place.of(node.func), followed)
    elif isinstance(node, ast.Name):
        outer = {name for item in body if isinstance(item, ast.Global) for name in item.names}
        local = [] if node.id in outer else list(_assigned(body, node.id))
        for value in local:
            yield from _returned(place.of(value), (), followed)
        if not local:
            for definition in _definitions(place.module, node.id):
                if isinstance(definition.node, ast.Call):
                    yield from (replace(made, shared=str(definition)) for made in _made_by(definition, followed))


def _flag(place: _Place, app: _Module) -> bool | None:
    """Return whether a class says that it takes several sessions; None where that may be said elsewhere."""
    flag = _own_flag(place)
    set_elsewhere = any(_names_flag(node) for module in (place.module, app) for node in module.nodes)
    return None if flag is False and set_elsewhere else flag


def _names_flag(node: ast.AST) -> bool:
    return getattr(node, "attr", None) == FLAG or getattr(node, "value", None) == FLAG


def _own_flag(place: _Place, followed: _Followed = frozenset()) -> bool | None:
    node = place.node
    if place.outside:
        module, _, name = place.outside.rpartition(".")
        return False if name in _BASES and ("env_server" in module or module.startswith("openenv.core")) else None
    if not isinstance(node, ast.ClassDef):
        return None
    for value in _assigned(node.body, FLAG):
        return value.value if isinstance(value, ast.Constant) and isinstance(value.value, bool) else None
    flags: list[bool | None] = []
    for base in node.bases:
        named = base.value if isinstance(base, ast.Subscript) else base
        name = named.id if isinstance(named, ast.Name) else ""
        definitions = _definitions(place.module, name, followed)
        base_flags = [_own_flag(definition, followed | {(place.module.path, name)}) for definition in definitions]
        flags += base_flags or [None]
    return True if True in flags else None if None in flags or not flags else False


def _agreed(readings: Sequence[SessionSettings]) -> SessionSettings:
    """Return what several calls that may make the app have in common."""
    first, *others = readings
    differing = {
        name: None
        for name in ("argument", "variable", "environment", "class_at", "flag", "shared")
        if any(getattr(other, name) != getattr(first, name) for other in others)
    }
    calls = " and ".join(dict.fromkeys(reading.call for reading in readings))
    return replace(first, call=calls, **differing)
