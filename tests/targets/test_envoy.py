"""`envoy` puts a real Envoy in front of real servers: even spread, no ceiling, and every loss named."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from components import lacking
from docker_engine import BASE_IMAGE, engine_or_skip, server_wheels, started_processes
from goldens import Golden
from measuring import measure
from pytest_openenv_scale.client.session import open_session
from pytest_openenv_scale.config.plan import Cell
from pytest_openenv_scale.config.search import SearchRange
from pytest_openenv_scale.core.endpoint import Endpoint, ExitStatus
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.engine.sweep import Observer, Sweep
from pytest_openenv_scale.load.runner import LoadProgress
from pytest_openenv_scale.reporting import sweep_lines
from pytest_openenv_scale.results.outcome import Outcome
from pytest_openenv_scale.targets import open_target
from pytest_openenv_scale.targets.docker.engine import Engine
from pytest_openenv_scale.targets.docker.image import ImageSource, obtain_image
from pytest_openenv_scale.targets.envoy.config import Backend, EnvoySettings, render
from pytest_openenv_scale.targets.envoy.pool import find_envoy
from server_process import running_server

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("no_guard")]


@pytest.fixture(autouse=True)
def envoy() -> str:
    """The Envoy these tests drive."""
    try:
        return find_envoy()
    except TargetError as error:
        lacking(str(error))


def serve(text: str, root: Path, **options: Any) -> Any:
    """A target with one thread per Envoy, whatever machine this is: each thread goes round on its own."""
    return open_target(parse_target(f"{text},threads=1"), root=root, **options)


def listener(address: str) -> Any:
    """The socket one of our processes listens on, at an address that other runs on this machine may have too."""
    ours = {process.pid for process in started_processes()}
    return next(connection for connection in listening() if connection.laddr.ip == address and connection.pid in ours)


def listening() -> list[Any]:
    return [connection for connection in psutil.net_connections("tcp") if connection.status == psutil.CONN_LISTEN]


def kill_server(address: str) -> None:
    """Kill what listens at an address; until nothing does, a handshake may still reach it and die with it."""
    connection = listener(address)
    os.kill(connection.pid, signal.SIGKILL)
    assert eventually(lambda: connection.laddr not in [other.laddr for other in listening()])


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def terminal_text(sweep: Sweep) -> str:
    """What the terminal shows of a sweep, on one line."""
    return " ".join(" ".join(line.text for line in sweep_lines(sweep.view, width=200)).split())


@contextmanager
def stoppable(address: str) -> Generator[Callable[[], None]]:
    """Give what stops the process that listens at an address; at the end it goes on, so that it can be ended."""
    pid = listener(address).pid
    yield lambda: os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGCONT)


def hosts_of_new_sessions(endpoint: Endpoint, count: int) -> list[str]:
    """Start so many sessions at once and return which hosts they were on."""

    async def host_of_new_session() -> str:
        async with open_session(endpoint.urls[0], timeout_s=10) as session:
            return (await session.reset()).observation["host_url"]

    async def all_of_them() -> list[str]:
        return list(await asyncio.gather(*(host_of_new_session() for _ in range(count))))

    return asyncio.run(all_of_them())


class InMidStep(Observer):
    """Does something once, while every session of the cell is in its step."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act
        self._looks = 0

    def cell_progress(self, cell: Cell, repetition: int, progress: LoadProgress) -> None:
        # The first look at a batch that is up comes before its steps begin.
        self._looks += progress.open == progress.asked
        if self._looks == 2:
            self._looks += 1
            self._act()


@pytest.mark.matrix
def test_three_replicas_hold_3000_sessions_each(tmp_path: Path) -> None:
    with serve("envoy:replicas=3,app=builtin", tmp_path, largest_batch=9000) as endpoint:
        sweep = measure(endpoint, tmp_path, 9000, wait=1.0, timeout=120.0, slo={"hosts": 3, "success": 1.0})
    (cell,) = sweep.cells
    assert sweep.outcome is Outcome.MET, terminal_text(sweep)
    assert cell.peak_concurrency == 9000
    fewest, most = min(cell.host_counts.values()), max(cell.host_counts.values())
    assert most - fewest <= (0 if endpoint.limits["envoys"] == 1 else endpoint.limits["envoys"])
    assert cell.proxy is not None
    assert cell.proxy.requests == cell.host_counts
    # Where two cores run all of it, a health check may come too late; who is in stays in.
    assert (cell.proxy.overflows, cell.proxy.troubles) == ({}, ())
    assert "spread at batch 9,000: " in terminal_text(sweep)
    assert "Envoy (round_robin)" in terminal_text(sweep)
    assert not started_processes()


def test_a_search_of_three_replicas_comes_to_the_sum_of_their_limits(tmp_path: Path) -> None:
    with serve("envoy:replicas=3,app=builtin,workers=1,max_envs=20", tmp_path, largest_batch=200) as endpoint:
        sweep = measure(
            endpoint, tmp_path, 8, reps=3, search=SearchRange(1, 200), precision=0.0, wait=0.05, slo={"success": 1.0}
        )
    (verdict,) = sweep.verdicts
    assert (verdict.feasible_max, verdict.infeasible_min) == (60, 61)
    assert verdict.search is not None
    assert verdict.search.tally(60) == (3, 3)
    assert not started_processes()


@pytest.mark.matrix
def test_five_searches_of_three_replicas_agree(tmp_path: Path) -> None:
    options = {"reps": 3, "search": SearchRange(1, 200), "wait": 0.05, "slo": {"success": 1.0}}
    with serve("envoy:replicas=3,app=builtin,workers=1,max_envs=20", tmp_path, largest_batch=200) as endpoint:
        endpoint = replace(endpoint, limits={})  # They are not to be told where it ends.
        searches = [measure(endpoint, tmp_path, 8, **options).verdicts[0] for _ in range(5)]
    for verdict in searches:
        assert verdict.feasible_max is not None
        assert verdict.infeasible_min is not None
        assert verdict.feasible_max <= 60 < verdict.infeasible_min <= max(verdict.feasible_max * 1.05, 61)
        assert verdict.search is not None
        assert (verdict.search.stop_reason, verdict.search.drift) == ("precision", None)
        passes, judged = verdict.search.tally(verdict.feasible_max)
        assert passes == judged >= 3
    numbers = [verdict.feasible_max or 0 for verdict in searches]
    assert max(numbers) <= 1.05 * min(numbers), numbers


def test_a_session_that_said_goodbye_is_over_and_not_kept_by_envoy(tmp_path: Path) -> None:
    with serve("envoy:replicas=1,app=builtin", tmp_path, largest_batch=10) as endpoint:
        sweep = measure(endpoint, tmp_path, 10, arrival="burst")
    rows = sweep.table.to_pylist()
    # Envoy's own default keeps each of them for a second.
    assert min(row["closed_s"] - row["due_s"] - row["total_latency"] for row in rows) < 0.9


def test_the_default_ceiling_of_1024_sessions_does_not_bind(tmp_path: Path) -> None:
    with serve("envoy:replicas=1,app=builtin", tmp_path, largest_batch=1500) as endpoint:
        sweep = measure(endpoint, tmp_path, 1500, wait=0.5, slo={"success": 1.0})
    assert sweep.cells[0].peak_concurrency == 1500


def test_with_breakers_of_1024_that_is_where_it_ends_and_the_breaker_is_named(tmp_path: Path) -> None:
    with serve("envoy:replicas=1,max_connections=1024,app=builtin", tmp_path, largest_batch=1100) as endpoint:
        sweep = measure(endpoint, tmp_path, 1100, wait=0.0, timeout=8.0)
    (cell,), (verdict,) = sweep.cells, sweep.verdicts
    assert cell.peak_concurrency == 1024
    (refusal,) = verdict.refused
    assert (refusal.cause, refusal.count) == ("proxy", 76)
    assert (refusal.figures["held"], refusal.figures["needed"], refusal.figures["is_key_of_target"]) == (
        1024,
        1100,
        True,
    )
    assert refusal.words is not None
    assert refusal.words.startswith("upstream_cx_overflow ")
    (step,) = refusal.steps
    raised = f"envoy:replicas=1,{step.name}={step.value},app=builtin"
    with serve(raised, tmp_path, largest_batch=1100) as endpoint:
        sweep = measure(endpoint, tmp_path, 1100, wait=0.0, timeout=8.0)
    assert (sweep.cells[0].peak_concurrency, sweep.verdicts[0].refused) == (1100, ())


def test_what_is_known_of_the_endpoint(tmp_path: Path) -> None:
    with serve("envoy:replicas=2,max_envs=5,lb=least_request,env.MODE=fast,cores=7,app=builtin", tmp_path) as endpoint:
        sample, look, log = endpoint.sample(), endpoint.proxy(), endpoint.log_tail(20)
        assert endpoint.exit_status() is None
    assert (endpoint.label, endpoint.hosts, endpoint.cores) == ("envoy-local", 2, 7)
    assert endpoint.limits == {
        "replicas": 2,
        "workers": 1,
        "max_envs": 5,
        "server": "hypercorn",
        "lb": "least_request",
        "envoys": 1,
    }
    assert 0 < endpoint.startup_s < 60
    assert sample is not None
    assert sample.processes == 2
    assert look is not None
    assert [host.host.partition(":")[0] for host in look.hosts] == ["127.0.0.2", "127.0.0.3"]
    assert sum(host.requests for host in look.hosts) >= 1  # The session that proved it ready.
    assert (look.rss_bytes or 0) > 10_000_000
    assert {line[:11] for line in log.splitlines()} == {"[127.0.0.2:", "[127.0.0.3:"}


def test_several_envoys_share_the_port_where_one_has_not_descriptors_enough(tmp_path: Path) -> None:
    with serve("envoy:replicas=3,nofile=400,app=builtin", tmp_path, largest_batch=200) as endpoint:
        assert endpoint.limits["envoys"] == 4
        assert sum("--config-yaml" in child.cmdline() for child in started_processes(recursive=False)) == 4
        sweep = measure(endpoint, tmp_path, 200, wait=0.5, slo={"success": 1.0, "hosts": 3})
    (cell,) = sweep.cells
    assert sweep.outcome is Outcome.MET, terminal_text(sweep)
    assert cell.proxy is not None
    assert sum(cell.proxy.requests.values()) == 200
    # Each Envoy goes round on its own, so that counts differ by no more than their number.
    assert max(cell.proxy.requests.values()) - min(cell.proxy.requests.values()) <= 4


def test_servers_that_run_already_are_fronted_and_left_alone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(running_server("--host", f"127.0.0.{n}")) for n in (2, 3)]
        urls = "|".join(f"http://{address}" for _, address in servers)
        with serve(f"envoy:urls={urls},workers=1", tmp_path, largest_batch=40) as endpoint:
            sweep = measure(endpoint, tmp_path, 40, slo={"hosts": 2})
            assert endpoint.sample() is not None
        assert [process.poll() for process, _ in servers] == [None, None]
    assert (endpoint.label, endpoint.hosts, endpoint.cores) == ("envoy-urls", 2, None)
    assert sweep.cells[0].host_counts == {address: 20 for _, address in servers}


def test_a_server_of_somebody_else_that_dies_is_noticed_by_envoy(tmp_path: Path) -> None:
    with ExitStack() as stack:
        (first, where), (_, other) = [stack.enter_context(running_server("--host", f"127.0.0.{n}")) for n in (2, 3)]
        with serve(f"envoy:urls=http://{where}|http://{other}", tmp_path, largest_batch=40) as endpoint:
            sweep = measure(endpoint, tmp_path, 20, wait=4.0, observer=InMidStep(first.kill))
            assert endpoint.exit_status() is None
    (cell,), (verdict,) = sweep.cells, sweep.verdicts
    assert cell.failed_hosts == {where: 10}
    assert verdict.refused[0].cause == "host_lost"
    incidents = [reason.incident for reason in verdict.reasons if reason.cause == "out"]
    assert [incident.host for incident in incidents if incident] == [where]


def test_a_killed_replica_takes_its_own_sessions_and_no_other(tmp_path: Path) -> None:
    new: list[str] = []
    with serve("envoy:replicas=3,app=builtin", tmp_path, largest_batch=90) as endpoint:

        def kill_one() -> None:
            kill_server("127.0.0.3")
            new.extend(hosts_of_new_sessions(endpoint, 30))

        sweep = measure(endpoint, tmp_path, 60, wait=5.0, observer=InMidStep(kill_one))
        assert str(endpoint.exit_status()).startswith("replica 127.0.0.3:")
        log = endpoint.log_tail(20)
    (cell,), (verdict,) = sweep.cells, sweep.verdicts
    rows = sweep.table.to_pylist()
    (dead,) = {row["host_url"] for row in rows if row["host_url"].startswith("127.0.0.3:")}
    assert {row["request_id"] for row in rows if not row["success"]} == {
        row["request_id"] for row in rows if row["host_url"] == dead
    }
    assert cell.failed_hosts == {dead: 20}
    assert len(new) == 30
    assert set(Counter(new)) == set(cell.host_counts) == {row["host_url"] for row in rows} - {dead}
    assert sweep.outcome is Outcome.MISSED
    assert cell.proxy is not None
    (mishap,) = cell.proxy.mishaps
    assert (mishap.host, mishap.kind, mishap.ending) == (dead, "died", ExitStatus.from_returncode(-9))
    assert 0 < mishap.at_s < cell.wall_s
    assert mishap.out_after_s is not None
    assert (verdict.refused[0].cause, verdict.refused[0].count) == ("host_lost", 20)
    (reason,) = [reason for reason in verdict.reasons if reason.kind == "hosts"]
    assert (reason.cause, reason.batch, reason.incident) == ("died", 60, mishap)
    assert (reason.figures["failed_there"], reason.figures["failed"]) == (20, 20)
    assert {line.partition("]")[0] for line in log.splitlines()} == {f"[{dead}"}


def test_a_stopped_replica_is_missed_and_named(tmp_path: Path) -> None:
    with (
        serve("envoy:replicas=3,app=builtin", tmp_path, largest_batch=30) as endpoint,
        stoppable("127.0.0.4") as stop,
    ):
        sweep = measure(endpoint, tmp_path, 30, wait=4.0, timeout=5.0, observer=InMidStep(stop))
        assert endpoint.exit_status() is None
    (cell,) = sweep.cells
    (host,) = cell.failed_hosts
    assert host.startswith("127.0.0.4:")
    assert sweep.outcome is Outcome.MISSED
    (reason,) = [reason for reason in sweep.verdicts[0].reasons if reason.cause == "out"]
    assert (reason.figures["failed_there"], reason.figures["failed"]) == (10, 10)
    assert reason.incident is not None
    assert reason.incident.host == host
    assert "active_hc_timeout" in reason.incident.text


def test_a_host_that_gets_nothing_fails_hosts_with_what_is_wrong_there(tmp_path: Path) -> None:
    with serve("envoy:replicas=3,app=builtin", tmp_path, largest_batch=30) as endpoint, stoppable("127.0.0.4") as stop:
        stop()
        look = endpoint.proxy()  # Returns once Envoy has taken it out.
        sweep = measure(endpoint, tmp_path, 30, slo={"hosts": 3})
    assert look is not None
    (ill,) = [host for host in look.hosts if host.trouble]
    (cell,) = sweep.cells
    assert cell.success_rate == 1.0
    assert sweep.outcome is Outcome.MISSED
    breach = sweep.verdicts[0].first_breach
    assert breach is not None
    assert (breach.limit, breach.batch, breach.observed, breach.allowed) == ("hosts", 30, 2, 3)
    assert cell.proxy is not None
    (trouble,) = cell.proxy.troubles
    assert (trouble.host, trouble.trouble) == (ill.host, "failed_active_health_check, active_hc_timeout")
    assert f"Running on http://{ill.host}" in trouble.log


def test_an_envoy_that_dies_is_named(tmp_path: Path) -> None:
    with serve("envoy:replicas=2,app=builtin", tmp_path) as endpoint:
        (envoy,) = [child for child in started_processes(recursive=False) if "--config-yaml" in child.cmdline()]
        envoy.kill()
        assert eventually(lambda: endpoint.exit_status() is not None)
        assert endpoint.exit_status() == ExitStatus.from_returncode(-9).of("Envoy")
        assert endpoint.proxy() is None


NO_HEALTH = """
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

async def play(socket):
    await socket.accept()
    while (await socket.receive_json())["type"] != "close":
        await socket.send_json({"type": "observation", "data": {"observation": {}, "reward": None, "done": False}})
    await socket.close()

app = Starlette(routes=[WebSocketRoute("/ws", play)])
"""


def test_a_replica_without_a_health_check_is_told(tmp_path: Path, golden: Golden) -> None:
    (tmp_path / "apps.py").write_text(NO_HEALTH)
    with pytest.raises(TargetError) as caught, serve("envoy:replicas=1,app=apps:app,start_timeout=8s", tmp_path):
        pytest.fail("the target started")
    golden(str(caught.value).splitlines()[0], masks={r"\(\S+\) after \d+ s": "(STATE) after N s"})
    assert not started_processes()


def test_an_app_that_cannot_be_served_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught, serve("envoy:replicas=2,app=nowhere:app", tmp_path):
        pytest.fail("the target started")
    first = str(caught.value).splitlines()[0]
    assert first.startswith("target envoy:replicas=2,app=nowhere:app,threads=1: ")
    assert "no module 'nowhere'" in first
    assert not started_processes()


def test_replicas_may_be_containers_each_at_an_address_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine_or_skip() as host:
        monkeypatch.setenv("DOCKER_HOST", host)
        engine = Engine.connect()
        packaged = ImageSource(None, tmp_path, arguments={"BASE_IMAGE": BASE_IMAGE}, wheels=str(server_wheels()))
        image = obtain_image(engine, packaged, print)
        with serve(f"envoy:replicas=2,image={image},pull=never,max_envs=50", tmp_path, largest_batch=40) as endpoint:
            sweep = measure(endpoint, tmp_path, 40, slo={"hosts": 2, "success": 1.0})
            sample = endpoint.sample()
            assert len(engine.client.containers.list()) == 2
        assert engine.client.containers.list(all=True) == []
        engine.close()
    (cell,) = sweep.cells
    assert sweep.outcome is Outcome.MET, terminal_text(sweep)
    assert (endpoint.label, endpoint.hosts, endpoint.limits["max_envs"]) == ("envoy-docker", 2, 50)
    assert sorted(cell.host_counts.values()) == [20, 20]
    assert cell.proxy is not None
    assert list(cell.proxy.requests.values()) == [20, 20]
    assert sample is not None
    assert (sample.rss_bytes or 0) > 10_000_000


def test_the_configuration_is_one_that_envoy_accepts(envoy: str) -> None:
    config = render(
        EnvoySettings(port=1, backends=(Backend("127.0.0.2", 8000), Backend("::1", 8000)), policy="least_request")
    )
    done = subprocess.run(
        [envoy, "--mode", "validate", "--config-yaml", config], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def owner(tmp_path: Path) -> Generator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Another Python that holds a target, and the processes of that."""
    code = f"""
    import time
    from pathlib import Path
    from pytest_openenv_scale.core.target_spec import parse_target
    from pytest_openenv_scale.targets import open_target
    with open_target(parse_target("envoy:replicas=2,app=builtin"), root=Path({str(tmp_path)!r})):
        print("up", flush=True)
        time.sleep(300)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process, psutil.Process(process.pid).children(recursive=True)
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_process_that_started_it(
    owner: tuple[subprocess.Popen[str], list[psutil.Process]], number: signal.Signals
) -> None:
    process, children = owner
    assert len(children) >= 3
    process.send_signal(number)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
