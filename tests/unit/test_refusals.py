"""Which limit refused the sessions, and what to change."""

import math
from dataclasses import replace

import pytest
from cells import a_cell, a_failure, a_row, a_summary, summary_of
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.core.endpoint import ExitStatus, ServerSample
from pytest_openenv_scale.metrics.errors import LostWorker
from pytest_openenv_scale.results.cell import ServerSamples
from pytest_openenv_scale.results.outcome import ErrorCount
from pytest_openenv_scale.verdict.refusals import name_refusals
from pytest_openenv_scale.verdict.remedies import Split, room_per_worker


def full(active, limit, count):
    message = f"Server at capacity: {active}/{limit} sessions active. Cannot accept new connections."
    return ErrorCount("reset", "capacity", "CAPACITY_REACHED", count, message)


def failing(*errors, batch=64, **fields):
    return a_summary(batch, failed=sum(error.count for error in errors), errors=errors, **fields)


def only(*summaries, **options):
    (refusal,) = name_refusals(summaries, **options)
    return refusal


def figures(refusal, *names):
    return tuple(refusal.figures[name] for name in names)


def lost(count=8, type="closed_early", code: str | None = "1006", phase="step", message: str | None = None):
    return ErrorCount(phase, type, code, count, message)


def status(code, count=8, message=None):
    return ErrorCount("connect", "handshake_status", str(code), count, message or f"HTTP {code}")


# --- capacity


def test_capacity_is_told_with_workers_the_limit_of_each_and_what_is_needed():
    refusal = only(failing(full(100, 100, 56), batch=256, limits={"workers": 2}))
    assert (refusal.cause, refusal.count, refusal.batch) == ("capacity", 56, 256)
    assert refusal.figures == {
        "needed": 256,
        "limit": 100,
        "workers": 2,
        "at_least": False,
        "held": 200,
        "successful": 200,
        "is_key_of_target": True,
        "room": 256,
        "busiest": None,
        "of": None,
    }


def test_the_server_should_hold_what_the_slo_asks_for_not_only_the_batch_that_was_refused():
    summary = failing(full(5, 5, 3), batch=8, limits={"workers": 1})
    assert [only(summary, needed=needed).figures["needed"] for needed in (None, 4, 64)] == [8, 8, 64]


@pytest.mark.parametrize(
    ("target", "is_key"),
    [
        ("local", True),
        ("docker:image", True),
        ("envoy:replicas=2", True),
        ("spaces:alice/env", True),
        ("http://host:8000,max_envs=5,workers=1", False),
        ("envoy:urls=http://a:1;http://b:1", False),
        ("theirs:thing", False),
        ("no target at all", False),
    ],
)
def test_a_server_started_by_the_plugin_is_changed_by_its_target(target, is_key):
    cell = a_cell(8, target=target)
    refusal = only(failing(full(5, 5, 3), batch=8, limits={"workers": 1, "max_envs": 5}, cell=cell))
    assert refusal.figures["is_key_of_target"] is is_key
    assert {step.kind for step in refusal.steps} & {"key", "variable"} == ({"key"} if is_key else {"variable"})


# --- room per worker


def test_a_worker_gets_room_for_all_where_no_split_was_seen():
    refusal = only(failing(full(100, 100, 56), batch=256, limits={"workers": 2}))
    assert figures(refusal, "room", "busiest", "of") == (256, None, None)


def test_a_worker_that_was_full_alone_tells_how_uneven_the_split_was():
    refusal = only(failing(full(64, 64, 8), batch=100, limits={"workers": 2}), needed=1000)
    assert figures(refusal, "busiest", "of") == (72, 100)
    assert 720 < figures(refusal, "room")[0] < 800


def test_the_split_of_a_batch_that_was_let_in_is_room_for_the_one_that_was_not():
    even = a_summary(32, pids=4, busiest_worker=8)
    skewed = a_summary(32, pids=4, busiest_worker=20)
    refused = failing(full(16, 16, 64), batch=128)
    rooms = [only(passed, replace(refused, pids=4)).figures["room"] for passed in (even, skewed)]
    assert 32 < rooms[0] < 64 < rooms[1] < 128


def test_few_sessions_are_no_split():
    refused = failing(full(16, 16, 64), batch=128, pids=4)
    assert only(a_summary(8, pids=4, busiest_worker=2), refused).figures["room"] == 128


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 400), st.integers(0, 400))
def test_room_is_an_even_share_at_least_and_all_at_most(needed, workers, busiest, others):
    room = room_per_worker(needed, workers, Split(busiest, busiest + others))
    assert min(needed, math.ceil(needed / workers)) <= room <= needed


def test_a_limit_of_one_session_is_a_cause_of_its_own():
    refusal = only(failing(full(1, 1, 124), batch=128, limits={"workers": 4}))
    assert (refusal.cause, *figures(refusal, "limit", "workers")) == ("one_session", 1, 4)


def test_workers_nobody_told_are_counted_by_the_processes_that_answered():
    assert only(failing(full(100, 100, 56), batch=256, pids=2)).figures["workers"] == 2


@pytest.mark.parametrize(
    ("message", "limits", "limit"),
    [
        ("no", {}, None),
        ("no", {"max_envs": 5}, 5),
        ("at capacity: 3/4 sessions active.", {"max_envs": 5}, 4),
        ("max sessions: 7", {}, 7),
    ],
)
def test_the_limit_is_the_servers_word_or_else_the_targets_setting(message, limits, limit):
    error = ErrorCount("reset", "capacity", "CAPACITY_REACHED", 32, message)
    assert only(failing(error, pids=None, limits=limits)).figures["limit"] == limit


@pytest.mark.parametrize(
    ("held_count", "server_facts", "workers"),
    [
        (117, {"pids": None}, 2),
        (129, {"pids": None}, 3),
        (117, {"pids": 1}, 2),
        (117, {"pids": None, "limits": {"workers": 1}}, 2),
    ],
)
def test_more_workers_are_deduced_where_those_known_cannot_hold_so_many(held_count, server_facts, workers):
    refusal = only(failing(full(64, 64, 200 - held_count), batch=200, **server_facts))
    assert figures(refusal, "workers", "at_least", "held") == (workers, True, held_count)


@pytest.mark.parametrize("server_facts", [{"pids": 2}, {"pids": None, "limits": {"workers": 2}}])
def test_workers_that_are_known_and_suffice_are_not_deduced(server_facts):
    refusal = only(failing(full(64, 64, 11), batch=128, **server_facts))
    assert figures(refusal, "workers", "at_least") == (2, False)


def test_no_workers_are_deduced_where_slots_may_have_been_used_twice():
    refusal = only(failing(full(64, 64, 11), batch=128, pids=None, cell=a_cell(128, arrival="burst")))
    assert figures(refusal, "workers", "at_least", "held") == (None, False, 117)


@pytest.mark.parametrize("held_count", [64, 40])
def test_no_workers_are_deduced_of_sessions_that_one_can_hold(held_count):
    refusal = only(failing(full(64, 64, 128 - held_count), batch=128, pids=None))
    assert figures(refusal, "workers", "at_least") == (None, False)


def test_capacity_is_read_from_real_rows():
    message = "Server at capacity: 2/2 sessions active. Cannot accept new connections."
    summary = summary_of([a_row(0), a_row(1), a_failure(2, message=message)], limits={"workers": 1})
    assert figures(only(summary), "held", "workers", "limit") == (2, 1, 2)


# --- the client


def test_sessions_the_client_could_not_start_are_nobodys_refusal():
    limited = [a_failure(number, phase="connect", type="client_limit", code="EMFILE") for number in (1, 2)]
    assert name_refusals([summary_of([a_row(0), *limited])]) == ()


def test_a_cell_in_which_all_is_well_names_nothing():
    assert name_refusals([a_summary(64)]) == ()


# --- connections, descriptors, processes


OWN_503 = "HTTP 503 Service Unavailable from uvicorn: Service Unavailable"
HTTP_CELL = a_cell(64, mode="http")


@pytest.mark.parametrize(
    "evidence",
    [
        {"log_tail": "WARNING:  Exceeded concurrency limit."},
        {"limits": {"server": "uvicorn"}, "cell": HTTP_CELL},
        {"cell": HTTP_CELL},
    ],
)
def test_503_from_uvicorn_is_its_limit_on_connections(evidence):
    refusal = only(failing(status(503, 44, OWN_503), **evidence))
    assert (refusal.cause, *figures(refusal, "needed", "workers")) == ("limit_concurrency", 64, 1)
    assert refusal.words == OWN_503


def test_the_limit_on_connections_is_told_where_it_is_known():
    refusal = only(
        failing(status(503), limits={"server": "uvicorn", "limit_concurrency": 20, "workers": 2}, cell=HTTP_CELL)
    )
    assert (refusal.cause, *figures(refusal, "limit", "workers")) == ("limit_concurrency", 20, 2)


@pytest.mark.parametrize(
    "words", ['(Retry-After: 7 s): {"detail":"Too many sessions"}', "(Retry-After: 7 s)", 'from uvicorn: {"detail": 1}']
)
@pytest.mark.parametrize("evidence", [{}, {"cell": HTTP_CELL}, {"log_tail": "Exceeded concurrency limit."}])
def test_503_in_an_applications_own_words_is_the_applications(words, evidence):
    message = f"HTTP 503 Service Unavailable {words}"
    refusal = only(failing(status(503, 44, message), limits={"server": "uvicorn", "limit_concurrency": 9}, **evidence))
    assert (refusal.cause, refusal.words) == ("http_503", message)


def test_uvicorn_refuses_no_websocket_by_its_limit_on_connections():
    assert only(failing(status(503, 44, OWN_503), limits={"limit_concurrency": 9})).cause == "http_503"


def test_503_of_nobody_known_is_not_blamed_on_uvicorn():
    assert only(failing(status(503))).cause == "http_503"


def test_a_log_full_of_too_many_open_files_names_the_servers_descriptors():
    refusal = only(
        failing(lost(type="timeout", code=None, phase="connect"), log_tail="OSError: [Errno 24] Too many open files")
    )
    assert (refusal.cause, refusal.words, refusal.figures["needed"]) == ("descriptors", "Too many open files", 64)


def test_a_server_seen_at_its_descriptor_limit_ran_out_of_them():
    peak = ServerSample(1.0, descriptors=64, descriptor_limit=64)
    refusal = only(failing(lost(phase="connect"), server=ServerSamples(peak=peak)))
    assert (refusal.cause, refusal.words, *figures(refusal, "used", "limit")) == ("descriptors", None, 64, 64)


def test_a_server_below_its_descriptor_limit_did_not():
    peak = ServerSample(1.0, descriptors=40, descriptor_limit=64)
    assert only(failing(lost(phase="connect"), server=ServerSamples(peak=peak))).cause == "unnamed"


def test_descriptors_are_named_even_where_every_session_came_through():
    refusal = only(a_summary(64, log_tail="socket.accept() out of system resource"))
    assert (refusal.cause, refusal.count) == ("descriptors", 0)


def test_a_worker_that_vanished_with_all_its_sessions_was_killed():
    refusal = only(failing(lost(32), lost_workers=(LostWorker(4711, "a", 32),), ended_pids=(4711,)))
    assert (refusal.cause, refusal.count) == ("worker_killed", 32)
    assert figures(refusal, "pid", "sessions", "workers", "supervised", "out_of_memory") == (4711, 32, 1, False, False)


def test_a_worker_killed_by_uvicorns_supervisor_is_told_from_its_log():
    refusal = only(failing(lost(32), log_tail="INFO:     Child process [4711] died"))
    assert (refusal.cause, refusal.words) == ("worker_killed", "Child process [4711] died")
    assert figures(refusal, "pid", "supervised") == (None, True)


def test_a_server_that_died_is_named_with_how_it_ended():
    ending = ExitStatus.from_returncode(-9)
    refusal = only(failing(lost(20), lost(44, type="refused", code="ECONNREFUSED"), server_exit=ending))
    assert (refusal.cause, refusal.count, refusal.exit) == ("server_died", 64, ending)


def test_a_worker_killed_for_lack_of_memory_in_a_container_that_lives_is_told_as_that():
    log_line = "the container was out of memory once (its limit is memory=64m; write a larger memory=)"
    log = f"one\nopenenv-scale: {log_line}"
    refusal = only(failing(lost(32), lost_workers=(LostWorker(4711, "a", 32),), ended_pids=(4711,), log_tail=log))
    assert (refusal.cause, refusal.count, refusal.words) == ("worker_killed", 32, log_line)
    assert refusal.figures["out_of_memory"] is True


# --- connections that went away


KILLED = {"lost_workers": (LostWorker(4711, "a", 32),), "ended_pids": (4711,)}


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("the process lives", {**KILLED, "ended_pids": ()}),
        ("another process ended", {**KILLED, "ended_pids": (99,)}),
        ("nobody can see whether it lives", {**KILLED, "ended_pids": None}),
        ("no process is known", {"ended_pids": (4711,)}),
    ],
)
def test_sessions_that_are_cut_are_not_a_worker_that_was_killed(case, fields):
    refusal = only(failing(lost(32), **fields))
    assert (refusal.cause, refusal.count, refusal.figures["phase"]) == ("cut", 32, "step")
    assert refusal.figures["lives"] is (case in ("the process lives", "another process ended"))


def test_the_only_process_of_a_server_that_is_gone_is_a_restart():
    refusal = only(failing(lost(64), pids=None, **KILLED))
    assert (refusal.cause, *figures(refusal, "pid", "code")) == ("restarted", 4711, None)


def test_a_server_that_ended_and_listens_again_restarted():
    refusal = only(failing(lost(40), lost(24, type="refused", code="ECONNREFUSED"), listens_again=True))
    assert (refusal.cause, refusal.count, refusal.figures["listens_again"]) == ("restarted", 64, True)


@pytest.mark.parametrize("listens_again", [False, True])
def test_1012_is_a_server_that_stops_or_restarts(listens_again):
    refusal = only(failing(lost(4, code="1012"), listens_again=listens_again))
    assert (refusal.cause, *figures(refusal, "code", "listens_again")) == ("restarted", 1012, listens_again)


@pytest.mark.parametrize("code", ["1000", "1001", "1008", "1011", "1013", "4000"])
def test_a_close_by_the_server_is_told_by_its_code_and_words(code):
    refusal = only(failing(lost(4, code=code, phase="reset", message="the server closed the session: busy")))
    assert (refusal.cause, *figures(refusal, "code", "phase")) == (f"closed_{code}", int(code), "reset")
    assert refusal.words == "the server closed the session: busy"


def test_a_handshake_that_was_closed_is_no_session_that_was_cut():
    assert only(failing(lost(code=None, phase="connect"), **KILLED)).cause == "unnamed"


# --- statuses


@pytest.mark.parametrize("code", [401, 403, 404, 429, 502, 504, 418])
def test_every_status_is_a_cause(code):
    refusal = only(failing(status(code)))
    assert (refusal.cause, refusal.figures["status"], refusal.words) == (f"http_{code}", code, f"HTTP {code}")


def test_a_redirect_says_where_to(golden):
    refusal = only(failing(status(301, message="HTTP 301 Moved: redirects to https://other/")))
    golden((refusal.cause, refusal.words))


def test_exactly_1024_sessions_are_the_default_of_envoys_circuit_breakers():
    refusal = only(failing(status(504, 976), batch=2000))
    assert (refusal.cause, *figures(refusal, "held", "codes", "at_default")) == ("proxy", 1024, "504", True)


OVERFLOW = "HTTP 503 Service Unavailable from envoy: upstream connect error. reset reason: overflow"


def test_breakers_that_say_so_are_named_at_any_number():
    refusal = only(failing(status(503, 10, OVERFLOW)))
    assert (refusal.cause, refusal.figures["at_default"], refusal.words) == ("proxy", False, OVERFLOW)


@pytest.mark.parametrize(
    "message",
    [
        "HTTP 503 Service Unavailable from envoy: no healthy upstream",
        "HTTP 503 from envoy: upstream connect error or disconnect. reset reason: connection failure",
        'HTTP 503 from uvicorn: {"detail": "the upstream model is overloaded"}',
    ],
)
@pytest.mark.parametrize("held_count", [54, 1024])
def test_other_answers_of_a_proxy_or_a_server_are_no_breakers(message, held_count):
    batch = held_count + 10
    assert only(failing(status(503, 10, message), batch=batch)).cause == "http_503"


@pytest.mark.parametrize("words", [' (Retry-After: 7 s): {"detail": "full"}', " from uvicorn"])
def test_an_application_that_holds_1024_sessions_is_no_proxy(words):
    assert only(failing(status(503, 976, f"HTTP 503{words}"), batch=2000)).cause == "http_503"


# --- the rest


def test_a_port_nobody_listens_on():
    refusal = only(failing(lost(64, type="refused", code="ECONNREFUSED", phase="connect")))
    assert (refusal.cause, refusal.figures["successful"]) == ("not_listening", 0)


def test_connections_refused_while_others_were_served_are_told_as_that():
    refusal = only(failing(lost(10, type="refused", code="ECONNREFUSED", phase="connect")))
    assert (refusal.cause, *figures(refusal, "successful", "held")) == ("not_listening", 54, 54)


def test_environments_that_are_not_made_not_reset_or_do_not_step_are_told_apart():
    errors = [
        ErrorCount("reset", "environment", "FACTORY_ERROR", 3, "no"),
        ErrorCount("reset", "environment", "EXECUTION_ERROR", 2, "empty"),
        ErrorCount("step", "environment", "EXECUTION_ERROR", 4, "bug"),
        *(ErrorCount("step", "environment", f"made up {number}", 1, "odd") for number in range(9)),
    ]
    causes = [
        (refusal.figures["phase"], refusal.figures["code"], refusal.count)
        for refusal in name_refusals([failing(*errors)])
    ]
    assert causes == [
        ("reset", "FACTORY_ERROR", 3),
        ("reset", "EXECUTION_ERROR", 2),
        ("step", "EXECUTION_ERROR", 4),
        ("step", "made up 0", 9),
    ]


@pytest.mark.parametrize(
    ("error", "line", "cause"),
    [
        (lost(32), "INFO:     Child process [4711] died", "worker_killed"),
        (lost(8, type="timeout", code=None, phase="connect"), "OSError: [Errno 24] Too many open files", "descriptors"),
        (status(503), "WARNING:  Exceeded concurrency limit.", "limit_concurrency"),
    ],
)
def test_what_was_logged_before_the_cell_is_no_evidence(error, line, cause):
    log = f"{line}\nINFO: more"
    assert only(failing(error, log_tail=log)).cause == cause
    assert only(failing(error, log_tail=log, log_lines=2)).cause == cause
    assert only(failing(error, log_tail=log, log_lines=1)).cause != cause
    assert only(failing(error, log_tail=log, log_lines=0)).cause != cause


def test_errors_of_the_environment_keep_its_words():
    refusal = only(failing(ErrorCount("reset", "environment", "VALIDATION_ERROR", 8, "bad")))
    assert (refusal.cause, refusal.words) == ("environment", "bad")
    assert figures(refusal, "code", "phase") == ("VALIDATION_ERROR", "reset")


@pytest.mark.parametrize(("kind", "silent"), [("timeout", True), ("protocol", False)])
def test_what_nothing_explains_is_counted_and_not_explained(kind, silent):
    error = lost(8, type=kind, code=None, phase="reset", message="no answer in 10 s")
    refusal = only(failing(error))
    assert (refusal.cause, refusal.count, refusal.errors) == ("unnamed", 8, (error,))
    assert (refusal.words, refusal.figures["silent"]) == ("no answer in 10 s", silent)


def test_several_causes_in_one_cell_are_each_named_once():
    log = "WARNING:  Exceeded concurrency limit."
    summary = failing(full(5, 5, 20), lost(3), status(503, 4), log_tail=log, limits={"workers": 1})
    causes = {refusal.cause: refusal.count for refusal in name_refusals([summary])}
    assert causes == {"capacity": 20, "limit_concurrency": 4, "cut": 3}


def test_a_cause_is_told_of_the_smallest_batch_where_it_happened():
    summaries = [failing(full(5, 5, count), batch=batch, limits={"workers": 1}) for batch, count in ((32, 27), (8, 3))]
    assert only(*summaries).batch == 8
