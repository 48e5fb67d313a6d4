"""A few small sweeps with nothing faked: the built-in environment, started and measured by the plugin."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest
from tests.connect_proxy import connect_proxy
from tests.defects.running import in_thread
from tests.independent_servers import CERTIFICATE
from tests.pytest_run import environ
from tests.server_process import running_server
from tests.shadows import write_shadows

from pytest_openenv_scale.reporting.html import page
from pytest_openenv_scale.targets import url

INI = """
[pytest]
asyncio_default_fixture_loop_scope = function
asyncio_mode = auto
addopts = -p no:hypothesispytest
filterwarnings = error
"""
SECRET = "hunter2-swordfish"


@pytest.fixture
def real(inner):
    inner.ini(INI)
    return inner


@pytest.fixture
def no_figures(monkeypatch):
    """Pages have none: processes of their own draw them for seconds, and other tests look at them."""
    monkeypatch.setattr(page, "figure_svgs", lambda study: {})


def test_the_built_in_environment_holds_two_sessions(real):
    real.tests(
        "@pytest.mark.scaling(batches=[1, 2], waits=[0.01])\n@pytest.mark.slo(max_batch=2)\n"
        "def test_scale(scaling):\n    assert len(scaling.run().to_pandas()) == 3\n\n"
        "@pytest.mark.scaling\nasync def test_own(scaling):\n"
        "    async with scaling.session() as s:\n"
        "        await s.reset(seed=1)\n"
        "        reply = await s.step({'wait_seconds': 0.0})\n"
        "        assert reply.observation['waited_seconds'] == 0.0\n"
    )
    result = real.run_process("-v", "--openenv-target", "local:builtin")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*✓ SLO met: max_batch ≥ 2, got 2; *"])
    assert real.manifest["status"] == "complete"
    assert real.manifest["sweeps"][0]["infrastructure"] == "local-hypercorn"


def test_a_full_server_fails_the_test_and_is_named(real):
    real.tests(
        "@pytest.mark.scaling(batches=[1, 4], waits=[0.01], modes='ws')\n@pytest.mark.slo(max_batch=4)\n"
        "async def test_scale(scaling):\n    await scaling.run_async()\n"
    )
    result = real.run("--openenv-target", "local:builtin,workers=1,max_envs=2", "--openenv-json", "report.json")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["max_batch 1 < 4 (CAPACITY_REACHED at 2 sessions*"])
    report = json.loads((real.path / "report.json").read_text())
    (curve,) = report["sweeps"][0]["curves"]
    (refused,) = curve["refused"]
    assert (report["outcome"], curve["max_batch"], curve["infeasible_min"]) == ("missed", 1, 4)
    assert (refused["cause"], refused["count"], refused["figures"]["limit"]) == ("capacity", 2, 2)


def test_header_values_and_passwords_are_found_nowhere(real):
    real.tests(
        "@pytest.mark.scaling(batches=[1], waits=[0.01])\n@pytest.mark.slo(rps=100000)\n"
        "def test_scale(scaling):\n    scaling.run()\n"
    )
    with running_server() as (_, address):
        result = real.run(
            *("--openenv-url", f"http://someone:{SECRET}@{address}", "--junitxml=junit.xml"),
            *("--openenv-header", f"X-Token: {SECRET}", "--openenv-json", "report.json", "-v", "-rA", "--showlocals"),
        )
    result.assert_outcomes(failed=1)
    rerun = f"*rerun: pytest test_it.py::test_scale --openenv-url http://{address} --openenv-header 'X-Token: …'"
    result.stdout.fnmatch_lines([rerun])
    assert SECRET not in result.stdout.str() + result.stderr.str()
    files = [path for path in real.path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_a_url_where_nothing_listens_is_one_clean_error_without_its_password(real, monkeypatch):
    monkeypatch.setattr(url, "ATTACH_RETRY_S", 0.1)
    real.tests("@pytest.mark.scaling\ndef test_scale(scaling):\n    scaling.run()\n")
    result = real.run("--openenv-url", f"http://someone:{SECRET}@127.0.0.1:9", "--junitxml=junit.xml")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["http://127.0.0.1:9*refused*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    assert SECRET not in result.stdout.str() + (real.path / "junit.xml").read_text()
    assert real.runs == []


SWEEP = """
@pytest.mark.scaling(batches=[1, 4], waits=[0.0], modes=['ws', 'http'])
def test_a(scaling):
    scaling.run()
"""


@pytest.mark.parametrize("target", ["local:builtin,workers=1", "local:app:app,workers=2,server=uvicorn"])
def test_a_repository_full_of_namesakes_of_the_standard_library_is_measured(real, target):
    """Files that only processes of ours could stumble upon: pytest itself does not look into the folder."""
    real.tests(SWEEP)
    real.pytester.makepyfile(app="from pytest_openenv_scale.server.app import app")
    write_shadows(real.path)
    run = [sys.executable, "-P", "-m", "pytest", "--import-mode=importlib", "--openenv-target", target]
    done = subprocess.run(run, cwd=real.path, env=environ(), capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_why_a_load_process_ended_stands_in_the_verdict(real):
    real.pytester.makeconftest(
        "import sys\nfrom pytest_openenv_scale.load import runner\n"
        "runner.command = lambda *_: [sys.executable, '-c', 'raise RuntimeError(\"my own queue.py\")']\n"
    )
    real.tests(SWEEP)
    result = real.run_process("--openenv-target", "local:builtin,workers=1", "--openenv-again", "0")
    result.assert_outcomes(failed=1)
    why = "RuntimeError: my own queue.py"
    assert why in " ".join(result.stdout.str().split())
    (run,) = real.runs
    for curve in json.loads((run / "report.json").read_text())["sweeps"][0]["curves"]:
        for cell in curve["cells"]:
            ended, refused = (
                next(reason for reason in cell["reasons"] if reason["cause"] == cause)
                for cause in ("process_died", "client_limit")
            )
            assert ended["words"].endswith(why)
            assert refused["words"].endswith(why)
            assert (refused["figures"]["sessions"], refused["figures"]["asked"]) == (cell["batch"], cell["batch"])


@pytest.mark.usefixtures("no_figures")
def test_certificates_that_are_not_checked_stand_in_every_report(real):
    with in_thread(certificate=CERTIFICATE) as address:
        real.tests("@pytest.mark.scaling(batches=[2], waits=[0.01])\ndef test_it(scaling):\n    scaling.run()\n")
        refused = real.run("--openenv-url", f"https://{address}")
        refused.assert_outcomes(errors=1)
        real.ini(f"{INI}openenv_insecure = true\n")
        result = real.run("--openenv-url", f"https://{address}", "--openenv-report", "md,html")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*insecure on (ini)*", "*TLS certificates were not checked (--openenv-insecure)*"])
    run = real.runs[-1]
    for report in ("report.md", "report.html", "report.json"):
        assert "TLS certificates were not checked" in (run / report).read_text(), report


@pytest.mark.usefixtures("no_figures")
def test_a_proxy_stands_in_every_report_and_its_password_in_nothing(real):
    authorization = f"Basic {base64.b64encode(f'hilde:{SECRET}'.encode()).decode()}"
    with in_thread() as address, connect_proxy(authorization=authorization) as proxy:
        real.tests("@pytest.mark.scaling(batches=[2], waits=[0.01])\ndef test_it(scaling):\n    scaling.run()\n")
        option = f"http://hilde:{SECRET}@127.0.0.1:{proxy.port}"
        result = real.run(
            "--openenv-url", f"http://{address}", "--openenv-proxy", option, "--openenv-report", "md,html"
        )
    result.assert_outcomes(passed=1)
    assert proxy.targets == {address}
    note = f"reached by the proxy http://127.0.0.1:{proxy.port} (--openenv-proxy)"
    result.stdout.fnmatch_lines([f"*proxy http://127.0.0.1:{proxy.port} (command line)*", f"*{note}*"])
    run = real.runs[-1]
    for report in ("report.md", "report.html", "report.json"):
        assert note in (run / report).read_text(), report
    words = (SECRET.encode(), authorization.removeprefix("Basic ").encode())
    files = [file for file in (real.path / ".openenv-results").rglob("*") if file.is_file()]
    assert [file for file in files if any(word in file.read_bytes() for word in words)] == []
    assert SECRET not in str(result.stdout)


def test_a_search_comes_to_the_limit_the_server_was_given(real):
    real.tests(
        "@pytest.mark.scaling(waits=[0.01], search='1..64', precision=0)\n@pytest.mark.slo(success=1)\n"
        "def test_scale(scaling):\n    assert scaling.run().max_batch() == 23\n"
    )
    result = real.run("--openenv-target", "local:builtin,workers=1,max_envs=23")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*searched 1 to 64, exact: *; 23 passes in 3 of 3, 24 fails in 3 of 3*"])


@pytest.mark.matrix
def test_a_search_comes_to_a_limit_of_777_that_only_refusals_name(real):
    real.tests(
        "@pytest.mark.scaling(waits=[0.05], search=True, precision=0)\n@pytest.mark.slo(success=1)\n"
        "def test_scale(scaling):\n    assert scaling.run().max_batch() == 777\n"
    )
    with running_server("--max-envs", 777) as (_, address):
        real.run_process("--openenv-url", f"http://{address}").assert_outcomes(passed=1)
