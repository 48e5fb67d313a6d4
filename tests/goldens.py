"""What people read, kept in files beside the tests: a test names the text, a file holds its words.

`tests/unit/golden/test_it.txt` holds the texts of `tests/unit/test_it.py`, each below a line `@@ name of the test`.
OPENENV_SCALE_WRITE_BASELINES=1 writes those of the tests that run; read what it changed before you commit it.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import pytest_openenv_scale

TITLE = "@@ "
TIMES = {r"(?<![\w.])\d[\d,.]*(?: / \d[\d,.]*)* (?:µs|ms|s|min|h)\b": "TIME"}
"""Masks times that were measured."""
NOW = {r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b": "NOW"}
"""Masks the minute in which a run is stored."""


def read(path: Path) -> dict[str, str]:
    """The texts of a file by their titles."""
    if not path.exists():
        return {}
    _, *sections = re.split(rf"^{TITLE}(.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {title: text.strip("\n") for title, text in zip(sections[::2], sections[1::2], strict=True)}


def write(path: Path, texts: Mapping[str, str]) -> None:
    text = "\n".join(f"{TITLE}{title}\n{text}\n" for title, text in sorted(texts.items()))
    path.write_text(text, encoding="utf-8")


class Golden:
    """Compares texts of one test with those it had when somebody read them."""

    def __init__(self, module: Path, test: str, temporary: Path) -> None:
        self.path = module.parent / "golden" / f"{module.stem}.txt"
        self._test = test
        self._times: Counter[str] = Counter()
        repository = re.escape(str(Path(__file__).parents[1]))
        package = re.escape(str(Path(pytest_openenv_scale.__file__).parent))  # Of the checkout, or of a wheel.
        self._masks = {
            rf"{re.escape(str(temporary))}/[\w-]+": "TMP",
            re.escape(sys.executable): "PYTHON",
            rf"(?:{repository}|{package})/deploy": "DEPLOY",
            package: "PACKAGE",
            repository: "REPOSITORY",
            r"\b\d{8}T\d{6}\.\d{3}Z-[0-9a-f]{8}\b": "RUN",
            r"\b0x[0-9a-f]{8,}\b": "ADDRESS",
            r"\b127\.0\.0\.1:\d+\b": "127.0.0.1:PORT",
            r"\b(127\.\d+\.\d+\.\d+):[1-9]\d{4}\b": r"\1:PORT",
        }

    def __call__(self, text: object, part: str = "", masks: Mapping[str, str] | None = None) -> None:
        """Compare a text, or several lines, after what varies (regular expressions) became a word.

        Of several texts of a test, each has a name (`part`) or its number.
        """
        title = f"{self._test} {part}".strip()
        self._times[title] += 1
        if self._times[title] > 1:
            title = f"{title} {self._times[title]:02}"
        lines = [text] if isinstance(text, str) or not isinstance(text, Iterable) else [*text]
        text = "\n".join(map(str, lines))
        for pattern, word in {**(masks or {}), **self._masks}.items():
            text = re.sub(pattern, word, text)
        text = text.strip("\n")
        if os.environ.get("OPENENV_SCALE_WRITE_BASELINES"):
            self._write(title, text)
            return
        stored = read(self.path).get(title, "")
        if text != stored:
            lines = difflib.unified_diff(stored.splitlines(), text.splitlines(), "held", "now", lineterm="")
            pytest.fail("\n".join([f"{self.path}: {title}", *lines]), pytrace=False)

    def _write(self, title: str, text: str) -> None:
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a") as file:
            # Tests of one file may run in several processes of xdist.
            fcntl.flock(file, fcntl.LOCK_EX)
            write(self.path, {**read(self.path), title: text})
