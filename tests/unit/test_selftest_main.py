"""`openenv-scale self-test`, as a person meets it: what cannot be asked, and what an interruption leaves."""

from __future__ import annotations

import json

import pytest
from test_selftest_search import a_batch

from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.load.runner import LoadError
from pytest_openenv_scale.selftest import search
from pytest_openenv_scale.selftest.search import SelfTestError


@pytest.fixture
def measured(monkeypatch):
    """Put figures in place of measurements; returns a setter."""

    def put(figures):
        monkeypatch.setattr(search, "measure", lambda generator, request, *cell: figures(*cell))

    monkeypatch.setattr(search, "SMALLEST_BATCH", {"ws": 8, "http": 8})
    monkeypatch.setenv("COLUMNS", "140")
    put(lambda mode, arrival, batch: a_batch(batch, arrival, mode=mode))
    return put


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-batch", "0"],
        ["--max-batch", "many"],
        ["--modes", "tcp"],
        ["--wait", "soon"],
        ["--processes", "0"],
        ["--time", "0"],
        ["--json", "nowhere/x.json"],
        ["--json", "."],
    ],
)
def test_bad_input_is_one_clear_line_before_anything_is_measured(
    golden, measured, tmp_path, monkeypatch, capsys, arguments
):
    monkeypatch.chdir(tmp_path)
    measured(lambda *cell: pytest.fail("measured"))
    assert main(["self-test", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    golden(err)


def test_the_table_then_one_sentence_per_mode(golden, measured, capsys):
    assert main(["self-test", "--max-batch", "16"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert sum(line.startswith(("ws    ", "http  ")) and line.endswith("✓") for line in lines) == 8
    golden(lines[-2])
    golden(lines[-1])


def test_a_mode_that_resolves_nothing_fails(golden, measured, capsys):
    measured(lambda mode, arrival, batch: a_batch(batch, arrival, mode=mode, p50=1.0 if mode == "http" else 0.0))
    assert main(["self-test", "--max-batch", "16"]) == 1
    golden("http: " + " ".join(capsys.readouterr().out.split()).rpartition("http: ")[2])
    assert main(["self-test", "--max-batch", "16", "--modes", "ws"]) == 0


def test_ctrl_c_prints_what_is_known_so_far(golden, measured, tmp_path, capsys):
    def figures(mode, arrival, batch):
        if mode == "http":
            raise KeyboardInterrupt
        return a_batch(batch, arrival)

    measured(figures)
    assert main(["self-test", "--max-batch", "16", "--json", str(tmp_path / "found.json")]) == 130
    out, err = capsys.readouterr()
    golden(out.splitlines()[-1])
    assert err == ""
    ws, http = json.loads((tmp_path / "found.json").read_text())["ladders"]
    assert (ws["resolved_batch"], http["end"]) == (16, "interrupted")


@pytest.mark.parametrize("error", [SelfTestError("no server"), LoadError("no load")])
def test_what_cannot_be_measured_is_one_line(measured, capsys, error):
    def figures(*cell):
        raise error

    measured(figures)
    assert main(["self-test"]) == 2
    assert capsys.readouterr().err == f"openenv-scale self-test: {error}\n"


def test_a_machine_without_room_is_one_line_before_anything_is_said(golden, measured, monkeypatch, capsys):
    monkeypatch.setattr(search, "descriptor_limit", lambda: 40)
    assert main(["self-test"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    golden(err)
