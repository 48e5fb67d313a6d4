"""`report.html`: one file that needs nothing else, the answer on top, everything a server said escaped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

from pytest_openenv_scale.core.run import Run

from .figures import Figure, FiguresError, figure_svgs
from .figures.palette import looks
from .findings import findings
from .html_page import Page, page_of
from .study import Study, study_of
from .study_tables import tables
from .text import plain

if TYPE_CHECKING:
    from jinja2 import Environment


def render(what: Run | Study, *, figures: Mapping[str, Figure] | None = None) -> str:
    """Return the report of a run or a study as one HTML page without scripts and outside references.

    `figures` are those of the study, by default drawn here; where that fails the page says so in their place.
    """
    study = study_of(what)
    shown = tables(study)
    page = page_of(study, shown, findings(study, shown), looks(study.infrastructures))
    if figures is not None:
        return _fill(page, figures)
    try:
        return _fill(page, figure_svgs(study))
    except FiguresError as error:
        return _fill(page, {}, no_figures=str(error))


def _fill(page: Page, figures: Mapping[str, Figure], no_figures: str | None = None) -> str:
    from markupsafe import Markup

    # A figure is the one thing that is markup already: what it says is escaped where it is drawn.
    drawn = [(figure, Markup(figure.svg)) for figure in figures.values()]
    return _environment().get_template("report.html.j2").render(page=page, figures=drawn, no_figures=no_figures)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pytest_openenv_scale.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cast("dict[str, Any]", environment.globals)["zip"] = partial(zip, strict=True)
    return environment


def _printable(value: Any) -> Any:
    """Return a text without terminal escapes and control characters; markup and numbers as they are."""
    return plain(value) if type(value) is str else value
