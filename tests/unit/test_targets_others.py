"""`openenv-scale show -p` and `gc -p`: targets of others, from modules with the hook, without pytest."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldens import Golden
from pytest_openenv_scale.__main__ import main

MODULE = """
class Staging:
    def __init__(self, spec, context):
        self.spec = str(spec)
        self.context = context

    def describe(self):
        return [("tunnel", f"ssh staging, for {self.context.largest_batch}")]

    def collect(self, dry_run):
        return [f"tunnel of {self.spec}"]


class Plain:
    spec = "plain"


def pytest_openenv_scale_target(spec, largest_batch, context):
    assert context.largest_batch == largest_batch
    return Staging(spec, context) if spec.name == "staging" else Plain() if spec.name == "plain" else None
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that only the current folder has."""
    (tmp_path / "staging_target.py").write_text(MODULE)
    (tmp_path / "needs_settings.py").write_text("def pytest_openenv_scale_target(spec, settings):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "staging_target"


def test_a_target_of_others_is_shown_beside_those_of_ours(
    golden: Golden, module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "-p", module, "staging,port=1", "http://h:1", "--batch", "7"]) == 0
    golden(capsys.readouterr().out)


def test_what_a_target_of_others_left_is_collected(
    golden: Golden, module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gc", "--dry-run", "-p", module, "staging,port=1"]) == 0
    golden(capsys.readouterr().out)


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "-p", "staging_target", "plain"),
        ("show", "-p", "staging_target", "nope"),
        ("show", "-p", "no_such_module_here", "plain"),
        ("show", "-p", "json", "plain"),
        ("show", "-p", "needs_settings", "plain"),
        ("gc", "-p", "staging_target", "plain"),
        ("gc", "-p", "staging_target", "local"),
        ("gc", "staging"),
    ],
)
def test_what_cannot_be_done_with_it_is_one_line(
    golden: Golden, module: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    golden(captured.err)
    assert captured.err.count("\n") == 1
