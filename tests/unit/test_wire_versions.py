"""The recordings of real servers: comparable, and different between versions in what is listed and in nothing else."""

from __future__ import annotations

import wire_cases
import wire_versions
from wire_cases import Settling


def test_versions_differ_in_what_is_listed_and_in_nothing_else():
    assert wire_versions.differences() == []


def test_a_line_of_the_table_too_many_or_too_few_is_noticed(monkeypatch):
    listed = {name: versions for name, versions in wire_versions.HEARD.items() if name != "mcp_socket"}
    monkeypatch.setattr(wire_versions, "HEARD", listed | {"happy": {("0.2.0",): (403,)}})
    monkeypatch.setattr(wire_versions, "STATUS", {"GET /mcp": {("0.3.0",): 404}})
    lines = wire_versions.differences()
    assert any(line.startswith("0.2.1 probe: mcp_socket: answered (403,)") for line in lines)
    assert any(line.startswith("0.2.0 probe: happy: answered ") for line in lines)
    assert any(line.startswith("0.2.0 benchmark: POST /mcp: answered (404,") for line in lines)
    assert any(line.startswith("0.3.0 benchmark: GET /mcp: answered ") for line in lines)


def test_a_recording_that_was_not_settled_is_noticed(monkeypatch):
    monkeypatch.setattr(wire_cases, "_IDENTITIES", ("text",))
    assert any("differs between equal runs" in line for line in wire_versions.differences())


def test_settling_keeps_apart_what_was_apart():
    settle = Settling()
    assert [settle({"session_hash": text})["session_hash"][-1] for text in "abca"] == ["1", "2", "3", "1"]
    assert settle({"pid": 31, "waited_seconds": 0.0, "url": "x"}) == {"pid": 1, "waited_seconds": 0.0}
    assert settle({"pid": 32, "waited_seconds": 0.2}) == {"pid": 2, "waited_seconds": 0.01}
    assert settle({"message": "Invalid JSON: Expecting value"}) == {"message": "Invalid JSON: …"}
    assert settle({"message": "'text'"}) == {"message": "…"}
    assert settle({"message": "Unknown session_id: x"}) == {"message": "Unknown session_id: x"}
