"""A leftover's label names one process of one machine, so that nothing that may be in use is ever removed."""

from __future__ import annotations

import os
import subprocess
import sys

from pytest_openenv_scale.targets.common.leftovers import is_alive, owner_label

LABEL = (
    "from pytest_openenv_scale.targets.common.leftovers import owner_label; print(owner_label(), flush=True); input()"
)


def test_a_running_process_owns_what_it_labelled() -> None:
    assert is_alive(owner_label())
    assert owner_label() == owner_label()
    assert owner_label().startswith(f"{os.getpid()}:")


def test_a_killed_process_owns_nothing_even_before_it_is_reaped() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", LABEL], **pipes, text=True) as owner:
        assert owner.stdout is not None
        label = owner.stdout.readline().strip()
        assert is_alive(label)
        owner.kill()
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(label)
    assert not is_alive(label)


def test_a_later_process_of_the_same_number_is_another_one() -> None:
    pid, started, machine = owner_label().split(":")
    assert not is_alive(f"{pid}:{started}0:{machine}")


def test_what_another_machine_or_somebody_else_labelled_may_be_alive() -> None:
    pid, started, _ = owner_label().split(":")
    assert is_alive(f"{pid}:{started}9:elsewhere")
    assert is_alive("")
    assert is_alive("not a label of ours")
