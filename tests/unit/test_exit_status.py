"""How a server ended: read from codes of processes and shells, and from the sentences of version 0.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.core.endpoint import ExitStatus


@pytest.mark.parametrize(
    ("code", "status", "killed"),
    [
        (0, ExitStatus("exited", "exited with code 0", code=0), False),
        (3, ExitStatus("exited", "exited with code 3", code=3), False),
        (137, ExitStatus("exited", "exited with code 137", code=137, signal="SIGKILL"), True),
        (255, ExitStatus("exited", "exited with code 255", code=255), False),
        (-9, ExitStatus("killed", "killed by SIGKILL", signal="SIGKILL"), True),
        (-15, ExitStatus("killed", "killed by SIGTERM", signal="SIGTERM"), False),
        (-99, ExitStatus("killed", "killed by signal 99"), False),
    ],
)
def test_a_return_code(code: int, status: ExitStatus, killed: bool) -> None:
    assert ExitStatus.from_returncode(code) == status
    assert status.was_killed is killed


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (1, ExitStatus("exited", "exited with code 1", code=1)),
        (128, ExitStatus("exited", "exited with code 128", code=128)),
        (137, ExitStatus("killed", "killed by SIGKILL", signal="SIGKILL")),
        (143, ExitStatus("killed", "killed by SIGTERM", signal="SIGTERM")),
        (192, ExitStatus("killed", "killed by SIGRTMAX", signal="SIGRTMAX")),
        (193, ExitStatus("exited", "exited with code 193", code=193)),
    ],
)
def test_a_code_of_a_shell_tells_a_signal_beyond_128(code: int, status: ExitStatus) -> None:
    assert ExitStatus.from_shell(code) == status


MEMORY = "exited with code 137: out of memory (its limit is memory=64m; write a larger memory=)"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        # A process of this machine.
        ("exited with code 1", {"kind": "exited", "code": 1}),
        ("killed by SIGKILL", {"kind": "killed", "signal": "SIGKILL"}),
        ("killed by signal 99", {"kind": "killed"}),
        # A container.
        ("exited with code 137: killed by SIGKILL", {"kind": "exited", "code": 137, "signal": "SIGKILL"}),
        ("exited with code 127: no such file", {"kind": "exited", "code": 127}),
        (MEMORY, {"kind": "exited", "code": 137, "signal": "SIGKILL", "out_of_memory": True}),
        ("was restarted at 2026-11-30T01:02:03 UTC, which ended its sessions", {"kind": "other"}),
        ("was removed by somebody else", {"kind": "other"}),
        # Behind Envoy, and Envoy itself.
        ("replica 127.0.0.2:8000 killed by SIGKILL", {"kind": "killed", "signal": "SIGKILL"}),
        (
            f"replica 127.0.0.2:8000 {MEMORY}",
            {"kind": "exited", "code": 137, "signal": "SIGKILL", "out_of_memory": True},
        ),
        ("Envoy exited with code 1", {"kind": "exited", "code": 1}),
        ("Envoy 2 of 3 killed by SIGSEGV", {"kind": "killed", "signal": "SIGSEGV"}),
        # Slurm.
        (
            "job 123 ended as FAILED (NonZeroExitCode, exited with code 3)",
            {"kind": "job", "stage": "FAILED", "code": 3},
        ),
        ("job 123 ended as TIMEOUT (TimeLimit)", {"kind": "job", "stage": "TIMEOUT"}),
        ("job 123 ended as CANCELLED", {"kind": "job", "stage": "CANCELLED"}),
        ("job 123 is being ended by Slurm (COMPLETING)", {"kind": "other"}),
        ("the script in job 123 exited with code 1", {"kind": "exited", "code": 1}),
        ("replica node2:8000 on node2 killed by SIGKILL", {"kind": "killed", "signal": "SIGKILL"}),
        ("Envoy on node1 killed by SIGTERM", {"kind": "killed", "signal": "SIGTERM"}),
        # A Space.
        ("the Space went to sleep (stage SLEEPING)", {"kind": "stage", "stage": "SLEEPING"}),
        ("the Space was paused (stage PAUSED)", {"kind": "stage", "stage": "PAUSED"}),
        (
            "the Space stopped with an error (stage RUNTIME_ERROR): exited with code 1",
            {"kind": "stage", "stage": "RUNTIME_ERROR", "code": 1},
        ),
        # What nobody knows more of.
        ("ended", {"kind": "other"}),
        ("", {"kind": "other"}),
    ],
)
def test_a_sentence_of_version_0_1(text: str, fields: dict[str, object]) -> None:
    assert ExitStatus.parse(text) == ExitStatus(**{"text": text, **fields})


PIECES = (
    "exited with code ",
    "killed by ",
    "SIGKILL",
    "SIGNONE",
    "the Space ",
    "(stage ",
    "job 1 ended as ",
    "1",
    "9" * 5000,
)


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join)))
def test_any_text_is_read_and_kept(text: str) -> None:
    status = ExitStatus.parse(text)
    assert str(status) == status.text == text
    assert ExitStatus.from_json(status.to_json()) == status


def test_the_words_of_a_code_are_read_as_that_code() -> None:
    for code in range(-64, 256):
        status = ExitStatus.from_returncode(code)
        assert ExitStatus.parse(status.text) == status


def test_what_has_a_name_is_told_with_it() -> None:
    status = ExitStatus.from_returncode(-9).of("replica 127.0.0.2:8000")
    assert status.text == "replica 127.0.0.2:8000 killed by SIGKILL"
    assert status == ExitStatus.parse(status.text)
