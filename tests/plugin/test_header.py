"""The header: what will be measured and where each value comes from, where that matters."""

from __future__ import annotations

import pytest

PLAIN = "[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = -p no:hypothesispytest\n"
SWEEP = "@pytest.mark.scaling\ndef test_scale(scaling):\n    pass\n"


@pytest.fixture
def plain(inner):
    inner.ini(PLAIN)
    inner.tests(SWEEP)
    return inner


def test_it_names_targets_grid_and_what_was_set_with_their_sources(plain):
    plain.ini(f"{PLAIN}openenv_waits = 2\nopenenv_reps = 3\nopenenv_results = kept\n")
    plain.tests(SWEEP.replace("\ndef", "(batches=[1, 8])\n@pytest.mark.slo(max_batch=32)\ndef"))
    result = plain.run("--collect-only", "--openenv-batches", "1,4", "--openenv-slo", "total_p99<=2s")
    result.stdout.fnmatch_lines(
        [
            "openenv-scale: local: the app of the openenv.yaml that is nearest to each test (default)",
            f"  limits total_p99 ≤ 2 s (command line), results {plain.path}/kept (ini)",
            "collected 1 item",
            "  batches 1,4 (command line instead of 1,8) +32 from max_batch, waits 2 (ini), reps 3 (ini)",
        ]
    )


def test_it_tells_what_marks_ask_for_and_nothing_that_nobody_measures(plain):
    plain.tests(
        "@pytest.mark.scaling(batches=[3], waits=1)\ndef test_one(scaling):\n    pass\n\n"
        "@pytest.mark.scaling(modes='http')\ndef test_other(scaling):\n    pass\n\n"
        "@pytest.mark.scaling(search='16..256')\ndef test_search(scaling):\n    pass\n"
    )
    result = plain.run("--collect-only")
    result.stdout.fnmatch_lines(
        [
            "  batches 3 (mark) or 1,8,32,128 (default) or search 16..256 (mark), waits 1 (mark) or 0.1,1 (default),"
            " modes ws (default) or http (mark)"
        ]
    )


def test_what_is_off_or_chosen_by_itself_is_named_as_it_is_written(plain):
    result = plain.run("--collect-only", "--openenv-ping", "off", "--openenv-processes", "auto")
    result.stdout.fnmatch_lines(["  ping off (command line), processes auto (command line)"])


@pytest.mark.parametrize(
    ("think", "text"),
    [("0", "think 0"), ("500ms", "think 0.5 s"), ("@times.txt", "think one of 2 samples")],
)
def test_a_think_time_is_told_as_reports_tell_it(plain, think, text):
    (plain.path / "times.txt").write_text("1\n3\n")
    plain.run("--collect-only", f"--openenv-think={think}").stdout.fnmatch_lines([f"  {text} (command line)"])


def test_it_appears_with_the_selection_where_only_marked_tests_ask_for_it(plain):
    result = plain.run("--collect-only")
    lines = result.outlines
    header = next(i for i, line in enumerate(lines) if line.startswith("openenv-scale: local"))
    assert lines[header - 1].startswith("collected 1 item")


@pytest.mark.parametrize("arguments", [("-m", "not scaling"), ("-q",), ("-k", "other")])
def test_it_is_silent_where_nothing_is_measured_or_little_is_to_be_said(plain, arguments):
    plain.tests("def test_other():\n    pass\n", name="test_other")
    plain.run("--collect-only", *arguments).stdout.no_fnmatch_line("openenv-scale:*")


def test_an_ini_file_alone_does_not_bring_it_where_scaling_tests_are_deselected(plain):
    text = PLAIN.replace("addopts =", "addopts = -m 'not scaling'")
    plain.ini(f"{text}openenv_batches = 1\n")
    plain.run("--collect-only").stdout.no_fnmatch_line("openenv-scale:*")


def test_it_names_the_environment_that_is_not_where_pytest_has_its_root(plain, golden):
    def header(*arguments: str) -> str:
        lines = plain.run("--collect-only", "-m", "scaling", *arguments).outlines
        return next(line for line in lines if line.startswith("openenv-scale: "))

    (plain.path / "openenv.yaml").write_text("app: server.app:app\n")
    assert header() == "openenv-scale: local (default)"
    plain.pytester.mkdir("tests")
    inner = ("--rootdir", "tests", "-c", "pytest.ini")
    golden(header(*inner))
    assert ": the app of" not in header(*inner, "--openenv-target", "local:builtin")
    assert ": the app of" in header(*inner, "--openenv-target", "envoy:replicas=2")
    assert ": the app of" not in header(*inner, "--openenv-target", "envoy:replicas=2,app=builtin")


def test_it_shows_neither_header_values_nor_passwords(plain):
    result = plain.run(
        *("--collect-only", "--openenv-header", "Authorization: hunter2"),
        *("--openenv-url", "http://user:hunter2@127.0.0.1:9/"),
    )
    result.stdout.fnmatch_lines(["openenv-scale: http://127.0.0.1:9/ (command line)", "*headers Authorization (*"])
    result.stdout.no_fnmatch_line("*hunter2*")
