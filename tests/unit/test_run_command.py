"""`openenv-scale run` is pytest with the packaged test; both command lines are told from each other."""

from __future__ import annotations

import os
import sys

import pytest

from pytest_openenv_scale.__main__ import main
from pytest_openenv_scale.config.options import OPTIONS, RUN_ARGUMENTS
from pytest_openenv_scale.config.run_command import typed_command
from pytest_openenv_scale.core.text import redact_command

URL = "https://my-environment.example"


@pytest.fixture
def called(monkeypatch) -> list[str]:
    """What pytest is called with, behind what it always is."""
    arguments: list[str] = []

    def execute(program: str, words: list[str]) -> None:
        own = [sys.executable, "-P", "-m", "pytest", *RUN_ARGUMENTS]
        assert (program, words[: len(own)]) == (sys.executable, own)
        arguments.extend(words[len(own) :])
        raise SystemExit(0)  # As this process would be another one now.

    monkeypatch.setattr(os, "execv", execute)
    return arguments


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit:
        raise SystemExit(main(["run", *arguments]))
    return exit.value.code


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ([URL], [f"--openenv-url={URL}"]),
        (["env:server.env"], ["--openenv-url=env:server.env"]),
        (["local:builtin"], ["--openenv-target=local:builtin"]),
        ([URL, "local"], [f"--openenv-target={URL}", "--openenv-target=local"]),
        (["--target", "local"], ["--openenv-target=local"]),
        (["--batches", "1,8", URL], [f"--openenv-url={URL}", "--openenv-batches=1,8"]),
        ([URL, "--openenv-batches", "1,8"], [f"--openenv-url={URL}", "--openenv-batches=1,8"]),
        (
            [URL, "--insecure", "--reset=@a.jsonl"],
            [f"--openenv-url={URL}", "--openenv-reset=@a.jsonl", *("--openenv-insecure",)],
        ),
        (
            [URL, "--slo", "success>=1", "--slo", "rps>=9"],
            [f"--openenv-url={URL}", "--openenv-slo=success>=1", "--openenv-slo=rps>=9"],
        ),
        ([URL, "--", "-v", "-k", "x"], [f"--openenv-url={URL}", "-v", "-k", "x"]),
    ],
)
def test_every_option_is_that_of_pytest(called, typed, expected):
    assert run(*typed) == 0
    # In the order of the table, servers first.
    assert called == expected


def test_no_option_is_left_out(called):
    values = {"once": ["x"], "repeated": ["x"], "flag": []}
    words = [word for option in OPTIONS for word in (f"--{option.name}", *values[option.kind])]
    assert run(*words) == 0
    assert called == [option.flag if option.kind == "flag" else f"{option.flag}=x" for option in OPTIONS]


def test_a_wrong_command_line_is_one_line_and_pytests_exit_code(golden, called, capsys):
    wrong = [[], [URL, "--bathces", "1"], [URL, "-v"], [URL, "--batches"], [URL, "--", "--openenv-batches=1"]]
    assert [run(*arguments) for arguments in wrong] == [pytest.ExitCode.USAGE_ERROR] * len(wrong)
    assert called == []
    err = capsys.readouterr().err
    assert len(err.splitlines()) == len(wrong)
    golden(err)


def test_the_command_is_told_from_what_pytest_was_called_with():
    own = [f"--openenv-url={URL}", "--openenv-header=Authorization: Bearer 12345678", "--openenv-full-grid"]
    typed = typed_command([*RUN_ARGUMENTS, *own, "-v", "--junitxml=a.xml"])
    assert redact_command(typed) == (
        *("openenv-scale", "run", URL, "--header=Authorization: ***", "--full-grid"),
        *("--", "-v", "--junitxml=a.xml"),
    )
