"""What Slurm says of a job, read from the text all its versions write."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goldens import Golden
from pytest_openenv_scale.targets.slurm import job_info
from pytest_openenv_scale.targets.slurm.job import parse_jobs
from pytest_openenv_scale.targets.slurm.job_info import (
    Job,
    SlurmError,
    parse_addresses,
    parse_fields,
    parse_record,
    parse_unusable,
    read_job,
)

RECORD = (
    "JobId=7 JobName=openenv-scale-x UserId=root(0) Priority=1 JobState=RUNNING Reason=None ExitCode=0:0 "
    "TimeLimit=01:00:00 StartTime=2026-11-21T10:18:49 Partition=debug NodeList=node[1-2] BatchHost=node1 "
    "NumNodes=2 NumCPUs=4 Command=(null) WorkDir=/home/me Comment=JobState=FAILED StdOut=/dev/null Power="
)


def recorded(text: str) -> Job:
    job = parse_record(text)
    assert job is not None
    return job


def test_a_record_holds_the_state_the_nodes_and_the_start() -> None:
    started = datetime(2026, 11, 21, 10, 18, 49)
    assert parse_record(RECORD) == Job(7, "RUNNING", "", "node[1-2]", 4, "debug", 0, started)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("PENDING", "PENDING"),
        ("COMPLETING+FAILED", "FAILED"),
        ("RUNNING+CONFIGURING", "RUNNING"),
        ("COMPLETING", "COMPLETING"),
        ("CANCELLED by 1000", "CANCELLED"),
        ("CANCELLED+COMPLETING", "CANCELLED"),
        ("+", "UNKNOWN"),
    ],
)
def test_a_state_is_one_word_whatever_flags_stand_beside_it(text: str, state: str) -> None:
    assert recorded(RECORD.replace("JobState=RUNNING", f"JobState={text}")).state == state


@pytest.mark.parametrize(("text", "code"), [("0:0", 0), ("3:0", 3), ("0:9", -9), ("0:15", -15), ("", None)])
def test_an_exit_code_is_negative_for_a_signal(text: str, code: int | None) -> None:
    assert recorded(RECORD.replace("ExitCode=0:0", f"ExitCode={text}")).exit_code == code


def test_a_pending_job_has_a_reason_no_nodes_and_the_cpus_it_will_get() -> None:
    pending = recorded(
        "JobId=1 JobName=x JobState=PENDING Reason=ReqNodeNotAvail,_UnavailableNodes:node3 NodeList=(null) NumCPUs=6-6"
        " StartTime=2026-11-21T10:18:12"
    )
    assert (pending.reason, pending.nodes, pending.cpus) == ("ReqNodeNotAvail, UnavailableNodes:node3", "", 6)
    assert pending.starts_at == datetime(2026, 11, 21, 10, 18, 12)


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "CANCELLED", "gone"])
def test_a_job_that_is_over_does_not_wait(state: str) -> None:
    job = Job(7, state)
    assert (job.is_over, job.is_waiting) == (True, False)


def test_the_end_of_a_job_in_words(golden: Golden) -> None:
    golden(str(Job(7, "NODE_FAIL", "NodeDown").ending))
    golden(str(Job(7, "FAILED", "", exit_code=-9).ending))
    assert str(Job(7, "TIMEOUT").ending) == "job 7 ended as TIMEOUT"


def test_the_end_of_a_job_as_a_value(golden: Golden) -> None:
    ending = Job(7, "OUT_OF_MEMORY", exit_code=-9).ending
    assert (ending.kind, ending.stage, ending.signal, ending.out_of_memory) == ("job", "OUT_OF_MEMORY", "SIGKILL", True)
    golden(Job(7, "COMPLETING").ending.text)


def test_a_job_slurm_knows_nothing_of_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*command: str) -> str:
        if command[-1] == "7":
            return f"{RECORD}\n"
        raise SlurmError("target slurm: scontrol: slurm_load_jobs error: Invalid job id specified")

    monkeypatch.setattr(job_info, "call", call)
    job = read_job(7)
    assert job is not None
    assert job.nodes == "node[1-2]"
    assert read_job(8) is None


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
