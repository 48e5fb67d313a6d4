"""Remedies as steps: which are taken, in which order, and which of them a test applies to a real server."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest
from cells import a_failure, a_row, summary_of

from checking_subjects import make_subject
from pytest_openenv_scale.checks.run import Check, run_check
from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.core.endpoint import SessionSettings
from pytest_openenv_scale.reporting.content import refusals, remedies
from pytest_openenv_scale.reporting.content.remedies import environment_remedy, steps_words
from pytest_openenv_scale.results.outcome import CheckOutcome, CheckResult, Step
from pytest_openenv_scale.verdict.refusals import name_refusals
from pytest_openenv_scale.verdict.remedies import Setter, session_steps

PAGE = (Path(__file__).parents[2] / "docs" / "remedies.md").read_text(encoding="utf-8")
URL = Setter("http://127.0.0.1:8000")
LOCAL = Setter("local:app:app,server=uvicorn")
UNMARKED = SessionSettings("create_app", "app.py:9", argument=1, environment="Env", class_at="app.py:3", flag=False)
NAMED = SessionSettings("create_app", "app.py:9", variable="SLOTS", environment="Env", class_at="app.py:3", flag=True)


def kinds(steps: tuple[Step, ...]) -> list[tuple[str, bool]]:
    return [(step.kind, step.sure) for step in steps if step.kind != "ask"]


def causes(heading: str) -> list[str]:
    """The causes in the table below a line of the page."""
    table = PAGE[PAGE.index(heading) :].split("\n\n")[1]
    return [cause for row in table.splitlines()[2:] for cause in row.split("|")[1].strip().split(", ")]


def test_every_cause_of_a_refusal_is_in_one_of_the_two_lists_of_remedies() -> None:
    applied, not_applied = causes("sees that the refusal is gone"), causes("Not applied by a test")
    causes_known = {*refusals._BY_CAUSE, *(f"http_{status}" for status in refusals._STATUSES), "http"}
    assert sorted(applied + not_applied) == sorted(causes_known)
    tests = (Path(__file__).parents[1] / "targets" / "test_remedies_applied.py").read_text(encoding="utf-8")
    settings = {"capacity", "one_session", "proxy"}  # Told of as sessions that do not fit; in the tests of Envoy.
    assert set(applied) - settings == set(re.findall(r'"(limit_concurrency|descriptors|worker_killed)"', tests))


def test_every_kind_of_step_has_words() -> None:
    kind = typing.get_type_hints(Step)["kind"]
    assert set(typing.get_args(kind)) == {*remedies._WORDS, "breaker", "ask"}


@pytest.mark.parametrize(
    ("settings", "limit", "expected"),
    [
        (UNMARKED, 1, [("attribute", True), ("argument", True)]),
        (UNMARKED, None, [("attribute", True), ("argument", True)]),
        (None, 1, [("attribute", False), ("variable", True), ("argument", False)]),
        (None, 4, [("variable", True), ("argument", False)]),
        (NAMED, 1, [("variable", True)]),
    ],
)
def test_what_binds_is_changed_and_where_it_is_unknown_all_that_may(
    settings: SessionSettings | None, limit: int | None, expected: list[tuple[str, bool]]
) -> None:
    assert kinds(session_steps(8, setter=URL, settings=settings, limit=limit)) == expected


@pytest.mark.parametrize("limit", [2, 100])
def test_source_that_the_server_contradicts_is_not_believed(limit: int) -> None:
    steps = session_steps(8, setter=URL, settings=UNMARKED, limit=limit)
    assert kinds(steps) == [("variable", True), ("argument", False)]
    assert "app.py" not in steps_words(steps)


def test_a_variable_of_another_name_is_a_key_of_a_target_that_starts_the_server() -> None:
    (key, ask) = session_steps(8, setter=LOCAL, settings=NAMED, limit=2)
    assert (key.kind, key.name, key.value) == ("key", "env.SLOTS", 8)
    assert str(ask.value).endswith("--openenv-target local:app:app,env.SLOTS=8,server=uvicorn")


def test_one_object_for_all_sessions_comes_first() -> None:
    shared = SessionSettings("create_app", "app.py:9", 1, environment="Env", class_at="app.py:3", shared="app.py:7")
    first, *_ = session_steps(8, setter=URL, settings=shared, limit=1)
    assert (first.kind, first.where) == ("object", "app.py:7")


def test_errors_of_environments_differ_in_what_is_advised() -> None:
    codes = ("VALIDATION_ERROR", "EXECUTION_ERROR", "FACTORY_ERROR", "422", None)
    advised = {code: environment_remedy(code, "step", "{}") for code in codes}
    assert len(set(advised.values())) == len(codes)
    assert [code for code, text in advised.items() if "--openenv-action" in text] == ["VALIDATION_ERROR", "422"]
    assert "step()" in advised["VALIDATION_ERROR"]  # A ValidationError raised in step() has that code too.


def test_a_target_with_a_secret_is_not_asked_about_by_name() -> None:
    ask = session_steps(8, setter=Setter("local,env.API_KEY=***"), settings=None, limit=1)[-1]
    assert (ask.kind, "--openenv-target" in str(ask.value)) == ("ask", False)


def answering(result: CheckResult) -> Check:
    async def check(subject: Subject) -> CheckResult:
        return result

    return check


DIFFER = answering(CheckResult(CheckOutcome.MISSED, "steps differ"))


def test_what_follows_from_one_object_for_all_sessions_says_so_first() -> None:
    settings = SessionSettings("create_app", "app.py:9", shared="app.py:7")
    on = make_subject("http://127.0.0.1:9", endpoint={"session_settings": settings})
    missed = run_check(on, DIFFER, "http")
    assert missed.headline == "all sessions get the one environment made at app.py:7: steps differ"
    assert run_check(on, answering(CheckResult(CheckOutcome.MET, "all the same")), "http").headline == "all the same"


def test_what_may_follow_from_a_leak_says_so_first() -> None:
    on = make_subject("http://127.0.0.1:9")
    assert run_check(on, DIFFER, "http").headline == "steps differ"
    leak = answering(CheckResult(CheckOutcome.MISSED, "a leak", figures={"leaks": 2}))
    assert run_check(on, leak, "http").headline == "a leak"
    headline = run_check(on, DIFFER, "http").headline
    assert headline == "sessions see each other's state, and this may follow from it: steps differ"


def test_a_refusal_by_one_object_for_all_sessions_says_so_first() -> None:
    settings = SessionSettings("create_app", "app.py:9", 1, environment="Env", class_at="app.py:3", shared="app.py:7")
    full = "Server at capacity: 1/1 sessions active."
    summary = summary_of([a_row(0), a_failure(1, message=full)], limits={"workers": 1}, session_settings=settings)
    (refusal,) = name_refusals([summary])
    text, remedy = refusals.refusal_words(refusal)
    assert text.startswith("all sessions get the one environment made at app.py:7: ")
    assert remedy.startswith("1. give each session an environment of its own")
