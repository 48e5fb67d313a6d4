"""The null server, spoken to over sockets: the messages of OpenEnv, HTTP with keep-alive, its truth and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
import pytest

from pytest_openenv_scale.client.frames import CLOSE, PING, PONG, TEXT, FrameReader, Message
from pytest_openenv_scale.client.handshake import new_key, read_upgrade_response
from pytest_openenv_scale.client.http_request import action_schema
from pytest_openenv_scale.config.workload import make_workload
from pytest_openenv_scale.selftest import search
from pytest_openenv_scale.selftest.search import NullServerProcess, SelfTestError

COMMAND = [sys.executable, "-m", "pytest_openenv_scale.selftest.null_server"]


@pytest.fixture
def server() -> Iterator[NullServerProcess]:
    with NullServerProcess() as running:
        yield running


def dial(server: NullServerProcess) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


class Client:
    """A WebSocket client that blocks."""

    def __init__(self, server: NullServerProcess) -> None:
        self.sock, self._reader, self._read = dial(server), FrameReader(), []
        key = new_key()
        self.sock.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
        assert read_upgrade_response(self.sock.recv(4096), key, "http://127.0.0.1/ws") == b""

    def send(self, *values: object) -> None:
        self.sock.sendall(b"".join(Message(json.dumps(value).encode()).masked() for value in values))

    def hear(self) -> tuple[int, str | bytes]:
        while not self._read:
            data = self.sock.recv(65536)
            assert data, "the server closed the connection"
            self._read += self._reader.feed(data)
        return self._read.pop(0)

    def reply(self) -> dict:
        opcode, text = self.hear()
        assert opcode == TEXT
        return json.loads(text)

    def ask(self, kind: str, **data: object) -> dict:
        self.send({"type": kind, "data": data} if data else {"type": kind})
        return self.reply()


@contextmanager
def client(server: NullServerProcess) -> Iterator[Client]:
    session = Client(server)
    with closing(session.sock):
        yield session


def test_a_session_resets_steps_and_closes_in_good_order(server):
    with client(server) as session:
        first = session.ask("reset")
        assert first["type"] == "observation"
        assert first["data"]["observation"] | {"session_hash": ""} == {
            "waited_seconds": 0.0,
            "pid": server.pid,
            "session_hash": "",
            "host_url": "null:0",
            "step_count": 0,
        }
        stepped = session.ask("step", wait_seconds=0.01)["data"]
        assert (stepped["observation"]["waited_seconds"], stepped["observation"]["step_count"]) == (0.01, 1)
        assert (stepped["reward"], stepped["done"]) == (None, False)
        assert session.ask("state") == {
            "type": "state",
            "data": {"episode_id": first["data"]["observation"]["session_hash"], "step_count": 1},
        }
        session.send({"type": "close"})
        assert session.hear() == (CLOSE, b"\x03\xe8")
        session.sock.sendall(Message(b"\x03\xe8", CLOSE).masked())
        assert session.sock.recv(100) == b""


def test_a_close_frame_is_answered_with_its_code(server):
    with client(server) as session:
        session.sock.sendall(Message(b"\x03\xe9going", CLOSE).masked())
        assert session.hear() == (CLOSE, b"\x03\xe9")
        assert session.sock.recv(100) == b""


def test_a_ping_is_answered_while_a_step_waits(server):
    with client(server) as session:
        session.send({"type": "step", "data": {"wait_seconds": 0.2}})
        session.sock.sendall(Message(b"there?", PING).masked())
        assert session.hear() == (PONG, b"there?")
        assert session.reply()["data"]["observation"]["step_count"] == 1


def test_steps_are_answered_when_they_are_due_not_when_they_came(server):
    with client(server) as session:
        began = time.perf_counter()
        session.send(*({"type": "step", "data": {"wait_seconds": wait}} for wait in (0.3, 0.1, 0.2, 0)))
        waited = [session.reply()["data"]["observation"]["waited_seconds"] for _ in range(4)]
        assert waited == [0.0, 0.1, 0.2, 0.3]
        assert time.perf_counter() - began >= 0.3


def test_bytes_may_come_one_by_one(server):
    with client(server) as session:
        session.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in Message(b'{"type":"step","data":{}}').masked():
            session.sock.sendall(bytes([byte]))
        assert session.reply()["data"]["observation"]["step_count"] == 1


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"type": "mcp"}, "unknown message type 'mcp'"),
        ([], "not a JSON object"),
        ({"type": "step", "data": {"wait_seconds": -1}}, "wait_seconds must be"),
        ({"type": "step", "data": {"wait_seconds": 1e9}}, "wait_seconds must be"),
        ({"type": "step", "data": {"wait_seconds": True}}, "wait_seconds must be"),
        ({"type": "step"}, "wait_seconds must be"),
    ],
)
def test_a_message_it_cannot_act_on_is_an_error_and_the_session_lives(server, value, says):
    with client(server) as session:
        session.send(value)
        answer = session.reply()
        assert (answer["type"], answer["data"]["code"]) == ("error", "VALIDATION_ERROR")
        assert says in answer["data"]["message"]
        assert session.ask("reset")["type"] == "observation"


def test_a_client_that_breaks_the_protocol_is_told_the_code(server):
    with client(server) as session:
        session.sock.sendall(b"\x81\x01x")
        opcode, payload = session.hear()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xea")
        assert session.sock.recv(100) == b""


# HTTP


def request(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def answers(sock: socket.socket, count: int) -> list[dict]:
    """So many answers off one connection."""
    replies, data = [], b""
    while len(replies) < count:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = (
            int(head.rpartition(b"Content-Length: ")[2] or 0) if rest or head.endswith(b"Content-Length: 0") else None
        )
        if length is not None and len(rest) >= length:
            replies.append({"status": int(head.split()[1]), "body": json.loads(rest[:length])})
            data = rest[length:]
            continue
        more = sock.recv(65536)
        assert more, "the server closed the connection"
        data += more
    return replies


def test_one_connection_serves_request_after_request(server):
    with closing(dial(server)) as sock:
        for path, body, steps in (
            ("/reset", b"{}", 0),
            ("/step", b'{"action":{"wait_seconds":0.02}}', 1),
            ("/step", b'{"action":{}}', 2),
        ):
            sock.sendall(request(path, body))
            (answer,) = answers(sock, 1)
            assert answer["status"] == 200
            assert answer["body"]["observation"]["step_count"] == steps


def test_requests_sent_early_are_answered_in_their_order(server):
    waits = (0.1, 0.0, 0.05, 0.0)
    with closing(dial(server)) as sock:
        sock.sendall(
            b"".join(request("/step", json.dumps({"action": {"wait_seconds": wait}}).encode()) for wait in waits)
        )
        replies = answers(sock, 4)
    assert [answer["body"]["observation"]["waited_seconds"] for answer in replies] == list(waits)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("/nowhere", b"{}"), 404),
        (request("/step", b"{"), 422),
        (request("/step", b"{}"), 422),
        (b"GET /health HTTP/1.1\r\n\r\n", 200),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_a_request_has_its_status(server, data, status):
    with closing(dial(server)) as sock:
        sock.sendall(data)
        (answer,) = answers(sock, 1)
        assert answer["status"] == status


def test_its_schema_makes_a_workload_that_waits(server):
    workload = make_workload(action_schema(server.url, {}), None, None)
    assert (workload.actions, workload.waits) == (({"wait_seconds": "$wait"},), True)


def test_it_is_healthy_and_has_no_pages(server):
    with urlopen(f"{server.url}/health", timeout=30) as answer:
        assert json.loads(answer.read()) == {"status": "healthy"}
    with pytest.raises(HTTPError, match="404") as error:
        urlopen(f"{server.url}/web", timeout=30)
    error.value.close()


# Its truth


def test_the_truth_counts_every_step_and_the_most_sessions_at_once(server):
    with client(server) as one, client(server) as other:
        for wait in (0, 0.05):
            one.ask("step", wait_seconds=wait)
            other.ask("step", wait_seconds=wait)
    with client(server) as third:
        third.ask("reset")
    totals = server.end_and_read_totals()
    assert (totals.sessions, totals.peak_open, len(totals.overheads_s)) == (3, 2, 4)
    assert list(totals.overheads_s) == sorted(totals.overheads_s)
    assert all(value > 0 for value in totals.overheads_s)
    assert totals.cpu_s > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's arrival times are Linux'")
@pytest.mark.parametrize("protocol", ["ws", "http"])
def test_a_step_counts_from_when_it_reached_the_socket_not_from_when_it_was_read(server, protocol):
    with client(server) as session, closing(dial(server)) as sock:
        session.ask("reset")
        sock.sendall(request("/reset", b"{}"))
        answers(sock, 1)
        os.kill(server.pid, signal.SIGSTOP)
        if protocol == "ws":
            session.send({"type": "step", "data": {"wait_seconds": 0}})
        else:
            sock.sendall(request("/step", b'{"action":{}}'))
        time.sleep(0.15)  # The length of the stop is what is measured.
        os.kill(server.pid, signal.SIGCONT)
        assert session.reply() if protocol == "ws" else answers(sock, 1)
    (overhead,) = server.end_and_read_totals().overheads_s
    assert overhead > 0.14  # A little less than it slept: two clocks are compared, and one may be slewed.


def test_a_step_nobody_waits_for_any_more_is_none(server):
    with client(server) as session:
        session.send({"type": "step", "data": {"wait_seconds": 0.05}})
    with client(server) as other:
        other.ask("step", wait_seconds=0.1)
    assert len(server.end_and_read_totals().overheads_s) == 1


# Its end


def test_it_ends_when_its_standard_input_closes():
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["port"] > 0
        out, _ = process.communicate(timeout=30)
        assert json.loads(out)["steps"] == 0
    assert process.returncode == 0


def test_it_does_not_outlive_a_parent_that_was_killed():
    program = (
        "import sys, signal, os\n"
        "from pytest_openenv_scale.selftest.search import NullServerProcess\n"
        "server = NullServerProcess().__enter__()\n"
        "print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    try:
        psutil.Process(int(done.stdout)).wait(30)
    except psutil.NoSuchProcess:
        pass
    assert done.stderr == ""


def test_without_a_pipe_it_says_what_it_needs(golden, tmp_path):
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as file:
        done = subprocess.run(COMMAND, stdin=file, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    golden(done.stderr)


def test_one_that_ended_by_itself_is_one_line(golden, server):
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(SelfTestError) as caught:
        server.end_and_read_totals()
    golden(caught.value)


def test_one_that_cannot_start_says_its_last_words(golden, monkeypatch, tmp_path):
    monkeypatch.setattr(search, "__package__", "no_such_package")
    with pytest.raises(SelfTestError) as caught:
        NullServerProcess().__enter__()
    golden(caught.value)
