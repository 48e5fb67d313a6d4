"""What stands in the way of a session is told in one line, by one look at what answers."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from goldens import Golden
from pytest_openenv_scale.targets.common.readiness import Diagnosis, diagnose, server_limit

Answers = Mapping[str, tuple[int, Mapping[str, str]]]


class QuietServer(ThreadingHTTPServer):
    """An HTTP server that gives canned answers; a client that breaks off (TLS to plain, say) is no news."""

    daemon_threads = True
    answers: Answers
    seen: list[tuple[str, Mapping[str, str]]]
    body = b""

    def handle_error(self, request: object, client_address: object) -> None: ...


class Canned(BaseHTTPRequestHandler):
    server: QuietServer

    def answer(self) -> None:
        self.server.seen.append((f"{self.command} {self.path}", dict(self.headers.items())))
        status, headers = self.server.answers.get(f"{self.command} {self.path}", (404, {}))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        body = self.server.body if status >= 400 else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def canned(answers: Answers, context: ssl.SSLContext | None = None) -> Generator[QuietServer]:
    with QuietServer(("127.0.0.1", 0), Canned) as server:
        server.answers, server.seen = answers, []
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def diagnosis_of(answers: Answers, mode: str = "ws", prefix: str = "") -> Diagnosis:
    with canned(answers) as server:
        return diagnosis(f"http://127.0.0.1:{server.server_port}{prefix}", mode)


def diagnosis(url: str, mode: str = "ws") -> Diagnosis:
    """Return what stands in the way, of which there is something, on one line."""
    found_diagnosis = diagnose(url, {}, mode)
    assert found_diagnosis is not None
    assert "\n" not in found_diagnosis.text
    return found_diagnosis


@pytest.mark.parametrize(
    ("status", "passing"),
    [(401, False), (404, False), (200, False), (429, True), (500, False), (502, True), (503, True), (504, True)],
)
def test_each_status_is_told_with_what_to_do_and_whether_it_may_pass(
    golden: Golden, status: int, passing: bool
) -> None:
    found_diagnosis = diagnosis_of({"GET /ws": (status, {})})
    golden(found_diagnosis.text)
    assert found_diagnosis.transient is passing


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_answer_keeps_its_words_and_when_to_come_back(status: int) -> None:
    with canned({"GET /ws": (status, {"Retry-After": "7"})}) as server:
        server.body = b'{"detail": "Too many\n sessions"}'
        found_diagnosis = diagnosis(f"http://127.0.0.1:{server.server_port}")
    assert '(Retry-After: 7 s): {"detail": "Too many sessions"}' in found_diagnosis.text


def test_a_redirect_says_where_to_without_the_endpoint_and_without_secrets(golden: Golden) -> None:
    found_diagnosis = diagnosis_of({"GET /ws": (308, {"Location": "https://u:hush@example.org/env/ws?token=hush"})})
    golden(found_diagnosis.text)
    assert not found_diagnosis.transient


def test_a_403_where_plain_requests_pass_is_a_server_without_websocket() -> None:
    assert "does not speak OpenEnv" in diagnosis_of({"GET /ws": (403, {}), "GET /health": (200, {})}).text
    assert "asks for credentials" in diagnosis_of({"GET /ws": (403, {}), "GET /health": (403, {})}).text


def test_a_server_that_only_plays_over_http_is_told_to_use_that_mode() -> None:
    found_diagnosis = diagnosis_of({"POST /reset": (200, {})})
    assert "has no WebSocket sessions" in found_diagnosis.text
    assert "--openenv-modes http" in found_diagnosis.text


def test_http_mode_looks_at_reset_below_the_prefix() -> None:
    assert "POST /reset was answered 404" in diagnosis_of({"POST /reset": (200, {})}, "http", "/prefix").text
    with canned({"POST /prefix/reset": (200, {})}) as server:
        assert diagnose(f"http://127.0.0.1:{server.server_port}/prefix/", {}, "http") is None


def test_headers_are_sent_along() -> None:
    with canned({}) as server:
        diagnose(f"http://127.0.0.1:{server.server_port}", {"X-Token": "t"}, "ws")
        path, headers = server.seen[0]
    assert path == "GET /ws"
    assert headers["X-Token"] == "t"


def test_nothing_that_listens_is_a_refused_connection_that_may_pass(golden: Golden) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        found_diagnosis = diagnosis(f"http://127.0.0.1:{port}")
    golden(found_diagnosis.text, masks={f":{port}$": ":THIS"})
    assert found_diagnosis.transient


def test_a_host_name_that_does_not_resolve_is_named(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    found_diagnosis = diagnosis("http://no.such.host")
    golden(found_diagnosis.text)
    assert not found_diagnosis.transient


@contextmanager
def raw(behave: Callable[[socket.socket], None]) -> Generator[str]:
    """Serve connections with `behave`; yields the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_port_that_speaks_something_else_than_http_is_told_so(golden: Golden) -> None:
    def banner(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH\r\n")
        connection.recv(4096)

    with raw(banner) as url:
        found_diagnosis = diagnosis(url)
    golden(found_diagnosis.text)
    assert not found_diagnosis.transient


def test_a_connection_closed_without_an_answer_may_pass(golden: Golden) -> None:
    with raw(lambda connection: connection.recv(4096) and None) as url:
        found_diagnosis = diagnosis(url)
    golden(found_diagnosis.text)
    assert found_diagnosis.transient


def test_a_server_that_stays_silent_may_still_answer_later(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_openenv_scale.targets.common.readiness._REQUEST_TIMEOUT_S", 0.2)
    answered = threading.Event()
    with raw(lambda connection: answered.wait(10) and None) as url:
        found_diagnosis = diagnosis(url)
        answered.set()
    golden(found_diagnosis.text)
    assert found_diagnosis.transient


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    extension = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command.split(), *extension], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context, folder / "cert.pem"


def test_a_certificate_nobody_trusts_is_told_with_the_variable_to_set(
    golden: Golden,
    self_signed: tuple[ssl.SSLContext, Path],
) -> None:
    with canned({}, self_signed[0]) as server:
        found_diagnosis = diagnosis(f"https://127.0.0.1:{server.server_port}")
    golden(found_diagnosis.text)
    assert not found_diagnosis.transient


def test_a_trusted_certificate_is_looked_behind(
    self_signed: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(self_signed[1]))
    with canned({}, self_signed[0]) as server:
        found_diagnosis = diagnose(f"wss://127.0.0.1:{server.server_port}", {}, "ws")
    assert found_diagnosis is not None
    assert "404" in found_diagnosis.text


def test_plain_http_spoken_to_a_tls_port_names_the_scheme_to_write(
    golden: Golden, self_signed: tuple[ssl.SSLContext, Path]
) -> None:
    with canned({}, self_signed[0]) as server:
        found_diagnosis = diagnosis(f"http://127.0.0.1:{server.server_port}")
    golden(found_diagnosis.text)
    assert not found_diagnosis.transient


def test_tls_spoken_to_a_plain_port_names_the_scheme_to_write(golden: Golden) -> None:
    with canned({}) as server:
        told = diagnosis(f"https://127.0.0.1:{server.server_port}")
    golden(told.text)
    assert not told.transient


def test_a_server_that_names_itself_is_recognised() -> None:
    assert server_limit("http://127.0.0.1:1", {}) == {}
    with canned({}) as server:
        assert server_limit(f"http://127.0.0.1:{server.server_port}", {}) == {}
