"""What a cell needs of this machine and what there is: ports, sources, descriptors, cores."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from playing import order, play
from pytest_openenv_scale.core import system
from pytest_openenv_scale.load import client_health, client_resources
from pytest_openenv_scale.load.ipc import Prepare
from scripted_server import Peer, good, scripted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TCP_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A made-up /proc; called with paths and their contents."""
    monkeypatch.setattr(client_resources, "_PROC", tmp_path)

    def put(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / {"range": "sys/net/ipv4/ip_local_port_range", "reuse": "sys/net/ipv4/tcp_tw_reuse"}.get(
                name, {"reserved": "sys/net/ipv4/ip_local_reserved_ports"}.get(name, f"net/{name}")
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    put(range="32768\t60999\n", reserved="\n", reuse="2\n", sockstat="sockets: used 9\nTCP: inuse 4 orphan 0 tw 0\n")
    return put


def connection(local: str, remote: str, state: str = "01") -> str:
    """A line of /proc/net/tcp."""

    def hex_address(text: str) -> str:
        host, _, port = text.rpartition(":")
        return f"{client_resources._kernel_address(host)}:{int(port):04X}"

    return f"   0: {hex_address(local)} {hex_address(remote)} {state} 00000000:00000000 00:00000000 00000000  0 0 1\n"


# Ports


def test_the_default_range_is_28232_ports(proc):
    assert client_resources.ports_per_source() == 28_232


@pytest.mark.parametrize(
    ("reserved", "there"),
    [("40000", 28_231), ("40000-40009,50000", 28_221), ("80,60990-65000", 28_222), ("1-99", 28_232)],
)
def test_reserved_ports_are_not_there(proc, reserved, there):
    proc(reserved=f"{reserved}\n")
    assert client_resources.ports_per_source() == there


def test_where_the_range_cannot_be_read_nothing_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(client_resources, "_PROC", tmp_path)
    plan = client_resources.plan_ports(["http://10.0.0.1:80"], 100_000, several_sources=True)
    assert (plan.per_source, plan.sources, plan.shortage) == (None, 0, None)


def test_the_kernel_is_read_as_it_is_here():
    assert client_resources.ports_per_source() in range(1, 65536)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        destination = client_resources.Destination("127.0.0.1", port, 1)
        before = destination.ports_held()  # The port may have been another server's a moment ago.
        with socket.create_connection(("127.0.0.1", port)):
            assert destination.ports_held() == before + 1
            assert client_resources.ports_in_use() >= 2


def test_over_ipv6_too():
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with server, socket.create_connection(server.getsockname()[:2]):
        assert client_resources.Destination("::1", server.getsockname()[1], 1).ports_held() == 1


def test_a_cell_that_fits_needs_no_more_than_a_look_at_two_files(proc, monkeypatch):
    monkeypatch.setattr(client_resources, "find_address", None)
    plan = client_resources.plan_ports(["http://name.invalid"], 14_000, several_sources=True)
    assert plan == client_resources.PortBudget(14_000, 28_232)


@pytest.mark.parametrize(("connections", "sources"), [(14_112, 0), (16_384, 2), (28_232, 2), (32_768, 3), (75_000, 6)])
def test_on_loopback_sources_are_taken_as_they_are_needed(proc, connections, sources):
    plan = client_resources.plan_ports(["http://127.0.0.1:8000"], connections, several_sources=True)
    assert (plan.sources, plan.shortage) == (sources, None)


def test_ports_that_earlier_cells_left_in_time_wait_are_avoided_by_a_fresh_source(proc):
    proc(sockstat="sockets: used 9\nTCP: inuse 4 orphan 0 tw 28000 alloc 4 mem 1\n")
    assert client_resources.plan_ports(["http://127.0.0.1:8000"], 100, several_sources=True).sources == 1


def test_away_from_loopback_too_few_ports_are_told_with_their_figures_and_a_remedy_that_suffices(golden, proc):
    proc(tcp=TCP_HEAD)
    plan = client_resources.plan_ports(["http://10.0.0.1:8000"], 40_000, several_sources=True)
    assert plan.sources == 0
    assert plan.shortage is not None
    golden(plan.shortage)
    proc(range="1024 65535")
    assert client_resources.plan_ports(["http://10.0.0.1:8000"], 40_000, several_sources=True).shortage is None
    more = client_resources.plan_ports(["http://10.0.0.1:8000"], 70_000, several_sources=True).shortage
    assert more is not None
    assert "widen" not in more
    golden(more)


def test_several_urls_share_the_load_unless_they_lead_to_the_same_place(proc):
    proc(tcp=TCP_HEAD)
    apart = client_resources.plan_ports(["http://10.0.0.1:1", "http://10.0.0.1:2"], 40_001, several_sources=True)
    assert (apart.needed, apart.shortage) == (20_001, None)
    together = client_resources.plan_ports(["http://10.0.0.1:1/a", "http://10.0.0.1:1/b"], 40_001, several_sources=True)
    assert together.needed == 40_001
    assert together.shortage is not None


@pytest.mark.parametrize(
    ("reuse", "state", "lacks"), [("0", "06", True), ("2", "06", True), ("1", "06", False), ("1", "01", True)]
)
def test_ports_held_by_earlier_connections_count_unless_the_kernel_gives_them_out_again(
    golden, proc, reuse, state, lacks
):
    line = connection("10.0.0.9:40000", "10.0.0.1:80", state)
    other = connection("10.0.0.9:40000", "10.0.0.2:80", state)
    proc(
        range="40000 40099",
        reuse=reuse,
        sockstat="TCP: inuse 1 orphan 0 tw 80\n",
        tcp=TCP_HEAD + line * 40 + other * 40 + connection("0.0.0.0:80", "0.0.0.0:0", "0A"),
    )
    lack = client_resources.plan_ports(["http://10.0.0.1:80"], 70, several_sources=True).shortage
    assert (lack is not None) is lacks
    if lack is not None:
        assert "100 towards it" in lack
        golden(lack)


def test_ipv6_loopback_has_one_address_and_is_told_what_to_write_instead(proc):
    proc(tcp6=TCP_HEAD, range="40000 40099")
    lack = client_resources.plan_ports(["http://[::1]:8000"], 200, several_sources=True).shortage
    assert lack is not None
    assert "to [::1]:8000" in lack
    assert "write 127.0.0.1 instead of [::1]" in lack


def test_a_client_that_cannot_choose_its_address_is_told_so_on_loopback_too(proc):
    proc(tcp=TCP_HEAD, range="40000 40099")
    assert client_resources.plan_ports(["http://127.0.0.1:8000"], 200, several_sources=False).shortage is not None


def test_a_host_that_does_not_resolve_is_left_to_the_load_processes(proc):
    plan = client_resources.plan_ports(["http://nowhere.invalid"], 40_000, several_sources=True)
    assert (plan.sources, plan.shortage) == (0, None)


# Sources


def test_sources_are_loopback_addresses_of_their_own():
    sources = [client_resources.loopback_source(number) for number in range(70_000)]
    assert len(set(sources)) == 70_000
    assert sources[0] == "127.0.1.1"
    assert {source.split(".")[0] for source in sources} == {"127"}


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("urls", [1, 2, 3])
@pytest.mark.parametrize("sources", [0, 1, 2, 3])
def test_every_url_gets_its_share_from_every_source(processes, urls, sources):
    request = order(*(f"http://127.0.0.1:{port}" for port in range(1, urls + 1)), batch=360)
    seen: dict[tuple[str, str | None], int] = {}
    for process in range(processes):
        names = tuple(f"127.0.{process}.{number}" for number in range(sources))
        mine = Prepare(request, process, processes, names)
        for number in mine.sessions:
            assert mine.route(number) == mine.route(mine.sessions[(number // processes) % mine.routes])
            seen[mine.route(number)] = seen.get(mine.route(number), 0) + 1
    by_url = {url: [count for (to, _), count in seen.items() if to == url] for url in request.urls}
    assert {sum(counts) for counts in by_url.values()} == {360 // urls}
    assert all(max(counts) - min(counts) <= urls for counts in by_url.values())


async def test_the_sessions_of_a_share_come_from_its_sources_in_turn(monkeypatch):
    addresses: list[str] = []

    async def script(peer: Peer) -> None:
        addresses.append(peer.writer.get_extra_info("peername")[0])
        await good(peer)

    monkeypatch.setattr("playing.Prepare", lambda *args: Prepare(*args, sources=("127.0.1.7", "127.0.1.8")))
    async with scripted(script) as server:
        rows = await play(server.url, batch=10)
    assert [row.success for row in rows] == [True] * 10
    assert sorted(addresses) == ["127.0.1.7"] * 5 + ["127.0.1.8"] * 5


# Before a cell


def test_sessions_that_follow_each_other_are_not_refused_beforehand(proc):
    proc(tcp=TCP_HEAD, range="40000 40099")
    resources = client_health.check_resources(order("http://10.0.0.1:80", batch=200, arrival="hold"), 1)
    assert [finding.kind for finding in resources.findings] == ["ports"]
    assert client_health.check_resources(order("http://10.0.0.1:80", batch=200, arrival="rate=10"), 1).findings == ()


def test_a_limit_too_low_for_any_session_is_not_answered_with_more_processes(golden, monkeypatch):
    monkeypatch.setattr(client_health, "descriptor_limit", lambda: 64)
    (finding,) = client_health.check_resources(order("http://10.0.0.1:80", batch=10), 1).findings
    golden(finding.message)


# After a cell


def stats(*, cpu=0.0, starved=0.0, wall=10.0, lag=0.0, processes=1, late=None) -> client_health.ClientStats:
    return client_health.ClientStats(
        processes=processes,
        cpu_s=(cpu,),
        cpu_share=cpu / wall,
        starved_s=(starved,),
        starved_share=starved / wall,
        busy_share=(cpu + starved) / wall,
        loop_lag_max_s=lag,
        late_sessions=late,
    )


@pytest.mark.parametrize(
    ("client", "kinds"),
    [
        (stats(cpu=8.9), []),
        (stats(cpu=9.1), ["cpu"]),
        (stats(cpu=4.9, starved=4.0), []),
        (stats(cpu=4.9, starved=4.2), ["cpu"]),
        (stats(cpu=0.1, starved=4.9), []),
        (stats(cpu=0.1, starved=5.1), ["cpu"]),
        (stats(cpu=0.1, starved=0.09, wall=0.2), []),
        (stats(lag=0.19), []),
        (stats(lag=0.3), ["loop_lag"]),
        (stats(lag=0.3, late=0), []),
        (stats(lag=0.3, late=1), ["loop_lag"]),
        (stats(lag=0.19, late=0), []),
        (stats(cpu=9.9, lag=0.3), ["loop_lag", "cpu"]),
    ],
)
def test_a_client_that_was_never_free_or_kept_from_its_core_or_stood_still_is_found(client, kinds):
    assert [finding.kind for finding in client_health.check_pace(client)] == kinds


@pytest.mark.parametrize(
    ("client", "cores"),
    [
        (stats(cpu=9.5), 4),
        (stats(cpu=9.5, processes=4), 4),
        (stats(cpu=1.0, starved=8.5), 4),
    ],
)
def test_the_remedy_is_one_that_helps(golden, monkeypatch, client, cores):
    monkeypatch.setattr(client_health, "usable_cores", lambda: cores)
    (finding,) = client_health.check_pace(client)
    golden(finding.message)


def test_the_cores_are_those_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert system.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert system.usable_cores() == len(allowed)


def test_the_kernel_counts_how_long_a_process_waited_for_a_core():
    assert client_resources.runnable_wait_s() > 0


def test_the_peak_of_memory_is_this_process_own_not_its_parents():
    ballast = bytearray(256 << 20)
    ballast[::4096] = bytes(len(ballast) // 4096)
    code = "from pytest_openenv_scale.load.client_resources import peak_rss_bytes; print(peak_rss_bytes())"
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert client_resources.peak_rss_bytes() > len(ballast) > child > 1 << 20
