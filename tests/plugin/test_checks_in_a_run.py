"""A check is a test: its result fails, skips or warns, is kept with the run and stands in every report."""

from __future__ import annotations

import json

import pytest
from tests.plugin.conftest import ROOT, errors_of

from goldens import TIMES
from server_process import running_server

CHECKS = """
from pytest_openenv_scale.checks.background import single_session
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult


def outcome(name, **more):
    async def check(subject):
        alone = await subject.learn(single_session)
        return CheckResult(
            CheckOutcome(name), f"it is {name}", figures={"step_s": alone.step_s, "most": subject.max_sessions}, **more
        )
    return check
"""

INI = """
[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings = error
addopts = -p no:hypothesispytest -p no:anyio --strict-markers
markers =
    capacity
    churn
"""


@pytest.fixture(scope="module")
def url():
    with running_server() as (_, address):
        yield f"http://{address}"


@pytest.fixture(autouse=True)
def _no_look_at_processes(monkeypatch):
    """Nothing here asks what the server uses: looking for its process reads every socket of this machine."""
    monkeypatch.setattr("pytest_openenv_scale.targets.common.sampling.listening_processes", lambda port: ())


@pytest.fixture
def run_check_test(inner, url):
    """Runs `openenv_check(BODY)` in a test of its own against a real server."""

    def run(body: str, *arguments: str, name: str = "test_it"):
        inner.ini(INI)
        inner.tests(f"{CHECKS}\n\n@pytest.mark.capacity\ndef {name}(openenv_check):\n    openenv_check({body})\n")
        return inner.run("--openenv-url", url, *arguments)

    return run


def stored_check(inner) -> dict:
    """The one check of the one run, as it is stored."""
    (run,) = inner.runs
    (path,) = (run / "checks").glob("*.json")
    return json.loads(path.read_text())


def test_a_check_that_is_met_passes_and_is_kept_with_what_it_measured(inner, run_check_test, url):
    run_check_test("outcome('met')").assert_outcomes(passed=1)
    record = stored_check(inner)
    assert record["test"] == "test_it.py::test_it"
    assert record["subject"] == "capacity"
    assert record["target"] == url
    assert record["took_s"] > 0
    assert record["rerun"] == f"pytest test_it.py::test_it --openenv-url {url}"
    assert record["result"]["headline"] == "it is met"
    assert record["result"]["figures"]["most"] == 128
    assert 0 < record["result"]["figures"]["step_s"] < 60


def test_the_terminal_shows_every_check_under_its_server(run_check_test):
    result = run_check_test("outcome('met')", "-v")
    lines = ["*OpenEnv checks*", "127.0.0.1* · 1 check: 1 met", "  ✓ it: it is met", "report: *report.md"]
    result.stdout.fnmatch_lines(lines)
    result.stdout.no_fnmatch_line("*OpenEnv scaling*")


def test_a_check_that_is_missed_fails_with_evidence_and_without_a_traceback(inner, run_check_test, golden):
    from pytest_openenv_scale.results.outcome import Transcript, TranscriptLine

    transcripts = repr((Transcript("the session that saw it", (TranscriptLine(0.5, "server", '{"type":"error"}'),)),))
    result = run_check_test(
        f"outcome('missed', remedy='write less', details=('more of it',), transcripts={transcripts})".replace(
            "Transcript", "__import__('pytest_openenv_scale.results.outcome').results.outcome.Transcript"
        ),
        "--openenv-batches",
        "1,4",
    )
    result.assert_outcomes(failed=1)
    first, last = (
        result.outlines.index(line) for line in result.outlines if line.startswith(("it is missed", "  rerun: "))
    )
    golden("\n".join(result.outlines[first : last + 1]), masks={"test-it-[0-9a-f]+": "test-it-ID"})
    result.stdout.no_fnmatch_line("*Traceback*")
    assert stored_check(inner)["result"]["figures"]["most"] == 4


def test_a_capability_that_is_not_there_skips_with_the_reason(inner, run_check_test):
    result = run_check_test("outcome('skipped')", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED *it is skipped"])
    assert stored_check(inner)["result"]["outcome"] == "skipped"


def test_what_cannot_be_told_fails_unless_a_warning_is_enough(run_check_test):
    result = run_check_test("outcome('inconclusive')")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["inconclusive: it is inconclusive", "  --openenv-inconclusive warn lets this pass"])


def test_with_warn_it_passes_and_is_counted(run_check_test):
    result = run_check_test("outcome('inconclusive')", "--openenv-inconclusive", "warn", "-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*InconclusiveWarning: inconclusive: it is inconclusive"])


def test_every_report_of_the_run_tells_of_the_check(inner, run_check_test):
    run_check_test("outcome('missed', remedy='write less')", "--openenv-report", "md,html,log")
    (run,) = (inner.path / ".openenv-results").glob("2*")
    page = (run / "report.md").read_text()
    assert "## Checks" in page
    assert "| `it`  | 127.0.0.1" in page
    assert "write less" in page
    report = json.loads((run / "report.json").read_text())
    assert report["outcome"] == "missed"
    assert report["problems"] == []
    assert [check["result"]["headline"] for check in report["checks"]] == ["it is missed"]
    html = (run / "report.html").read_text()
    assert "1 of 1 checks missed" in html
    assert "it is missed" in html
    assert run.name in (run.parents[1] / "EXPERIMENT_LOG.md").read_text()


def test_every_report_says_how_the_server_of_a_check_was_reached(inner, run_check_test):
    result = run_check_test("outcome('met')", "--openenv-insecure", "--openenv-report", "md,html")
    note = "TLS certificates were not checked (--openenv-insecure)"
    result.stdout.fnmatch_lines([f"  {note}"])
    (run,) = inner.runs
    for report in ("report.md", "report.html", "report.json"):
        assert note in (run / report).read_text(), report


def test_curves_and_checks_share_a_run_and_its_outcome(inner, run_check_test, url):
    run_check_test("outcome('missed')")
    inner.tests(
        "@pytest.mark.scaling(batches=[2], waits=[0.01])\ndef test_curve(scaling):\n    scaling.run()\n", "test_curve"
    )
    result = inner.run("--openenv-url", url, "--openenv-results", "both")
    result.assert_outcomes(failed=1, passed=1)
    (run,) = (inner.path / "both").iterdir()
    report = json.loads((run / "report.json").read_text())
    assert report["outcome"] == "missed"
    assert [sweep["outcome"] for sweep in report["sweeps"]] == ["met"]
    assert "· 1 curve: 1 met · 1 check: 1 missed" in (run / "report.md").read_text()


def test_junit_has_the_verdict_and_the_figures(inner, run_check_test):
    run_check_test("outcome('met')", "--junitxml", "junit.xml")
    text = (inner.path / "junit.xml").read_text()
    assert '<property name="openenv_verdict" value="met"' in text
    assert '<property name="openenv_most" value="128"' in text


def test_nothing_is_written_where_nothing_is_to_be_kept(inner, run_check_test):
    result = run_check_test("outcome('missed')", "--openenv-results", "none")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*evidence:*")
    assert inner.runs == []


def test_a_server_that_cannot_be_played_on_is_no_verdict_on_the_check(inner, run_check_test):
    result = run_check_test("outcome('met')", "--openenv-action", '{"no_such_field": 1}')
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["inconclusive: a session on its own does not play: step 1: VALIDATION_ERROR*", "*--openenv-action*"]
    )
    assert stored_check(inner)["result"]["transcripts"][0]["title"] == "a session on its own"


def test_sessions_that_do_not_play_fail_once_and_what_needs_no_step_is_asked(inner, run_check_test, url, golden):
    run_check_test("outcome('met')")
    inner.tests(
        f"""{CHECKS}
async def unreached(subject):
    raise AssertionError

@pytest.mark.churn
@pytest.mark.parametrize("number", [2, 3])
def test_stepping(openenv_check, number):
    openenv_check(unreached)

@pytest.mark.capacity
def test_opening(openenv_check):
    openenv_check(outcome('met'), needs="sessions")

@pytest.mark.scaling(batches=[2])
def test_curve(scaling):
    scaling.skip_where_sessions_do_not_play()
    scaling.run()
""",
        "test_more",
    )
    result = inner.run(
        "--openenv-url", url, "--openenv-action", '{"no_such_field": 1}', "-rs", "--openenv-report", "md"
    )
    result.assert_outcomes(failed=1, skipped=3, passed=1)
    first = next(number for number, line in enumerate(result.outlines) if " · 4 checks: " in line)
    golden("\n".join(result.outlines[first : first + 5]), masks=TIMES)
    result.stdout.fnmatch_lines(["  further checks that need steps are not asked"])
    result.stdout.fnmatch_lines(["SKIPPED [[]2] *: not asked: sessions do not play, as *test_*"])
    result.stdout.fnmatch_lines(["SKIPPED [[]1] *: not measured: sessions do not play, as *test_*"])
    assert "2 not asked" in (inner.runs[-1] / "report.md").read_text()


def test_a_server_that_speaks_http_only_skips_checks_where_http_is_asked_for(inner, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    inner.pytester.makepyfile(
        apps="""
        from defects.http import http_routes
        from defects.server import Server
        from starlette.applications import Starlette

        app = Starlette(routes=http_routes(Server(4)))
        """
    )
    inner.ini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    inner.tests(f"{CHECKS}\n\n@pytest.mark.capacity\ndef test_it(openenv_check):\n    openenv_check(outcome('met'))\n")
    result = inner.run("--openenv-target", "local:apps:app,server=uvicorn", "--openenv-modes", "http", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*the server has no /ws (HTTP 40*"])


def test_the_check_of_the_documentation_can_be_written_so(inner, url):
    text = (ROOT / "docs" / "suite.md").read_text()
    inner.pytester.makepyfile(test_example=text.partition("```python\n")[2].partition("```")[0])
    inner.ini("[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = --strict-markers\n")
    result = inner.run("--openenv-url", url, "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["  ✓ first_reply: the first observation has * characters"])


def test_workers_of_xdist_keep_their_checks_in_one_run(inner, url):
    inner.ini(INI)
    body = "\n\n".join(
        f"@pytest.mark.churn\ndef test_{name}(openenv_check):\n    openenv_check(outcome('{name}'))\n"
        for name in ("met", "skipped")
    )
    inner.tests(f"{CHECKS}\n\n{body}")
    result = inner.run("-n2", "--openenv-url", url)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["* · 2 checks: 1 met, 1 skipped"])
    (run,) = inner.runs
    assert len(list((run / "checks").glob("*.json"))) == 2


def test_a_test_without_a_mark_of_the_suite_names_no_page_of_it(inner, run_check_test, url):
    run_check_test("outcome('missed')").stdout.fnmatch_lines(
        ["  what it means: suite/capacity.md of the documentation"]
    )
    inner.tests(f"{CHECKS}\n\ndef test_it(openenv_check):\n    openenv_check(outcome('missed'))\n")
    result = inner.run("--openenv-url", url)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["it is missed"])
    result.stdout.no_fnmatch_line("*what it means*")


ODD = {
    "none": "async def {}(subject):\n    pass",
    "bool": "async def {}(subject):\n    return True",
    "not_async": "def {}(subject):\n    return CheckResult(CheckOutcome.MET, 'x')",
    "nan": "async def {}(subject):\n    return CheckResult(CheckOutcome.MET, 'x', figures={{'a': float('nan')}})",
    "set": "async def {}(subject):\n    return CheckResult(CheckOutcome.MET, 'x', figures={{'a': {{1}}}})",
    "no_headline": "async def {}(subject):\n    return CheckResult(CheckOutcome.MET, None)",
    "no_outcome": "async def {}(subject):\n    return CheckResult('met', 'x')",
}


def test_a_result_that_cannot_be_kept_fails_with_one_line_and_leaves_no_record(inner, url, golden):
    tests = [
        f"{check.format(name)}\n\n\ndef test_{name}(openenv_check):\n    openenv_check({name})\n"
        for name, check in ODD.items()
    ]
    inner.ini(INI)
    inner.tests("\n\n".join([CHECKS, *tests]))
    result = inner.run("--openenv-url", url)
    result.assert_outcomes(failed=len(ODD))
    # What a version of msgspec or of Python says of it.
    masks = {"expected `.*?`, got `.*?`": "EXPECTED", "compliant: nan": "compliant"}
    golden(errors_of(result, [f"test_{name}" for name in ODD]), masks=masks)
    result.stdout.no_fnmatch_line("*cannot be read*")
    assert [path for run in inner.runs for path in (run / "checks").glob("*")] == []


def test_words_of_a_server_that_no_file_takes_are_shown_and_kept_as_far_as_they_go(inner, url):
    check = "async def odd(subject):\n    return CheckResult(CheckOutcome.MISSED, 'it said \\ud800')"
    inner.ini(INI)
    inner.tests(f"{CHECKS}\n\n{check}\n\n\ndef test_it(openenv_check):\n    openenv_check(odd)\n")
    result = inner.run("--openenv-url", url, "--openenv-report", "md,html", "--junitxml", "junit.xml")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*it said [?]", "*1 failed*"])
    assert stored_check(inner)["result"]["headline"] == "it said ?"


def test_an_async_test_is_told_to_be_none(inner, url, golden):
    inner.ini(INI)
    inner.tests(f"{CHECKS}\n\nasync def test_it(openenv_check):\n    openenv_check(outcome('met'))\n")
    result = inner.run("-o", "asyncio_mode=auto", "--openenv-url", url)
    result.assert_outcomes(failed=1)
    golden(errors_of(result, ["test_it"]))


def test_a_second_check_in_a_test_is_refused_and_the_first_one_stays(inner, url, golden):
    body = "    openenv_check(outcome('met'))\n    openenv_check(outcome('missed'))\n"
    inner.ini(INI)
    inner.tests(f"{CHECKS}\n\ndef test_it(openenv_check):\n{body}")
    result = inner.run("--openenv-url", url)
    result.assert_outcomes(failed=1)
    golden(errors_of(result, ["test_it"]))
    assert stored_check(inner)["result"]["outcome"] == "met"
