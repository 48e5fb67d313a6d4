"""Runs pushed to a dataset and pulled back, with the real huggingface_hub against a stand-in of the Hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml

from goldens import Golden
from hub import Hub, HubError, running_hub
from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.results.outcome import Sample
from pytest_openenv_scale.results.run_directory import RunDirectory
from pytest_run import run_pytest, write_test

pytestmark = [
    pytest.mark.stand_in,
    # huggingface_hub's own way to upload a file.
    pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"),
]
huggingface_hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

REPO = "alice/runs"
PNG = b"\x89PNG\r\n\x1a\n\0 a figure"
SWEEP = """
@pytest.mark.scaling(batches="1,4", waits=[0.05])
def test_{name}(scaling): scaling.run()
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of a local server: one whole and with a figure, one that was interrupted."""
    folder = tmp_path_factory.mktemp("measured")
    run_dirs: list[Path] = []
    for name in ("whole", "cut"):
        write_test(folder, SWEEP.format(name=name))
        # Only what was measured counts here, not whether a busy machine could judge it.
        options = ["--openenv-target", "local:builtin", "--openenv-inconclusive", "warn", "--openenv-no-samples"]
        run_pytest(folder, *options)
        (run,) = set((folder / ".openenv-results").glob("2*")) - set(run_dirs)
        run_dirs.append(run)
    whole_run, cut = run_dirs
    (whole_run / "figures").mkdir()
    (whole_run / "figures" / "latency.png").write_bytes(PNG)
    manifest = cut / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"status": "complete"', '"status": "running"'))
    sorted((cut / "sessions.parquet").glob("*.parquet"))[-1].unlink()
    return run_dirs


@pytest.fixture
def runs(measured: list[Path], tmp_path: Path) -> list[Path]:
    """The same runs, for this test to change."""
    return [Path(shutil.copytree(run, tmp_path / ".openenv-results" / run.name)) for run in measured]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as running:
        running.patch(monkeypatch, tmp_path)
        yield running


def push(*arguments: object) -> int:
    return main(["push", *map(str, arguments)])


def pull(results: Path, repo: str = REPO) -> int:
    return main(["pull", repo, "--results", str(results)])


def stored(hub: Hub, repo: str = REPO) -> dict[str, bytes]:
    return hub.repos["dataset", repo].files


def files_of(run: Path) -> dict[str, bytes]:
    paths = (path for path in run.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in paths}


# --- push


def test_a_run_is_in_the_dataset_byte_for_byte_with_its_cells_and_a_card(hub: Hub, runs: list[Path]) -> None:
    whole_run, _ = runs
    assert push(whole_run, REPO) == 0
    there = stored(hub)
    for name, content in files_of(whole_run).items():
        assert there[f"runs/{whole_run.name}/{name}"] == content
    assert set(there) == {f"runs/{whole_run.name}/{name}" for name in files_of(whole_run)} | {
        *("README.md", f"cells/{whole_run.name}.parquet")
    }
    assert not hub.repos["dataset", REPO].private
    # Parquet and pictures went the way of large files, and nothing but the Hub was shown the token.
    assert hub.asked("PUT", "/large-upload/")
    assert [one.line for one in hub.asked() if "/large" in one.path and "authorization" in one.headers] == [
        one.line for one in hub.asked("POST", "/large-verify")
    ]


def test_the_card_is_one_the_hub_takes_and_its_globs_find_the_tables(
    hub: Hub, runs: list[Path], tmp_path: Path
) -> None:
    assert push(*runs, REPO) == 0
    for path, content in stored(hub).items():
        (tmp_path / "clone" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clone" / path).write_bytes(content)
    card = huggingface_hub.DatasetCard.load(tmp_path / "clone" / "README.md")
    card.validate()
    assert huggingface_hub.metadata_load(tmp_path / "clone" / "README.md")["tags"][0] == "openenv"
    rows = {}
    for config in card.data.to_dict()["configs"]:
        (file,) = config["data_files"]
        tables = sorted((tmp_path / "clone").glob(file["path"]))
        rows[config["config_name"]] = ds.dataset(tables).to_table()
    assert rows["cells"].num_rows == 3
    assert rows["sessions"].num_rows == 1 + 4 + sum(
        pq.read_table(runs[1] / "sessions.parquet")["batch_size"].to_numpy() > 0
    )
    assert set(rows["cells"]["run_id"].to_pylist()) == {run.name for run in runs}
    assert f"![latency](runs/{runs[0].name}/figures/latency.png)" in card.text
    assert "interrupted" in card.text


def test_several_pushes_add_runs_and_keep_what_somebody_wrote(hub: Hub, runs: list[Path]) -> None:
    assert push(runs[0], REPO) == 0
    there = stored(hub)
    there["README.md"] = there["README.md"].replace(b"# runs\n", b"# Ours\n\nOn one machine.\n")
    there["mine.csv"] = b"1,2\n"
    assert push(runs[1], REPO) == 0
    card = stored(hub)["README.md"].decode()
    assert "# Ours\n\nOn one machine.\n" in card
    assert all(f"<!-- run {run.name} -->" in card for run in runs)
    assert stored(hub)["mine.csv"] == b"1,2\n"
    assert len(yaml.safe_load(card.split("---\n")[1])["configs"]) == 2


def test_a_push_that_changes_nothing_commits_nothing(
    hub: Hub, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(runs[0], REPO) == 0
    head = hub.repos["dataset", REPO].head
    capsys.readouterr()
    assert push(runs[0], REPO) == 0
    assert hub.repos["dataset", REPO].head == head
    assert capsys.readouterr().out.startswith(f"already there: {runs[0].name}\n")


def test_what_sessions_said_is_not_pushed(hub: Hub, runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    run = runs[0]
    (record,) = load_run(run).record.sweeps
    warm_ups = [replace(warm_up, sample=Sample('{"word": "xyzzy"}')) for warm_up in record.warm_ups]
    RunDirectory.open(run).replace_sweep(replace(record, warm_ups=tuple(warm_ups)))
    assert main(["report", str(run), "--formats", "md,html"]) == 0
    assert "xyzzy" in (run / "report.html").read_text()
    assert push(run, REPO) == 0
    there = stored(hub)
    assert f"runs/{run.name}/report.html" in there
    assert f"runs/{run.name}/samples.json" not in there
    assert not any(b"xyzzy" in content for content in there.values())
    assert push(run, REPO) == 0
    assert f"already there: {run.name}" in capsys.readouterr().out


def test_other_reports_of_a_run_are_brought_up_to_date(
    hub: Hub, runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(runs[0], REPO) == 0
    (runs[0] / "report.md").write_text("# Rendered anew\n")
    assert push(runs[0], REPO) == 0
    assert f"pushed the reports of {runs[0].name}\n" in capsys.readouterr().out
    assert stored(hub)[f"runs/{runs[0].name}/report.md"] == b"# Rendered anew\n"


def test_another_run_of_the_same_id_is_refused(
    hub: Hub, runs: list[Path], capsys: pytest.CaptureFixture[str], golden: Golden
) -> None:
    assert push(runs[0], REPO) == 0
    before = dict(stored(hub))
    sorted((runs[0] / "sessions.parquet").glob("*.parquet"))[0].unlink()
    capsys.readouterr()
    assert push(runs[0], REPO) == 2
    golden(capsys.readouterr().err, masks={r"sessions\.parquet/[^ ;,]+": "sessions.parquet/PART"})
    assert stored(hub) == before


def test_somebody_else_who_pushes_meanwhile_loses_nothing(hub: Hub, runs: list[Path]) -> None:
    assert push(runs[0], REPO) == 0
    hub.failures.append(("POST /api/datasets/alice/runs/commit/main", HubError(412, "A commit has happened since.")))
    assert push(runs[1], REPO) == 0
    assert len(hub.asked("POST", "/commit/main")) == 3
    assert all(run.name in stored(hub)["README.md"].decode() for run in runs)


def test_private_makes_a_private_dataset_and_refuses_a_public_one(
    hub: Hub, runs: list[Path], capsys: pytest.CaptureFixture[str], golden: Golden
) -> None:
    assert push(runs[0], "alice/secret", "--private") == 0
    assert hub.repos["dataset", "alice/secret"].private
    hub.add_dataset("alice/open")
    capsys.readouterr()
    assert push(runs[0], "alice/open", "--private") == 2
    golden(capsys.readouterr().err)
    assert stored(hub, "alice/open") == {}


def test_the_latest_run_needs_no_id_and_a_missing_one_is_told(
    hub: Hub, runs: list[Path], capsys: pytest.CaptureFixture[str], golden: Golden
) -> None:
    results = ("--results", runs[0].parent)
    assert push("latest", REPO, *results) == 0
    assert f"pushed {max(run.name for run in runs)}\n" in capsys.readouterr().out
    assert push("nothing", REPO, *results) == 2
    golden(capsys.readouterr().err)


# --- pull


def test_a_pulled_run_reports_as_it_did_where_it_was_measured(
    hub: Hub, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert push(*runs, REPO) == 0
    there = tmp_path / "elsewhere" / ".openenv-results"
    assert pull(there) == 0
    for run in runs:
        assert files_of(there / run.name) == files_of(run)
        texts: list[str] = []
        for results in (run.parent, there):
            capsys.readouterr()
            assert main(["report", run.name, "--results", str(results)]) == 0
            texts.append(capsys.readouterr().out.replace(str(results), "RESULTS"))
        assert texts[0] == texts[1]
        assert files_of(there / run.name) == files_of(run)
    assert [path.name for path in there.iterdir() if path.name.startswith(".")] == [".gitignore"]


def test_pulling_again_brings_only_what_is_missing(
    hub: Hub, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    assert push(runs[0], REPO) == 0
    assert pull(there) == 0
    (there / runs[0].name / "report.md").write_text("rendered here again\n")
    assert push(runs[1], REPO) == 0
    capsys.readouterr()
    assert pull(there) == 0
    assert capsys.readouterr().out == f"pulled {there / runs[1].name}\nalready here: {there / runs[0].name}\n"
    assert (there / runs[0].name / "report.md").read_text() == "rendered here again\n"


def test_a_run_of_yours_is_never_overwritten(
    hub: Hub, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], golden: Golden
) -> None:
    there = tmp_path / "there"
    assert push(*runs, REPO) == 0
    shutil.copytree(runs[0], there / runs[0].name)
    sorted((there / runs[0].name / "sessions.parquet").glob("*.parquet"))[0].unlink()
    before = files_of(there / runs[0].name)
    capsys.readouterr()
    assert pull(there) == 2
    captured = capsys.readouterr()
    assert captured.out == f"pulled {there / runs[1].name}\n"
    golden(captured.err, masks={r"sessions\.parquet/[^ ;,]+": "sessions.parquet/PART"})
    assert files_of(there / runs[0].name) == before


def test_what_comes_damaged_is_not_taken(hub: Hub, runs: list[Path], tmp_path: Path) -> None:
    assert push(runs[0], REPO) == 0
    path = f"runs/{runs[0].name}/manifest.json"
    stored(hub)[path] = stored(hub)[path].replace(runs[0].name.encode(), b"another-run")
    assert pull(tmp_path / "there") == 2
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("repo", ["alice/nothing", "alice/empty"])
def test_a_dataset_without_runs_is_told(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], golden: Golden, repo: str
) -> None:
    hub.add_dataset("alice/empty", files={"README.md": b"# Nothing\n"})
    assert pull(tmp_path / "there", repo) == 2
    golden(capsys.readouterr().err)
