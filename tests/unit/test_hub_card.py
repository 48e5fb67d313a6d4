"""The card of a dataset of runs: a viewer that works, a section per run, and nobody's own words lost."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from cells import NOON
from report_samples import a_run

from goldens import Golden
from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.hub.access import HubError
from pytest_openenv_scale.hub.dataset import BEGIN, END, RunSection, updated_card

BOTH = ("cells", "sessions")
FILES = ("manifest.json", "report.md", "figures/a.svg", "figures/a.png", "figures/b.svg", "figures/notes.txt")


def sample(number: int = 1, **fields: object) -> Run:
    run_id = f"2026112{number}T120000.000Z-3fa9"
    return a_run(Path(run_id), **{"run_id": run_id, "started_at": NOON + timedelta(days=number), **fields})


def card(*runs: Run, before: str | None = None, configs: tuple[str, ...] = BOTH, files: tuple[str, ...] = FILES) -> str:
    return updated_card(before, "alice/runs", [RunSection(run, files) for run in runs], configs)


def front(text: str) -> dict[str, object]:
    return yaml.safe_load(text.removeprefix("---\n").partition("\n---\n")[0])


def test_the_viewer_gets_a_configuration_per_table_and_opens_the_small_one() -> None:
    assert front(card(sample())) == {
        "pretty_name": "runs",
        "tags": ["openenv", "benchmark", "load-testing"],
        "configs": [
            {"config_name": "cells", "data_files": [{"split": "train", "path": "cells/*.parquet"}], "default": True},
            {
                "config_name": "sessions",
                "data_files": [{"split": "train", "path": "runs/*/sessions.parquet/*.parquet"}],
            },
        ],
    }


def test_a_dataset_without_rows_names_no_files_the_viewer_would_miss() -> None:
    assert "configs" not in front(card(sample(), configs=()))


def test_a_run_has_its_verdicts_its_figures_and_a_way_to_its_report() -> None:
    text = card(sample())
    assert re.search(r"\| +128 \|", text)
    assert "✗ missed" in text
    assert "> before the rewrite" in text
    assert "commit `0123456789ab`" in text
    assert "[report](runs/20261121T120000.000Z-3fa9/report.md)" in text
    assert "![a](runs/20261121T120000.000Z-3fa9/figures/a.png)" in text
    assert "![b](runs/20261121T120000.000Z-3fa9/figures/b.svg)" in text
    assert text.count("![") == 2


def test_an_interrupted_run_is_called_so(golden: Golden) -> None:
    golden([line for line in card(sample(status="interrupted")).splitlines() if "interrupted;" in line])


def test_runs_are_added_and_the_newest_stands_first() -> None:
    text = card(sample(2), before=card(sample(1), sample(3)))
    starts = [text.index(f"<!-- run 2026112{number}") for number in (3, 2, 1)]
    assert starts == sorted(starts)
    assert text.count(BEGIN) == text.count(END) == 1


def test_a_run_that_is_pushed_again_is_said_once_and_anew() -> None:
    first = card(sample(1), sample(2))
    newer = sample(1)
    newer = replace(newer, record=replace(newer.record, note="said anew"))
    text = card(newer, before=first)
    assert text.count("<!-- run 20261121") == 1
    assert "said anew" in text
    assert card(newer, before=text) == text


def test_words_and_metadata_of_somebody_else_are_kept() -> None:
    text = card(sample(1))
    head, _, body = text.partition("\n# runs\n")
    own_head = head.replace("tags:\n", "license: mit\nextra: [1, 2]\ntags:\n- mine\n", 1)
    edited = f"{own_head}\n# My title\n\nMy words.\n{body}\nMore of them, with $ and \\1.\n"
    updated = card(sample(2), before=edited)
    assert "# My title\n\nMy words.\n" in updated
    assert "with $ and \\1." in updated
    assert front(updated)["license"] == "mit"
    assert front(updated)["extra"] == [1, 2]
    assert front(updated)["tags"] == ["mine", "openenv", "benchmark", "load-testing"]
    assert "# runs" not in updated


def test_a_card_without_markers_or_front_matter_gets_them_at_its_end() -> None:
    updated = card(sample(), before="# Mine\n\nWords.\n")
    assert updated.startswith("---\npretty_name: runs\n")
    assert updated.index("Words.") < updated.index(BEGIN)


def test_another_configuration_of_the_viewer_stays_the_default() -> None:
    theirs = "---\nconfigs:\n- config_name: mine\n  default: true\n  data_files: mine.csv\n---\n"
    configs = front(card(sample(), before=theirs))["configs"]
    assert isinstance(configs, list)
    assert [(one["config_name"], one.get("default")) for one in configs] == [
        *(("cells", None), ("sessions", None)),
        ("mine", True),
    ]


@pytest.mark.parametrize(
    "before",
    [
        "---\na: [\n---\n",
        "---\n- a\n---\n",
    ],
)
def test_front_matter_that_cannot_be_read_is_not_overwritten(golden: Golden, before: str) -> None:
    with pytest.raises(HubError) as caught:
        card(sample(), before=before)
    golden(caught.value)


def test_a_note_cannot_end_the_section() -> None:
    run = sample()
    note = f"{END} <!-- end of run {run.run_id} -->"
    text = card(replace(run, record=replace(run.record, note=note)))
    assert text.count(END) == 1
    assert text.count("<!-- end of run") == 1
    assert card(sample(2), before=text).count(END) == 1
