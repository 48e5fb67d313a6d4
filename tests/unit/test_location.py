"""Which folder runs go to, and what git sees of it."""

from __future__ import annotations

import subprocess

from pytest_openenv_scale.results.location import default_results, make_results, stored_results


def test_runs_go_to_a_hidden_folder(tmp_path):
    assert default_results(tmp_path) == tmp_path / ".openenv-results"
    assert stored_results(tmp_path) == (tmp_path / ".openenv-results",)


def test_a_folder_of_the_former_name_goes_on_until_there_is_one_of_todays(tmp_path):
    former, today = tmp_path / "openenv-results", tmp_path / ".openenv-results"
    former.mkdir()
    assert default_results(tmp_path) == former
    assert stored_results(tmp_path) == (former,)
    today.mkdir()
    assert default_results(tmp_path) == today
    assert stored_results(tmp_path) == (today, former)


def test_git_sees_nothing_of_a_folder_that_was_made_here(tmp_path):
    make_results(tmp_path / ".openenv-results" / "run")
    (tmp_path / ".openenv-results" / "run" / "manifest.json").touch()
    for words in (["init", "--quiet"], ["status", "--porcelain"]):
        seen = subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert seen == ""


def test_a_folder_that_was_there_or_is_named_is_left_to_its_owner(tmp_path):
    ours, theirs = tmp_path / ".openenv-results", tmp_path / "runs"
    ours.mkdir()
    (ours / ".gitignore").write_text("!keep\n")
    for folder in (ours, theirs):
        make_results(folder)
    assert (ours / ".gitignore").read_text() == "!keep\n"
    assert list(theirs.iterdir()) == []
