"""A file is replaced whole or not at all, and what is waited for is looked at until it is there or time is up."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.files import json_output, replacing
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
    for path in (tmp_path / "out.json", Path("/dev/null"), None):
        with json_output(path) as write_json:
            write_json({"text": "é"})
    assert (tmp_path / "out.json").read_text(encoding="utf-8") == '{\n "text": "é"\n}\n'
    for refused in (tmp_path, tmp_path / "nowhere" / "out.json"):
        with pytest.raises(GrammarError) as caught, json_output(refused):
            pytest.fail("it may not begin")
        golden(caught.value)
    (tmp_path / "folder").mkdir()
    with json_output(tmp_path / "folder" / "out.json") as write_json:
        (tmp_path / "folder").rmdir()
        with pytest.raises(GrammarError) as caught:
            write_json({})
    golden(caught.value)


def test_standard_output_as_the_file_of_json_gets_nothing_else(capsys):
    with json_output(Path("-")) as write_json:
        print("what people read")
        write_json({"text": "é"})
    print("after it")
    assert capsys.readouterr() == ('{\n "text": "é"\n}\nafter it\n', "what people read\n")


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
