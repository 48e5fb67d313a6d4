"""`openenv.yaml` names the application of an environment repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldens import Golden
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.targets.common.application import is_app_name, manifest_app


def test_without_the_file_there_is_no_app(tmp_path: Path) -> None:
    assert manifest_app(tmp_path) is None


def test_the_app_is_read_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "openenv.yaml").write_text("spec_version: 1\nname: e\napp: server.app:app\nport: 8000\n")
    assert manifest_app(tmp_path) == "server.app:app"


@pytest.mark.parametrize(
    "content",
    [
        "name: e\n",
        "- a\n- b\n",
        "",
        "app: server.app\n",
        "app: [1]\n",
        "a: b\nc: [\n",
        "\xff\xfe",
    ],
)
def test_a_file_that_names_no_app_is_one_clear_line_with_its_path(golden: Golden, tmp_path: Path, content: str) -> None:
    (tmp_path / "openenv.yaml").write_text(content, encoding="latin-1")
    with pytest.raises(TargetError) as caught:
        manifest_app(tmp_path)
    line = str(caught.value)
    assert line.startswith(str(tmp_path / "openenv.yaml"))
    golden(line)
    assert "\n" not in line


@pytest.mark.parametrize("text", ["a:b", "a.b.c:d.e", "_a:b2"])
def test_dotted_names_around_a_colon_name_an_app(text: str) -> None:
    assert is_app_name(text)


@pytest.mark.parametrize("text", ["a", "a:", ":b", "a b:c", "a/b.py:c", "a:b:c", "a:b()"])
def test_anything_else_names_none(text: str) -> None:
    assert not is_app_name(text)
