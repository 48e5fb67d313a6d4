"""Which stored run is meant: a path, a run id, latest, or a git commit, branch or tag."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from compare_samples import a_judged_sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import a_manifest

from pytest_openenv_scale.config.limits import parse_reference
from pytest_openenv_scale.core.errors import GrammarError, RunError
from pytest_openenv_scale.results.location import stored_results
from pytest_openenv_scale.results.references import find_run

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def stored(results: Path, run_id: str, *, status="complete", commit: str | None = None, dirty=False) -> Path:
    git = {"commit": commit, "branch": "main", "dirty": dirty} if commit else None
    manifest = a_manifest(a_judged_sweep(8), run_id=run_id, status=status, fingerprint={"git": git})
    path = results / run_id
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(json.dumps(manifest.to_json()))
    return path


@pytest.fixture
def results(tmp_path):
    return tmp_path / ".openenv-results"


def find(text: str, *folders: Path, **options) -> Path:
    directory = folders[0].parent if folders else Path.cwd()
    return find_run(parse_reference(text, directory), folders, **options)


def refused(text: str, *folders: Path) -> str:
    with pytest.raises(RunError) as error:
        find(text, *folders)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_path_is_a_run_wherever_it_lies(results, tmp_path):
    path = stored(tmp_path / "elsewhere", "one")
    assert find("elsewhere/one", results) == path
    assert find(str(path)) == path
    assert find(f"{path}/manifest.json", results) == path


def test_a_run_id_is_looked_for_in_the_results(results):
    path = stored(results, "20260101T000000.000Z-0001", status="interrupted")
    assert find(path.name, results) == path


def test_latest_is_the_newest_complete_run_but_this_one(results):
    older, newer = stored(results, "2026-1"), stored(results, "2026-2")
    stored(results, "2026-3", status="interrupted")
    (results / "2026-4").mkdir()
    (results / "2026-4" / "manifest.json").write_text("damaged")
    assert find("latest", results) == newer
    assert find("latest", results, other_than=newer.name) == older


def test_runs_are_found_in_every_folder_by_their_time(tmp_path):
    former, today = tmp_path / "openenv-results", tmp_path / ".openenv-results"
    older, newer = stored(former, "2026-1"), stored(today, "2026-2")
    folders = stored_results(tmp_path)
    assert find("2026-1", *folders) == older
    assert find("latest", *folders) == newer
    assert find("latest", *folders, other_than=newer.name) == older


def test_runs_before_the_latest_are_counted(golden, results):
    paths = [stored(results, f"2026-{number}") for number in (1, 2)]
    interrupted = stored(results, "2026-3", status="interrupted")
    assert find("latest~1", results) == paths[0]
    assert find("latest~0", results) == paths[1]
    assert find("latest", results, to_compare=False) == interrupted
    assert find("latest~2", results, to_compare=False) == paths[0]
    golden("\n".join(refused(f"latest~{before}", results) for before in (2, 1_000_000)))


def test_the_beginning_of_one_id_is_enough(golden, results):
    first, second = stored(results, "20260101T000000.000Z-0001"), stored(results, "20260102T000000.000Z-0002")
    assert find("20260101", results) == first
    assert find("2026", results, other_than=first.name) == second
    golden(refused("2026", results))
    for number in range(3, 8):
        stored(results, f"2026010{number}T000000.000Z-000{number}")
    golden(refused("2026", results))


def test_without_a_complete_run_there_is_no_latest(golden, results):
    golden(refused("latest", results))


def test_a_commit_is_named_by_its_first_digits_and_a_clean_checkout_comes_first(results):
    clean = stored(results, "2026-1", commit=COMMIT)
    stored(results, "2026-2", commit=COMMIT, dirty=True)
    stored(results, "2026-3", commit="f" * 40)
    assert find(COMMIT[:8], results) == clean
    assert find(COMMIT, results) == clean
    assert find("FFFFFFF", results).name == "2026-3"


def test_a_commit_without_a_run_is_refused_and_those_with_one_are_named(golden, results):
    stored(results, "2026-1", commit=COMMIT)
    golden(refused("abcdef0", results))


def test_a_name_that_is_nothing_says_what_may_be_written(golden, results):
    golden(refused("no-such-thing", results))


def test_without_a_results_directory_only_a_path_will_do(golden):
    golden(refused("latest"))


def test_branches_and_tags_are_those_of_git(golden, results, tmp_path):
    def git(*words: str) -> str:
        settings = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *settings, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet", "--initial-branch=main")
    git("commit", "--quiet", "--allow-empty", "-m", "one")
    first = git("rev-parse", "HEAD")
    git("tag", "-a", "v1", "-m", "v1")
    git("commit", "--quiet", "--allow-empty", "-m", "two")
    path = stored(results, "2026-1", commit=first)
    assert find("v1", results) == path
    assert find("HEAD~1", results) == path
    golden(refused("main", results), masks={r"\b[0-9a-f]{10}\b": "COMMIT"})
    golden(refused("--help", results))


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\0b", None, 7])
def test_no_name_at_all_is_refused(golden, text):
    with pytest.raises(GrammarError) as caught:
        parse_reference(text, Path.cwd())
    golden(caught.value)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_any_text_that_names_no_run_is_refused_in_one_line(tmp_path_factory, text):
    with pytest.raises((GrammarError, RunError)) as error:
        find_run(parse_reference(text, tmp_path_factory.getbasetemp() / "none"), ())
    assert "\n" not in str(error.value)
