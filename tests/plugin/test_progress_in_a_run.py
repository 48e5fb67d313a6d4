"""Live lines: one per finished cell, or one that is rewritten on a terminal; never in the way of anything."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

CELL = "ws wait 0.01 s · batch 2 · ok 100.0 %*"


@pytest.mark.parametrize("arguments", [(), ("-q",), ("-v",), ("-s",), ("--capture=sys",), ("-p", "no:capture")])
def test_every_finished_cell_is_a_line(swept, arguments):
    result = swept.run(*arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["ws wait 0.01 s · batch 1 · ok 100.0 %*", CELL])


@pytest.mark.parametrize("arguments", [("-qq",), ("-p", "no:terminal")])
def test_fewer_lines_are_possible(swept, arguments):
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


def test_a_terminal_shows_one_line_per_curve_that_is_rewritten(inner):
    inner.tests("@pytest.mark.scaling\ndef test_scale(scaling):\n    scaling.run()\n")
    text = _on_a_terminal(inner, "--openenv-target", "fake,seconds=0.1")
    curve = "fake · ws · wait 0.01 s"
    live = [line for line in text.split("\n") if line.startswith(f"\r{curve}")]
    assert len(live) == 1
    updates = [part.strip() for part in live[0].split("\r") if part.strip()]
    assert any("batch 2 · 2 open, 0 of 2 over" in part for part in updates)
    assert updates[-1].startswith(f"{curve} · max batch ≥ 2")
    assert all(len(part) < 100 for part in updates)


def _on_a_terminal(inner, *arguments: str) -> str:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "pytest", "--color=no", *arguments]
    env = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(command, cwd=inner.path, env=env, stdout=theirs, stderr=theirs, stdin=theirs) as process:
        os.close(theirs)
        chunks = []
        while chunk := _read(ours):
            chunks.append(chunk)
        code = process.wait(60)
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", b"".join(chunks).decode()).replace("\r\n", "\n")
    assert code == pytest.ExitCode.OK, text
    return text


def _read(terminal: int) -> bytes:
    """What comes next; nothing once the other side is closed, which Linux tells by an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
