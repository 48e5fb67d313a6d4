"""The suite can fail: a server with a planted defect fails the tests of that subject and passes all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from suite_run import run_suite

pytestmark = pytest.mark.real

TESTS = Path(__file__).parents[1]

SUBJECTS = {
    *("scaling", "isolation", "capacity", "responsiveness", "churn"),
    *("protocol", "determinism", "endurance", "fairness"),
}

DEFECTS: dict[str, set[str]] = {
    # What a session observes changes with what its neighbours do, so determinism sees it as well.
    "shared_state": {"isolation", "determinism"},
    "shared_record": {"isolation"},
    "sequential_state": {"isolation"},
    "global_random": {"determinism"},
    # A slot that a dropped session keeps is missed where slots are freed one by one, and where hundreds are dropped.
    "leaked_slots": {"capacity", "churn"},
    # That every fourth session keeps its slot leaves none for the tests that come later.
    "slowly_leaked_slots": {"churn"},
    "deadlock_past_limit": {"capacity"},
    "queues_past_limit": {"capacity"},
    "silent_hang": {"protocol"},
    "crash_on_bad_json": {"protocol"},
    "crash_session_on_bad_json": {"protocol"},
    "wrong_code": {"protocol"},
    "memory_per_step": {"endurance"},
    "memory_per_session": {"churn"},
    "thread_per_session": {"churn"},
    "descriptor_per_session": {"churn"},
    "slower_with_time": {"endurance"},
    "unfair_lock": {"fairness"},
    "blocking_step": {"responsiveness"},
}


QUESTIONS: dict[str, str] = {
    "leaked_slots": "freed_slot",
    "slowly_leaked_slots": "short",
    "deadlock_past_limit": "refusal",
    "queues_past_limit": "refusal",
    "memory_per_session": "short",
    "thread_per_session": "short",
    "descriptor_per_session": "short",
}
"""Of subjects with questions that take long on a server with the defect, the one that shows it soonest."""


def target(defect: str, *more: str, slots: int = 12) -> str:
    keys = ("server=uvicorn", f"env.DEFECT={defect}", f"env.MAX_CONCURRENT_ENVS={slots}", *more)
    return ",".join(("local:defects.app:app", *keys))


@pytest.mark.alone
def test_a_sound_server_passes_every_test(tmp_path):
    run = run_suite(tmp_path, "--openenv-target", target("none"), PYTHONPATH=str(TESTS))
    assert run.subjects("met") == SUBJECTS, run.told
    assert set(run.outcomes.values()) == {"met"}, run.told


TIMED = {"slower_with_time"}
"""Defects that show in latencies alone, which others on the machine may change: those tests have it to themselves."""


@pytest.mark.parametrize(
    "defect", [pytest.param(name, marks=pytest.mark.alone) if name in TIMED else name for name in DEFECTS]
)
def test_a_planted_defect_fails_its_own_subject(defect, tmp_path):
    own = ("-k", QUESTIONS[defect]) if defect in QUESTIONS else ("-m", " or ".join(sorted(DEFECTS[defect])))
    run = run_suite(tmp_path, *own, "--openenv-target", target(defect), PYTHONPATH=str(TESTS))
    # Every subject that was asked, and no other was: two where the defect fails two.
    subjects_run = {name.partition("[")[0].removeprefix("test_") for name in run.outcomes}
    assert run.subjects("missed") == subjects_run, run.told
    assert subjects_run <= DEFECTS[defect], run.told
    assert subjects_run == DEFECTS[defect] or defect in QUESTIONS, run.told


@pytest.mark.matrix
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_fails_its_tests_and_passes_all_others(defect, tmp_path):
    # A process that ends on bad JSON is one of two, so that there is a server left for the other questions.
    target_spec = target(defect, "workers=2", slots=6) if defect == "crash_on_bad_json" else target(defect)
    run = run_suite(tmp_path, "--openenv-target", target_spec, PYTHONPATH=str(TESTS))
    assert run.subjects("missed") == DEFECTS[defect], run.told
    assert run.subjects("inconclusive") <= DEFECTS[defect], run.told
    assert run.subjects("met") >= SUBJECTS - DEFECTS[defect], run.told
    assert run.subjects("skipped") == set(), run.told


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("server", "skipped"), [("no_seed", set[str]()), ("rare_event", set[str]()), ("chance", {"determinism"})]
)
def test_what_is_no_defect_fails_nothing(server, skipped, tmp_path):
    run = run_suite(tmp_path, "--openenv-target", target(server), PYTHONPATH=str(TESTS))
    assert run.subjects("skipped") == skipped, run.told
    assert run.subjects("met") == SUBJECTS - skipped, run.told
