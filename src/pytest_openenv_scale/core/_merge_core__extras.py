"""What may not be installed because an extra brings it: whoever needs it says so in one line, before any work."""

from __future__ import annotations

from importlib.util import find_spec

_EXTRAS = {"plotnine": "figures", "pandas": "figures", "pytest_asyncio": "asyncio"}


def missing(module: str) -> str | None:
    """Return the command that installs a module's extra; None where the module is there. Nothing is imported."""
    return None if find_spec(module) else f"pip install 'pytest-openenv-scale[{_EXTRAS[module]}]'"


def cannot_draw() -> str | None:
    """Return why no figure can be drawn here and what to install, in one line; None where they can be."""
    install = missing("plotnine")
    return install and f"figures need plotnine: {install}"
