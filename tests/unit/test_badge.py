"""`openenv-scale badge`, of runs that 0.1 stored."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from goldens import Golden
from pytest_openenv_scale.__main__ import main

STORED = Path(__file__).parents[1] / "stored" / "0.1"
MET, TWO_CURVES, CHECKS = (
    "20261130T010336.104Z-d9b27c04",
    "20261130T010346.256Z-52be611e",
    "20261130T010351.352Z-1e66365e",
)
HOSTILE = '<script>&"\x1b[31m\x07'


def badge(run: str, *options: str) -> int:
    return main(["badge", str(STORED / run), *options])


def test_a_badge_says_what_a_run_holds_and_is_a_picture_that_is_well_formed(
    golden: Golden, capsys: pytest.CaptureFixture[str]
) -> None:
    assert badge(MET) == 0
    svg = capsys.readouterr().out
    golden(svg)
    assert svg.isascii()
    assert ElementTree.fromstring(svg).attrib["aria-label"] == "openenv: holds ≥ 4 sessions"


def test_what_a_label_holds_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert badge(MET, "--label", HOSTILE) == 0
    root = ElementTree.fromstring(capsys.readouterr().out)
    assert root.attrib["aria-label"].startswith('<script>&"')
    assert {element.tag.partition("}")[2] for element in root} == {"title", "rect", "path", "g"}
    assert badge(MET, "--label", HOSTILE, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["label"] == HOSTILE


def test_of_several_curves_the_smallest_max_batch_counts_and_is_named(
    golden: Golden, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "badge.json"
    assert badge(TWO_CURVES, "--format", "json", "--output", str(file)) == 0
    golden(capsys.readouterr().err)
    assert json.loads(file.read_text()) == {
        "schemaVersion": 1,
        "label": "openenv",
        "message": "holds 1 session",
        "color": "#a01c17",
    }
    assert badge(TWO_CURVES, "--mode", "ws", "--wait", "100ms", "--output", str(file)) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [CHECKS],
        [TWO_CURVES, "--wait", "3"],
        [TWO_CURVES, "--wait", "long"],
        [TWO_CURVES, "--infrastructure", "local-hypercon"],
        [TWO_CURVES, "--test", "nothing"],
        ["nowhere"],
    ],
    ids=["no curve", "no such wait", "no time", "no such infrastructure", "no such test", "no run"],
)
def test_where_there_is_nothing_to_show_one_line_says_what_there_is(
    golden: Golden, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert badge(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    golden(said.err)
