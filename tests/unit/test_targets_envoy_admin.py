"""What Envoy's admin interface says becomes figures; what it leaves out is zero."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from goldens import Golden
from pytest_openenv_scale.targets.envoy.pool import (
    Admin,
    AdminError,
    HostState,
    parse_clusters,
    parse_overflows,
    sum_host_states,
)


def host(port: int, health: dict[str, Any] | None = None, **stats: int | None) -> dict[str, Any]:
    """One entry of `host_statuses` as Envoy 1.40 writes it: a zero has a name and no value."""
    return {
        "address": {"socket_address": {"address": "127.0.0.2", "port_value": port}},
        "stats": [{"name": name, **({"value": str(value)} if value else {})} for name, value in stats.items()],
        "health_status": {"eds_health_status": "HEALTHY", **(health or {})},
        "weight": 1,
    }


def clusters(*hosts: dict[str, Any]) -> str:
    other_cluster = {"name": "other", "host_statuses": [host(1, rq_total=99)]}
    return json.dumps({"cluster_statuses": [other_cluster, {"name": "replicas", "host_statuses": list(hosts)}]})


def test_a_number_without_a_value_is_zero() -> None:
    (state,) = parse_clusters(clusters(host(8000, rq_total=None, cx_connect_fail=None)))
    assert state == HostState("127.0.0.2:8000", requests=0, connect_failures=0, trouble="")


def test_requests_and_failed_connections_are_read_per_host() -> None:
    first, second = parse_clusters(clusters(host(8000, rq_total=3000), host(8001, rq_total=1, cx_connect_fail=7)))
    assert (first.requests, second.requests, second.connect_failures) == (3000, 1, 7)


@pytest.mark.parametrize(
    ("health", "trouble"),
    [
        ({}, ""),
        (
            {"failed_active_health_check": True, "active_hc_timeout": True},
            "failed_active_health_check, active_hc_timeout",
        ),
        ({"failed_active_health_check": False}, ""),
        ({"eds_health_status": "DRAINING"}, "eds_health_status DRAINING"),
    ],
)
def test_health_flags_are_told_in_envoys_words(health: dict[str, Any], trouble: str) -> None:
    assert parse_clusters(clusters(host(8000, health)))[0].trouble == trouble


def test_an_ipv6_host_is_named_as_in_a_url() -> None:
    ipv6_host = host(8000)
    ipv6_host["address"]["socket_address"]["address"] = "::1"
    assert parse_clusters(clusters(ipv6_host))[0].host == "[::1]:8000"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cluster_statuses": []}', '{"cluster_statuses": [{"name": "x"}]}'])
def test_anything_else_is_an_error_that_says_so(golden: Golden, text: str) -> None:
    with pytest.raises(AdminError) as caught:
        parse_clusters(text)
    golden(caught.value)


def test_overflows_are_named_as_envoy_does() -> None:
    stats = [
        {"name": "cluster.replicas.upstream_cx_overflow", "value": 26},
        {"name": "cluster.replicas.upstream_rq_pending_overflow", "value": 0},
        {"name": "cluster.replicas.upstream_cx_pool_overflow", "value": 5},
        {"histograms": {}},
    ]
    overflows = parse_overflows(json.dumps({"stats": stats}))
    assert overflows == {"upstream_cx_overflow": 26, "upstream_rq_pending_overflow": 0}
    with pytest.raises(AdminError, match="/stats"):
        parse_overflows("[]")


def test_several_envoys_are_summed_and_trouble_of_one_is_trouble() -> None:
    looks = [
        (HostState("a", 3, 1, ""), HostState("b", 2, 0, "")),
        (HostState("a", 4, 0, "failed"), HostState("b", 5, 0, "")),
    ]
    assert sum_host_states(looks) == (HostState("a", 7, 1, "failed"), HostState("b", 7, 0, ""))


def test_an_admin_interface_that_is_gone_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    assert not Admin(address).ready()
    with pytest.raises(AdminError, match=address):
        Admin(address).hosts()
