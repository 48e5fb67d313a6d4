"""The rule of tests/conftest.py, below the stricter one of the root, on real tests that say what the guard says."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SAYS = "a load process stood still for 922 ms (allowed 200 ms)"


@pytest.fixture
def ask(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CI", "true")
    pytester.makeconftest((TESTS.parent / "conftest.py").read_text())
    folder = pytester.mkdir("tests")
    (folder / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    pytester.makeini("[pytest]\nmarkers = real")

    def ask_again(source: str, reruns: int = 1) -> tuple[pytest.RunResult, dict[str, int]]:
        (folder / "test_it.py").write_text(f"import itertools, pytest\npytestmark = pytest.mark.real\n{source}\n")
        again = ("--reruns", str(reruns), "--only-rerun", "a load process (did not keep up|stood still)")
        done = pytester.runpytest_inprocess("-p", "no:asyncio", "-p", "no:openenv_scale", "-rs", *again)
        return done, done.parseoutcomes()

    return ask_again


def test_one_that_is_open_each_time_is_skipped_and_says_why(ask):
    done, outcomes = ask(f"def test_it():\n    assert 0, 'inconclusive: {SAYS}'")
    assert outcomes == {"skipped": 1, "rerun": 1}
    assert done.ret == 0
    done.stdout.fnmatch_lines([f"SKIPPED * left open each time it was asked: {SAYS}*"])


def test_one_that_is_decided_when_asked_again_has_passed(ask):
    _, outcomes = ask(f"asked = itertools.count()\ndef test_it():\n    assert next(asked), '{SAYS}'")
    assert outcomes == {"passed": 1, "rerun": 1}


def test_one_that_fails_otherwise_has_failed(ask):
    _, outcomes = ask("def test_it():\n    assert 0, 'missed: success, got 50 %'")
    assert outcomes == {"failed": 1}


def test_one_that_was_open_and_then_fails_otherwise_has_failed(ask):
    _, outcomes = ask(f"asked = itertools.count()\ndef test_it():\n    assert 0, 'missed' if next(asked) else '{SAYS}'")
    assert outcomes == {"failed": 1, "rerun": 1}


def test_what_is_missing_has_failed_all_the_same(ask):
    _, outcomes = ask("def test_it():\n    pytest.skip('no engine here')")
    assert outcomes == {"failed": 1}


@pytest.mark.parametrize(
    "expected", ["@pytest.mark.xfail\ndef test_it():\n    assert 0", "def test_it():\n    pytest.xfail()"]
)
def test_what_is_expected_to_fail_is_not_missing(ask, expected):
    _, outcomes = ask(expected)
    assert outcomes == {"xfailed": 1}


def test_where_nothing_is_asked_again_one_that_is_open_has_failed(ask):
    _, outcomes = ask(f"def test_it():\n    assert 0, '{SAYS}'", reruns=0)
    assert outcomes == {"failed": 1}


def test_more_than_a_few_have_failed(ask):
    done, outcomes = ask(f"@pytest.mark.parametrize('n', range(5))\ndef test_it(n):\n    assert 0, '{SAYS}'")
    assert outcomes == {"skipped": 3, "failed": 2, "rerun": 5}
    assert done.ret == 1
