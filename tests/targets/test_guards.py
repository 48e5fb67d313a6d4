"""Each guard fires on a cause that is planted, and the same cell without it is met."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from components import lacking
from load_processes import workers
from playing import WAITING, order
from pytest_openenv_scale.analysis.run import load_run
from pytest_openenv_scale.config.limits import Slo, make_limit
from pytest_openenv_scale.load.runner import CellResult, LoadGenerator
from pytest_openenv_scale.metrics.summary import summarise
from pytest_openenv_scale.results.cell import CellMeta
from pytest_openenv_scale.results.outcome import CurveVerdict
from pytest_openenv_scale.results.parts import rows_to_table
from pytest_openenv_scale.verdict.sweep import judge_curve
from pytest_run import PytestRun, command, environ, write_test
from server_process import running_server

pytestmark = pytest.mark.alone

ALL_SUCCEED = Slo((make_limit("success", 1.0, "test"),))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The benchmark environment, outside whatever the client is confined to."""
    with running_server() as (_, address):
        yield f"http://{address}"


def measured(
    folder: Path, batch: int, *options: str, before: tuple[str, ...] = (), confine: Callable[[], None] | None = None
) -> CurveVerdict:
    """Run pytest as a user would, every session asked to succeed; the verdict on its one curve."""
    folder.mkdir()
    mark = f"@pytest.mark.scaling(batches=[{batch}], waits=[0.5])\n@pytest.mark.slo(success=1.0)\n"
    write_test(folder, f"{mark}def test_it(scaling):\n    scaling.run()\n")
    done = subprocess.run(
        [*before, *command(*options)],
        cwd=folder,
        env=environ(PYTEST_ADDOPTS=""),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=confine,
    )
    ran = PytestRun(folder, done.returncode, done.stdout + done.stderr)
    assert (folder / ".openenv-results").is_dir(), ran.output
    ((curve,),) = (sweep.curves for sweep in load_run(ran.run_dir).sweeps)
    assert ran.code == (0 if curve.verdict.outcome == "met" else 1), ran.output
    return curve.verdict


def why(verdict: CurveVerdict) -> str:
    """The client's findings, in its words."""
    return "\n".join(reason.words or reason.kind for reason in verdict.reasons)


def words_of(verdict: CurveVerdict, cause: str) -> str:
    """The words of the one finding of this kind."""
    (words,) = [reason.words for reason in verdict.reasons if (reason.kind, reason.cause) == ("client", cause)]
    return words or ""


def not_started(verdict: CurveVerdict) -> list[object]:
    """How many sessions the client could not start, a number for each repetition where there are any."""
    return [reason.figures["sessions"] for reason in verdict.reasons if reason.cause == "client_limit"]


def met_undisturbed(measure: Callable[[int], CurveVerdict]) -> None:
    """Demand a met verdict once in three: a machine shared with others may disturb a cell by itself."""
    verdicts: list[CurveVerdict] = []
    while not verdicts or verdicts[-1].outcome != "met":
        assert len(verdicts) < 3, why(verdicts[-1])
        verdicts.append(measure(len(verdicts)))


# A core that others keep busy


@pytest.fixture
def apart() -> Iterator[tuple[str, int]]:
    """A server on one core, and the number of another core that is left to the client."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("a core for the server and one for the client need two cores")
    os.sched_setaffinity(0, {cores[0]})
    try:
        with running_server() as (_, address):
            os.sched_setaffinity(0, cores)
            yield f"http://{address}", cores[1]
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def burning(core: int, count: int) -> Iterator[None]:
    """Programs that never rest, each in a session of its own, so that each gets a share of the core of its own."""
    loop = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile True: pass"
    with ExitStack() as stack:
        for _ in range(count):
            burner = subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE, start_new_session=True)
            stack.callback(burner.wait)
            stack.callback(burner.kill)
            assert burner.stdout is not None
            stack.enter_context(burner.stdout)
            burner.stdout.readline()
        yield


def judged(result: CellResult, request) -> CurveVerdict:
    meta = CellMeta(
        "run", "sweep", request.cell, 1, result.wall_s, result.started_at, client={}, findings=result.findings
    )
    return judge_curve(request.cell.curve, [summarise(rows_to_table(result.rows, meta), meta)], ALL_SUCCEED)


def test_a_core_that_burners_keep_busy_makes_the_cell_inconclusive(apart, golden):
    url, core = apart
    request = order(url, batch=200, steps=30, wait=0.0, arrival="burst", workload=WAITING, timeout=60)
    with LoadGenerator(1) as generator:
        generator.run_cell(order(url))
        (worker,) = workers(generator)
        worker.cpu_affinity([core])
        met_undisturbed(lambda _: judged(generator.run_cell(request), request))
        with burning(core, 12):
            result = generator.run_cell(request)
            # A server that others keep from its own core leaves the client too little to do.
            for _ in range(2):
                result = result if result.findings else generator.run_cell(request)
        verdict = judged(result, request)
    assert [row.success for row in result.rows] == [True] * 200
    assert verdict.outcome == "inconclusive"
    words = words_of(verdict, "cpu")
    assert f" {result.client.starved_share:.0%} of the time" in words
    assert result.client.starved_share > 0.5
    golden(words, masks={r"used .*? and waited for one \d+%": "used N % and waited for one N %"})


# Too few descriptors


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def test_too_few_descriptors_make_the_cell_inconclusive_before_it_starts(server, tmp_path, golden):
    target = ("--openenv-url", server)
    verdict = measured(tmp_path / "few", 400, *target, "--openenv-processes", "1", confine=few_descriptors)
    assert verdict.outcome == "inconclusive"
    golden(words_of(verdict, "descriptors"))
    assert not_started(verdict) == [400]
    met_undisturbed(lambda n: measured(tmp_path / f"auto-{n}", 400, *target, confine=few_descriptors))
    met_undisturbed(lambda n: measured(tmp_path / f"many-{n}", 400, *target, "--openenv-processes", "1"))


# Too few ports

NAMESPACE = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    for name, address in ((b"lo", "127.0.0.1"), (b"lo:1", "10.77.0.1")):
        address = socket.inet_aton(address)
        fcntl.ioctl(sock, 0x8916, struct.pack("16sHH4s8x", name, socket.AF_INET, 0, address))  # SIOCSIFADDR
    fcntl.ioctl(sock, 0x891C, struct.pack("16sHH4s8x", b"lo", socket.AF_INET, 0, socket.inet_aton("255.0.0.0")))
with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
    file.write(sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"""
WIDE = "32768 60999"


@pytest.fixture
def namespace() -> Callable[[str], tuple[str, ...]]:
    """Give the words before a command that run it in a network of its own, with this range of ports."""

    def within(ports: str) -> tuple[str, ...]:
        return ("unshare", "--net", sys.executable, "-c", NAMESPACE, ports)

    try:
        tried = subprocess.run([*within(WIDE), "/bin/true"], capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        lacking("unshare (util-linux) is not installed")
    if tried.returncode:
        lacking(f"no network namespace can be made here: {tried.stderr.strip()}")
    return within


def test_too_few_ports_make_the_cell_inconclusive_before_it_starts(namespace, tmp_path, golden):
    target = ("--openenv-target", "local:builtin,host=10.77.0.1,workers=1")
    verdict = measured(tmp_path / "few", 200, *target, before=namespace("40000 40099"))
    assert verdict.outcome == "inconclusive"
    # The session that showed that the server is ready may still hold its port.
    masks = {r", \d+ of them still held by other connections": "", r"10\.77\.0\.1:40\d+": "10.77.0.1:PORT"}
    golden(words_of(verdict, "ports"), masks=masks)
    assert not_started(verdict) == [200]
    met_undisturbed(lambda n: measured(tmp_path / f"wide-{n}", 200, *target, before=namespace(WIDE)))


def test_on_loopback_more_source_addresses_make_up_for_few_ports(namespace, tmp_path):
    target = ("--openenv-target", "local:builtin,workers=1")
    met_undisturbed(lambda n: measured(tmp_path / str(n), 200, *target, before=namespace("40000 40099")))


# A loop that stands still

BLOCK = """
import asyncio, time

def act(session, step):
    if session == 0 and {blocks}:
        # Before the cell begins, which takes 0.5 s at least: until long after its answers are there.
        asyncio.get_running_loop().call_later(0.4, time.sleep, 0.8)
    return {{"wait_seconds": 0.5}}
"""


def test_a_loop_that_is_blocked_makes_the_cell_inconclusive(server, tmp_path, monkeypatch, golden):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, blocks in (("blocks", True), ("does_not", False)):
        (tmp_path / f"{name}.py").write_text(BLOCK.format(blocks=blocks))
    target = ("--openenv-url", server)
    verdict = measured(tmp_path / "blocked", 20, *target, "--openenv-action", "blocks:act", "--openenv-again", "1")
    assert verdict.outcome == "inconclusive"
    golden(words_of(verdict, "loop_lag"), masks={r"still for \d+ ms": "still for N ms"})
    (set_aside,) = [reason for reason in verdict.reasons if reason.kind == "set_aside"]
    assert (set_aside.cause, set_aside.figures["attempt"]) == ("loop_lag", 1)
    met_undisturbed(lambda n: measured(tmp_path / f"free-{n}", 20, *target, "--openenv-action", "does_not:act"))
