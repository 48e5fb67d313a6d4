"""The configuration Envoy gets: the whole of it, and how it is sized."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pytest_openenv_scale.engine.cooldown import MAX_WAIT_S
from pytest_openenv_scale.targets.envoy.config import (
    CHECK_TIMEOUT_S,
    Backend,
    EnvoySettings,
    backlog_for,
    breaker_for,
    envoys_needed,
    render,
    threads_for,
)

GOLDEN = Path(__file__).parent / "golden" / "envoy.yaml"
BACKENDS = (Backend("127.0.0.2", 8000), Backend("127.0.0.3", 8000), Backend("::1", 8001))


def test_the_whole_configuration_reads_like_this() -> None:
    settings = EnvoySettings(
        port=10000, backends=BACKENDS, policy="least_request", breaker=18064, backlog=9000, admin_port=9901
    )
    assert render(settings) == GOLDEN.read_text()


def test_every_breaker_has_the_same_size_and_nothing_cuts_an_idle_session() -> None:
    config = yaml.safe_load(render(EnvoySettings(port=1, backends=BACKENDS, breaker=4242)))
    (cluster,) = config["static_resources"]["clusters"]
    (thresholds,) = cluster["circuit_breakers"]["thresholds"]
    sizes = {value for name, value in thresholds.items() if name.startswith("max_")}
    assert sizes == {4242}
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    route = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]
    assert (manager["stream_idle_timeout"], route["timeout"]) == ("0s", "0s")
    assert manager["upgrade_configs"] == [{"upgrade_type": "websocket"}]


def test_a_session_that_said_goodbye_and_a_connection_without_requests_are_let_go_of() -> None:
    config = yaml.safe_load(render(EnvoySettings(port=1, backends=BACKENDS)))
    (listener,), (cluster,) = config["static_resources"]["listeners"], config["static_resources"]["clusters"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["delayed_close_timeout"] == "0s"
    (upstream,) = cluster["typed_extension_protocol_options"].values()
    idle_s = float(upstream["common_http_protocol_options"]["idle_timeout"].removesuffix("s"))
    assert CHECK_TIMEOUT_S < idle_s < MAX_WAIT_S


def test_everything_listens_on_loopback() -> None:
    config = yaml.safe_load(render(EnvoySettings(port=1, backends=BACKENDS)))
    (listener,) = config["static_resources"]["listeners"]
    assert listener["address"]["socket_address"]["address"] == "127.0.0.1"
    assert config["admin"]["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": 0}


def test_a_backend_is_named_as_in_a_url() -> None:
    assert [backend.name for backend in BACKENDS] == ["127.0.0.2:8000", "127.0.0.3:8000", "[::1]:8001"]


@pytest.mark.parametrize(
    ("largest", "nofile", "envoys"),
    [(1, 20_000, 1), (9_872, 20_000, 1), (9_873, 20_000, 2), (16_000, 20_000, 2), (17_770, 20_000, 3), (200, 400, 4)],
)
def test_two_descriptors_per_session_say_how_many_envoys_are_needed(largest: int, nofile: int, envoys: int) -> None:
    assert envoys_needed(largest, nofile) == envoys


def test_a_limit_too_small_for_envoy_itself_still_gives_a_number() -> None:
    assert envoys_needed(9, 100) == 10


@pytest.mark.parametrize(("cores", "envoys", "threads"), [(1, 1, 1), (2, 1, 1), (8, 1, 4), (8, 2, 2), (8, 9, 1)])
def test_the_envoys_together_take_half_of_the_cores(cores: int, envoys: int, threads: int) -> None:
    assert threads_for(cores, envoys) == threads


@pytest.mark.parametrize(("largest", "breaker", "backlog"), [(1, 1024, 2048), (1500, 3064, 2048), (9000, 18064, 9000)])
def test_breakers_and_backlog_hold_the_largest_cell(largest: int, breaker: int, backlog: int) -> None:
    assert (breaker_for(largest), backlog_for(largest)) == (breaker, backlog)
