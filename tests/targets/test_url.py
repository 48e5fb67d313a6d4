"""A URL that is given is attached to, measured and left alone; what is wrong with it is one clear line."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pytest_openenv_scale.client.session import open_session
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets import open_target
from pytest_openenv_scale.targets.common.sampling import listening_processes
from pytest_openenv_scale.targets.common.supervisor import ServerProcess
from pytest_openenv_scale.targets.local.launch import command
from pytest_openenv_scale.targets.local.serving import ServeSettings, bind, count_ready_workers

APPS = """
import json
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route, WebSocketRoute

def observation(headers):
    return {"observation": {"headers": headers}, "reward": None, "done": False}

async def play(socket):
    await socket.accept()
    while (await socket.receive_json())["type"] != "close":
        await socket.send_json({"type": "observation", "data": observation(dict(socket.headers))})
    await socket.close()

async def reset(request):
    return JSONResponse(observation(dict(request.headers)))

app = Starlette(routes=[
    WebSocketRoute("/ws", play),
    Route("/reset", reset, methods=["POST"]),
    Mount("/deep/prefix", routes=[WebSocketRoute("/ws", play)]),
])

def answering(status, headers=None):
    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            fields = [(b"content-length", b"0"), *(headers or [])]
            await send({"type": "websocket.http.response.start", "status": status, "headers": fields})
            await send({"type": "websocket.http.response.body", "body": b""})
        elif scope["type"] == "http":
            await PlainTextResponse("", status)(scope, receive, send)
    return app

def gated(): return answering(401)
def moved(): return answering(307, [(b"location", b"http://127.0.0.1:1/elsewhere/ws")])
def behind(): return answering(502)

async def full(socket):
    await socket.accept()
    message = "Server at capacity: 2/2 sessions active. Cannot accept new connections."
    error = {"message": message, "code": "CAPACITY_REACHED", "active_sessions": 2, "max_sessions": 2}
    await socket.send_json({"type": "error", "data": error})
    await socket.close()

crowded = Starlette(routes=[WebSocketRoute("/ws", full)])
"""

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("url")
    (folder / "apps.py").write_text(APPS)
    return folder


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def server(root: Path, request: pytest.FixtureRequest) -> Generator[Endpoint]:
    with started(root, "app", request.param) as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_openenv_scale.targets.url.ATTACH_RETRY_S", 0.5)


@contextlib.contextmanager
def started(root: Path, app: str, server: str = "hypercorn") -> Generator[Endpoint]:
    with open_target(parse_target(f"local:apps:{app},server={server}"), root=root) as endpoint:
        yield endpoint


def attach(text: str, **options: Any) -> Any:
    return open_target(parse_target(text), root=Path("/nowhere"), **options)


def refusal(text: str, **options: Any) -> str:
    with pytest.raises(TargetError) as caught, attach(text, **options):
        pytest.fail("the target was attached to")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def headers_seen(endpoint: Endpoint) -> dict[str, str]:
    async def session() -> dict[str, str]:
        async with open_session(endpoint.urls[0], headers=endpoint.headers, timeout_s=10) as played:
            return (await played.reset()).observation["headers"]

    return asyncio.run(session())


@pytest.mark.parametrize("scheme", ["http", "ws"])
@pytest.mark.parametrize("path", ["", "/", "/ws", "/deep/prefix", "/deep/prefix/"])
def test_a_url_is_attached_to_with_its_scheme_and_prefix(server: Endpoint, scheme: str, path: str) -> None:
    host = server.urls[0].removeprefix("http://")
    with attach(f"{scheme}://{host}{path},cores=8,hosts=3,hardware=big,workers=2,max_envs=50") as endpoint:
        assert "sec-websocket-key" in headers_seen(endpoint)
    assert endpoint.urls == (f"{scheme}://{host}{path.rstrip('/').removesuffix('/ws')}",)
    assert endpoint.label == host
    assert (endpoint.cores, endpoint.hosts, endpoint.hardware) == (8, 3, "big")
    assert endpoint.limits == {"server": server.limits["server"], "workers": 2, "max_envs": 50}
    assert server.exit_status() is None


def test_nothing_is_assumed_about_a_server_that_runs_already(server: Endpoint) -> None:
    with attach(f"{server.urls[0]},label=mine") as endpoint:
        assert endpoint.label == "mine"
        assert (endpoint.cores, endpoint.hosts, endpoint.hardware, endpoint.notes) == (None, None, None, ())
        assert endpoint.log_tail() == ""
        assert 0 < endpoint.startup_s < 10


def test_several_urls_are_all_reached_and_share_a_label(server: Endpoint) -> None:
    url = server.urls[0]
    with attach(f"{url},{url}/deep/prefix") as endpoint:
        assert endpoint.urls == (url, f"{url}/deep/prefix")
        assert endpoint.label == url.removeprefix("http://")
    assert refusal(f"{url},{url}/nowhere").startswith(f"{url}/nowhere ")


def test_headers_and_userinfo_reach_the_server_and_are_not_shown(server: Endpoint) -> None:
    url = server.urls[0].replace("//", "//me:hush@")
    with attach(url, headers={"X-Token": "mum"}) as endpoint:
        headers = headers_seen(endpoint)
    assert headers["x-token"] == "mum"
    assert headers["authorization"] == "Basic " + base64.b64encode(b"me:hush").decode()
    assert "hush" not in repr(endpoint)
    assert "mum" not in repr(endpoint)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["hypercorn", "uvicorn"])
def test_a_server_on_this_machine_can_be_sampled_with_all_its_workers(root: Path, name: str, workers: int) -> None:
    spec = parse_target(f"local:apps:app,server={name},workers={workers},nofile=64")
    with open_target(spec, root=root) as started, attach(started.urls[0]) as endpoint:
        mine, its = started.sample(), endpoint.sample()
        assert mine is not None
        assert its is not None
        assert (its.processes, its.descriptor_limit) == (mine.processes, 64)
        assert endpoint.exit_status() is None
        (leader,) = listening_processes(int(started.urls[0].rpartition(":")[2]))
        os.kill(leader, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while endpoint.exit_status() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert str(endpoint.exit_status()) == "ended"
        assert endpoint.sample() is None


@pytest.mark.parametrize("name", ["hypercorn", "uvicorn"])
@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("gated", "credentials (401"),
        ("moved", "redirects to http://127.0.0.1:1/elsewhere (307"),
        ("behind", "answered 502"),
        ("crowded", "full: 2/2 sessions"),
    ],
)
def test_a_server_that_refuses_is_told_by_how_it_refuses(root: Path, name: str, app: str, says: str) -> None:
    # Its own readiness would refuse to start it, so it runs without: only the URL target looks at it.
    with running(root, f"apps:{app}", name) as url:
        line = refusal(url)
    assert line.startswith(f"{url} ")
    assert says in line


@contextlib.contextmanager
def launching(root: Path, app: str, name: str, listener: socket.socket) -> Generator[ServerProcess]:
    """Yield a server that is not started yet and is stopped in the end."""
    environ = {**os.environ, "PYTHONPATH": str(root)}
    fd = listener.fileno()
    serving = ServeSettings(app, name)  # type: ignore[arg-type]
    process = ServerProcess(command(serving, fd), env=environ, cwd=root, pass_fds=[fd])
    try:
        yield process
    finally:
        process.stop()


@contextlib.contextmanager
def running(root: Path, app: str, name: str) -> Generator[str]:
    with bind("127.0.0.1", 0) as listener, launching(root, app, name, listener) as process:
        process.start()
        deadline = time.monotonic() + 20
        while not count_ready_workers(name, process.log_tail(1000)):
            assert process.exit_status() is None, process.log_tail()
            assert time.monotonic() < deadline, process.log_tail()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_url_where_nothing_listens_is_refused_after_a_short_while() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        line = refusal(f"http://me:hush@127.0.0.1:{port}/x")
    assert line.startswith(f"http://127.0.0.1:{port}/x refused ")
    assert "hush" not in line


def test_a_server_that_comes_up_within_the_short_while_is_attached_to(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_openenv_scale.targets.url.ATTACH_RETRY_S", 20.0)
    with bind("127.0.0.1", 0) as listener, launching(root, "apps:app", "hypercorn", listener) as process:
        starter = threading.Timer(0.3, process.start)
        starter.start()
        with attach(f"http://127.0.0.1:{listener.getsockname()[1]}") as endpoint:
            assert endpoint.startup_s > 0.3
        starter.join()


def test_http_mode_needs_no_websocket(server: Endpoint) -> None:
    with attach(server.urls[0], modes=("http",)) as endpoint:
        assert endpoint.urls == server.urls
