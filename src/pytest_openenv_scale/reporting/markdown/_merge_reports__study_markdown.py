"""`report.md` of several runs joined into one study: the runs, the verdicts, every table."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pytest_openenv_scale.core.format import count_of
from pytest_openenv_scale.core.outcome import Outcome

from . import circumstances, phrases
from .findings import findings
from .markdown_text import block, code, table, text
from .overview import problems
from .study import Study
from .study_table import StudyTable, wait_text
from .study_tables import tables
from .text import collapse


def study_markdown(study: Study) -> str:
    """Return the report of a study; what each run says in detail stands in the report of that run."""
    every = tables(study)
    sections = [*_head(study), *_verdicts(study), *findings_section(study, every)]
    for found in every:
        sections += study_section(found)
    sections += _targets(study)
    return "\n".join([*sections, *_again(study)])


def findings_section(study: Study, every: Sequence[StudyTable]) -> list[str]:
    """Return what the tables of a study say in sentences; nothing where that is nothing."""
    found = [f"- {text(finding.text)}" for finding in findings(study, every)]
    return ["## Findings", "", *found, ""] if found else []


def study_section(found: StudyTable) -> list[str]:
    """Return one table of a study as a section with its notes; nothing where it has no rows."""
    if not found.rows:
        return []
    rows = [[text(cell.text) for cell in row] for row in found.rows]
    notes = [f"- {text(note)}" for note in found.notes]
    lines = [f"## {text(found.title)}", "", *table(found.heads, rows, right=found.right), ""]
    return [*lines, *notes, *([""] if notes else [])]


def study_facts(study: Study) -> str:
    """Return what a study is made of: "2 runs · 3 infrastructures · 5 curves: 4 met, 1 missed"."""
    outcomes = [curve.verdict.outcome for curve in study.curves]
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in Outcome if outcome in outcomes)
    facts = [count_of(len(study.runs), "run"), count_of(len(study.infrastructures), "infrastructure")]
    facts.append(f"{count_of(len(outcomes), 'curve')}{': ' if counts else ''}{counts}")
    return " · ".join(facts)


def _head(study: Study) -> list[str]:
    said = [f"- **{text(f'{run.run_id}: {problem}')}**" for run in study.runs for problem in problems(run)]
    return ["# OpenEnv scaling study", "", study_facts(study), "", *said, *([""] if said else [])]


def _verdicts(study: Study) -> list[str]:
    rows: list[Sequence[str]] = []
    for curve in study.curves:
        verdict = curve.verdict
        outcome = f"**{phrases.MARKS[verdict.outcome]} {verdict.outcome}**"
        because = collapse(verdict.headline).removeprefix(f"SLO {verdict.outcome}: ")
        place = (text(curve.infrastructure), curve.mode, text(wait_text(curve.wait)))
        rows.append([*place, outcome, text(because), code(curve.sweep.test, in_table=True)])
    heads = ("infrastructure", "mode", "wait", "verdict", "because", "test")
    return ["## Verdicts", "", *table(heads, rows, right=("wait",)), ""] if rows else []


def _targets(study: Study) -> list[str]:
    found = circumstances.targets(study.sweeps)
    rows = [
        [
            code(cell, in_table=True) if head in found.code else text(cell)
            for head, cell in zip(found.heads, row, strict=True)
        ]
        for row in found.rows
    ]
    return ["## Targets", "", *table(found.heads, rows, right=found.right), ""] if rows else []


def _again(study: Study) -> list[str]:
    folders = " ".join(shlex.quote(f"{run.path.parent.name}/{run.path.name}") for run in study.runs)
    command = f"openenv-scale report {folders} --output DIR"
    return ["## Again", "", "This report, from its runs:", "", *block(command, "sh"), ""]
