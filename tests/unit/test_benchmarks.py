"""The benchmark programs run, end and tell what they say they tell; what the figures are is nobody's business here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PROGRAMS = sorted(path.name for path in BENCHMARKS.glob("*.py"))
NEED_NO_COMPILER = {
    "code_lines.py",
    "size.py",
    "verdicts.py",
    "report_size.py",
    "endurance_power.py",
    "startup_cost.py",
    "search_truth.py",
    "search_real.py",
}
CLIENTS = {"c-floor", "ours", "aiohttp"}  # k6 is a guest: it joins where somebody installed it.


def run(program: str, *options: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCHMARKS / program, *map(str, options)],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def figures(folder: Path, program: str, *options: object) -> dict[str, Any]:
    """Run a program and return what it wrote for other programs."""
    path = folder / "figures.json"
    done = run(program, *options, "--json", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("machine: ")
    return json.loads(path.read_text())


# Without a compiler


EACH = """
import contextlib, io, json, runpy, sys

folder, programs, *options = sys.argv[1:]
sys.path.insert(0, folder)
ended = {}
for program in programs.split():
    sys.argv = [f"{folder}/{program}", *options]
    out, complaints = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(complaints):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            ended[program] = [end.code, out.getvalue(), complaints.getvalue()]
print(json.dumps(ended))
"""


def run_each(programs: list[str], *options: str, **env: str) -> dict[str, list[Any]]:
    """Exit code, stdout and stderr of programs, one after the other in a process: each imports much the same."""
    done = subprocess.run(
        [sys.executable, "-c", EACH, BENCHMARKS, " ".join(programs), *options],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_program_says_what_it_answers():
    ended = run_each(PROGRAMS, "--help")
    firsts = {name: (BENCHMARKS / name).read_text().split('"""')[1].splitlines()[0] for name in PROGRAMS}
    assert {name: (code, firsts[name] in out, complaints) for name, (code, out, complaints) in ended.items()} == (
        dict.fromkeys(PROGRAMS, (0, True, ""))
    )


def test_a_missing_compiler_is_one_line_and_exit_code_2(golden):
    programs = sorted({*PROGRAMS} - NEED_NO_COMPILER)
    ended = run_each(programs, CC="no-such-compiler")
    assert {name: code for name, (code, _, _) in ended.items()} == dict.fromkeys(programs, 2)
    golden("".join(complaints for _, _, complaints in ended.values()))


def test_report_size_reports_a_run_of_many_parts_and_of_one(tmp_path):
    report = figures(tmp_path, "report_size.py", "--rows", 3000, "--part", 700)
    sizes = {name: (cost["rows"], cost["parts"]) for name, cost in report.items()}
    assert sizes == {"many": (3000, 5), "one": (3000, 1)}
    assert all(cost["wall_s"] > 0 and cost["peak_bytes"] > 2**20 for cost in report.values())


def test_code_lines_leaves_out_blank_lines_comments_and_docstrings(tmp_path):
    module = tmp_path / "code/folder/module.py"
    module.parent.mkdir(parents=True)
    module.write_text(
        '"""About\n\nit."""\n\n# why\nLIMIT = 1\n"""Its meaning."""\n\n\ndef f(\n    x,\n):\n    return """a\nb"""\n'
    )
    path = tmp_path / "counts.json"
    done = run("code_lines.py", tmp_path / "code", "--json", path)
    assert done.returncode == 0, done.stderr
    assert json.loads(path.read_text()) == {"folder/module.py": 6}
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [["folder", "6"], ["all", "6"]]


def test_startup_cost_compares_runs_with_and_without_the_plugin(tmp_path):
    report = figures(tmp_path, "startup_cost.py", "--runs", 1)
    (pair,) = report["runs"]
    assert {side: sorted(told) for side, told in pair.items()} == {
        "with": ["CPU ms", "wall ms"],
        "without": ["CPU ms", "wall ms"],
    }
    assert "pytest_openenv_scale.config.options" in report["imports"]


def test_more_sessions_than_descriptors_are_refused_before_anything_runs(golden):
    done = run("truth.py", "--sessions", 10**9)
    assert done.returncode == 2
    golden(done.stderr, masks={r"limit is \d+": "limit is N"})
    assert done.stdout == ""


def test_cpu_counts_for_a_program_and_what_it_started_all_on_one_core(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from harness.processes import run_pinned

    burner = "\n".join(
        [
            "import os, time",
            "while time.process_time() < 0.3: pass",
            "print(len(os.sched_getaffinity(0)), time.process_time())",
        ]
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burner!r}])"
    core, allowed = max(os.sched_getaffinity(0)), os.sched_getaffinity(0)
    ended = run_pinned([sys.executable, "-c", parent], core)
    cores, used = ended.output.split()
    assert int(cores) == 1
    assert ended.cpu_s >= float(used) >= 0.3
    assert os.sched_getaffinity(0) == allowed


# With one


@pytest.fixture
def compiler() -> None:
    if shutil.which(os.environ.get("CC") or "cc") is None:
        pytest.skip("there is no C compiler: the null server and the C floor cannot be built")


@pytest.fixture
def null_server(compiler: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from harness.build import built_programs
    from harness.server import NullServer

    core = min(os.sched_getaffinity(0))
    with built_programs() as programs, NullServer(programs.null_server, core) as server:
        yield server


@pytest.mark.real
def test_the_null_server_speaks_to_an_independent_client_and_counts(null_server):
    with connect(f"ws://127.0.0.1:{null_server.port}/ws", compression=None, proxy=None) as socket:
        answers = []
        for message in ({"type": "reset"}, {"type": "step", "data": {"wait_seconds": 0.01}}, {"type": "state"}):
            socket.send(json.dumps(message))
            answers.append(json.loads(socket.recv(10)))
        socket.ping().wait(10)
        socket.send('{"type":"close"}')
        with pytest.raises(ConnectionClosedOK):
            socket.recv(10)
    observed = answers[1]["data"]["observation"]
    assert [answer["type"] for answer in answers] == ["observation", "observation", "state"]
    assert (observed["waited_seconds"], observed["step_count"]) == (0.01, 1)
    truth = null_server.stop()
    assert (truth.sessions, truth.peak_open, truth.steps) == (1, 1, 1)
    assert 0 <= truth.step_over_p50 == truth.step_over_p99


@pytest.mark.real
def test_session_cost_gives_every_client_a_figure(compiler, tmp_path):
    report = figures(tmp_path, "session_cost.py", "--sessions", 50, "--wait", 0.05, "--runs", 1)
    (only,) = report["runs"]
    assert only.keys() - {"k6"} == CLIENTS
    assert {name: client["ok"] for name, client in only.items()} == dict.fromkeys(only, 1.0)
    assert all(isinstance(client["us"], float) for client in only.values())


@pytest.mark.real
def test_step_cost_counts_the_steps_the_server_answered(compiler, tmp_path):
    report = figures(tmp_path, "step_cost.py", "--sessions", 5, "--steps", 20, "--runs", 1)
    functions = {"ours-by-number", "ours-by-observation"}
    assert report["runs"][0].keys() - {"k6"} == CLIENTS - {"c-floor"} | functions
    assert all(isinstance(figure, float) for figure in report["runs"][0].values())


@pytest.mark.real
def test_memory_cost_reads_the_process_that_holds_the_sessions(compiler, tmp_path):
    report = figures(tmp_path, "memory_cost.py", "--sessions", 1000, "--wait", 0.05, "--runs", 1)
    (only,) = report["runs"]
    assert only.keys() == CLIENTS - {"c-floor"}
    assert all(isinstance(figure, float) for client in only.values() for figure in client.values())
    assert only["aiohttp"]["held_kib"] > 1  # It makes some dozen Python objects for a session.


@pytest.mark.real
def test_truth_has_both_arrivals_of_every_client_in_every_run(compiler, tmp_path):
    report = figures(tmp_path, "truth.py", "--sessions", 50, "--wait", 0.05, "--runs", 2)
    assert len(report["runs"]) == 2
    for run_found in report["runs"]:
        assert run_found.keys() - {"k6"} == CLIENTS - {"c-floor"}
        for client in run_found.values():
            assert {arrival: seen["ok"] for arrival, seen in client.items()} == {"burst": 1.0, "hold": 1.0}
            assert all(seen["server_p50"] <= seen["server_p99"] for seen in client.values())


@pytest.mark.real
def test_latency_planted_in_a_client_is_what_truth_finds(compiler, monkeypatch):
    """A client that stands still for half a second before it looks at its clock has invented them."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import truth
    from harness.bench import set_up
    from harness.clients import FOLDER, BatchRequest, Client

    late = (
        "import sys, time, runpy, aiohttp\n"
        "receive = aiohttp.ClientWebSocketResponse.receive_str\n"
        "async def slowly(socket, **options):\n"
        "    text = await receive(socket, **options)\n"
        "    time.sleep(0.5)\n"
        "    return text\n"
        "aiohttp.ClientWebSocketResponse.receive_str = slowly\n"
        f"sys.path.insert(0, {str(FOLDER)!r})\n"
        "runpy.run_path(sys.path[0] + '/aiohttp_client.py', run_name='__main__')\n"
    )
    client = Client(
        "late",
        lambda asked, port: [sys.executable, "-c", late, *map(str, (asked.sessions, asked.wait, port, "burst", 1))],
    )
    with set_up(1) as bench:
        report = truth.compare(bench, client, BatchRequest(1, 0.01))
    assert report["ok"] == 1
    assert report["invented_p50"] > 250


@pytest.mark.real
def test_steady_cost_puts_what_clients_tell_beside_what_the_server_saw(compiler, tmp_path):
    state = ("--sessions", 20, "--seconds", 17, "--ramp", 1, "--think", 0.5, "--steps", 2, "--fixed")
    (only,) = figures(tmp_path, "steady_cost.py", *state)["runs"]
    assert only.keys() - {"k6", "locust"} == {"ours"}
    for client in only.values():
        assert client["ok"] == 1.0
        assert 0 < client["peak_open"] <= 20
        # No step was sent before its think time was over.
        assert 0 <= client["seen_late_p50"] <= client["seen_late_p99"]
        assert client["cpu_s_per_1000_steps"] > 0


@pytest.mark.real
def test_steps_that_a_client_sends_late_are_what_the_server_saw(compiler, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import steady_cost
    from harness.bench import set_up
    from harness.steady import SteadyClient, SteadyState, play_steady

    late = (
        "import json, sys, time\n"
        "from websockets.sync.client import connect\n"
        "with connect(sys.argv[1], compression=None, proxy=None) as socket:\n"
        "    for message in ('reset', *['step'] * 20):\n"
        "        time.sleep(0.5)\n"
        "        socket.send(json.dumps({'type': message, 'data': {'wait_seconds': 0}}))\n"
        "        socket.recv()\n"
        "print(json.dumps(dict.fromkeys(('ok', 'step_p50', 'step_p99', 'late_p50', 'late_p99'), 0)))\n"
    )
    client = SteadyClient(
        "late",
        lambda state, port, folder: [sys.executable, "-c", late, f"ws://127.0.0.1:{port}/ws"],
        lambda folder, output: json.loads(output),
    )
    state = SteadyState(slots=1, seconds=10.0, ramp=0.0, steps=20, think=0.1, exponential=False)
    with set_up(1) as bench:
        report = steady_cost.figures(state, play_steady(bench, client, state))
    assert (report["peak_open"], report["late_p99"]) == (1, 0)
    assert report["seen_late_p50"] > 250


@pytest.mark.real
def test_size_reports_what_pytest_found(tmp_path):
    report = figures(tmp_path, "size.py", 20, "--wait", 0.1)
    size_figures = report["20"]
    assert (size_figures["code"], size_figures["verdict"]) == (0, "met")
    assert (
        size_figures["cell"]["asked"],
        size_figures["cell"]["peak_concurrency"],
        size_figures["cell"]["success_rate"],
    ) == (20, 20, 1.0)


@pytest.mark.real
def test_verdicts_are_tallied_by_server_mode_and_machine(tmp_path):
    report = figures(tmp_path, "verdicts.py", "--runs", 1, "--machine", "quiet")
    outcomes = {(kind["server"], kind["mode"]): set(kind["outcomes"]) for kind in report["kinds"]}
    assert set(outcomes) == {("sound", "ws"), ("sound", "http"), ("full", "ws"), ("slow", "ws"), ("slow", "http")}
    for (server, _), kind_outcomes in outcomes.items():
        assert kind_outcomes <= {"met" if server == "sound" else "missed", "inconclusive"}


@pytest.mark.real
def test_real_searches_and_grids_take_turns_and_are_counted_alike(tmp_path):
    size = ("--runs", 1, "--grids", 1, "--low", 2, "--high", 4, "--limit", "30s")
    report = figures(tmp_path, "search_real.py", *size)
    searches, grids = report["searches"], report["grids"]
    assert (searches["numbers"], searches["words"]) == ([4], ["top"])
    assert (grids["numbers"], grids["words"], grids["sessions"]) == ([4], ["met"], [3 * (2 + 3 + 4)])
    assert report["agreeing"] == 1


@pytest.mark.real
def test_profile_engine_sees_the_engine(compiler):
    done = run("profile_engine.py", "--sessions", 30, "--wait", 0.05, "--arrival", "hold", "--top", 1000)
    assert done.returncode == 0, done.stderr
    assert "the server saw 30 sessions" in done.stdout
    assert "share.py" in done.stdout


def test_search_truth_tells_how_near_searches_of_each_kind_come(tmp_path):
    done = run("search_truth.py", "--servers", 2, "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "figures.json").read_text())
    assert [kind["kind"] for kind in told["kinds"]] == ["sharp", "sloped", "noisy", "uneven", "drifting", "leaking"]
    assert (told["kinds"][0]["within"], told["kinds"][0]["false"]) == (1.0, 0.0)


def test_endurance_power_is_sure_of_a_steep_rise_and_of_a_flat_line(tmp_path):
    done = run("endurance_power.py", "--soaks", 20, "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    kinds = {
        (kind["rise"], kind["scatter"], kind["outliers"]): kind
        for kind in json.loads((tmp_path / "figures.json").read_text())["kinds"]
    }
    assert (kinds[4.0, 0.02, 0.0]["missed"], kinds[0.0, 0.02, 0.1]["met"]) == (20, 20)
    assert "400%       2%         0%  100.0%          0.0%    0.0%" in done.stdout
