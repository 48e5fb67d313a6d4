"""How servers are reached, by everything that connects to them: with TLS certificates checked, or not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from defects.running import in_thread
from independent_servers import CERTIFICATE
from playing import order, play
from pytest_openenv_scale.checks.subject import RawClient
from pytest_openenv_scale.checks.under_load.responsiveness import ask_health
from pytest_openenv_scale.client.http_request import http_request, server_schema
from pytest_openenv_scale.client.session import SessionFailed, open_http_session, open_session
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.network import DIRECT, Network
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.engine.workload import find_workload
from pytest_openenv_scale.load.runner import LoadGenerator
from pytest_openenv_scale.targets import TargetContext, open_in_context

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
