"""`openenv-scale check` against real servers: OpenEnv's own, over TLS, over HTTP only, and one that never answers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from checking_subjects import make_subject
from defects.running import in_process
from openenv_servers import SERVERS, openenv_server
from openenv_venvs import OPENENV_0_10, openenv_python
from pytest_openenv_scale.checks.preflight.http_endpoints import http_endpoints
from server_process import running_server

pytestmark = pytest.mark.real

TLS = Path(__file__).resolve().parents[1] / "tls"
BY_ID = {server.id: server for server in SERVERS}
ENVIRON = {**os.environ, "COLUMNS": "110"}


def command(*arguments: str) -> list[str]:
    """The command; sessions are not left quiet, which takes ten seconds, and machines that test have other work."""
    return [sys.executable, "-m", "pytest_openenv_scale", "check", "--idle", "0", "--budget", "60s", *arguments]


def check(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error, both with single spaces, without what it was doing meanwhile."""
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, env={**ENVIRON, **environ}, timeout=240, check=False
    )
    errors = (line for line in done.stderr.splitlines() if not re.search(r"… \d+ s of \d+ s$", line))
    return done.returncode, " ".join(done.stdout.split()), " ".join(" ".join(errors).split())


def answers(file: Path) -> dict[str, dict[str, Any]]:
    """What `--json` has of every question, by its name."""
    return {question["name"]: question for question in json.loads(file.read_text())["questions"]}


def missed(file: Path) -> dict[str, dict[str, Any]]:
    """The figures of the questions that are missed."""
    return {name: asked["figures"] for name, asked in answers(file).items() if asked["outcome"] == "missed"}


@pytest.mark.parametrize("name", ["openenv-0.10-echo-sync-1w", "openenv-0.10-benchmark-async-1w"])
def test_sixty_four_sessions_on_openenv(name, tmp_path):
    file = tmp_path / "found.json"
    with openenv_server(replace(BY_ID[name], max_envs=64), tmp_path) as server:
        code, out, err = check(server.url, "--sessions", "64", "--json", str(file))
    assert (code, err) == (0, ""), out
    questions = answers(file)
    assert {question["outcome"] for question in questions.values()} == {"met"}, out
    capacity, slots = (questions[name]["figures"] for name in ("capacity", "slots"))
    assert (capacity["held"], capacity["limit"], slots["dropped_back"]) == (64, 64, 1)


def test_past_the_limit_of_several_workers_the_arithmetic_is_told(tmp_path):
    server = replace(BY_ID["openenv-0.10-benchmark-sync-2w"], max_envs=8)
    with openenv_server(server, tmp_path) as running:
        file = tmp_path / "found.json"
        code, out, err = check(running.url, "--sessions", "40", "--json", str(file))
    assert (code, err) == (1, "")
    (figures,) = missed(file).values()
    assert (figures["asked"], figures["pids"], figures["limit"]) == (40, 2, 8)
    # The kernel gives each connection to whichever worker is quicker: a busy one may not be filled.
    assert 8 < figures["held"] <= 16
    assert "→ MAX_CONCURRENT_ENVS=40 where the server is started, per worker" in out


ENDPOINTS = {
    "openapi_version_available": "/openapi.json",
    "health_endpoint": "/health",
    "metadata_endpoint": "/metadata",
    "schema_endpoint": "/schema",
    "mcp_endpoint": "/mcp",
    "mode_endpoint_consistency": "/reset, /step and /state",
}
"""Our names of what `openenv validate` asks for."""


@pytest.mark.parametrize(
    "name",
    [
        "openenv-0.10-seeded-sync-1w",
        "core-0.2.0-echo-sync-1w",
        pytest.param("core-0.3.0-echo-async-1w", marks=pytest.mark.matrix),
    ],
)
def test_the_endpoints_are_those_openenv_validate_asks_for(name, tmp_path):
    """Of old servers too, which fail some of it; asked with the validator of openenv 0.10."""
    python = openenv_python(OPENENV_0_10)
    script = (
        "import json, sys; from openenv.cli._validation import validate_running_environment as ask;"
        "print(json.dumps({one['id']: one['passed'] for one in ask(sys.argv[1])['criteria']}))"
    )
    with openenv_server(BY_ID[name], tmp_path) as server:
        done = subprocess.run(
            [python, "-c", script, server.url], capture_output=True, text=True, timeout=240, check=True
        )
        ours = asyncio.run(http_endpoints(make_subject(server.url)))
    theirs = {ENDPOINTS[name] for name, passed in json.loads(done.stdout.splitlines()[-1]).items() if not passed}
    assert {detail.partition(": ")[0] for detail in ours.details} == theirs


def test_a_server_with_http_only_exits_2(tmp_path):
    with http_only(tmp_path) as url:
        code, out, err = check(url)
    assert (code, "✓" in out) == (2, False)
    assert "no WebSocket sessions" in err
    assert "POST /reset works" in err


@contextmanager
def http_only(folder: Path) -> Iterator[str]:
    """What OpenEnv was before 0.2.0: /reset and /step over HTTP."""
    folder.joinpath("old_app.py").write_text(
        "from starlette.applications import Starlette\n"
        "from starlette.responses import JSONResponse\n"
        "from starlette.routing import Route\n"
        "async def reset(request):\n"
        "    return JSONResponse({'observation': {}, 'reward': None, 'done': False})\n"
        "app = Starlette(routes=[Route('/reset', reset, methods=['POST'])])\n"
    )
    with uvicorn("old_app:app", folder) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def uvicorn(app: str, folder: Path, *options: str) -> Iterator[int]:
    arguments = [app, "--app-dir", str(folder), "--port", "0", "--ws", "websockets-sansio", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "MAX_CONCURRENT_ENVS": "8"},
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "running on" in line:
                yield int(line.split("127.0.0.1:")[1].split()[0])
                break
        else:
            pytest.fail("uvicorn did not start")
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_https_and_wss_with_an_authority_of_ones_own(tmp_path):
    file = tmp_path / "found.json"
    options = ("--ssl-certfile", str(TLS / "server.pem"), "--ssl-keyfile", str(TLS / "server.pem"))
    with uvicorn("defects.app:app", TLS.parent, *options) as port:
        trusted = {"SSL_CERT_FILE": str(TLS / "authority.pem")}
        for scheme in ("https", "wss"):
            code, out, err = check(f"{scheme}://localhost:{port}", "--sessions", "8", "--json", str(file), **trusted)
            assert (code, err) == (0, ""), out
            assert answers(file)["validate"]["figures"] == {"criteria": 6, "criteria_passed": 6}
        code, out, err = check(f"https://localhost:{port}", "--sessions", "8")
        assert (code, "✓" in out) == (2, False)
        assert "certificate" in err
        assert " --insecure" in err
        code, out, err = check(f"https://localhost:{port}", "--sessions", "8", "--insecure", "--json", str(file))
        assert (code, err) == (0, ""), out
        assert "TLS certificates were not checked (--insecure)" in out
        assert json.loads(file.read_text())["notes"] == ["TLS certificates were not checked (--openenv-insecure)"]
        code, out, err = check(f"http://localhost:{port}", "--sessions", "8")
        assert (code, "✓" in out) == (2, False)
        assert "write https://" in err


@pytest.mark.parametrize(
    ("defect", "questions"),
    [
        ("shared_state", {"isolation", "freshness"}),
        ("sequential_state", {"freshness"}),
        ("blocking_step", {"health", "parallel"}),
        ("leaked_slots", {"slots"}),
        ("leaked_slots_on_close", {"slots"}),
    ],
)
def test_a_defect_exits_1_and_is_named_alone(tmp_path, defect, questions):
    file = tmp_path / "found.json"
    with in_process(defect, 16) as (_, address):
        code, out, err = check(f"http://{address}", "--sessions", "16", "--json", str(file))
    assert (code, err) == (1, "")
    assert missed(file).keys() == questions
    assert f"✗ {json.loads(file.read_text())['answer']} (" in out


def test_a_server_built_in_with_two_workers(tmp_path):
    file = tmp_path / "found.json"
    with running_server("--workers", 2, "--max-envs", 8) as (_, address):
        code, _, _ = check(f"http://{address}", "--sessions", "64", "--json", str(file))
    assert code == 1
    figures = missed(file)["capacity"]
    assert (figures["held"], figures["asked"], figures["pids"], figures["limit"]) == (16, 64, 2, 8)


def test_ctrl_c_exits_130_and_leaves_no_session_open():
    with in_process("queues_past_limit", 4) as (_, address):
        process = subprocess.Popen(
            command(f"http://{address}", "--sessions", "8"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRON,
        )
        assert process.stdout is not None
        # It is now opening sessions, four of which are never answered.
        while "reachable" not in (line := process.stdout.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (130, "")
        assert asyncio.run(_opened(address, 4)) == 4


async def _opened(address: str, wanted: int) -> int:
    """How many sessions get in within two seconds each."""
    async with make_subject(f"http://{address}").client() as client:
        return sum(session.first_answer.good for session in await client.start_many([{}] * wanted))
