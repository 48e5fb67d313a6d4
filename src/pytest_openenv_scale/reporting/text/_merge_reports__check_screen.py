"""The one screen of `openenv-scale check`: a line or two per question, and the answer."""

from __future__ import annotations

import re
from collections.abc import Container

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.check import CheckOutcome, CheckResult

from .checks import COLOURS, MARKS
from .text import DEFAULT_WIDTH, Line, Page, collapse, cut

NOTE = "!"
"""The sign of what was missed and decides nothing."""

_NAME = 11
_MOST_DETAILS = 1
_OPTION = re.compile(r"--openenv-(action|reset|header|timeout|seed)\b")


def localised(text: str) -> str:
    """Return a sentence of the suite with the options of pytest named as this command names them, or as pytest's."""
    return _OPTION.sub(r"--\1", text).replace("measure with --openenv", "measure with pytest --openenv")


def heading(target: str, sessions: int, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> list[Line]:
    """Return the first line: which server is to hold how many sessions."""
    page = Page(width, encoding)
    page.say(f"{target} · {text_of.count_of(sessions, 'session')}", indent=0, bold=True)
    return page.lines


def question_lines(
    name: str,
    result: CheckResult,
    *,
    decides: bool = True,
    advised: Container[str] = (),
    width: int = DEFAULT_WIDTH,
    encoding: str | None = None,
) -> list[Line]:
    """Return a question's lines: its sign, its name, what was found and, unless it is met, why and what to do.

    What to do is left out where it was `advised` before.
    """
    noted = not decides and result.outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE)
    sign = NOTE if noted else MARKS[result.outcome]
    markup = {"yellow": True} if noted else COLOURS[result.outcome]
    said = [result.headline]
    if result.outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE):
        said += result.details[:_MOST_DETAILS]
        said += [f"→ {result.remedy}"] if result.remedy and result.remedy not in advised else []
    page = Page(width, encoding)
    for number, sentence in enumerate(said):
        start = f"  {page.fit(sign)} {name:<{_NAME}}" if number == 0 else ""
        _hanging(page, start, localised(sentence), markup)
    return page.lines


def answer_lines(
    outcome: CheckOutcome, text: str, *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the last lines: the answer for a trainer."""
    page = Page(width, encoding)
    page.say(f"{MARKS[outcome]} {localised(text)}", indent=0, hang=2, bold=True, **COLOURS[outcome])
    return page.lines


def progress_line(text: str, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> str:
    """Return what is being asked, as one line that is rewritten."""
    page = Page(width, encoding)
    return cut(page.fit(f"  {collapse(text)} …"), page.width - 1)


def _hanging(page: Page, start: str, text: str, markup: dict[str, bool]) -> None:
    """Add a sentence beside the column of names."""
    column = _NAME + 4
    beside = Page(page.width, None)
    beside.say(page.fit(text), indent=column, hang=0)
    for number, line in enumerate(beside.lines):
        text = f"{start}{line.text[column:]}" if number == 0 and start else line.text
        page.lines.append(Line(text, markup))
