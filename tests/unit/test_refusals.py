"""Which limit refused the sessions, and what to change."""

import pytest
from cells import a_cell, a_failure, a_row, a_summary, summary_of

from pytest_openenv_scale.core.endpoint import ServerSample
from pytest_openenv_scale.metrics.errors import LostWorker
from pytest_openenv_scale.results.cell_meta import ServerSamples
from pytest_openenv_scale.results.outcome import ErrorCount
from pytest_openenv_scale.verdict.refusals import name_refusals


def full(active, limit, count):
    message = f"Server at capacity: {active}/{limit} sessions active. Cannot accept new connections."
    return ErrorCount("reset", "capacity", "CAPACITY_REACHED", count, message)


def failing(*errors, batch=64, **fields):
    return a_summary(batch, failed=sum(error.count for error in errors), errors=errors, **fields)


def only(*summaries, **options):
    (refusal,) = name_refusals(summaries, **options)
    return refusal


def lost(count=8, type="closed_early", code: str | None = "1006", phase="step", message: str | None = None):
    return ErrorCount(phase, type, code, count, message)


def status(code, count=8, message=None):
    return ErrorCount("connect", "handshake_status", str(code), count, message or f"HTTP {code}")


# --- capacity


def test_capacity_is_told_as_workers_times_limit_with_the_setting_to_change():
    refusal = only(failing(full(100, 100, 56), batch=256, limits={"workers": 2}))
    assert (refusal.cause, refusal.count, refusal.batch) == ("capacity", 56, 256)
    assert refusal.text == "CAPACITY_REACHED at 200 sessions = 2 workers × 100"
    assert refusal.remedy.startswith("MAX_CONCURRENT_ENVS ≥ 128 per worker (2 workers; somewhat more, as ")
    assert refusal.remedy.endswith("create_app(..., max_concurrent_envs=128)")


def test_the_remedy_holds_what_the_slo_asks_for_not_only_the_batch_that_was_refused():
    refusal = only(failing(full(5, 5, 3), batch=8, limits={"workers": 1}), needed=64)
    assert refusal.text == "CAPACITY_REACHED at 5 sessions = 1 worker × 5"
    assert refusal.remedy.startswith("MAX_CONCURRENT_ENVS ≥ 64;")


def test_a_server_started_by_the_plugin_is_changed_by_its_target():
    refusal = only(failing(full(5, 5, 3), batch=8, limits={"workers": 1, "max_envs": 5}))
    assert refusal.remedy == "MAX_CONCURRENT_ENVS ≥ 8: max_envs=8 in the target"


def test_an_uneven_split_is_named_where_the_sum_would_have_been_enough():
    refusal = only(failing(full(64, 64, 20), batch=128, limits={"workers": 2}))
    assert refusal.text == (
        "CAPACITY_REACHED at 108 sessions, though 2 workers × 64 = 128 slots are enough for 128: "
        "connections split unevenly over workers, and one was full"
    )
    assert refusal.remedy.startswith("MAX_CONCURRENT_ENVS ≥ 128 per worker")


def test_an_environment_made_for_one_session_gets_the_line_to_change():
    refusal = only(failing(full(1, 1, 127), batch=128, limits={"workers": 1}))
    assert refusal.cause == "one_session"
    assert "configured for one session" in refusal.text
    assert "create_app(..., max_concurrent_envs=128)" in refusal.remedy


def test_one_session_in_each_of_several_workers_is_shared_out():
    refusal = only(failing(full(1, 1, 124), batch=128, limits={"workers": 4}))
    assert "create_app(..., max_concurrent_envs=32) per worker (4 workers)" in refusal.remedy


def test_workers_nobody_told_are_counted_by_the_processes_that_answered():
    refusal = only(failing(full(100, 100, 56), batch=256, pids=2))
    assert refusal.text == "CAPACITY_REACHED at 200 sessions = 2 workers × 100"


def test_capacity_without_figures_is_told_without_arithmetic():
    error = ErrorCount("reset", "capacity", "CAPACITY_REACHED", 32, "no")
    refusal = only(failing(error, pids=None))
    assert refusal.text == "CAPACITY_REACHED at 32 sessions"
    assert "MAX_CONCURRENT_ENVS ≥ 64 per worker (capacity is workers × limit)" in refusal.remedy


def test_capacity_is_read_from_real_rows():
    message = "Server at capacity: 2/2 sessions active. Cannot accept new connections."
    summary = summary_of([a_row(0), a_row(1), a_failure(2, message=message)], limits={"workers": 1})
    assert only(summary).text == "CAPACITY_REACHED at 2 sessions = 1 worker × 2"


# --- the client


def test_sessions_the_client_could_not_start_are_nobodys_refusal():
    limited = [a_failure(number, phase="connect", type="client_limit", code="EMFILE") for number in (1, 2)]
    assert name_refusals([summary_of([a_row(0), *limited])]) == ()


def test_a_cell_in_which_all_is_well_names_nothing():
    assert name_refusals([a_summary(64)]) == ()


# --- connections, descriptors, processes


@pytest.mark.parametrize(
    "evidence",
    [
        {"log_tail": "WARNING:  Exceeded concurrency limit."},
        {"limits": {"server": "uvicorn"}},
        {"limits": {"limit_concurrency": 20}},
    ],
)
def test_503_from_uvicorn_is_its_limit_on_connections(evidence):
    refusal = only(failing(status(503, 44), **evidence))
    assert refusal.cause == "limit_concurrency"
    assert "HTTP 503 from uvicorn: --limit-concurrency" in refusal.text
    assert refusal.remedy == "start uvicorn without --limit-concurrency, or with 74 or more"


def test_503_is_uvicorns_where_the_answer_says_so():
    refusal = only(failing(status(503, 44, "HTTP 503 Service Unavailable from uvicorn: Service Unavailable")))
    assert refusal.cause == "limit_concurrency"


def test_the_limit_on_connections_is_told_where_it_is_known():
    refusal = only(failing(status(503), limits={"server": "uvicorn", "limit_concurrency": 20, "workers": 2}))
    assert "--limit-concurrency 20 in each of 2 workers" in refusal.text


def test_503_of_nobody_known_is_not_blamed_on_uvicorn():
    assert only(failing(status(503))).cause == "http_503"


def test_a_log_full_of_too_many_open_files_names_the_servers_descriptors():
    refusal = only(
        failing(lost(type="timeout", code=None, phase="connect"), log_tail="OSError: [Errno 24] Too many open files")
    )
    assert refusal.cause == "descriptors"
    assert "its log says 'Too many open files'" in refusal.text
    assert "`ulimit -n` where the server is started: at least 192 for 64 sessions" in refusal.remedy


def test_a_server_seen_at_its_descriptor_limit_ran_out_of_them():
    peak = ServerSample(1.0, descriptors=64, descriptor_limit=64)
    refusal = only(failing(lost(phase="connect"), server=ServerSamples(peak=peak)))
    assert "the server ran out of file descriptors (64 of 64 in use)" in refusal.text


def test_a_server_below_its_descriptor_limit_did_not():
    peak = ServerSample(1.0, descriptors=40, descriptor_limit=64)
    assert only(failing(lost(phase="connect"), server=ServerSamples(peak=peak))).cause == "unnamed"


def test_descriptors_are_named_even_where_every_session_came_through():
    refusal = only(a_summary(64, log_tail="socket.accept() out of system resource"))
    assert (refusal.cause, refusal.count) == ("descriptors", 0)


def test_a_worker_that_vanished_with_all_its_sessions_was_killed():
    refusal = only(failing(lost(32), lost_workers=(LostWorker(4711, "a", 32),)))
    assert refusal.cause == "worker_killed"
    assert refusal.text == "process 4711 of the server vanished with all its 32 sessions"
    assert "dmesg" in refusal.remedy


def test_a_worker_killed_by_uvicorns_supervisor_gets_the_option_that_prevents_it():
    refusal = only(failing(lost(32), log_tail="INFO:     Child process [4711] died"))
    assert refusal.cause == "worker_killed"
    assert "--timeout-worker-healthcheck 120" in refusal.remedy


def test_a_server_that_died_is_named_with_how_it_ended():
    refusal = only(failing(lost(20), lost(44, type="refused", code="ECONNREFUSED"), server_exit="killed by SIGKILL"))
    assert (refusal.cause, refusal.count) == ("server_died", 64)
    assert refusal.text == "the server died: killed by SIGKILL"
    assert "memory" in refusal.remedy


def test_a_server_that_exited_by_itself_is_not_said_to_be_killed():
    assert only(failing(lost(), server_exit="exited with code 1")).remedy == "see the last lines of its log"


def test_a_server_killed_for_lack_of_memory_gets_more_of_it():
    ending = "exited with code 137: out of memory (its limit is memory=64m; write a larger memory=)"
    refusal = only(failing(lost(), server_exit=ending))
    assert (refusal.cause, refusal.text) == ("server_died", f"the server died: {ending}")
    assert refusal.remedy.startswith("give it more memory (memory= of a docker target)")


def test_a_worker_killed_for_lack_of_memory_in_a_container_that_lives_gets_more_of_it_too():
    told = "openenv-scale: the container was out of memory once (its limit is memory=64m; write a larger memory=)"
    refusal = only(failing(lost(32), lost_workers=(LostWorker(4711, "a", 32),), log_tail=f"one\n{told}"))
    assert (refusal.cause, refusal.count) == ("worker_killed", 32)
    assert "the container was out of memory once (its limit is memory=64m" in refusal.text
    assert refusal.remedy.startswith("give it more memory")


# --- statuses


@pytest.mark.parametrize(
    ("code", "cause", "word"),
    [
        (401, "http_401", "--openenv-header"),
        (403, "http_403", "token"),
        (404, "http_404", "prefix"),
        (429, "http_429", "platform"),
        (502, "http_502", "proxy"),
        (504, "http_504", "proxy"),
        (418, "http_418", "log"),
    ],
)
def test_every_status_has_its_meaning_and_remedy(code, cause, word):
    refusal = only(failing(status(code)))
    assert refusal.cause == cause
    assert refusal.text.startswith(f"HTTP {code}: ")
    assert word in refusal.remedy


def test_a_redirect_says_where_to():
    refusal = only(failing(status(301, message="HTTP 301 Moved: redirects to https://other/")))
    assert (refusal.cause, refusal.text) == ("redirect", "HTTP 301 Moved: redirects to https://other/")


def test_exactly_1024_sessions_are_the_default_of_envoys_circuit_breakers():
    refusal = only(failing(status(504, 976), batch=2000))
    assert refusal.cause == "proxy"
    assert "1,024 sessions open, the default of Envoy's circuit breakers" in refusal.text
    assert "max_connections and max_requests together, to 2000 or more" in refusal.remedy


def test_a_proxy_that_says_its_name_is_named_at_any_number():
    refusal = only(failing(status(503, 10, "HTTP 503 Service Unavailable from envoy: upstream connect error")))
    assert refusal.cause == "proxy"
    assert "default" not in refusal.text


# --- the rest


def test_a_port_nobody_listens_on():
    refusal = only(failing(lost(64, type="refused", code="ECONNREFUSED", phase="connect")))
    assert refusal.text == "nothing listens at the address"


def test_connections_refused_while_others_were_served_are_told_as_that():
    refusal = only(failing(lost(10, type="refused", code="ECONNREFUSED", phase="connect")))
    assert refusal.text == "connections were refused while 54 sessions were held"


@pytest.mark.parametrize(
    ("code", "phase", "text", "remedy"),
    [
        ("VALIDATION_ERROR", "step", "the environment rejected what the step sent: bad", "--openenv-action"),
        ("422", "reset", "the environment rejected what the reset sent: bad", "--openenv-reset"),
        ("FACTORY_ERROR", "reset", "the environment could not be made for a session: bad", "log"),
        ("EXECUTION_ERROR", "step", "the environment failed in step (EXECUTION_ERROR): bad", "log"),
    ],
)
def test_errors_of_the_environment_are_told_in_its_words(code, phase, text, remedy):
    refusal = only(failing(ErrorCount(phase, "environment", code, 8, "bad")))
    assert (refusal.cause, refusal.text) == ("environment", text)
    assert remedy in refusal.remedy


def test_what_nothing_explains_is_counted_and_not_explained():
    refusal = only(failing(lost(8, type="timeout", code=None, phase="reset", message="no answer in 10 s")))
    assert refusal.cause == "unnamed"
    assert refusal.text == ("8 sessions failed with no limit named: 8 timeout in reset; the first: no answer in 10 s")
    assert "--openenv-timeout" in refusal.remedy


def test_several_causes_in_one_cell_are_each_named_once():
    summary = failing(full(5, 5, 20), lost(3), status(503, 4), limits={"server": "uvicorn", "workers": 1})
    causes = {refusal.cause: refusal.count for refusal in name_refusals([summary])}
    assert causes == {"capacity": 20, "limit_concurrency": 4, "unnamed": 3}


def test_a_cause_is_told_of_the_smallest_batch_where_it_happened():
    summaries = [failing(full(5, 5, count), batch=batch, limits={"workers": 1}) for batch, count in ((32, 27), (8, 3))]
    assert only(*summaries).batch == 8


def test_refusals_are_single_lines():
    messages = [
        lost(3, message="a\nb"),
        status(500, 2, "HTTP 500\nx"),
        ErrorCount("step", "environment", "X", 1, "a\nb"),
    ]
    for refusal in name_refusals([failing(*messages, cell=a_cell(64))]):
        assert "\n" not in refusal.text + refusal.remedy
