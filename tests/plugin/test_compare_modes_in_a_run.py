"""Both protocols in one run: how http connects is an option, and every report compares ws with http."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
from tests.plugin import fakes
from tests.plugin.conftest import INI

from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.reporting import run_lines, write_reports

BOTH = ("--openenv-modes", "ws,http")
TITLE = "protocol comparison"


@pytest.fixture
def connections(monkeypatch) -> list[tuple[str, str]]:
    """Mode and connections of every cell ordered."""
    ordered: list[tuple[str, str]] = []
    play = fakes.FakeGenerator.run_cell

    def listen(self, order, on_progress=None):
        ordered.append((order.cell.mode, order.http_connections))
        return play(self, order, on_progress)

    monkeypatch.setattr(fakes.FakeGenerator, "run_cell", listen)
    return ordered


# How http connects


def test_a_session_keeps_its_connection_unless_told_otherwise(swept, connections):
    result = swept.run("--openenv-modes", "http", "-m", "scaling")
    assert set(connections) == {("http", "session")}
    result.stdout.fnmatch_lines(["  http-connections session (default)*"])
    assert swept.manifest["sweeps"][0]["settings"]["http_connections"] == "session"


@pytest.mark.parametrize("value", ["request", "shared"])
def test_the_option_reaches_every_cell_the_header_and_the_manifest(swept, connections, value):
    result = swept.run(*BOTH, "--openenv-http-connections", value)
    assert {value for _, value in connections} == {value}
    result.stdout.fnmatch_lines([f"  http-connections {value} (command line)*"])
    assert swept.manifest["sweeps"][0]["settings"]["http_connections"] == value


def test_the_ini_twin_does_the_same(swept, connections):
    swept.ini(f"{INI}openenv_http_connections = shared\n")
    swept.run("--openenv-modes", "http")
    assert set(connections) == {("http", "shared")}


def test_a_rerun_repeats_it(swept):
    result = swept.run(*BOTH, "--openenv-http-connections", "request", "--openenv-slo", "rps>=1000000")
    result.stdout.fnmatch_lines(["*rerun: pytest *--openenv-modes ws,http*--openenv-http-connections request*"])


def test_a_run_without_http_says_nothing_of_it(swept):
    swept.run("-v").stdout.no_fnmatch_line("*http-connections*")
    assert "http_connections" not in swept.manifest["sweeps"][0]["settings"]


def test_a_wrong_value_is_one_line(swept):
    result = swept.run("--openenv-http-connections", "pooled")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --openenv-http-connections: it must be session or request or shared, got 'pooled'"]
    )
    assert swept.runs == []


# The comparison


def test_every_report_compares_the_modes(swept, monkeypatch):
    summary = swept.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = swept.run(*BOTH, "--openenv-json", "report.json", "--junitxml=junit.xml")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            f"*{TITLE}",
            "    target *wait  ws max  http max  ratio  winner",
            "  test_it.py::test_scale",
            "    fake *0.01 s *≥ 2 *≥ 2 *–  –",
            "        ws / http at batch 2: ok 100.0 / 100.0 %, reset p50*",
            "*cannot hold an episode*",
        ]
    )
    (run,) = swept.runs
    for path in (run / "report.md", summary):
        text = path.read_text()
        assert text.count(f"## {TITLE.capitalize()}\n") == 1
        assert text.count("cannot hold an episode") == 1
    (sweep,) = json.loads((swept.path / "report.json").read_text())["sweeps"]
    (comparison,) = sweep["protocols"]
    assert (comparison["ws"]["max_batch"], comparison["http"]["max_batch"], comparison["batch"]) == (2, 2, 2)
    names = {item.get("name") for item in ET.parse(swept.path / "junit.xml").iter("property")}
    assert {"openenv_protocol_winner[wait=0.01]", "openenv_protocol_ratio[wait=0.01]"} <= names


def test_it_is_rebuilt_from_the_run_directory_alone(swept, tmp_path):
    swept.run(*BOTH)
    (path,) = swept.runs
    run = load_run(path)
    write_reports(run, directory=tmp_path / "again")
    assert f"## {TITLE.capitalize()}" in (path / "report.md").read_text()
    for name in ("report.md", "report.json"):
        assert (tmp_path / "again" / name).read_text() == (path / name).read_text()
    assert any(TITLE in line.text for line in run_lines(run))


def test_one_mode_is_compared_with_nothing(swept):
    result = swept.run("--junitxml=junit.xml")
    result.stdout.no_fnmatch_line(f"*{TITLE}*")
    (run,) = swept.runs
    assert TITLE not in (run / "report.md").read_text().lower()
    assert "openenv_protocol" not in (swept.path / "junit.xml").read_text()
