"""What is shown while something goes on: a line that moves on a terminal, else a line per cell; never in the way."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pytest_openenv_scale.core.measure_lock import measure_lock

CELL = "fake · ws wait 0.01 s · batch 2 · ok 100.0 %*"


@pytest.mark.parametrize("arguments", [(), ("-s",), ("-p", "no:capture")])
def test_every_finished_cell_is_a_line_that_names_its_target(swept, arguments):
    result = swept.run(*arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["fake · ws wait 0.01 s · batch 1 · ok 100.0 %*", CELL])


@pytest.mark.parametrize("arguments", [("-q",), ("-p", "no:terminal")])
def test_a_quiet_run_shows_none(swept, arguments):
    swept.run(*arguments).stdout.no_fnmatch_line(CELL)


def test_the_lines_of_a_test_that_captures_are_not_captured(inner):
    inner.tests(
        "@pytest.mark.scaling\ndef test_scale(scaling, capsys):\n    print('before')\n"
        "    scaling.run()\n    print('after')\n    assert capsys.readouterr().out == 'before\\nafter\\n'\n"
    )
    result = inner.run_process()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([CELL])


def test_that_the_wait_means_nothing_is_said_once_per_test(inner):
    inner.tests("@pytest.mark.scaling\ndef test_scale(scaling):\n    assert len(scaling.run().curves) == 1\n")
    result = inner.run("--openenv-target", "fake,nowait=1", "--openenv-waits", "0.1,1")
    result.assert_outcomes(passed=1)
    assert sum("takes no wait_seconds" in line for line in result.outlines) == 1


def test_a_run_waits_for_a_measurement_of_another_as_long_as_it_may_and_names_it(golden, swept):
    with measured_by_another():
        result = swept.run("--openenv-lock-timeout", "0")
    result.assert_outcomes(failed=1)
    lines = [line for line in result.outlines if "held by" in line and not line.startswith("FAILED")]
    golden(lines, masks={r"process \d+": "process OF THAT", r"since \S+?(?=:? |$)": "since THEN"})


@contextmanager
def measured_by_another() -> Iterator[None]:
    """Another run measures on this machine."""
    began, ends = threading.Event(), threading.Event()

    def measure() -> None:
        with measure_lock(command="pytest test_other.py", run_id="another"):
            began.set()
            ends.wait()

    thread = threading.Thread(target=measure)
    thread.start()
    began.wait()
    yield
    ends.set()
    thread.join()


def test_a_terminal_shows_one_line_that_moves_and_keeps_one_per_curve(swept):
    code, text = _on_a_terminal(swept, "--openenv-target", "fake,seconds=0.1")
    assert code == pytest.ExitCode.OK
    lines = re.split(r"[\r\n]", text)
    drawn = [line for line in lines if " · cell " in line]
    assert any("fake · ws · wait 0.01 s · batch 2 · cell 2/2 · step 0/2 · 2 open" in line for line in drawn)
    assert max(map(len, drawn)) < 100
    assert any(line.startswith("fake · ws · wait 0.01 s · max batch ≥ 2") for line in lines)
    assert "batch 2 · ok" not in text


def test_an_interrupt_leaves_nothing_of_the_line(swept):
    interrupted: list[bool] = []

    def interrupt(process: subprocess.Popen[bytes], text: str) -> None:
        if "cell 1/2 · step" in text and not interrupted:
            interrupted.append(True)
            process.send_signal(signal.SIGINT)

    code, text = _on_a_terminal(swept, "--openenv-target", "fake,seconds=60", on_text=interrupt)
    assert code == pytest.ExitCode.INTERRUPTED
    last_drawn = text.rindex("left")
    assert re.match(r"left *\r\n\r", text[last_drawn:]), text[last_drawn:][:50]
    assert "left" not in text[text.index("KeyboardInterrupt") :]
    assert swept.manifest["status"] == "interrupted"


def _on_a_terminal(
    inner, *arguments: str, on_text: Callable[[subprocess.Popen[bytes], str], None] = lambda process, text: None
) -> tuple[int, str]:
    """How pytest ends on a terminal, and what it sends there; `on_text` sees each piece of it as it comes.

    What hides the cursor fails: nothing would show it again where the program is killed.
    """
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pytest", "--color=no", *arguments]
    env = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(command, cwd=inner.path, env=env, stdout=theirs, stderr=theirs, stdin=theirs) as process:
        os.close(theirs)
        chunks = []
        while chunk := _read(ours):
            chunks.append(chunk)
            on_text(process, chunk.decode(errors="replace"))
        code = process.wait(60)
    os.close(ours)
    sent = b"".join(chunks).decode()
    assert "\x1b[?25" not in sent
    return code, re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", sent).replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    """What comes next; nothing once the other side is closed, which Linux tells by an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
