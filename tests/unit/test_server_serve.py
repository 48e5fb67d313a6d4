"""The launcher: it says what it does in one line, keeps its workers, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from pytest_openenv_scale.core import system
from pytest_openenv_scale.server.serve import _STOP_DEADLINE_S
from pytest_openenv_scale.server.serve import serve as serve_here
from pytest_openenv_scale.server.worker import GRACE_S
from server_process import running_server, server_command, server_environ, session

SERVERS = ["hypercorn", "uvicorn"]


def serve(*options, **env):
    command = server_command(*options)
    return subprocess.run(command, env=server_environ(**env), capture_output=True, text=True, check=False, timeout=20)


def have_ended(processes, within_s):
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    return not alive


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("server", SERVERS)
async def test_it_stops_promptly_with_sessions_open_and_tells_them(server, stop):
    with running_server("--server", server, "--workers", 2) as (process, address):
        workers = psutil.Process(process.pid).children()
        assert len(workers) == 2
        async with session(address) as idle, session(address) as waiting:
            await idle.ask({"type": "reset"})
            await waiting.send({"type": "step", "data": {"wait_seconds": 600}})
            await asyncio.sleep(0.1)
            begun = time.perf_counter()
            process.send_signal(stop)
            for client in (idle, waiting):
                with pytest.raises(ConnectionClosed) as closed:
                    await client.receive()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code in (1001, 1012)
            told_after = time.perf_counter() - begun
        # Later than that, the servers' own deadline would have cut the sessions off.
        assert told_after < GRACE_S / 2
        # Nobody waits ten minutes for the step.
        assert process.wait(GRACE_S + 10) == 0
        assert have_ended(workers, 5)
        assert process.stderr.read() == ""


@pytest.mark.parametrize("server", SERVERS)
def test_it_stops_although_a_client_never_answers_the_close(server):
    with running_server("--server", server) as (process, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as silent:
            silent.sendall(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert b" 101 " in silent.recv(4096)
            begun = time.perf_counter()
            process.terminate()
            assert process.wait(10) == 0
            # The worker ended itself: later than that, the supervisor would have killed it.
            assert time.perf_counter() - begun < _STOP_DEADLINE_S


@pytest.mark.parametrize("server", SERVERS)
async def test_workers_end_when_their_supervisor_is_killed(server):
    with running_server("--server", server, "--workers", 2) as (process, address):
        workers = psutil.Process(process.pid).children()
        async with session(address) as client:
            await client.ask({"type": "reset"})
            process.kill()
            assert await asyncio.to_thread(have_ended, workers, 5)


async def test_a_worker_that_is_killed_is_replaced_and_said(golden, tmp_path):
    with running_server() as (process, address):
        (worker,) = psutil.Process(process.pid).children()
        worker.send_signal(signal.SIGKILL)
        golden(await asyncio.to_thread(process.stderr.readline), masks={r"worker \d+": "worker PID"})
        async with asyncio.timeout(10), session(address) as client:
            reply = await client.ask({"type": "reset"})
        assert reply["data"]["observation"]["pid"] != worker.pid


async def test_sessions_are_spread_over_the_workers():
    with running_server("--workers", 2) as (_, address):
        pids = set()
        for _ in range(40):
            async with session(address) as client:
                pids.add((await client.ask({"type": "reset"}))["data"]["observation"]["pid"])
        assert len(pids) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use_is_one_line_and_exit_code_1(golden, workers):
    with running_server("--workers", 2) as (_, address):
        port = address.rpartition(":")[2]
        done = serve("--port", port, "--workers", workers)
    assert done.returncode == 1
    golden(done.stderr)


def test_two_addresses_share_a_port_and_say_which_they_are():
    with running_server("--host", "127.0.0.3") as (_, one):
        port = one.rpartition(":")[2]
        with running_server("--host", "127.0.0.2", "--port", port) as (_, other):
            reports = [asyncio.run(host_url(address)) for address in (one, other)]
    assert reports == [one, other] == [f"127.0.0.3:{port}", f"127.0.0.2:{port}"]


async def host_url(address):
    async with session(address) as client:
        return (await client.ask({"type": "reset"}))["data"]["observation"]["host_url"]


@pytest.mark.parametrize(
    ("options", "env"),
    [
        ([], {"WORKERS": "none"}),
        (["--workers", 0], {}),
        (["--port", 70000], {}),
        (["--backlog", 0], {}),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(golden, options, env):
    done = serve(*options, **env)
    assert done.returncode == 2
    golden(done.stderr)


def test_an_address_of_another_machine_is_one_line(golden):
    done = serve("--host", "192.0.2.1")
    assert done.returncode == 1
    golden(done.stderr)


@pytest.mark.parametrize(
    "module",
    [
        "uvicorn",
        "websockets",
        "uvicorn.protocols.websockets.websockets_sansio_impl",
    ],
)
def test_a_missing_server_is_one_line_that_says_what_to_install(golden, monkeypatch, capsys, module):
    find_spec = system.find_spec
    monkeypatch.setattr(system, "find_spec", lambda name: None if name == module else find_spec(name))
    assert serve_here(server="uvicorn") == 2
    golden(capsys.readouterr().err)


def test_a_worker_that_cannot_start_ends_the_server(tmp_path):
    broken = tmp_path / "starlette"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise SystemExit(3)\n")
    environ = server_environ()
    path = os.pathsep.join([str(tmp_path), environ["PYTHONPATH"]])
    done = serve("--port", 0, "--workers", 1, PYTHONPATH=path)
    assert done.returncode == 1
    assert "failed with exit code 3" in done.stderr
    assert "Traceback" not in done.stderr
