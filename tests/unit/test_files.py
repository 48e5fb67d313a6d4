"""A file is replaced whole or not at all, and what is waited for is looked at until it is there or time is up."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.files import check_json_option, replacing, write_json_option
from pytest_openenv_scale.core.system import wait_for


@pytest.mark.parametrize("synced", [False, True])
def test_a_file_is_replaced_once_its_content_is_complete(tmp_path, synced):
    path = tmp_path / "file.json"
    path.write_text("before")
    with replacing(path, synced=synced) as file:
        file.write(b"after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_stays_as_it_was_where_its_content_cannot_be_made(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("before")
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"half of it", "no bytes"])
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_of_json_is_text_for_people_and_may_be_a_device(golden, tmp_path):
    path = check_json_option(tmp_path / "out.json")
    write_json_option(path, {"text": "é"})
    assert path.read_text(encoding="utf-8") == '{\n "text": "é"\n}\n'
    write_json_option(check_json_option(Path("/dev/null")), {})
    with pytest.raises(GrammarError) as caught:
        check_json_option(tmp_path)
    golden(caught.value)
    with pytest.raises(GrammarError) as caught:
        write_json_option(tmp_path / "nowhere" / "out.json", {})
    golden(caught.value)


def test_what_is_waited_for_is_returned_as_soon_as_it_is_there():
    numbers = itertools.count()
    assert wait_for(lambda: next(numbers), 5.0, 0.001) == 1
    assert wait_for(lambda: next(numbers), 5.0, 0.001, until=lambda number: number > 4) == 5


def test_what_does_not_come_is_not_waited_for_longer_than_asked():
    began = time.monotonic()
    assert wait_for(lambda: None, 0.05, 0.01) is None
    assert 0.05 <= time.monotonic() - began < 2.0
    looks = itertools.count()
    assert wait_for(lambda: next(looks), 0.0, 1.0) == 0
