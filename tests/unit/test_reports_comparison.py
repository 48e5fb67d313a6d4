"""What people see of a comparison: the terminal, a pull request's comment, the message of a failing test."""

from __future__ import annotations

import pytest
from compare_samples import a_judged_sweep, a_measured_run, a_pair

from pytest_openenv_scale.analysis.compare import compare_runs, compare_sweep
from pytest_openenv_scale.config.limits import parse_fail_on
from pytest_openenv_scale.reporting.content.comparison import comparison_headline
from pytest_openenv_scale.reporting.markdown.comparison import comparison_markdown, comparison_section
from pytest_openenv_scale.reporting.text.comparison import COMMENT_CHARACTERS, comparison_lines
from pytest_openenv_scale.results.comparison import Comparison


@pytest.fixture
def regressed() -> Comparison:
    then = {"latency": (0.10, 0.11, 0.12), "batches": (8, 32)}
    now = {"latency": (0.2, 0.21, 0.2), "fails": (32,), "batches": (8, 32)}
    baseline, newer = a_pair(now, then=then)
    return compare_runs(baseline, newer, parse_fail_on("max_batch:-10%,total_p99:+15%"), reference="latest")


@pytest.fixture
def missing() -> Comparison:
    then = a_measured_run(a_judged_sweep(8), a_judged_sweep(8, wait=2.0))
    now = a_measured_run(a_judged_sweep(8), a_judged_sweep(8, test="test_scale.py::test_new"), day=1)
    return compare_runs(then, now, parse_fail_on("max_batch:-10%"))


def terminal_text(comparison: Comparison, **options) -> str:
    return "\n".join(line.text for line in comparison_lines(comparison, **{"width": 120, **options}))


def test_the_terminal(golden, regressed):
    golden(terminal_text(regressed))


def test_a_terminal_that_knows_no_unicode_gets_ascii(regressed):
    text = terminal_text(regressed, encoding="ascii")
    assert text.isascii()
    assert "x regressed: max_batch >= 32 -> 8, allowed 29" in text


@pytest.mark.parametrize("width", [60, 80, 100])
def test_no_row_is_wider_than_the_terminal_and_the_effect_goes_first(regressed, width):
    lines = terminal_text(regressed, width=width).splitlines()
    assert width < 100 or any("effect" in line for line in lines)
    assert width > 80 or not any("effect" in line for line in lines)
    assert max(map(len, lines)) <= max(width, 85)


def test_the_comment_of_a_pull_request(golden, regressed):
    golden(comparison_markdown(regressed))


def test_a_comment_is_never_longer_than_github_takes(golden):
    sweeps = [a_judged_sweep(*range(8, 68, 4), test=f"test_scale.py::test_{n}", latency=(0.1, 0.2)) for n in range(40)]
    slow = [a_judged_sweep(*range(8, 68, 4), test=sweep.test, latency=(0.5, 0.6)) for sweep in sweeps]
    comparison = compare_runs(a_measured_run(*sweeps), a_measured_run(*slow, day=1), parse_fail_on("total_p99:+15%"))
    text = comparison_markdown(comparison)
    assert COMMENT_CHARACTERS * 0.9 < len(text) <= COMMENT_CHARACTERS
    golden([line for line in text.splitlines() if "left out" in line])
    assert text.count("<details>") == text.count("</details>") == 1


def test_very_many_missing_curves_fit_into_a_comment_too(golden):
    sweeps = [a_judged_sweep(8, test=f"test_scale.py::test_{'long_' * 30}{n}") for n in range(600)]
    text = comparison_markdown(compare_runs(a_measured_run(*sweeps), a_measured_run(sweeps[0], day=1)))
    assert len(text) <= COMMENT_CHARACTERS
    golden(text.partition(" missing")[0])


def test_what_a_person_wrote_is_no_markup():
    sweep = a_judged_sweep(8, test="test_it.py::test_<b>[x|y]", label="a|b")
    comparison = compare_runs(a_measured_run(sweep), a_measured_run(day=1))
    assert "<b>" not in comparison_markdown(comparison).replace("\\<b>", "")


def test_missing_and_new_curves_are_named_with_a_guess(golden, missing):
    golden(terminal_text(missing))


def test_a_renamed_test_is_asked_for(golden):
    then, now = a_measured_run(a_judged_sweep(8)), a_measured_run(a_judged_sweep(8, test="t.py::test_it"), day=1)
    comparison = compare_runs(then, now)
    golden(terminal_text(comparison))
    golden(comparison_headline(comparison))


def test_without_fail_on_it_says_that_nothing_is_judged(golden):
    comparison = compare_runs(*a_pair({"latency": (0.2,)}))
    golden(comparison_headline(comparison))
    golden(terminal_text(comparison))


def test_machines_that_differ_are_said_above_everything(golden):
    sweep = a_judged_sweep(8)
    then, now = ({"machine": {"cpu": cpu}} for cpu in ("Xeon", "EPYC"))
    comparison = compare_runs(a_measured_run(sweep, fingerprint=then), a_measured_run(sweep, day=1, fingerprint=now))
    golden(terminal_text(comparison).splitlines()[2])
    golden([line for line in comparison_markdown(comparison).splitlines() if "machines" in line])


def test_a_run_without_a_baseline_has_no_section():
    assert comparison_section([a_judged_sweep(8)]) == []


def test_tests_of_the_baseline_that_were_not_selected_are_named(golden):
    other_sweeps = [a_judged_sweep(8, test=f"test_scale.py::test_{n}") for n in range(7)]
    sweep = a_judged_sweep(8)
    comparison = compare_sweep(a_measured_run(sweep, *other_sweeps), a_measured_run(sweep, day=1), sweep)
    golden(terminal_text(comparison))
