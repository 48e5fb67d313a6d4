"""Finding the ASGI application that `module:app` names, with one clear line where there is none."""

from __future__ import annotations

import difflib
import importlib
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_openenv_scale.core import own_process

SAYS = "openenv-scale: "
"""How a line of ours begins in a server's log."""


class AppError(Exception):
    """The application cannot be served; one line, and `details` holds the user's part of a traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def load_app(name: str) -> Any:
    """Import `module:attribute` and return the ASGI application; a function without parameters is called.

    Raises:
        AppError: the module does not import, has no such attribute, or that is no ASGI application.
    """
    module_name, _, attribute = name.partition(":")
    module = _import(name, module_name)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise AppError(f"{name}: {_place(found)} has no attribute {part!r}{_near(part, found)}")
        found = getattr(found, part)
    if _is_factory(found):
        return _checked(f"{name}()", _call(name, found))
    return _checked(name, found)


def _import(name: str, module_name: str) -> Any:
    try:
        return own_process.import_named(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise AppError(
                f"{name} does not import: there is no module {missing!r}; "
                f"write module:app as it is imported from {Path.cwd()}"
            ) from None
        raise AppError(
            f"{name} does not import: it needs the module {missing!r}, which is not installed here",
            _details(error),
        ) from None
    except (Exception, SystemExit) as error:
        raise AppError(f"{name} does not import: {_told(error)}", _details(error)) from None


def _call(name: str, factory: Callable[[], object]) -> object:
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise AppError(f"{name}() failed: {_told(error)}", _details(error)) from None


def _checked(name: str, app: object) -> Any:
    if not callable(app):
        raise AppError(
            f"{name} is not an ASGI application but of type {type(app).__name__}; name the application object"
        )
    if inspect.iscoroutine(app):
        app.close()
    signature = _signature(app)
    if signature is not None and not _accepts(signature, 3):
        raise AppError(
            f"{name} does not take (scope, receive, send), so it is not an ASGI application; "
            "name the application object or a function without parameters that returns it"
        )
    return app


def _is_factory(found: object) -> bool:
    if not (inspect.isfunction(found) or inspect.ismethod(found) or inspect.isclass(found)):
        return False
    signature = _signature(found)
    return not inspect.iscoroutinefunction(found) and signature is not None and _accepts(signature, 0)


def _signature(found: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(found)
    except (TypeError, ValueError):
        return None


def _accepts(signature: inspect.Signature, arguments: int) -> bool:
    try:
        signature.bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def _place(found: object) -> str:
    file = getattr(found, "__file__", None)
    return f"the module in {file}" if file else f"{type(found).__name__} object"


def _near(wrong: str, found: object) -> str:
    names = difflib.get_close_matches(wrong, [name for name in dir(found) if name[0] != "_"], n=1)
    return f"; did you mean {names[0]!r}?" if names else ""


def _told(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _details(error: BaseException) -> str:
    """Format the traceback without the frames of this module and of the import machinery."""
    trace = error.__traceback__
    hidden = (__file__, own_process.__file__, importlib.__file__)
    while trace is not None and (
        trace.tb_frame.f_code.co_filename in hidden or trace.tb_frame.f_code.co_filename.startswith("<frozen importlib")
    ):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace, chain=True)).rstrip()
