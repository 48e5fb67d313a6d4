"""What Slurm says of a job, read in every form its versions write it in."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.targets.slurm import job_info
from pytest_openenv_scale.targets.slurm.job import parse_jobs
from pytest_openenv_scale.targets.slurm.job_info import (
    Job,
    JobReader,
    SlurmError,
    parse_fields,
    parse_json,
    parse_record,
)
from pytest_openenv_scale.targets.slurm.nodes import parse_addresses, parse_unusable

OLD = {
    "job_id": 7,
    "job_state": "RUNNING",
    "state_reason": "None",
    "state_description": "",
    "nodes": "node[1-2]",
    "node_count": 2,
    "cpus": 4,
    "partition": "debug",
    "exit_code": 0,
    "start_time": 0,
}
NEW = {
    "job_id": 7,
    "job_state": ["RUNNING"],
    "state_reason": "None",
    "state_description": "",
    "nodes": "node[1-2]",
    "node_count": {"set": True, "infinite": False, "number": 2},
    "cpus": {"set": True, "infinite": False, "number": 4},
    "partition": "debug",
    "exit_code": {
        "status": ["SUCCESS"],
        "return_code": {"set": True, "infinite": False, "number": 0},
        "signal": {"id": {"set": False, "infinite": False, "number": 0}, "name": ""},
    },
    "start_time": {"set": False, "infinite": False, "number": 0},
}
RECORD = (
    "JobId=7 JobName=openenv-scale-x UserId=root(0) Priority=1 JobState=RUNNING Reason=None ExitCode=0:0 "
    "TimeLimit=01:00:00 StartTime=2026-11-21T10:18:49 Partition=debug NodeList=node[1-2] BatchHost=node1 "
    "NumNodes=2 NumCPUs=4 Command=(null) WorkDir=/home/me Comment=JobState=FAILED StdOut=/dev/null Power="
)


def only(job: dict[str, Any]) -> Job:
    (found,) = parse_json(json.dumps({"jobs": [job]}))
    return found


@pytest.mark.parametrize("told", [OLD, NEW], ids=["22.05", "24.05"])
def test_json_of_old_and_new_versions_says_the_same(told: dict[str, Any]) -> None:
    assert only(told) == Job(7, "RUNNING", "", "node[1-2]", 2, 4, "debug", 0, None)


def test_text_says_the_same_as_json() -> None:
    started = datetime(2026, 11, 21, 10, 18, 49)
    assert parse_record(RECORD) == Job(7, "RUNNING", "", "node[1-2]", 2, 4, "debug", 0, started)


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ("PENDING", "PENDING"),
        (["PENDING"], "PENDING"),
        (["COMPLETING", "FAILED"], "FAILED"),
        (["RUNNING", "CONFIGURING"], "RUNNING"),
        (["COMPLETING"], "COMPLETING"),
        ("CANCELLED by 1000", "CANCELLED"),
        ("CANCELLED+COMPLETING", "CANCELLED"),
        ([], "UNKNOWN"),
        ("", "UNKNOWN"),
    ],
)
def test_a_state_is_one_word_or_a_list_with_flags(told: object, state: str) -> None:
    assert only({**OLD, "job_state": told}).state == state


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (0, 0),
        (768, 3),
        (9, -9),
        ({"status": "ERROR", "return_code": 3}, 3),
        ({"status": "SIGNALED", "return_code": 0, "signal": {"signal_id": 9, "name": "KILL"}}, -9),
        ({"return_code": {"set": True, "number": 3}, "signal": {"id": {"set": False, "number": 0}}}, 3),
        ({"return_code": {"set": False, "number": 0}, "signal": {"id": {"set": True, "number": 15}}}, -15),
        (None, None),
    ],
)
def test_exit_codes_of_three_generations(told: object, code: int | None) -> None:
    assert only({**OLD, "exit_code": told}).exit_code == code


def test_a_long_reason_outranks_the_short_one_and_an_expected_start_is_kept() -> None:
    told = {**OLD, "job_state": "PENDING", "state_reason": "ReqNodeNotAvail", "start_time": 1795256292}
    job = only({**told, "state_description": "ReqNodeNotAvail, UnavailableNodes:node3"})
    assert job.reason == "ReqNodeNotAvail, UnavailableNodes:node3"
    assert job.starts_at == datetime.fromtimestamp(1795256292)
    text = (
        "JobId=1 JobName=x JobState=PENDING Reason=ReqNodeNotAvail,_UnavailableNodes:node3 NodeList=(null) NumNodes=3-3"
    )
    pending = parse_record(text)
    assert pending is not None
    assert (pending.reason, pending.nodes, pending.node_count) == ("ReqNodeNotAvail, UnavailableNodes:node3", "", 3)


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "CANCELLED", "gone"])
def test_a_job_that_is_over_is_neither_waiting_nor_running(state: str) -> None:
    job = Job(7, state)
    assert (job.is_over, job.is_waiting, job.is_running) == (True, False, False)


def test_the_end_of_a_job_in_words() -> None:
    assert str(Job(7, "NODE_FAIL", "NodeDown").ending) == "job 7 ended as NODE_FAIL (NodeDown)"
    assert str(Job(7, "FAILED", "", exit_code=-9).ending) == "job 7 ended as FAILED (killed by SIGKILL)"
    assert str(Job(7, "TIMEOUT").ending) == "job 7 ended as TIMEOUT"


def test_the_end_of_a_job_as_a_value() -> None:
    ending = Job(7, "OUT_OF_MEMORY", exit_code=-9).ending
    assert (ending.kind, ending.stage, ending.signal, ending.out_of_memory) == ("job", "OUT_OF_MEMORY", "SIGKILL", True)
    assert Job(7, "COMPLETING").ending.text == "job 7 is being ended by Slurm (COMPLETING)"


class Slurm:
    """Answers `call` as a Slurm with or without JSON does."""

    def __init__(self, *, speaks_json: bool, finds: bool = True, large: bool = False) -> None:
        self.speaks_json, self.finds, self.large = speaks_json, finds, large
        self.calls: list[str] = []

    def __call__(self, *command: str) -> str:
        self.calls.append(command[0])
        if command[0] == "squeue":
            if not self.speaks_json:
                raise SlurmError("target slurm: squeue: unrecognized option '--json'")
            return (
                json.dumps({"jobs": [{**OLD, "job_id": 3}, *([OLD] if self.finds else [])]})
                + " " * self.large * 5_000_000
            )
        if not self.finds:
            raise SlurmError("target slurm: scontrol: slurm_load_jobs error: Invalid job id specified")
        return f"{RECORD}\n"


@pytest.mark.parametrize("speaks_json", [True, False])
def test_a_job_is_found_with_json_and_without(monkeypatch: pytest.MonkeyPatch, speaks_json: bool) -> None:
    slurm = Slurm(speaks_json=speaks_json)
    monkeypatch.setattr(job_info, "call", slurm)
    reader = JobReader()
    jobs = [reader.read(7), reader.read(7)]
    assert [job and (job.id, job.nodes) for job in jobs] == [(7, "node[1-2]")] * 2
    # Without JSON it is tried once.
    assert slurm.calls == (["squeue", "squeue"] if speaks_json else ["squeue", "scontrol", "scontrol"])


def test_a_job_slurm_knows_nothing_of_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for speaks_json in (True, False):
        monkeypatch.setattr(job_info, "call", Slurm(speaks_json=speaks_json, finds=False))
        assert JobReader().read(7) is None


def test_a_squeue_that_lists_a_whole_large_cluster_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = Slurm(speaks_json=True, large=True)
    monkeypatch.setattr(job_info, "call", slurm)
    reader = JobReader()
    assert [reader.read(7) is not None for _ in range(2)] == [True, True]
    assert slurm.calls == ["squeue", "scontrol"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"jobs": [1]}', '{"jobs": [{"job_id": 1}]}', "squeue: error"])
def test_what_is_no_answer_of_squeue_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)


KEYS = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,10}", fullmatch=True)
VALUES = st.text(
    st.characters(codec="ascii", exclude_characters="=\n\r", categories=("L", "N", "P", "Zs")), max_size=20
)


@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_a_record_is_split_into_what_it_was_made_of(fields: dict[str, str]) -> None:
    line = " ".join(f"{key}={value}" for key, value in fields.items())
    assert parse_fields(line) == {key: value.strip() for key, value in fields.items()}


@given(st.text(max_size=200))
def test_no_text_whatsoever_breaks_a_parser(text: str) -> None:
    record = parse_record(text)
    assert record is None or record.id >= 0
    parse_unusable(text)
    parse_jobs(text)
    parse_addresses(f"NodeName=a {text}".replace("\n", " "))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["set", "number", "id"]), inner),
        max_leaves=5,
    )
)
def test_any_json_in_a_job_is_a_job_or_a_value_error(value: object) -> None:
    for key in ("job_state", "cpus", "exit_code", "start_time", "nodes"):
        try:
            only({**OLD, key: value})
        except ValueError:
            continue
