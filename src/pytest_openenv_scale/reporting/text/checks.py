"""What people are told of checks: a line each, the whole of one that failed, and a section of the report."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_openenv_scale.core import format as text_of
from pytest_openenv_scale.core.check import CheckOutcome, CheckRecord, Transcript

from .markdown_text import block, code, table, text
from .text import DEFAULT_WIDTH, Line, Page, collapse, plain

MARKS = {
    CheckOutcome.MET: "✓",
    CheckOutcome.MISSED: "✗",
    CheckOutcome.INCONCLUSIVE: "?",
    CheckOutcome.SKIPPED: "–",
}
"""The sign of each outcome."""

COLOURS = {
    CheckOutcome.MET: {"green": True},
    CheckOutcome.MISSED: {"red": True},
    CheckOutcome.INCONCLUSIVE: {"yellow": True},
    CheckOutcome.SKIPPED: {},
}
"""The colour of each outcome on a terminal."""

_DETAILS, _SAID = 12, 12


def check_tally(checks: Sequence[CheckRecord]) -> str:
    """Return how the checks came out: "12 checks: 10 met, 1 missed, 1 skipped"."""
    outcomes = [check.result.outcome for check in checks]
    counts = [f"{outcomes.count(outcome)} {outcome}" for outcome in CheckOutcome if outcome in outcomes]
    return f"{text_of.count_of(len(outcomes), 'check')}: {', '.join(counts)}"


def check_lines(
    checks: Sequence[CheckRecord], *, width: int = DEFAULT_WIDTH, encoding: str | None = None
) -> list[Line]:
    """Return the checks of a run, one line or little more each, under the server they were asked of."""
    page = Page(width, encoding)
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
    page = Page(width, encoding)
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
        page.verbatim(f"  rerun: {plain(check.rerun)}")
    return page.text


def _conversation(page: Page, transcript: Transcript) -> None:
    page.blank()
    page.say(f"{transcript.title}:")
    lines = conversation(transcript)
    if len(lines) > _SAID:
        page.say(f"… ({len(lines) - _SAID} messages before)", indent=4)
    for line in lines[-_SAID:]:
        page.say(line, indent=4, hang=11)


def check_name(check: CheckRecord) -> str:
    """Return the test without its file: "test_isolation[interleaved]"."""
    return collapse(check.test.rpartition("::")[2].removeprefix("test_"))


def properties(check: CheckRecord) -> list[tuple[str, object]]:
    """Return what JUnit is told of a check: `openenv_verdict`, `openenv_reason` and its figures by name."""
    result = check.result
    found: list[tuple[str, object]] = [
        ("openenv_verdict", result.outcome.value),
        ("openenv_target", collapse(check.target)),
        ("openenv_infrastructure", collapse(check.infrastructure)),
        ("openenv_reason", collapse(result.headline)),
    ]
    return [*found, *((f"openenv_{name}", value) for name, value in result.figures.items() if value is not None)]


def checks_section(checks: Sequence[CheckRecord]) -> str:
    """Return the section of `report.md` on checks: a table of all, and the whole of those that were not met."""
    if not checks:
        return ""
    rows = [
        [
            code(check_name(check), in_table=True),
            text(check.infrastructure),
            f"**{MARKS[check.result.outcome]} {check.result.outcome}**",
            text(check.result.headline),
        ]
        for check in checks
    ]
    lines = ["## Checks", "", text(check_tally(checks)), ""]
    lines += [*table(["check", "target", "verdict", "because"], rows), ""]
    for check in checks:
        if check.result.outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE):
            lines += _whole(check)
    return "\n".join(lines)


def _whole(check: CheckRecord) -> list[str]:
    result = check.result
    lines = [f"### {text(check_name(check))} on {text(check.infrastructure)}", ""]
    lines += [f"**{MARKS[result.outcome]} {text(result.headline)}**", ""]
    lines += [f"- {text(detail)}" for detail in result.details]
    lines += [f"- What to do: {text(result.remedy)}"] if result.remedy else []
    lines += [""] if result.details or result.remedy else []
    if result.figures:
        rows = [[code(name, in_table=True), text(figure_text(value))] for name, value in result.figures.items()]
        lines += [*table(["figure", "value"], rows, right=("value",)), ""]
    for transcript in result.transcripts:
        lines += [f"{text(transcript.title)}:", "", *block(plain("\n".join(conversation(transcript)))), ""]
    if check.rerun:
        lines += ["Ask again:", "", *block(plain(check.rerun), "sh"), ""]
    return lines


def conversation(transcript: Transcript) -> list[str]:
    """Return what a session said (→) and heard (←), a message per line, with seconds since the check began."""
    return [f"{line.at_s:8.3f} s {'→' if line.by == 'client' else '←'} {line.text}" for line in transcript.said]


def figure_text(value: float | int | str | bool | None) -> str:
    """Return a figure of a check as tables show it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return text_of.MISSING if value is None else str(value)
