"""The command line, as a person meets it."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from cells import a_cell, a_failure, a_meta, a_row
from report_samples import a_sweep, measured

from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.results.run_directory import RunDirectory


def a_stored_run(results: Path, run_id="20261121T120000.000Z-3fa9", *, finished=True) -> Path:
    """A run in which 4 sessions fit and 2 of 8 were refused."""
    directory = RunDirectory.create(results, run_id)
    directory.begin(command=["pytest"], note="stored")
    cells = (a_cell(4), a_cell(8))
    curve = replace(cells[0].curve, batches=(4, 8))
    record = a_sweep(measured(4)).record
    directory.begin_sweep(replace(record, curves=(curve,), test=cells[0].test, target=cells[0].target))
    for cell, refused in zip(cells, (0, 2), strict=True):
        meta = replace(a_meta(cell), run_id=run_id)
        rows = [a_failure(n) if n < refused else a_row(n) for n in range(cell.batch)]
        directory.write_cell(rows, meta)
    if finished:
        directory.finish_sweep("sweep", "complete")
        directory.finish("complete")
    directory.close()
    return directory.path


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path / ".openenv-results"


def run(*arguments, **options):
    command = [sys.executable, "-m", "pytest_openenv_scale", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_the_version(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"openenv-scale {version('pytest-openenv-scale')}\n"


def test_the_latest_run_is_reported_and_its_reports_are_rebuilt(golden, results, capsys):
    a_stored_run(results, "20251121T120000.000Z-0000")
    path = a_stored_run(results)
    assert main(["report"]) == 0
    out = capsys.readouterr().out
    golden(out)
    assert "20251121T120000" not in out
    assert json.loads((path / "report.json").read_text())["outcome"] == "missed"
    assert "## Verdicts" in (path / "report.md").read_text()


def test_a_run_is_named_by_its_path_or_by_its_id(results, capsys):
    path = a_stored_run(results)
    assert main(["report", str(path)]) == 0
    by_path = capsys.readouterr().out
    assert main(["report", path.name]) == 0
    assert capsys.readouterr().out == by_path.replace(str(path), f".openenv-results/{path.name}")


def test_all_runs_are_reported(results, capsys):
    a_stored_run(results, "20251121T120000.000Z-0000")
    a_stored_run(results, "20251221T120000.000Z-0001")
    assert main(["report", "--all"]) == 0
    assert capsys.readouterr().out.count("1 curve: 1 missed") == 2


def test_runs_are_looked_for_where_results_says(results, tmp_path, capsys):
    a_stored_run(tmp_path / "elsewhere")
    assert main(["report", "--results", "elsewhere"]) == 0
    assert "20261121T120000.000Z-3fa9" in capsys.readouterr().out


def test_a_limit_judges_a_run_again_and_leaves_it_as_it_is(golden, results, capsys):
    path = a_stored_run(results)
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    assert main(["report", "--slo", "success>=50%"]) == 0
    out = capsys.readouterr().out
    golden(out)
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_a_run_judged_again_is_written_elsewhere(results, tmp_path):
    path = a_stored_run(results)
    assert main(["report", "--slo", "success>=50%", "--output", "again"]) == 0
    assert json.loads((tmp_path / "again" / "report.json").read_text())["outcome"] == "met"
    assert not (path / "report.json").exists()


def test_several_runs_are_joined_into_one_study(golden, results, tmp_path, capsys):
    paths = [a_stored_run(results, name) for name in ("20251121T120000.000Z-0000", "20261121T120000.000Z-3fa9")]
    for path in paths:  # Started within a second, so that the id tells them apart.
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, "started_at": "2026-11-21T12:00:00Z"}))
    assert main(["report", "--all", "--output", "again"]) == 0
    golden(capsys.readouterr().out)
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["report.md"]
    report = (tmp_path / "again" / "report.md").read_text()
    assert all(f"| {path.name} |" in report for path in paths)


def test_several_runs_without_an_output_are_rebuilt_each_in_its_place(results):
    paths = [a_stored_run(results, name) for name in ("20251121T120000.000Z-0000", "20261121T120000.000Z-3fa9")]
    assert main(["report", "--all"]) == 0
    assert all((path / "report.md").exists() and (path / "report.json").exists() for path in paths)


def test_a_study_goes_on_without_a_run_that_cannot_be_read(results, tmp_path, capsys):
    first, second = (a_stored_run(results, name) for name in ("20251121T120000.000Z-0000", "20261121T120000.000Z-3fa9"))
    (first / "manifest.json").write_text("{")
    assert main(["report", "--all", "--output", "again"]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert second.name in (tmp_path / "again" / "report.md").read_text()


def test_a_limit_judges_every_run_of_a_study(results, capsys):
    for name in ("20251121T120000.000Z-0000", "20261121T120000.000Z-3fa9"):
        a_stored_run(results, name)
    assert main(["report", "--all", "--output", "again", "--slo", "success>=50%"]) == 0
    assert "2 curves: 2 met" in capsys.readouterr().out


def test_formats_say_what_is_written(results):
    path = a_stored_run(results)
    assert main(["report", "--formats", "log"]) == 0
    assert not (path / "report.md").exists()
    assert path.name in (results.parent / "EXPERIMENT_LOG.md").read_text()


def test_a_report_that_was_asked_for_and_cannot_be_written_is_exit_code_2(golden, results, capsys):
    (a_stored_run(results) / "report.md").mkdir()
    assert main(["report"]) == 0
    assert main(["report", "--formats", "md,log"]) == 2
    golden(capsys.readouterr().err)
    assert (results.parent / "EXPERIMENT_LOG.md").exists()


def test_figures_without_their_extra_are_refused_before_a_run_is_read(golden, results, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "plotnine", None)
    path = a_stored_run(results)
    assert main(["report", "--formats", "md,figures"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    golden(err)
    assert not (path / "report.md").exists()
    assert main(["report", "--formats", "html"]) == 0
    assert (path / "report.html").exists()


@pytest.mark.parametrize(
    "arguments", [["--dpi", "300"], ["--figure-formats", "pdf"], ["--formats", "figures", "--figure-formats", "jpg"]]
)
def test_how_figures_are_written_says_nothing_where_none_are(golden, results, capsys, arguments):
    path = a_stored_run(results)
    assert main(["report", *arguments]) == 2
    golden(capsys.readouterr().err)
    assert not (path / "report.md").exists()


def test_none_only_prints(results, capsys):
    path = a_stored_run(results)
    assert main(["report", "--formats", "none", "--output", "again"]) == 0
    assert main(["report", "--slo", "success>=50%"]) == 0
    assert list(path.glob("report.*")) == []
    assert not Path("again").exists()
    assert "local-uvicorn" in capsys.readouterr().out


def test_of_a_limit_written_twice_the_last_one_counts(results, capsys):
    a_stored_run(results)
    assert main(["report", "--slo", "success>=99%", "--slo", "success>=50%"]) == 0
    assert "✓ SLO met" in capsys.readouterr().out


def test_an_interrupted_run_is_reported_as_one(golden, results, capsys):
    path = a_stored_run(results, finished=False)
    assert main(["report"]) == 0
    golden(capsys.readouterr().out)
    assert "the run was interrupted" in (path / "report.md").read_text()


def test_a_damaged_part_is_told_and_the_rest_is_reported(results, capsys):
    path = a_stored_run(results)
    part = sorted((path / "sessions.parquet").glob("*.parquet"))[-1]
    part.write_bytes(part.read_bytes()[:100])
    assert main(["report"]) == 0
    out = capsys.readouterr().out
    assert f"! {part.name}" in out or part.name in out
    assert "100.0" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["report"],
        ["report", "nowhere"],
        ["report", "--slo", "total_p98<=2s"],
        ["report", "--all", "x"],
    ],
)
def test_bad_input_is_one_clear_line(golden, results, capsys, arguments):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    golden(err)
    assert out == ""


def test_a_folder_of_runs_is_no_run_and_one_in_it_is_named(results, capsys):
    path = a_stored_run(results)
    assert main(["report", ".openenv-results"]) == 2
    assert path.name in capsys.readouterr().err


def test_a_bad_run_among_good_ones_does_not_hide_them(golden, results, capsys):
    path = a_stored_run(results)
    assert main(["report", "nowhere", path.name]) == 2
    out, err = capsys.readouterr()
    assert "1 curve: 1 missed" in out
    golden(err)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["serve", "--port", "x"],
    ],
)
def test_a_wrong_command_line_is_one_line(golden, capsys, arguments):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    golden(line)


def test_a_setting_nobody_can_serve_with_is_one_line(capsys):
    assert main(["serve", "--port", "99999"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("openenv-scale serve: PORT='99999'")


def test_an_output_that_cannot_be_written_is_one_line(golden, results, tmp_path, capsys):
    a_stored_run(results)
    (tmp_path / "file").write_text("")
    assert main(["report", "--output", "file"]) == 2
    golden(capsys.readouterr().err)


def test_a_reader_that_has_seen_enough_is_no_error(results):
    a_stored_run(results)
    command = f"{sys.executable} -m pytest_openenv_scale report --all | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


def test_a_terminal_that_knows_no_unicode_gets_ascii(results):
    a_stored_run(results)
    done = run("report", env={"PYTHONIOENCODING": "ascii", "COLUMNS": "100"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "x SLO missed" in done.stdout


def test_no_colours_are_written_into_a_file(results):
    a_stored_run(results)
    assert "\x1b" not in run("report").stdout


def test_the_command_line_imports_nothing_heavy_before_it_must():
    heavy = {"aiohttp", "pyarrow", "starlette", "hypercorn", "pytest", "psutil", "yaml"}
    program = "import sys, pytest_openenv_scale.__main__ as m; m._parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert heavy.isdisjoint(done.stdout.split())
