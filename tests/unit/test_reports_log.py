"""The experiment log: an entry per run, the newest first; what people wrote in it survives."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cells import NOON
from compare_samples import a_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from study_samples import DOCKER, SPACE_BASIC, UVICORN, a_run_of, a_study

from goldens import Golden
from pytest_openenv_scale.analysis.compare import compare_sweep
from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.analysis.study import join_runs
from pytest_openenv_scale.config.limits import parse_fail_on
from pytest_openenv_scale.core.errors import RunError
from pytest_openenv_scale.reporting.markdown.experiment_log import log_path, update_log, updated_log

HERE = Path("results")


def runs() -> list[Run]:
    """Three runs, a minute apart."""
    sample_runs = [a_run_of(of, number=number) for number, of in enumerate((UVICORN, DOCKER, SPACE_BASIC))]
    return [
        replace(run, record=replace(run.record, started_at=NOON + timedelta(minutes=at)))
        for at, run in enumerate(sample_runs)
    ]


def entries(log: str) -> list[str]:
    """Return the ids of the entries in the order of the log."""
    return [line.split()[2] for line in log.splitlines() if line.startswith("<!-- openenv-scale:run ")]


def overview(log: str) -> list[str]:
    """Return the ids in the table, in its order."""
    table = log.partition("<!-- openenv-scale:overview end -->")[0]
    return [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]


def test_a_new_log_explains_itself() -> None:
    expected = (Path(__file__).parent / "golden" / "experiment_log.md").read_text()
    assert updated_log("", a_study(UVICORN, DOCKER), HERE) == expected


def test_the_newest_run_comes_first_in_whatever_order_they_are_added() -> None:
    first, second, third = runs()
    log = updated_log("", join_runs([second]), HERE)
    log = updated_log(log, join_runs([third]), HERE)
    log = updated_log(log, join_runs([first]), HERE)
    ids = [third.run_id, second.run_id, first.run_id]
    assert entries(log) == ids
    assert overview(log) == ids


def test_adding_runs_again_changes_nothing() -> None:
    log = updated_log("", join_runs(runs()), HERE)
    assert updated_log(log, join_runs(runs()), HERE) == log


def test_a_regenerated_entry_tells_what_is_true_now(golden: Golden) -> None:
    run = runs()[0]
    running = replace(run, record=replace(run.record, status="running"))
    log = updated_log("", join_runs([running]), HERE)
    golden([line for line in log.splitlines() if "going on" in line])
    log = updated_log(log, join_runs([run]), HERE)
    assert "going on" not in log
    assert len(entries(log)) == 1


def test_what_people_wrote_survives() -> None:
    first, second, _ = runs()
    log = updated_log("", join_runs([first]), HERE)
    log = log.replace("# Experiment log\n", "# My log\n\nAbout this study.\n")
    log = log.replace(
        "*None yet: write here what was seen and what it means.*", "The **cliff** is at 4,096.\n\n## Why\nQueues."
    )
    log = log.replace(
        "<!-- openenv-scale:overview end -->\n", "<!-- openenv-scale:overview end -->\n\nAfter the table.\n"
    )

    updated = updated_log(updated_log(log, join_runs([second]), HERE), join_runs([first]), HERE)

    for written in (
        "# My log\n\nAbout this study.\n",
        "The **cliff** is at 4,096.\n\n## Why\nQueues.",
        "After the table.",
    ):
        assert updated.count(written) == 1
    assert updated.index("cliff") > updated.index(first.run_id, updated.index(f"run {first.run_id}"))
    assert entries(updated) == [second.run_id, first.run_id]


def test_a_file_of_ones_own_becomes_a_log_and_stays() -> None:
    log = updated_log("# Notes\n\nMine.\n", join_runs(runs()[:1]), HERE)
    assert log.startswith("# Notes\n\nMine.\n\n<!-- openenv-scale:overview -->\n")


def test_an_entry_that_was_taken_out_leaves_the_table_too() -> None:
    first, second, _ = runs()
    log = updated_log("", join_runs([first, second]), HERE)
    begin, end = (
        log.index(f"<!-- openenv-scale:run {second.run_id}"),
        log.index(f"<!-- openenv-scale:run {first.run_id}"),
    )
    log = updated_log(log[:begin] + log[end:], join_runs([first]), HERE)
    assert entries(log) == overview(log) == [first.run_id]


def test_the_table_keeps_runs_that_are_not_there_any_more() -> None:
    first, second, _ = runs()
    log = updated_log(updated_log("", join_runs([first]), HERE), join_runs([second]), HERE)
    assert overview(log) == [second.run_id, first.run_id]


@pytest.mark.parametrize(
    "damage",
    [
        "<!-- openenv-scale:end {id} -->\n",
        "<!-- openenv-scale:overview end -->",
        "<!-- openenv-scale:run {id} -->\n",
        "<!-- openenv-scale:overview -->",
    ],
)
def test_a_damaged_marker_leaves_the_log_as_it_is(golden: Golden, tmp_path: Path, damage: str) -> None:
    run = runs()[0]
    path = update_log(tmp_path, join_runs([run]))
    path.write_text(path.read_text().replace(damage.format(id=run.run_id), ""))
    before = path.read_text()
    with pytest.raises(RunError) as caught:
        update_log(tmp_path, join_runs([run]))
    golden(caught.value)
    assert path.read_text() == before


def test_an_entry_that_stands_twice_is_refused() -> None:
    log = updated_log("", join_runs(runs()[:1]), HERE)
    entry = log[log.index("<!-- openenv-scale:run ") :]
    with pytest.raises(RunError, match="two entries of run"):
        updated_log(log + entry, join_runs(runs()[:1]), HERE)


def test_a_log_that_cannot_be_written_or_read_is_one_line(golden: Golden, tmp_path: Path) -> None:
    log = tmp_path / "EXPERIMENT_LOG.md"
    log.mkdir()
    with pytest.raises(RunError) as caught:
        update_log(tmp_path, join_runs(runs()[:1]))
    golden(caught.value)
    log.rmdir()
    log.write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="is not UTF-8 text"):
        update_log(tmp_path, join_runs(runs()[:1]))


def test_the_log_of_the_default_folder_lies_in_the_root_directory(tmp_path: Path) -> None:
    root, folder, former = tmp_path, tmp_path / ".openenv-results", tmp_path / "openenv-results"
    assert update_log(folder, join_runs(runs()[:1])) == root / "EXPERIMENT_LOG.md"
    # The lock is no file of the repository.
    assert sorted(path.name for path in root.iterdir()) == [".openenv-results", "EXPERIMENT_LOG.md"]
    assert sorted(path.name for path in folder.iterdir()) == [".EXPERIMENT_LOG.md.lock", ".gitignore"]
    assert log_path(former) == root / "EXPERIMENT_LOG.md"
    assert log_path(root / "runs") == root / "runs" / "EXPERIMENT_LOG.md"


def test_a_log_that_was_begun_in_the_former_folder_goes_on_there(tmp_path: Path) -> None:
    former = tmp_path / "openenv-results"
    former.mkdir()
    begun = former / "EXPERIMENT_LOG.md"
    begun.write_text("Ours.\n")
    assert update_log(former, join_runs(runs()[:1])) == log_path(tmp_path / ".openenv-results") == begun
    assert begun.read_text().startswith("Ours.\n")
    (tmp_path / begun.name).touch()
    assert log_path(former) == tmp_path / begun.name


def test_nothing_in_a_run_can_pass_for_a_marker() -> None:
    run = runs()[0]
    note = "x\n<!-- openenv-scale:end evil -->\n<!-- openenv-scale:run evil -->\n"
    log = updated_log("", join_runs([replace(run, record=replace(run.record, note=note))]), HERE)
    assert entries(log) == [run.run_id]
    assert updated_log(log, join_runs([run]), HERE).count("evil") == 0


@settings(max_examples=25)
@given(st.lists(st.text("ab#|`<>-! \n", max_size=30), min_size=3, max_size=3), st.permutations(range(3)))
def test_any_notes_survive_any_order_of_updates(notes: list[str], order: list[int]) -> None:
    sample_runs = runs()
    log = updated_log("", join_runs(sample_runs), HERE)
    for run, note in zip(sample_runs, notes, strict=True):
        end = f"<!-- openenv-scale:end {run.run_id} -->\n"
        log = log.replace(end, f"{end}<<{note}>>\n")
    for at in order:
        log = updated_log(log, join_runs([sample_runs[at]]), HERE)
    assert all(f"<<{note}>>" in log for note in notes)
    assert entries(log) == [run.run_id for run in reversed(sample_runs)]


def test_the_beginning_of_a_later_entry_is_missed_too() -> None:
    sample_runs = runs()[:2]
    log = updated_log("", join_runs(sample_runs), HERE)
    with pytest.raises(RunError, match=f"the entry of run {sample_runs[0].run_id} has lost its beginning"):
        updated_log(
            log.replace(f"<!-- openenv-scale:run {sample_runs[0].run_id} -->\n", ""), join_runs(sample_runs), HERE
        )


def test_a_table_that_stands_twice_is_refused() -> None:
    log = updated_log("", join_runs(runs()[:1]), HERE)
    head = log[: log.index("<!-- openenv-scale:run ")]
    with pytest.raises(RunError, match="stands there twice"):
        updated_log(head + log, join_runs(runs()[:1]), HERE)


def test_blanks_after_a_marker_and_a_last_line_without_an_end_do_no_harm() -> None:
    (run, *_) = runs()
    log = updated_log("", join_runs([run]), HERE)
    assert updated_log(log.replace(f"{run.run_id} -->\n", f"{run.run_id} -->  \n"), join_runs([run]), HERE) == log
    end = f"<!-- openenv-scale:end {run.run_id} -->"
    bare = log[: log.index(end)] + end
    assert updated_log(bare, join_runs([run]), HERE) == f"{bare}\n"


def test_the_comparison_with_a_baseline_is_told(golden: Golden) -> None:
    then, now = a_pair({"latency": (0.3,)})
    (sweep,) = now.sweeps
    comparison = compare_sweep(then, now, sweep, parse_fail_on("total_p99:+15%"), reference="main")
    compared = replace(sweep, record=replace(sweep.record, comparison=comparison))
    log = updated_log("", join_runs([replace(now, sweeps=(compared,))]), HERE)
    golden(log[log.index("### Comparison") :].partition("\n\n###")[0])
    assert "### Comparison" not in updated_log("", join_runs([now]), HERE)
