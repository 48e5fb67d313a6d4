"""A child process is started, watched and ended, and nothing of it is ever left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from goldens import Golden
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.targets.common.sampling import LocalServers
from pytest_openenv_scale.targets.common.supervisor import ServerProcess
from pytest_openenv_scale.targets.local import serving

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="parent death signals are Linux's")


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def python(code: str, **options: Any) -> ServerProcess:
    return ServerProcess([sys.executable, "-c", textwrap.dedent(code)], **options)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def lines_of(process: ServerProcess, count: int) -> list[str]:
    assert eventually(lambda: len(process.log_tail().splitlines()) >= count), process.log_tail()
    return process.log_tail().splitlines()


def test_a_process_that_ended_is_among_those_that_run_no_more() -> None:
    code = "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1); "
    with python(code + "print(child.pid, flush=True); child.wait(); input()") as process:
        child = int(lines_of(process, 1)[0])
        assert process.processes() == {process.pid, child}
        os.kill(child, signal.SIGKILL)
        assert eventually(lambda: child not in (process.processes() or ()))
        assert process.pid in (process.processes() or ()) or process.exit_status() is not None


LISTEN = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1])), reuse_port=False) as listener:
    print(listener.getsockname()[1], flush=True)
    input()
"""


def listener(port: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LISTEN, str(port)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_who_listens_where_a_server_ended_is_the_server_from_then_on() -> None:
    with listener() as first:
        assert first.stdout is not None
        port = int(first.stdout.readline())
        servers = LocalServers((f"http://127.0.0.1:{port}",))
        assert (servers.processes(), servers.exit_status()) == ({first.pid}, None)
        first.kill()
        first.wait()
    assert str(servers.exit_status()) == "ended"
    with listener(port) as second:
        assert second.stdout is not None
        second.stdout.readline()
        assert (servers.exit_status(), servers.processes(), servers.pids) == (None, {second.pid}, (second.pid,))
        sample = servers.sample()
        assert sample is not None
        assert sample.restarts == 1
        second.kill()


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exited with code 0"), (3, "exited with code 3"), (-9, "killed by SIGKILL")]
)
def test_an_end_is_put_in_words(code: int, words: str) -> None:
    assert str(ExitStatus.from_returncode(code)) == words


def test_output_of_both_streams_is_in_the_log_also_after_the_end() -> None:
    with python("import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(3)") as process:
        assert eventually(lambda: process.exit_status() is not None)
        assert str(process.exit_status()) == "exited with code 3"
    assert process.log_tail().splitlines() == ["out", "err"]
    assert process.log_tail(1) == "err"
    assert process.log_tail(0) == ""
    assert process.with_log("what") == "what\nthe server's log ends:\nout\nerr"


def test_a_log_file_is_kept_and_only_this_start_is_read_from_it(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "server.log"
    for word in ("first", "second"):
        with python(f"print('{word}')", log_path=path) as process:
            assert eventually(lambda: process.exit_status() is not None)
            assert process.log_tail() == word
    assert path.read_text() == "first\nsecond\n"


def test_a_log_that_cannot_be_written_is_one_clear_line(golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetError) as caught:
        python("", log_path=tmp_path / "file" / "server.log").start()
    golden(caught.value)


def test_a_command_that_does_not_exist_says_so_in_the_log(golden: Golden) -> None:
    with ServerProcess(["no-such-command-anywhere"]) as process:
        assert eventually(lambda: process.exit_status() is not None)
        golden(process.log_tail())


def test_stopping_lets_a_process_end_by_itself() -> None:
    with python(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("goodbye", flush=True), sys.exit(0)))
        print("up", flush=True)
        time.sleep(60)
        """
    ) as process:
        lines_of(process, 1)
    assert process.log_tail().splitlines() == ["up", "goodbye"]
    assert str(process.exit_status()) == "exited with code 0"


STUBBORN = """
    import os, signal, subprocess, sys, time
    stubborn = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print(1, flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", stubborn])
    print(child.pid, flush=True)
    {then}
"""


def test_a_stubborn_process_is_killed_together_with_its_children() -> None:
    code = STUBBORN.format(then="signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    with python(code, stop_s=0.2) as process:
        child = int(lines_of(process, 2)[0])
        assert runs(child)
    assert str(process.exit_status()) == "killed by SIGKILL"
    assert not runs(child)
    assert not runs(process.pid)


def test_children_are_killed_also_when_their_parent_has_ended_by_itself() -> None:
    with python(STUBBORN.format(then="")) as process:
        child = int(lines_of(process, 2)[0])
        assert eventually(lambda: process.exit_status() is not None)
        assert runs(child)
    assert not runs(child)


def test_stopping_twice_or_before_the_start_does_nothing() -> None:
    process = python("import time; time.sleep(60)")
    process.stop()
    process.start()
    process.stop()
    process.stop()
    assert str(process.exit_status()) == "killed by SIGTERM"


def test_an_interrupt_while_stopping_still_leaves_nothing() -> None:
    process = python(STUBBORN.format(then="signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"))
    process.start()
    child = int(lines_of(process, 2)[0])
    timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        process.stop()
    timer.join()
    assert not runs(child)
    assert not runs(process.pid)


@on_linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_dies_with_a_pytest_that_is_killed(number: signal.Signals) -> None:
    code = """
    import sys, time
    from pytest_openenv_scale.targets.common.supervisor import ServerProcess
    process = ServerProcess([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"])
    process.start()
    while not process.log_tail():
        time.sleep(0.01)
    print(process.pid, flush=True)
    time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert runs(child)
        parent.send_signal(number)
        parent.wait()
    assert eventually(lambda: not runs(child))


@on_linux
def test_a_process_started_by_a_thread_outlives_that_thread() -> None:
    process = python("import time; print('up', flush=True); time.sleep(60)")
    starter = threading.Thread(target=process.start)
    starter.start()
    starter.join()
    try:
        lines_of(process, 1)
        with pytest.raises(psutil.TimeoutExpired):
            psutil.Process(process.pid).wait(0.3)
        assert process.exit_status() is None
    finally:
        process.stop()


LIMIT = "import resource; print('{} {}'.format(*resource.getrlimit(resource.RLIMIT_NOFILE)))"


@pytest.mark.parametrize("nofile", [None, 64])
def test_the_soft_limit_of_descriptors_is_the_hard_one_unless_given(nofile: int | None) -> None:
    with python(LIMIT, nofile=nofile) as process:
        soft, hard = map(int, lines_of(process, 1)[0].split())
    assert soft == (hard if nofile is None else nofile)


def test_a_limit_above_the_hard_one_is_refused_in_the_log(golden: Golden) -> None:
    with python("", nofile=2**40) as process:
        assert eventually(lambda: process.exit_status() is not None)
        golden(process.log_tail(), masks={r"hard limit \d+": "hard limit N"})


def test_a_sample_covers_the_process_tree_and_the_process_nearest_to_its_descriptor_limit() -> None:
    code = """
    import os, subprocess, sys, time
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(40)]
    work = "import time; sum(range(10**6)); print(1, flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", work])
    time.sleep(60)
    """
    with python(code, nofile=64) as process:
        lines_of(process, 1)
        sample = process.sample()
    assert sample is not None
    assert sample.processes == 2
    assert (sample.cpu_seconds or 0) > 0
    assert (sample.rss_bytes or 0) > 1_000_000
    assert (sample.threads or 0) >= 2
    assert (sample.descriptors or 0) >= 40
    assert sample.descriptor_limit == 64
    assert (sample.all_descriptors or 0) >= (sample.descriptors or 0) + 3, "the child has its own"
    assert process.sample() is None


def test_where_the_end_of_a_child_cannot_be_looked_at_hypercorn_keeps_its_own_signals(monkeypatch) -> None:
    monkeypatch.delattr(os, "waitid", raising=False)
    before = signal.getsignal(signal.SIGCHLD)
    assert serving._notice_killed_workers() == []
    assert signal.getsignal(signal.SIGCHLD) is before
