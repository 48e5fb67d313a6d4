"""Sessions that the client left in doubt leave a verdict in doubt only where it hangs on how they would have gone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import pytest
from cells import a_cell, a_failure, a_row, an_slo, summary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from playing import order, play_share
from pytest_openenv_scale.client import connection
from pytest_openenv_scale.load import worker_share
from pytest_openenv_scale.load.ipc import ShareResult
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.cell import ClientFinding, SessionRow
from pytest_openenv_scale.verdict.cell import judge_cell
from scripted_server import Peer, observation, scripted

STALL = (ClientFinding("loop_lag", "a load process stood still for 412 ms"),)
LOST = (ClientFinding("process_died", "load process 1 of 2 was killed and took 1 session with it"),)
BUSY = (ClientFinding("cpu", "a load process did not keep up"),)

FAILED = {"success": False, "total_latency": None, "error_phase": "step", "error_type": "timeout"}


def rows_of(latencies: Sequence[float | None], late: int) -> list[SessionRow]:
    """Sessions that took so long, None having failed; the first `late` of them were held up by the client."""
    rows: list[SessionRow] = []
    for number, latency in enumerate(latencies):
        row = a_row(number) if latency is None else a_row(number, total_latency=latency, step_latencies=[latency])
        row = row._replace(late_s=0.4 if number < late else None)
        rows.append(row._replace(**FAILED) if latency is None else row)
    return rows


def summary(rows: list[SessionRow], findings: tuple[ClientFinding, ...] = STALL, late: int | None = 1) -> CellSummary:
    return summary_of(rows, a_cell(len(rows)), findings=findings, client={"late_sessions": late})


def passed(cell: CellSummary, **limits) -> bool | None:
    return judge_cell(cell.batch, [cell], an_slo(**limits), 1).passed


LATENCIES = st.sampled_from([None, 0.5, 1.0, 1.5, 2.0])


@given(
    certain=st.lists(LATENCIES, min_size=1, max_size=6),
    doubtful=st.lists(LATENCIES, min_size=1, max_size=2),
    success=st.sampled_from([0.5, 0.6, 0.8, 0.95]),
    statistic=st.sampled_from(["total_p50", "step_p90", "total_p99"]),
    allowed=st.sampled_from([0.9, 1.2, 1.8]),
)
@settings(max_examples=12, deadline=None)
def test_a_verdict_that_stands_is_the_same_whichever_way_the_doubtful_sessions_had_gone(
    certain, doubtful, success, statistic, allowed
):
    """By enumeration: each doubtful session fails, or succeeds at once, or after an hour."""
    limits = {"success": success, statistic: f"{allowed}s"}
    verdict = passed(summary(rows_of([*doubtful, *certain], len(doubtful)), late=len(doubtful)), **limits)
    ways = itertools.product([None, 0.0, 3600.0], repeat=len(doubtful))
    others = {passed(summary(rows_of([*choice, *certain], 0), ()), **limits) for choice in ways}
    if verdict is not None:
        assert others == {verdict}


def test_a_few_late_sessions_leave_a_verdict_as_it_is():
    cell = summary(rows_of([1.0] * 40, 1))
    assert passed(cell, success=0.95) is True
    assert passed(cell, success=0.98) is None
    assert passed(cell, success=0.95, total_p90="1.5s") is True
    assert passed(cell, success=0.95, total_p99="1.5s") is None
    verdict = judge_cell(40, [cell], an_slo(success=0.95), 1)
    assert [(reason.kind, reason.cause) for reason in verdict.reasons] == [("client", "loop_lag")]


def test_nor_do_they_excuse_what_others_broke():
    cell = summary(rows_of([*[1.0] * 30, *[None] * 10], 1))
    assert passed(cell, success=0.95) is False
    slow = summary(rows_of([1.0, *[3.0] * 39], 1))
    assert passed(slow, success=0.5, total_p50="2s") is False


def test_sessions_of_a_lost_process_may_have_gone_either_way():
    rows = [*rows_of([1.0] * 39, 0), a_failure(39, phase="connect", type="client_limit", code=None, message="lost")]
    cell = summary(rows, LOST, None)
    assert passed(cell, success=0.95) is True
    assert passed(cell, success=1.0) is None


@pytest.mark.parametrize(("findings", "late"), [(BUSY, 1), ((*STALL, *BUSY), 1), (STALL, None)])
def test_where_any_session_may_have_been_late_nobody_can_say(findings, late):
    cell = summary(rows_of([1.0] * 40, 1), findings, late)
    assert cell.doubtful is None
    assert passed(cell, success=0.5) is None


def test_doubtful_sessions_survive_being_stored():
    cell = summary(rows_of([1.0] * 3, 1))
    assert cell.doubtful is not None
    assert cell.doubtful.count == 1
    assert CellSummary.from_json(cell.to_json()).doubtful == cell.doubtful


# Which sessions are late


async def stalled(monkeypatch: pytest.MonkeyPatch, *, due: bool) -> ShareResult:
    """Two steps of a session in a loop that stands still, as the first one's answer is there or before it is sent."""
    for module in (connection, worker_share):
        monkeypatch.setattr(module, "LATE_S", 0.1)

    async def script(peer: Peer) -> None:
        await peer.accept()
        steps_asked = 0
        while (await peer.asked())["type"] != "close":
            steps_asked += 1
            if steps_asked == 2 and not due:
                time.sleep(0.25)
            peer.say(observation())
            if steps_asked == 2 and due:
                time.sleep(0.25)
        await peer.part()

    async with scripted(script) as server:
        share, _ = await play_share(order(server.url, steps=2))
    return share


async def test_a_standstill_while_a_message_was_due_makes_its_session_late(monkeypatch):
    share = await stalled(monkeypatch, due=True)
    (row,) = share.rows
    assert (row.success, share.late_sessions) == (True, 1)
    assert row.late_s is not None
    assert 0.1 < row.late_s <= share.loop_lag_max_s


async def test_a_standstill_while_nothing_was_due_makes_nobody_late(monkeypatch):
    for _ in range(3):  # A machine that is busy with something else may hold a message up by itself.
        share = await stalled(monkeypatch, due=False)
        if share.late_sessions == 0:
            break
    assert share.late_sessions == 0
    assert share.rows[0].late_s is None
    assert share.loop_lag_max_s > 0.1
