"""What the HTML report says of checks: a line each, and the whole of those that were not met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pytest_openenv_scale.core.check import CheckOutcome, CheckRecord
from pytest_openenv_scale.core.run import Run

from .checks import MARKS, check_name, conversation, figure_text
from .circumstances import TextTable
from .text import collapse


@dataclass(frozen=True, slots=True)
class CheckSection:
    """One check; what is not shown of one that was met is in its file in the run."""

    name: str
    infrastructure: str
    outcome: CheckOutcome
    mark: str
    headline: str
    details: tuple[str, ...]
    remedy: str | None
    figures: TextTable
    conversations: tuple[tuple[str, str], ...]
    command: str | None

    @property
    def opens(self) -> bool:
        """Whether there is more to show than a line."""
        return self.outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE)


def check_sections(runs: Sequence[Run]) -> tuple[CheckSection, ...]:
    """Return the checks of all runs, those that missed first."""
    order = [CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE, CheckOutcome.MET, CheckOutcome.SKIPPED]
    found = [_section(check) for run in runs for check in run.checks]
    return tuple(sorted(found, key=lambda section: order.index(section.outcome)))


def _section(check: CheckRecord) -> CheckSection:
    result = check.result
    figures = TextTable(
        ("figure", "value"),
        tuple((name, figure_text(value)) for name, value in result.figures.items()),
        frozenset({"value"}),
        frozenset({"figure"}),
    )
    return CheckSection(
        name=check_name(check),
        infrastructure=collapse(check.infrastructure),
        outcome=result.outcome,
        mark=MARKS[result.outcome],
        headline=collapse(result.headline),
        details=tuple(map(collapse, result.details)),
        remedy=result.remedy,
        figures=figures,
        conversations=tuple((collapse(each.title), "\n".join(conversation(each))) for each in result.transcripts),
        command=check.rerun,
    )


def checks_headline(sections: Sequence[CheckSection]) -> str:
    """Return how the checks came out in a few words: "2 of 12 checks missed", "all 12 checks met, 1 skipped"."""
    counts = {outcome: sum(section.outcome is outcome for section in sections) for outcome in CheckOutcome}
    asked = len(sections) - counts[CheckOutcome.SKIPPED]
    skipped = f", {counts[CheckOutcome.SKIPPED]} skipped" if counts[CheckOutcome.SKIPPED] else ""
    for outcome in (CheckOutcome.MISSED, CheckOutcome.INCONCLUSIVE):
        if counts[outcome]:
            return f"{counts[outcome]} of {asked} checks {outcome}{skipped}"
    return f"all {asked} checks met{skipped}" if asked else "every check was skipped"
