"""Checks on a terminal: a line each, the whole of one that failed, and the screen of `openenv-scale check`."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.text import on_one_line, shorten, without_escapes
from pytest_openenv_scale.reporting.content.overview import MARKS, check_name, check_tally, conversation
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckRecord, CheckResult, Transcript

from .page import DEFAULT_WIDTH, Line, TextPage

COLOURS = {
    CheckOutcome.MET: {"green": True},
    CheckOutcome.MISSED: {"red": True},
    CheckOutcome.INCONCLUSIVE: {"yellow": True},
    CheckOutcome.SKIPPED: {},
}
"""The colour of each outcome on a terminal."""

_DETAILS, _SAID = 12, 12


def check_lines(
    checks: Sequence[CheckRecord], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the checks of a run, one line or little more each, under the server they were asked of."""
    page = TextPage(width, encoding)
    for infrastructure in dict.fromkeys(check.infrastructure for check in checks):
        own = [check for check in checks if check.infrastructure == infrastructure]
        page.say(f"{infrastructure} · {check_tally(own)}", indent=0, bold=True)
        for check in own:
            result = check.result
            page.say(
                f"{MARKS[result.outcome]} {check_name(check)}: {result.headline}", hang=4, **COLOURS[result.outcome]
            )
    return page.lines


def failure_text(
    check: CheckRecord, kept: str | None, *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> str:
    """Return the message of a test that failed by this check; `kept` is the file that holds all of it, or None."""
    page = TextPage(width, encoding)
    result = check.result
    page.say(f"{MARKS[result.outcome]} {check.infrastructure}: {result.headline}", indent=0)
    for detail in result.details[:_DETAILS]:
        page.say(detail)
    if result.remedy:
        page.say(f"what to do: {result.remedy}")
    for transcript in result.transcripts:
        _conversation(page, transcript)
    if result.outcome is CheckOutcome.INCONCLUSIVE:
        page.say("--openenv-inconclusive warn lets this pass")
    if check.subject != "check":  # which is what tests of one's own are, without a mark of the suite
        page.say(f"what it means: docs/suite/{check.subject}.md")
    if kept is not None:
        page.verbatim(f"  evidence: {kept}")
    if check.rerun:
        page.verbatim(f"  rerun: {without_escapes(check.rerun)}")
    return page.text


def _conversation(page: TextPage, transcript: Transcript) -> None:
    page.blank()
    page.say(f"{transcript.title}:")
    lines = conversation(transcript)
    if len(lines) > _SAID:
        page.say(f"… ({len(lines) - _SAID} messages before)", indent=4)
    for line in lines[-_SAID:]:
        page.say(line, indent=4, hang=11)


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
    page = TextPage(width, encoding)
    page.say(f"{target} · {formatting.count_of(sessions, 'session')}", indent=0, bold=True)
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
    page = TextPage(width, encoding)
    for number, sentence in enumerate(said):
        start = f"  {page.fit(sign)} {name:<{_NAME}}" if number == 0 else ""
        _hanging(page, start, localised(sentence), markup)
    return page.lines


def answer_lines(
    outcome: CheckOutcome, text: str, *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the last lines: the answer for a trainer."""
    page = TextPage(width, encoding)
    page.say(f"{MARKS[outcome]} {localised(text)}", indent=0, hang=2, bold=True, **COLOURS[outcome])
    return page.lines


def progress_line(text: str, *, width: int = DEFAULT_WIDTH, encoding: str | None = None) -> str:
    """Return what is being asked, as one line that is rewritten."""
    page = TextPage(width, encoding)
    return shorten(page.fit(f"  {on_one_line(text)} …"), page.width - 1)


def _hanging(page: TextPage, start: str, text: str, markup: dict[str, bool]) -> None:
    """Add a sentence beside the column of names."""
    column = _NAME + 4
    beside = TextPage(page.width, None)
    beside.say(page.fit(text), indent=column, hang=0)
    for number, line in enumerate(beside.lines):
        text = f"{start}{line.text[column:]}" if number == 0 and start else line.text
        page.lines.append(Line(text, markup))
