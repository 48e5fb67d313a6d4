"""Templates: what is put into them is escaped, and holds no control characters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pytest_openenv_scale.core.text import without_escapes

if TYPE_CHECKING:
    from jinja2 import Environment


def template_environment(package: str, **names: Any) -> Environment:
    """Return an environment of a package's templates, which know `names`; a name that is missing is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cast("dict[str, Any]", environment.globals).update(names)
    return environment


def _printable(value: Any) -> Any:
    """Return a text without terminal escapes and control characters; markup and numbers as they are."""
    return without_escapes(value) if type(value) is str else value
