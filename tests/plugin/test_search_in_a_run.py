"""A search from its option, ini key or mark to the verdict, the stored run and what is printed."""

from __future__ import annotations

import json

import pytest
from tests.plugin.conftest import INI, Inner, errors_of, usage_error_of

from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.results.outcome import Outcome

TEST = "@pytest.mark.scaling{mark}\n{slo}def test_scale(scaling):\n    scaling.run()\n"
CAPACITY = ("--openenv-target", "fake,capacity=37")
EXACT = ("--openenv-search", "1..100", "--openenv-precision", "0", "--openenv-slo", "success>=100%")


def write_test(inner: Inner, mark: str = "", slo: str = "") -> None:
    inner.tests(TEST.format(mark=mark, slo=f"@pytest.mark.slo({slo})\n" if slo else ""))


def curve_of(inner: Inner):
    (run,) = inner.runs
    return load_run(run).sweeps[0].curves[0]


def batches_asked(inner: Inner) -> list[int]:
    search = curve_of(inner).verdict.search
    assert search is not None
    return [probe.batch for probe in search.probes]


def test_the_option_searches_to_the_very_number(inner, golden):
    write_test(inner)
    result = inner.run(*CAPACITY, *EXACT, "--openenv-json", "report.json")
    result.assert_outcomes(passed=1)
    verdict = curve_of(inner).verdict
    assert (verdict.feasible_max, verdict.infeasible_min, verdict.outcome) == (37, 38, Outcome.MET)
    curve = json.loads((inner.path / "report.json").read_text())["sweeps"][0]["curves"][0]
    assert curve["search"]["stop_reason"] == "precision"
    assert [probe["batch"] for probe in curve["search"]["probes"]] == batches_asked(inner)
    golden([line for line in result.outlines if "searched" in line or "max batch" in line])


@pytest.mark.parametrize(
    ("mark", "options", "ini"),
    [
        ('(search="1..100", precision=0)', (), ""),
        ("", (), "openenv_search = 1..100\nopenenv_precision = 0\n"),
        ("(search=False)", EXACT, ""),
        ("(search=True, precision=0)", (), "openenv_search = off\n"),
    ],
)
def test_marks_ini_and_command_line_ask_for_it_alike(inner, mark, options, ini):
    inner.ini(f"{INI}{ini}")
    write_test(inner, mark, "success=1")
    inner.run(*CAPACITY, *options).assert_outcomes(passed=1)
    assert curve_of(inner).verdict.max_batch == 37


def test_a_mark_turns_it_off(inner):
    inner.ini(f"{INI}openenv_search = auto\n")
    write_test(inner, "(search=False)")
    inner.run().assert_outcomes(passed=1)
    assert curve_of(inner).verdict.search is None


def test_servers_are_sized_to_the_largest_batch_that_may_be_asked_for(inner):
    write_test(inner)
    inner.run(*CAPACITY, "--openenv-search", "1..500")
    inner.run(*CAPACITY, "--openenv-search", "auto", "--openenv-slo", "max_batch>=64")
    inner.run(*CAPACITY, "--openenv-search", "1..500", "--openenv-slo", "max_batch>=640")
    sizes = [event.split("largest=")[1].split()[0] for event in inner.events if event.startswith("start")]
    assert sizes == ["500", "64", "640"]


def test_whether_a_batch_holds_is_all_that_auto_asks_and_a_range_goes_on_to_the_number(inner):
    write_test(inner, "(search=True)", "max_batch=30, success=1")
    inner.run(*CAPACITY).assert_outcomes(passed=1)
    assert batches_asked(inner) == [30, 30, 30]


def test_a_batch_that_does_not_hold_is_missed_by_one_repetition(inner, golden):
    write_test(inner, "(search=True)", "max_batch=40, success=1")
    result = inner.run(*CAPACITY)
    result.assert_outcomes(failed=1)
    assert batches_asked(inner) == [40]
    golden([line for line in result.outlines if "searched" in line or "max batch" in line])


def test_a_range_goes_on_to_the_number_beyond_the_batch_that_is_needed(inner):
    write_test(inner, '(search="1..100", precision=0)', "max_batch=30, success=1")
    inner.run(*CAPACITY).assert_outcomes(passed=1)
    assert curve_of(inner).verdict.max_batch == 37


def test_a_batch_that_is_needed_may_lie_beyond_the_range(inner):
    write_test(inner, '(search="1..16")', "max_batch=37, success=1")
    inner.run(*CAPACITY).assert_outcomes(passed=1)
    assert curve_of(inner).verdict.max_batch == 37


def test_limits_without_a_capacity_define_max_batch_and_fail_only_where_nothing_passes(inner):
    write_test(inner, "(search=True)", 'success=1, total_p99="60s"')
    inner.run(*CAPACITY).assert_outcomes(passed=1)
    inner.run("--openenv-target", "fake,capacity=0").assert_outcomes(failed=1)


def test_every_cell_false_gives_limits_the_same_meaning_in_a_grid(inner):
    write_test(inner, "", "success=1")
    target = ("--openenv-target", "fake,capacity=1")
    inner.run(*target).assert_outcomes(failed=1)
    write_test(inner, "", "success=1, every_cell=False")
    result = inner.run(*target)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*✓ SLO met: success ≥ 100 % up to batch 1; *"])
    inner.run("--openenv-target", "fake,capacity=0").assert_outcomes(failed=1)


def test_a_search_beside_a_full_grid_and_other_mistakes_are_one_line(inner, golden):
    write_test(inner, "(search=True)")
    golden(errors_of(inner.run("--openenv-full-grid"), ["test_scale"]))
    write_test(inner, '(search="9..3")')
    golden(errors_of(inner.run(), ["test_scale"]))
    write_test(inner, "", "success=1, every_cell='no'")
    golden(errors_of(inner.run(), ["test_scale"]))
    golden(usage_error_of(inner.run("--openenv-search", "some")))
    golden(usage_error_of(inner.run("--openenv-precision", "80%")))


def test_a_baseline_hints_where_the_curve_ended(inner):
    write_test(inner)
    inner.run(*CAPACITY, *EXACT)
    first = inner.runs[0]
    before = [probe.batch for probe in load_run(first).sweeps[0].curves[0].verdict.search.probes]
    inner.run(
        *CAPACITY, *EXACT, "--openenv-baseline", first.name, "--openenv-fail-on", "max_batch:-5%"
    ).assert_outcomes(passed=1)
    now = [probe.batch for probe in load_run(inner.runs[1]).sweeps[0].curves[0].verdict.search.probes]
    assert now == [1, 37, 38, 38, 38, 37, 37]
    assert sum(now) < sum(before)


def test_a_stored_search_reads_as_it_was_judged(inner):
    write_test(inner)
    result = inner.run(*CAPACITY, *EXACT)
    printed = [line for line in result.outlines if line.startswith("  searched")]
    (run,) = inner.runs
    assert f"- {printed[0].strip()}" in (run / "report.md").read_text()
    assert len(list((run / "sessions.parquet").glob("[!.]*"))) == len(batches_asked(inner))


def test_an_interrupted_search_is_told_as_one(inner):
    write_test(inner)
    inner.run(*CAPACITY, *EXACT)
    (run,) = inner.runs
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["sweeps"][0]["stops"] = {}
    (run / "manifest.json").write_text(json.dumps(manifest))
    verdict = curve_of(inner).verdict
    assert verdict.search is not None
    assert (verdict.search.stop_reason, verdict.outcome) == ("interrupted", Outcome.INCONCLUSIVE)


def test_a_budget_ends_a_search_and_a_grid_and_names_what_was_not_asked(inner):
    slow = ("--openenv-target", "fake,seconds=0.2")
    for options in (("--openenv-search", "1..512"), ("--openenv-batches", "1..512")):
        write_test(inner)
        result = inner.run(*slow, *options, "--openenv-budget", "0.9s")
        result.assert_outcomes(failed=1)
        curve = curve_of_last(inner)
        assert curve.verdict.stopped == "budget"
        assert curve.summaries
        assert len(curve.summaries) < 10
        output = " ".join(line.strip() for line in result.outlines)
        assert "SLO inconclusive: not measured to its end: " in output
        assert "would not have fitted into --openenv-budget" in output
    assert f"{max(curve.curve.batches)} not measured" in output


def curve_of_last(inner: Inner):
    return load_run(inner.runs[-1]).sweeps[0].curves[0]


def test_a_budget_is_shared_by_the_curves_of_a_run(inner):
    inner.tests(
        "@pytest.mark.scaling(batches='1..512', waits=[0.01, 0.02])\ndef test_scale(scaling):\n    scaling.run()\n\n"
        "@pytest.mark.scaling(batches='1..512', waits=[0.01])\ndef test_other(scaling):\n    scaling.run()\n"
    )
    inner.run("--openenv-target", "fake,seconds=0.2", "--openenv-budget", "2.4s").assert_outcomes(failed=2)
    curves = [curve for sweep in load_run(inner.runs[0]).sweeps for curve in sweep.curves]
    assert len(curves) == 3
    assert all(curve.summaries for curve in curves)


def test_sessions_on_other_machines_have_a_ceiling(inner, golden, monkeypatch):
    monkeypatch.setattr("pytest_openenv_scale.core.endpoint.is_loopback", lambda url: False)
    write_test(inner)
    result = inner.run("--openenv-batches", "8,16,32", "--openenv-max-sessions", "30")
    result.assert_outcomes(failed=1)
    assert [summary.batch for summary in curve_of(inner).summaries] == [8, 16]
    golden([line for line in result.outlines if line.startswith("inconclusive: ")])


def test_a_plan_is_printed_and_nothing_starts(inner, golden):
    inner.tests(
        "@pytest.mark.scaling(batches=[1, 8], waits=[0.1, 1], reps=2)\ndef test_grid(scaling):\n    scaling.run()\n\n"
        '@pytest.mark.scaling(waits=[0.1], search="16..256")\ndef test_search(scaling):\n    scaling.run()\n\n'
        "@pytest.mark.scaling(waits=[0.1], search=True)\n@pytest.mark.slo(max_batch=64)\n"
        "def test_holds(scaling):\n    scaling.run()\n\n"
        "@pytest.mark.scaling(zzz=1)\ndef test_wrong(scaling):\n    scaling.run()\n\ndef test_other():\n    pass\n"
    )
    result = inner.run("--openenv-plan", "--openenv-budget", "5m")
    assert result.ret == pytest.ExitCode.OK
    assert (inner.runs, inner.events) == ([], [])
    start = next(at for at, line in enumerate(result.outlines) if line.startswith("test_it.py::"))
    golden([line for line in result.outlines[start:] if line and "====" not in line and "no tests ran" not in line])


def test_a_plan_of_a_steady_state_begins_with_its_time(inner, golden):
    inner.tests(
        "@pytest.mark.scaling(batches=[8, 32], waits=[0.1], steps=9, think='uniform=1..3', "
        "arrival='steady=60s', ramp='10s')\n"
        "def test_steady(scaling):\n    scaling.run()\n\n"
        '@pytest.mark.scaling(waits=[0.1], arrival="steady=20s", search="16..256", think=2)\n'
        "def test_search(scaling):\n    scaling.run()\n\n"
        '@pytest.mark.scaling(waits=[0.1], arrival="rate=50", for_="60s")\n'
        "def test_open_loop(scaling):\n    scaling.run()\n\n"
        '@pytest.mark.scaling(waits=[0.1], batches=[100], arrival="rate=2", steps=3, think=2)\n'
        "def test_rate(scaling):\n    scaling.run()\n"
    )
    result = inner.run("--openenv-plan")
    assert (inner.runs, inner.events) == ([], [])
    start = next(at for at, line in enumerate(result.outlines) if line.startswith("test_it.py::"))
    golden([line for line in result.outlines[start:] if line and "====" not in line and "no tests ran" not in line])


@pytest.mark.parametrize("target", ["https://example.org", "slurm"])
def test_a_plan_says_where_the_ceiling_of_sessions_would_end_it(inner, target):
    write_test(inner)
    result = inner.run("--openenv-plan", "--openenv-target", target, "--openenv-search", "auto")
    result.stdout.fnmatch_lines(["*search 1 to 1,024, to 5 %, 3 repetitions; at most * sessions*"])
    result.stdout.fnmatch_lines(["* sessions on other machines are more than the 10,000 *"])
