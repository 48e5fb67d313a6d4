"""Checks on a terminal: a line each, the whole of one that failed, and the screen of `openenv-scale check`."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.endpoint import DIRECT, Network
from pytest_openenv_scale.core.text import on_one_line, without_escapes
from pytest_openenv_scale.reporting.content.failures import LET_PASS
from pytest_openenv_scale.reporting.content.wording import CHECK_MARKS, check_name, check_tally, conversation_lines
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckRecord, CheckResult, Transcript

from .page import DEFAULT_WIDTH, Line, TextPage

CHECK_COLOURS = {
    CheckOutcome.MET: {"green": True},
    CheckOutcome.MISSED: {"red": True},
    CheckOutcome.INCONCLUSIVE: {"yellow": True},
    CheckOutcome.SKIPPED: {},
}
"""The colour of each outcome on a terminal."""

_MOST_FAILURE_DETAILS, _MOST_MESSAGES = 12, 12


def check_lines(
    checks: Sequence[CheckRecord], *, passed: bool = True, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the checks of a run, one line or little more each, under the server they were asked of.

    Those that `passed` may be left out. Those that were not asked are counted, and named in one sentence.
    """
    page = TextPage(width, encoding)
    for infrastructure in dict.fromkeys(check.infrastructure for check in checks):
        own = [check for check in checks if check.infrastructure == infrastructure]
        page.add_sentence(f"{infrastructure} · {check_tally(own)}", indent=0, bold=True)
        for note in dict.fromkeys(note for check in own for note in check.notes):
            page.add_sentence(note)
        not_asked = {check.result.headline: list[str]() for check in own if check.result.not_asked}
        for check in own:
            result = check.result
            if result.not_asked:
                not_asked[result.headline].append(check_name(check))
                continue
            if result.outcome is CheckOutcome.MET and not passed:
                continue
            page.add_sentence(
                f"{CHECK_MARKS[result.outcome]} {check_name(check)}: {result.headline}",
                hang=4,
                **CHECK_COLOURS[result.outcome],
            )
        for headline, names in not_asked.items():
            count = formatting.count_of(len(names), "check")
            page.add_sentence(f"{CHECK_MARKS[CheckOutcome.SKIPPED]} {count} {headline} ({', '.join(names)})", hang=4)
    return page.lines


def check_failure_text(
    check: CheckRecord, evidence_path: str | None, *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> str:
    """Return the message of a test that failed by this check; `evidence_path` names its file, if kept."""
    page = TextPage(width, encoding)
    result = check.result
    doubt = "inconclusive: " if result.outcome is CheckOutcome.INCONCLUSIVE else ""
    page.add_line(f"{doubt}{on_one_line(result.headline)}")
    for detail in result.details[:_MOST_FAILURE_DETAILS]:
        page.add_sentence(detail)
    if result.remedy:
        page.add_sentence(f"what to do: {result.remedy}")
    for transcript in result.transcripts:
        _add_conversation(page, transcript)
    if result.unmet is not None:
        page.add_sentence(f"further checks that need {result.unmet} are not asked")
    if result.outcome is CheckOutcome.INCONCLUSIVE:
        page.add_sentence(LET_PASS)
    if check.subject != "check":  # which is what tests of one's own are, without a mark of the suite
        page.add_sentence(f"what it means: suite/{check.subject}.md of the documentation")
    if evidence_path is not None:
        page.add_line(f"  evidence: {evidence_path}")
    if check.rerun:
        page.add_line(f"  rerun: {without_escapes(check.rerun)}")
    return page.text


def _add_conversation(page: TextPage, transcript: Transcript) -> None:
    page.add_blank()
    page.add_sentence(f"{transcript.title}:")
    lines = conversation_lines(transcript)
    if len(lines) > _MOST_MESSAGES:
        page.add_sentence(f"… ({len(lines) - _MOST_MESSAGES} messages before)", indent=4)
    for line in lines[-_MOST_MESSAGES:]:
        page.add_sentence(line, indent=4, hang=11)


NOTE_MARK = "!"
"""The sign of a question that was missed but does not decide the answer."""

_NAME_WIDTH = 11
_MOST_DETAILS = 1
_PYTEST_OPTION = re.compile(r"--openenv-(action|reset|header|insecure|proxy|played|timeout|seed)\b")


def with_command_options(text: str) -> str:
    """Return a sentence of the suite with pytest's `--openenv-X` options written as this command's `--X`."""
    return _PYTEST_OPTION.sub(r"--\1", text).replace("measure with --openenv", "measure with pytest --openenv")


def check_heading(
    target: str,
    sessions: int,
    bound_s: float,
    network: Network = DIRECT,
    *,
    width: int = DEFAULT_WIDTH,
    encoding: str | None = None,
) -> list[Line]:
    """Return the first lines: which server is to hold how many sessions, and what is special of how it is reached.

    `bound_s` is within how many seconds everything ends.
    """
    page = TextPage(width, encoding)
    session_count = formatting.count_of(sessions, "session")
    page.add_sentence(f"{target} · {session_count} · ends within {bound_s:.0f} s", indent=0, bold=True)
    for note in network.notes:
        page.add_sentence(with_command_options(note), indent=2)
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
    sign = NOTE_MARK if noted else CHECK_MARKS[result.outcome]
    markup = {"yellow": True} if noted else CHECK_COLOURS[result.outcome]
    sentences = [result.headline]
    if result.outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE):
        sentences += result.details[:_MOST_DETAILS]
        sentences += [f"→ {result.remedy}"] if result.remedy and result.remedy not in advised else []
    page = TextPage(width, encoding)
    for number, sentence in enumerate(sentences):
        start = f"  {page.printable(sign)} {name:<{_NAME_WIDTH}}" if number == 0 else ""
        _add_hanging_sentence(page, start, with_command_options(sentence), markup)
    return page.lines


def answer_lines(
    outcome: CheckOutcome, text: str, *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the last lines: the answer for a trainer."""
    page = TextPage(width, encoding)
    page.add_sentence(
        f"{CHECK_MARKS[outcome]} {with_command_options(text)}", indent=0, hang=2, bold=True, **CHECK_COLOURS[outcome]
    )
    return page.lines


def _add_hanging_sentence(page: TextPage, prefix: str, text: str, markup: dict[str, bool]) -> None:
    """Add a sentence that wraps beside the column of names, its first line after `prefix`."""
    column = _NAME_WIDTH + 4
    beside = TextPage(page.width, None)
    beside.add_sentence(page.printable(text), indent=column, hang=0)
    for number, line in enumerate(beside.lines):
        text = f"{prefix}{line.text[column:]}" if number == 0 and prefix else line.text
        page.lines.append(Line(text, markup))
