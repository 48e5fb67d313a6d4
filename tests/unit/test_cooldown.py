"""Between two cells the server gets the time it needs to let go, and what it kept is told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_openenv_scale.core.endpoint import Endpoint, ServerSample
from pytest_openenv_scale.engine import cooldown
from pytest_openenv_scale.engine.cooldown import Cooldown
from pytest_openenv_scale.results.cell import SessionRow


class Server:
    """An endpoint with given descriptors and answers; `time` is a clock that only its sleepers advance."""

    def __init__(
        self, descriptors: Sequence[int | None] = (), answers: Sequence[str | None] = (), *, rejoins: bool = False
    ) -> None:
        self.descriptors, self.answers = list(descriptors), list(answers)
        self.played: list[float] = []
        self.looks = 0
        self.now = 100.0
        self.exit: str | None = None
        self.endpoint = Endpoint(
            *(("http://x",), "x", "x"),
            sampler=self._sample,
            exit_reader=lambda: self.exit,
            rejoiner=lambda: rejoins,
        )
        self.settling = Cooldown(self.endpoint, self._play)

    def _sample(self) -> ServerSample | None:
        self.looks += 1
        if not self.descriptors:
            return None
        now = self.descriptors.pop(0) if len(self.descriptors) > 1 else self.descriptors[0]
        return ServerSample(self.now, descriptors=now)

    def _play(self, timeout_s: float) -> SessionRow:
        self.played.append(timeout_s)
        error = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        reset_done_s = 0.1 if error == "cut in step" else None
        row = SessionRow(0, 0, 0.0, 0.0, success=error is None, error_message=error, reset_done_s=reset_done_s)
        return row._replace(error_type="closed_early" if reset_done_s else error)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch):
    servers: list[Server] = []

    def server(*args, **named) -> Server:
        servers.append(Server(*args, **named))
        return servers[0]

    monkeypatch.setattr(cooldown.time, "monotonic", lambda: servers[0].now)
    monkeypatch.setattr(cooldown.time, "sleep", lambda seconds: setattr(servers[0], "now", servers[0].now + seconds))
    return server


def test_when_all_is_well_a_single_look_is_all_it_costs(clock):
    server = clock(descriptors=[20, 25, 20])
    for _ in range(3):
        sample, notes = server.settling.await_server()
        assert sample is not None
        assert notes == ()
        server.settling.cell_ended(mode="ws", failed=False, wait_s=1.0)
    assert (server.looks, server.now, server.played) == (3, 100.0, [])


def test_a_server_that_still_holds_descriptors_is_waited_for(clock):
    server = clock(descriptors=[20, 1020, 500, 36])
    server.settling.await_server()
    server.settling.cell_ended(mode="ws", failed=False, wait_s=1.0)
    sample, notes = server.settling.await_server()
    assert sample is not None
    assert (sample.descriptors, notes) == (36, ())
    assert server.looks == 4


def test_one_that_does_not_let_go_is_told_once_with_what_it_kept(golden, clock):
    server = clock(descriptors=[20, 1020])
    server.settling.await_server()
    server.settling.cell_ended(mode="ws", failed=False, wait_s=1.0)
    _, (note,) = server.settling.await_server()
    golden(note)
    assert 105.0 <= server.now < 105.1
    assert server.settling.await_server()[1] == ()
    assert server.now < 105.1


def test_after_failures_one_session_must_be_answered_before_the_next_cell(clock):
    server = clock(answers=["capacity", "refused", None])
    server.settling.await_server()
    server.settling.cell_ended(mode="ws", failed=True, wait_s=2.0)
    assert server.settling.await_server() == (None, ())
    assert len(server.played) == 3
    assert server.played[0] == 7.0


def test_an_environment_that_answers_with_an_error_has_answered(clock):
    server = clock(answers=["environment"])
    server.settling.cell_ended(mode="ws", failed=True, wait_s=0.0)
    assert server.settling.await_server() == (None, ())
    assert server.now == 100.0


def test_a_session_that_is_let_in_and_fails_later_was_answered(clock):
    server = clock(answers=["cut in step"])
    server.settling.cell_ended(mode="ws", failed=True, wait_s=0.0)
    assert server.settling.await_server() == (None, ())
    assert len(server.played) == 1


def test_a_server_at_whose_port_nothing_listens_is_waited_for_as_long_as_at_first(golden, clock):
    server = clock(answers=["refused", "capacity"], rejoins=True)
    server.settling.cell_ended(mode="ws", failed=True, wait_s=0.0)
    _, (note,) = server.settling.await_server()
    golden(note)
    assert len(server.played) == 1


def test_a_server_that_answers_nobody_is_told_and_not_waited_for_longer_than_bounded(golden, clock):
    server = clock(answers=["capacity"])
    server.settling.cell_ended(mode="ws", failed=True, wait_s=1.0)
    _, (note,) = server.settling.await_server()
    golden(note)
    assert 100.0 < server.now <= 106.0


def test_where_all_succeeded_or_nothing_was_measured_yet_nobody_is_asked(clock):
    server = clock(answers=["capacity"])
    server.settling.await_server()
    server.settling.cell_ended(mode="ws", failed=False, wait_s=1.0)
    server.settling.await_server()
    assert server.played == []


def test_a_server_that_died_is_not_waited_for(clock):
    server = clock(descriptors=[20, 1020], answers=["refused"])
    server.settling.await_server()
    server.settling.cell_ended(mode="ws", failed=True, wait_s=1.0)
    server.exit = "killed by SIGKILL"
    assert server.settling.await_server()[1] == ()
    assert (server.now, server.played) == (100.0, [])


def test_connections_kept_after_http_are_no_sessions_and_nobody_waits_for_them(clock):
    server = clock(descriptors=[20, 1020, 1020, 2020, 1030])
    server.settling.await_server()
    server.settling.cell_ended(mode="http", failed=False, wait_s=1.0)
    assert server.settling.await_server()[1] == ()
    server.settling.cell_ended(mode="ws", failed=False, wait_s=1.0)
    assert server.settling.await_server()[1] == ()
    assert (server.looks, server.now) == (3, 100.0)
    server.settling.cell_ended(mode="ws", failed=False, wait_s=1.0)
    assert server.settling.await_server()[1] == ()
    assert server.looks == 5  # These were sessions.
