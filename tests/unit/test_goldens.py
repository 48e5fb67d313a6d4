"""The files that hold what people read: what varies is masked, and no text outlives its test."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import goldens
from goldens import Golden

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.glob("*/golden/test_*.txt"))


@pytest.fixture
def make_golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Golden]:
    """The texts of a test that has none yet, each time it runs; where they are compared, not written."""
    monkeypatch.delenv("OPENENV_SCALE_WRITE_BASELINES", raising=False)
    return lambda: Golden(tmp_path / "test_it.py", "test_one", tmp_path.parent)


def test_a_text_is_written_when_asked_and_compared_after(
    make_golden: Callable[[], Golden], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(golden: Golden) -> None:
        golden("words\n\nof several lines\n")
        golden("more of them", "again")
        golden(["a third", "and fourth"])

    with pytest.raises(pytest.fail.Exception, match=r"test_it\.txt: test_one[^$]*\+words"):
        compare(make_golden())
    with monkeypatch.context() as patch:
        patch.setenv("OPENENV_SCALE_WRITE_BASELINES", "1")
        compare(make_golden())
    compare(make_golden())
    assert goldens.read(make_golden().path) == {
        "test_one": "words\n\nof several lines",
        "test_one again": "more of them",
        "test_one 02": "a third\nand fourth",
    }
    with pytest.raises(pytest.fail.Exception, match=r"-words[^@]*\+other words"):
        make_golden()("other words")


def test_what_varies_is_a_word(make_golden: Callable[[], Golden], tmp_path: Path) -> None:
    golden = make_golden()
    golden.path.parent.mkdir()
    texts = {"test_one": "at 127.0.0.1:PORT and 127.0.0.2:PORT, run RUN in TMP/a.txt, N of 7 in TIME"}
    goldens.write(golden.path, texts)
    text = "at 127.0.0.1:4711 and 127.0.0.2:45678, run 20261130T010336.104Z-d9b27c04 in "
    text += f"{tmp_path}/a.txt, 3 of 7 in 8 / 10 ms"
    golden(text, masks={r"\d of": "N of", **goldens.TIMES})
    assert goldens.read(golden.path) == texts


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parents[1].name}/{path.stem}")
def test_every_text_has_its_test(path: Path) -> None:
    module = ast.parse((path.parents[1] / f"{path.stem}.py").read_text())
    tests = {node.name for node in ast.walk(module) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    assert {title.replace("[", " ").split()[0] for title in goldens.read(path)} <= tests
