"""How servers are reached, by everything that connects to them: certificates checked or not, straight or by a proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from connect_proxy import ConnectProxy, connect_proxy
from defects.running import in_thread
from independent_servers import CERTIFICATE
from playing import failure, order, play
from pytest_openenv_scale.checks.subject import RawClient
from pytest_openenv_scale.checks.under_load.responsiveness import ask_health
from pytest_openenv_scale.client.http_request import http_request, server_schema
from pytest_openenv_scale.client.session import SessionFailed, open_http_session, open_session
from pytest_openenv_scale.config.values import PARSERS, ValueOrigin
from pytest_openenv_scale.core.endpoint import DIRECT, Endpoint, Network, Proxy
from pytest_openenv_scale.core.errors import GrammarError, TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.engine.workload import find_workload
from pytest_openenv_scale.load.runner import LoadGenerator
from pytest_openenv_scale.targets import TargetContext, open_in_context
from scripted_server import Peer, refused_port, scripted

INSECURE = Network(insecure=True)


@pytest.fixture(scope="module")
def secure() -> Iterator[str]:
    """An environment over TLS with a certificate that nobody vouches for."""
    with in_thread(certificate=CERTIFICATE) as address:
        yield f"https://{address}"


def endpoint(url: str, network: Network) -> Endpoint:
    return Endpoint((url,), "x", "url", network=network)


@pytest.mark.parametrize("mode", ["ws", "http"])
async def test_measured_sessions_reach_a_server_whose_certificate_is_not_checked(secure, mode):
    rows = await play(secure, mode=mode, batch=2)
    assert [(row.error_type, row.error_code) for row in rows] == [("protocol", "tls")] * 2
    rows = await play(secure, mode=mode, batch=2, network=INSECURE)
    assert [(row.success, row.error_message) for row in rows] == [(True, None)] * 2


@pytest.mark.parametrize("mode", ["ws", "http"])
def test_load_processes_are_told_that_certificates_are_not_checked(secure, mode):
    with LoadGenerator(1) as generator:
        result = generator.run_cell(order(secure, mode=mode, batch=2, network=INSECURE))
    assert [row.success for row in result.rows] == [True] * 2


@pytest.mark.parametrize("open_client", [open_session, open_http_session])
async def test_sessions_by_hand_reach_it(secure, open_client):
    with pytest.raises(SessionFailed, match="certificate"):
        async with open_client(secure) as session:
            await session.reset()
    async with open_client(secure, network=INSECURE) as session:
        assert (await session.reset()).done is False


async def test_checks_reach_it(secure):
    async with RawClient(endpoint(secure, DIRECT), 5.0) as client:
        assert (await client.start()).first_answer.kind != "observation"
    async with RawClient(endpoint(secure, INSECURE), 5.0) as client:
        assert (await client.start()).first_answer.kind == "observation"
    for network, status in ((DIRECT, None), (INSECURE, 200)):
        assert (await asyncio.to_thread(ask_health, secure, {}, 5.0, network)).status == status


def test_what_is_asked_before_a_sweep_reaches_it(secure):
    with pytest.raises(ssl.SSLCertVerificationError), http_request(f"{secure}/health", {}, 5.0):
        pass
    assert server_schema(secure, {}) is None
    assert server_schema(secure, {}, INSECURE) is not None
    assert find_workload(endpoint(secure, INSECURE), None, None).waits


@pytest.mark.parametrize("modes", [("ws",), ("http",)])
def test_a_target_waits_for_it_and_hands_over_how_it_is_reached(golden, secure, modes, tmp_path: Path):
    spec = parse_target(secure)
    with pytest.raises(TargetError, match="--openenv-insecure"):
        open_in_context(spec, TargetContext(tmp_path, modes=modes)).__enter__()
    with open_in_context(spec, TargetContext(tmp_path, modes=modes, network=INSECURE)) as reached:
        assert reached.network == INSECURE
        golden("\n".join(reached.notes))
        assert reached.limits["server"] == "uvicorn"


# By a proxy

BASIC = "Basic aGlsZGU6aHVudGVyMi1zd29yZGZpc2g="
NOWHERE = "server.invalid:8000"
"""A host that only the proxy knows."""


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    with in_thread() as address:
        yield address


@pytest.fixture(params=["plain", "tls"])
def behind(request, plain, secure) -> Iterator[tuple[str, ConnectProxy, Network]]:
    """An environment at a URL that only a proxy leads to, the proxy, and the network with both."""
    scheme, address = ("http", plain) if request.param == "plain" else ("https", secure.removeprefix("https://"))
    with connect_proxy(authorization=BASIC, leads_to=int(address.rpartition(":")[2])) as proxy:
        yield f"{scheme}://{NOWHERE}", proxy, Network(insecure=True, proxy=Proxy("127.0.0.1", proxy.port, BASIC))
        assert proxy.targets == {NOWHERE}


@pytest.mark.parametrize("connections", ["session", "request", "shared"])
async def test_measured_sessions_over_http_go_by_the_proxy(behind, connections):
    url, proxy, network = behind
    (row,) = await play(url, mode="http", http_connections=connections, network=network)
    assert (row.success, row.error_message) == (True, None)
    assert len(proxy.heads) == (2 if connections == "request" else 1)


async def test_measured_sessions_over_websockets_go_by_the_proxy(behind):
    url, proxy, network = behind
    rows = await play(url, batch=3, network=network)
    assert [(row.success, row.error_message) for row in rows] == [(True, None)] * 3
    assert len(proxy.heads) == 3


@pytest.mark.parametrize("mode", ["ws", "http"])
def test_a_target_its_checks_and_its_load_processes_go_by_the_proxy(behind, mode, tmp_path: Path):
    url, _, network = behind
    context = TargetContext(tmp_path, modes=(mode,), network=network)
    with open_in_context(parse_target(url), context) as reached:
        assert reached.limits["server"] == "uvicorn"
        assert find_workload(reached, None, None).waits
        assert asyncio.run(first_answer(reached)) == "observation"
        with LoadGenerator(1) as generator:
            result = generator.run_cell(order(url, mode=mode, network=reached.network))
    assert [row.success for row in result.rows] == [True]


async def first_answer(endpoint: Endpoint) -> str:
    async with RawClient(endpoint, 5.0) as client:
        return (await client.start()).first_answer.kind


@pytest.mark.parametrize("mode", ["ws", "http"])
async def test_a_proxy_that_opens_no_tunnel_is_named_and_no_password_is(golden, mode, plain, tmp_path: Path):
    with connect_proxy(authorization="Basic another") as refusing:
        network = Network(proxy=Proxy("127.0.0.1", refusing.port, BASIC))
        (row,) = await play(f"http://{NOWHERE}", mode=mode, network=network)
        assert failure(row) == ("connect", "protocol", "proxy")
        golden(row.error_message)
        golden(await readiness(f"http://{NOWHERE}", mode, network, tmp_path))


@pytest.mark.parametrize("mode", ["ws", "http"])
async def test_a_proxy_that_is_not_there_is_named(golden, mode, tmp_path: Path):
    with refused_port() as port:
        network = Network(proxy=Proxy("127.0.0.1", port))
        (row,) = await play(f"http://{NOWHERE}", mode=mode, network=network)
        assert failure(row) == ("connect", "refused", "ECONNREFUSED")
        golden(row.error_message)
        golden(await readiness(f"http://{NOWHERE}", mode, network, tmp_path))


async def readiness(url: str, mode: str, network: Network, root: Path) -> str:
    """The line that a target fails with."""
    target = open_in_context(parse_target(url), TargetContext(root, modes=(mode,), network=network))
    with pytest.raises(TargetError) as failed:
        await asyncio.to_thread(target.__enter__)
    return str(failed.value)


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 502 Bad Gateway\r\n\r\n", b""])
async def test_any_answer_of_a_proxy_that_is_no_tunnel_fails_the_connect(golden, answer):
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.send(answer)
        peer.writer.close()

    async with scripted(script) as proxy:
        network = Network(proxy=Proxy("127.0.0.1", int(proxy.url.rpartition(":")[2])))
        rows = [(await play(f"http://{NOWHERE}", mode=mode, network=network))[0] for mode in ("ws", "http")]
    assert [failure(row) for row in rows] == [("connect", "protocol", "proxy")] * 2
    assert rows[0].error_message == rows[1].error_message
    golden(rows[0].error_message)


def test_what_is_started_here_is_reached_straight(tmp_path: Path):
    context = TargetContext(tmp_path, network=Network(insecure=True, proxy=Proxy("proxy", 3128)))
    assert open_in_context(parse_target("local"), context).context.network == INSECURE
    assert open_in_context(parse_target("http://h"), context).context.network == context.network


# Written

COMMAND_LINE, INI = (ValueOrigin(source, source, Path()) for source in ("command line", "ini"))


def test_a_proxy_is_read_from_its_url_or_the_environment(monkeypatch):
    parse = PARSERS["proxy"]
    assert parse("http://proxy:3128/", INI) == Proxy("proxy", 3128)
    assert parse("http://[::1]", INI).url == "http://[::1]:80"
    url = "http://hilde:hunter2-swordfish@proxy:3128"
    assert parse(url, COMMAND_LINE) == Proxy("proxy", 3128, BASIC)
    monkeypatch.setenv("PROXY_URL", url)
    assert parse("env:PROXY_URL", INI) == Proxy("proxy", 3128, BASIC)
    assert "aGlsZGU6" not in repr(parse(url, COMMAND_LINE))
    assert str(parse(url, COMMAND_LINE)) == "http://proxy:3128"


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("proxy:3128", COMMAND_LINE),
        ("https://hilde:hunter2-swordfish@proxy", COMMAND_LINE),
        ("hilde:hunter2-swordfish@proxy:3128", COMMAND_LINE),
        ("http://hilde:hunter2-swordfish@proxy:x", COMMAND_LINE),
        ("http://hilde:hunter2-swordfish@proxy", INI),
        ("env:NO_SUCH_VARIABLE", INI),
    ],
)
def test_a_proxy_that_is_none_is_a_mistake_without_its_password(golden, text, origin):
    with pytest.raises(GrammarError) as refused:
        PARSERS["proxy"](text, origin)
    assert "hunter2" not in str(refused.value)
    golden(refused.value)
