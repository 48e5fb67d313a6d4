"""Sessions over HTTP: one connection, two kinds of request, and a failure named for each way they go wrong."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest

from independent_servers import server_tls
from playing import failure, order, play, play_row, play_share
from pytest_openenv_scale.client.handshake import RouteError
from pytest_openenv_scale.client.http_request import http_url
from pytest_openenv_scale.config.workload import Workload
from scripted_server import Peer, refused_port, scripted
from scripted_server import good as play_good

pytestmark = pytest.mark.usefixtures("quick_waits")

OBSERVATION = {"observation": {"pid": 7, "waited_seconds": 0.25}, "reward": None, "done": False}


async def posted(peer: Peer) -> tuple[str, dict]:
    """Read one request: its path and its JSON body."""
    head = await peer.head()
    first, *rest = head.decode().split("\r\n")
    method, path, _ = first.split(" ")
    assert method == "POST"
    length = next(int(line.partition(":")[2]) for line in rest if line.lower().startswith("content-length:"))
    return path, json.loads(await peer.reader.readexactly(length))


def answer(peer: Peer, value: object, status: str = "200 OK", *lines: str) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    head = "\r\n".join((f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}"))
    peer.send(f"{head}\r\n\r\n".encode() + body)


async def good(peer: Peer) -> None:
    while True:
        await posted(peer)
        answer(peer, OBSERVATION)


async def http_row(script, **details):
    return await play_row(script, mode="http", **details)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("ws://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("wss://h/prefix/", "https://h/prefix"),
        ("https://h", "https://h"),
    ],
)
def test_requests_go_to_the_http_side_of_a_url(url, base):
    assert http_url(url) == base


async def test_a_session_posts_its_reset_and_its_steps_on_one_connection():
    requests: list[tuple[str, dict]] = []

    async def script(peer: Peer) -> None:
        while True:
            requests.append(await posted(peer))
            answer(peer, OBSERVATION)

    async with scripted(script) as server:
        workload = Workload(({"op": "go", "for": "$wait"},), reset={"seed": 3})
        (row,) = await play(f"{server.url}/prefix", mode="http", steps=2, wait=0.5, workload=workload)
    assert row.success
    assert requests == [
        ("/prefix/reset", {"seed": 3}),
        ("/prefix/step", {"action": {"op": "go", "for": 0.5}}),
        ("/prefix/step", {"action": {"op": "go", "for": 0.5}}),
    ]
    assert len(server.peers) == 1


async def test_connect_reset_and_steps_are_measured_apart():
    async def script(peer: Peer) -> None:
        for pause in (0.05, 0.1, 0.15):
            await posted(peer)
            await asyncio.sleep(pause)
            answer(peer, OBSERVATION)

    row = await http_row(script, steps=2)
    assert row.connect_latency is not None
    assert row.reset_latency is not None
    assert row.connect_latency > 0
    assert row.reset_latency > 0.045
    assert [round(latency, 2) >= 0.1 for latency in row.step_latencies] == [True, True]
    assert row.step_latency == pytest.approx(sum(row.step_latencies))
    assert row.total_latency == pytest.approx(
        (row.queue_latency or 0) + row.connect_latency + row.reset_latency + (row.step_latency or 0)
    )
    assert (row.reset_done_s or 0) - (row.start_s or 0) >= row.connect_latency + row.reset_latency - 1e-9
    assert (row.pid, row.waited_seconds) == (7, 0.5)


async def test_until_done_ends_at_done():
    async def script(peer: Peer) -> None:
        while True:
            path, _ = await posted(peer)
            answer(peer, {**OBSERVATION, "done": path == "/step"})

    row = await http_row(script, steps=5, until_done=True)
    assert (row.success, row.steps_done) == (True, 1)


async def test_a_hold_steps_only_when_every_session_is_reset():
    resets = 0
    early: list[int] = []

    async def script(peer: Peer) -> None:
        nonlocal resets
        await posted(peer)
        await asyncio.sleep(0.002 * (peer.number % 10))
        resets += 1
        answer(peer, OBSERVATION)
        await posted(peer)
        early.append(resets)
        answer(peer, OBSERVATION)

    async with scripted(script) as server:
        rows = await play(server.url, mode="http", batch=20, arrival="hold")
    assert [row.success for row in rows] == [True] * 20
    assert set(early) == {20}
    assert all(row.hold_latency is not None for row in rows)


async def test_a_hold_does_not_wait_for_sessions_that_failed():
    async def script(peer: Peer) -> None:
        if peer.number % 2:
            await good(peer)
        peer.reset()

    async with scripted(script) as server:
        rows = await play(server.url, mode="http", batch=6, arrival="hold")
    assert sorted(row.success for row in rows) == [False] * 3 + [True] * 3


async def test_every_session_asked_for_has_one_row():
    async with scripted(good) as server:
        request = order(server.url, mode="http", batch=9, arrival="rate=1000")
        parts = [await play_share(request, process, 2) for process in range(2)]
    assert sorted(row.request_id for rows, _ in parts for row in rows.rows) == list(range(9))


# Answers that are none


@pytest.mark.parametrize("phase", ["reset", "step"])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad Request", "environment"),
        ("422 Unprocessable Entity", "environment"),
        ("500 Internal Server Error", "environment"),
        ("401 Unauthorized", "handshake_status"),
        ("403 Forbidden", "handshake_status"),
        ("404 Not Found", "handshake_status"),
        ("429 Too Many Requests", "handshake_status"),
        ("502 Bad Gateway", "handshake_status"),
        ("503 Service Unavailable", "handshake_status"),
        ("204 No Content", "handshake_status"),
    ],
)
async def test_a_status_other_than_200_is_kept_with_its_reason(phase, status, kind):
    async def script(peer: Peer) -> None:
        await posted(peer)
        if phase == "step":
            answer(peer, OBSERVATION)
            await posted(peer)
        answer(peer, b"" if status.startswith("204") else {"detail": "why not"}, status)

    row = await http_row(script)
    assert failure(row) == (phase, kind, status[:3])
    assert f"HTTP {status}" in (row.error_message or "")
    assert ("why not" in (row.error_message or "")) != status.startswith("204")
    assert (row.reset_latency is not None) == (phase == "step")


async def test_a_redirect_is_not_followed_and_says_where_to():
    async def script(peer: Peer) -> None:
        await posted(peer)
        answer(peer, b"", "307 Temporary Redirect", "Location: https://elsewhere/reset")

    row = await http_row(script)
    assert failure(row) == ("reset", "handshake_status", "307")
    assert "redirects to https://elsewhere" in (row.error_message or "")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b"", b"[" * 100_000])
async def test_an_answer_that_is_no_json_object_is_a_protocol_failure(body):
    async def script(peer: Peer) -> None:
        await posted(peer)
        answer(peer, body)

    row = await http_row(script)
    assert failure(row) == ("reset", "protocol", None)
    assert ("nested too deeply" if body.startswith(b"[[") else "not a JSON object") in (row.error_message or "")


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 2000 \xff\r\n\r\n"])
async def test_an_answer_that_is_not_http_is_a_protocol_failure(data):
    async def script(peer: Peer) -> None:
        await posted(peer)
        peer.send(data)

    assert failure(await http_row(script, timeout=2))[:2] == ("reset", "protocol")


@pytest.mark.parametrize("phase", ["reset", "step"])
@pytest.mark.parametrize(
    ("part", "how", "kind"),
    [
        (b"", "closed", "closed_early"),
        (b"", "reset", "connection_reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "closed", "closed_early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "closed", "closed_early"),
    ],
)
async def test_a_connection_that_ends_before_the_answer_is_whole_says_how(phase, part, how, kind):
    async def script(peer: Peer) -> None:
        await posted(peer)
        if phase == "step":
            answer(peer, OBSERVATION)
            await posted(peer)
        peer.send(part)
        peer.writer.close() if how == "closed" else peer.reset()

    row = await http_row(script)
    assert (row.error_phase, row.error_type) == (phase, kind), row
    assert row.connect_latency is not None


async def test_a_port_where_nothing_listens_is_refused_in_connect():
    with refused_port() as port:
        (row,) = await play(f"http://127.0.0.1:{port}", mode="http")
    assert failure(row) == ("connect", "refused", "ECONNREFUSED")
    assert row.connect_latency is None


async def test_a_certificate_nobody_vouches_for_is_a_protocol_failure_named_tls():
    async with scripted(Peer.gone, tls=server_tls()) as server:
        (row,) = await play(server.url, mode="http")
    assert failure(row) == ("connect", "protocol", "tls")


async def test_a_server_of_plain_http_where_tls_was_asked_is_named_tls():
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        peer.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        peer.writer.close()

    async with scripted(script) as server:
        (row,) = await play(server.url.replace("http:", "https:"), mode="http")
    assert failure(row) == ("connect", "protocol", "tls")


@pytest.mark.parametrize("phase", ["reset", "step"])
async def test_a_silent_server_is_given_up_on_time(phase):
    async def script(peer: Peer) -> None:
        await posted(peer)
        if phase == "step":
            answer(peer, OBSERVATION)
            await posted(peer)
        await peer.gone()

    began = time.perf_counter()
    row = await http_row(script, timeout=0.3)
    assert failure(row) == (phase, "timeout", None)
    assert row.error_message == "no answer within 0.3 s"
    assert 0.3 <= time.perf_counter() - began < 1.5


async def test_a_step_gets_the_timeout_on_top_of_its_wait_and_progress_is_told_meanwhile():
    async def script(peer: Peer) -> None:
        for _ in range(2):
            await posted(peer)
            answer(peer, OBSERVATION)
        await posted(peer)
        await asyncio.sleep(0.6)
        answer(peer, OBSERVATION)

    async with scripted(script) as server:
        request = order(server.url, mode="http", timeout=0.5, wait=1.0, steps=2)
        share, progress = await play_share(request)
    assert share.rows[0].success
    assert (progress[0].open, progress[0].steps) == (1, 1)


async def test_a_header_that_would_leave_its_line_is_refused_before_anything_is_sent(golden):
    with pytest.raises(RouteError) as caught:
        await play("http://127.0.0.1:9", mode="http", headers={"X-A": "1\r\nX-B: 2"})
    golden(caught.value)


async def test_what_is_no_url_is_refused_before_anything_is_sent():
    with pytest.raises(RouteError, match="not an http"):
        await play("ftp://127.0.0.1:9", mode="http")


@pytest.mark.parametrize("phase", ["reset", "step"])
@pytest.mark.parametrize("body", [{"error": "environment crashed"}, {"observation": None}, {}])
async def test_an_answer_without_an_observation_is_a_protocol_failure(phase, body):
    async def script(peer: Peer) -> None:
        while True:
            path, _ = await posted(peer)
            answer(peer, body if path == f"/{phase}" else {"observation": {"error": None}})

    row = await http_row(script)
    assert failure(row) == (phase, "protocol", "200")
    assert json.dumps(body, separators=(",", ":")) in row.error_message


async def test_an_observation_that_is_an_error_is_noted_for_its_session():
    async def script(peer: Peer) -> None:
        while True:
            path, _ = await posted(peer)
            answer(peer, {"observation": {"error": "no tool" if path == "/step" else None}})

    async with scripted(script) as server:
        share, _ = await play_share(order(server.url, mode="http", batch=2))
    assert [row.success for row in share.rows] == [True, True]
    assert share.answered_errors == {0: ("step", "no tool"), 1: ("step", "no tool")}


async def test_half_a_surrogate_pair_in_an_answer_is_no_end_of_a_load_process():
    async def script(peer: Peer) -> None:
        while True:
            path, _ = await posted(peer)
            answer(peer, {"observation": {"text": "\ud83d"}} if path == "/reset" else {"oh": "\ud83d"})

    async with scripted(script) as server:
        share, _ = await play_share(replace(order(server.url, mode="http"), keep_messages=True))
    assert failure(share.rows[0]) == ("step", "protocol", "200")
    assert [phase for phase, _ in share.messages.answers] == ["reset", "step"]


@pytest.mark.parametrize("mode", ["ws", "http"])
async def test_no_value_of_a_header_is_in_the_messages_that_are_kept(mode):
    secret = "hunter2-swordfish"
    workload = Workload(({"token": secret},), reset={"token": secret})
    script = good if mode == "http" else play_good
    async with scripted(script) as server:
        request = order(server.url, mode=mode, workload=workload, headers={"Authorization": f"Bearer {secret}"})
        share, _ = await play_share(replace(request, keep_messages=True))
    assert share.rows[0].success
    assert b"***" in share.messages.actions[0]
    assert secret not in str(share.messages)
