"""What is said while something goes on: how much is left, what fits into a line, and when one is written."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from cells import a_cell, a_curve
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.config.limits import Slo
from pytest_openenv_scale.config.plan import Curve
from pytest_openenv_scale.config.search import SearchPlan
from pytest_openenv_scale.core.measure_lock import LockHolder
from pytest_openenv_scale.engine.forecast import Forecast, Pace
from pytest_openenv_scale.engine.search import Search
from pytest_openenv_scale.reporting.content.progress import (
    Part,
    Status,
    activity_status,
    check_status,
    clock_text,
    lock_words,
    sweep_status,
)
from pytest_openenv_scale.reporting.text.live import EVERY_S, LineNowAndThen, live_line
from pytest_openenv_scale.reporting.text.output import Output
from pytest_openenv_scale.reporting.text.page import Line
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.results.progress import LoadProgress, Position

SECONDS = st.floats(min_value=0.0, max_value=1e5)
STEPS = st.integers(min_value=0, max_value=10_000)
POSITIONS = st.builds(Position, st.just(3), st.just(16), st.just(1), st.just(1), SECONDS, SECONDS, st.none() | STEPS)
HERE = Position(number=3, cells=16, repetition=1, repetitions=1, expected_s=10.0, later_s=30.0, steps=320)
LOADED = LoadProgress(asked=64, open=60, finished=4, failed=0, elapsed_s=4.0, steps=160)


class TestWhatIsLeft:
    @given(POSITIONS, SECONDS, STEPS)
    def test_is_never_less_than_what_follows(self, position: Position, elapsed_s: float, steps: int):
        assert position.left_s(elapsed_s, steps) >= position.later_s

    @given(POSITIONS, SECONDS, STEPS, STEPS)
    def test_is_no_more_after_more_steps(self, position: Position, elapsed_s: float, steps: int, more: int):
        first, further = (position.left_s(elapsed_s, count) for count in (max(steps, 1), max(steps, 1) + more))
        assert further <= first

    @given(POSITIONS, SECONDS, SECONDS)
    def test_is_no_more_later_where_no_step_tells_anything(self, position: Position, elapsed_s: float, passed_s: float):
        assert position.left_s(elapsed_s + passed_s) <= position.left_s(elapsed_s)

    @given(POSITIONS, SECONDS, STEPS, SECONDS)
    def test_is_more_where_more_follows(self, position: Position, elapsed_s: float, steps: int, more_s: float):
        longer = replace(position, later_s=position.later_s + more_s)
        assert longer.left_s(elapsed_s, steps) >= position.left_s(elapsed_s, steps)

    def test_follows_the_plan_until_a_step_is_answered_and_then_the_steps(self):
        assert HERE.left_s(4.0) == 36.0
        assert HERE.left_s(4.0, 160) == 35.0
        assert HERE.left_s(40.0, 160) == 50.0  # Half of the steps took four times as long as all of them should.
        assert HERE.left_s(40.0, 320) == 30.0


def forecast(*curves: Curve, reps: int = 1, until_done: bool = False) -> Forecast:
    first = curves[0]
    record = SweepRecord(
        *("sweep", first.test, first.target, first.infrastructure, curves, (Slo(),) * len(curves)),
        *(first.steps, first.arrival, reps, 120.0),
        settings={"until_done": until_done},
    )
    return Forecast(record, curves)


class Left:
    """A source of cells with these batches left."""

    cells = stop_reason = None
    bounds = (None, None)

    def __init__(self, *batches: int) -> None:
        self._batches = batches

    def courses_left(self):
        return [self._batches]


class TestAForecast:
    def test_counts_the_cells_of_all_curves_and_not_their_repetitions(self):
        first, second = a_curve(1, 8, wait=0.1), a_curve(1, 8, wait=1.0)
        sweep = forecast(first, second, reps=2)
        sweep.begin_curve(first)
        begun = [sweep.begin(1, 1, Left(1, 8, 8)), sweep.begin(1, 2, Left(8, 8)), sweep.begin(8, 1, Left(8))]
        assert [(at.number, at.cells, at.repetition) for at in begun] == [(1, 4, 1), (1, 4, 2), (2, 4, 1)]
        sweep.begin_curve(second)
        assert sweep.begin(1, 1, Left(8)).number == 3

    def test_leaves_out_what_an_earlier_end_of_a_curve_saves(self):
        first, second = a_curve(1, 8, wait=0.1), a_curve(1, 8, wait=1.0)
        sweep = forecast(first, second)
        sweep.begin_curve(first)
        sweep.begin(1, 1, Left(8))
        sweep.begin_curve(second)
        assert (sweep.begin(1, 1, Left(8)).number, sweep.begin(8, 1, Left()).cells) == (2, 3)

    def test_is_by_the_plan_first_and_by_what_repetitions_took_then(self):
        curve = a_curve(1, 8, wait=1.0)
        sweep = forecast(curve)
        sweep.begin_curve(curve)
        planned = sweep.begin(1, 1, Left(8))
        sweep.ended(1, 3 * planned.expected_s)
        assert sweep.begin(8, 1, Left()).expected_s == pytest.approx(3 * planned.later_s)

    def test_is_bounded_by_the_budget(self):
        curve = a_curve(1, 8, wait=1.0)
        sweep = forecast(curve)
        sweep.begin_curve(curve, 3.0)
        assert sweep.begin(1, 1, Left(8, 8, 8), 3.0).later_s < 1.0

    def test_knows_the_steps_of_a_cell_unless_sessions_end_when_they_are_done(self):
        curve = a_curve(8, steps=5)
        for until_done, steps in ((False, 40), (True, None)):
            sweep = forecast(curve, until_done=until_done)
            sweep.begin_curve(curve)
            assert sweep.begin(8, 1, Left()).steps == steps

    @given(st.lists(st.tuples(SECONDS, SECONDS)), SECONDS)
    def test_has_a_pace_that_is_never_negative(self, measured: list[tuple[float, float]], planned_s: float):
        pace = Pace()
        for each in measured:
            pace.note(*each)
        assert pace.seconds(planned_s) >= 0.0

    def test_of_a_search_is_the_longest_of_what_it_may_still_ask(self):
        search = Search(SearchPlan(1, 64))
        while (batch := search.next_batch()) is not None:
            courses = search.courses_left()
            assert {course[0] for course in courses} == {batch}
            search.record(batch, batch <= 20)
        assert search.courses_left() == [()] * len(search.courses_left())


class TestTheLine:
    @given(st.integers(min_value=10, max_value=200), st.text(max_size=80))
    def test_fits(self, width: int, detail: str):
        assert len(replace(sweep_status(a_cell(64), HERE, LOADED, 12.0), detail=detail).text(width)) <= width

    def test_leaves_out_first_what_matters_least(self):
        parts = (Part("local"), Part("ws", 2), Part("batch 8"), Part("3 over", 1))
        assert Status(parts).text(40) == "local · ws · batch 8 · 3 over"
        assert Status(parts).text(28) == "local · batch 8 · 3 over"
        assert Status(parts).text(20) == "local · batch 8"

    def test_ends_with_a_detail_where_there_is_room_for_some_of_it(self):
        status = activity_status("docker:.", "starting", 42.0, "Step 3/9 : RUN pip install openenv-core")
        assert status.text(80) == "docker:. · starting · 0:42 · Step 3/9 : RUN pip install openenv-core"
        assert status.text(45) == "docker:. · starting · 0:42 · Step 3/9 : RUN.."
        assert status.text(35) == "docker:. · starting · 0:42"

    @pytest.mark.parametrize("width", [60, 80, 100, 120])
    def test_says_how_far_a_sweep_is(self, golden, width: int):
        probe = replace(HERE, cells=None, passed=64, failed=128)
        cells = [
            sweep_status(a_cell(64, steps=5), HERE, None, 41.0),
            sweep_status(a_cell(64, steps=5), replace(HERE, repetition=2, repetitions=3), LOADED, 45.0),
            sweep_status(a_cell(64, steps=5), HERE, replace(LOADED, failed=3), 4500.0),
            sweep_status(a_cell(64, steps=5), probe, LOADED, 45.0),
            sweep_status(a_cell(64, steps=5), replace(probe, passed=None, failed=None), LOADED, 45.0),
            sweep_status(a_cell(64, steps=5), replace(probe, failed=None), LOADED, 45.0),
            sweep_status(a_cell(64, arrival="steady=60"), replace(HERE, steps=None), LOADED, 45.0),
            sweep_status(a_cell(64, arrival="rate=50,for=3"), HERE, LOADED, 45.0),
        ]
        golden([status.text(width) for status in cells])

    def test_knows_how_much_is_done(self):
        assert sweep_status(a_cell(64), HERE, LOADED, 35.0).done == pytest.approx(0.5)
        assert sweep_status(a_cell(64), replace(HERE, expected_s=0.0, later_s=0.0), None, 0.0).done == 0.0

    @given(POSITIONS, SECONDS)
    def test_is_never_more_than_done(self, position: Position, elapsed_s: float):
        done = sweep_status(a_cell(64), position, LOADED, elapsed_s).done
        assert done is not None
        assert 0.0 <= done <= 1.0

    def test_of_a_check_tells_how_much_of_its_time_has_passed(self):
        assert check_status("opening 64 sessions", 0.2, 90.0).text(80) == "opening 64 sessions"
        assert check_status("opening 64 sessions", 12.4, 90.0).text(80) == "opening 64 sessions · 12 s of 90 s"

    def test_names_who_measures(self, golden):
        golden(lock_words(LockHolder(1234, "pytest tests/test_scale.py")))

    @pytest.mark.parametrize(("seconds", "text"), [(7.9, "0:07"), (750, "12:30"), (3723, "1:02:03"), (-1, "0:00")])
    def test_has_a_clock(self, seconds: float, text: str):
        assert clock_text(seconds) == text


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TestWithoutATerminal:
    def test_a_line_is_written_where_there_was_none_for_half_a_minute(self):
        clock, stream = Clock(), io.StringIO()
        line = LineNowAndThen(Output(stream, 60), clock)
        line.show(lambda: activity_status("local", "starting", clock.now - 100.0))
        for second in range(96):
            clock.now = 100.0 + second
            if second == 40:
                line.write(Line("a cell", {}))
            line.tick()
        line.clear()
        line.tick()
        written = ["local · starting · 0:30", "a cell", "local · starting · 1:10"]
        assert stream.getvalue().splitlines() == written
        assert EVERY_S == 30.0

    def test_what_it_cannot_print_is_written_in_ascii(self):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        clock = Clock()
        line = LineNowAndThen(Output(stream, 60), clock)
        line.show(lambda: activity_status("local", "starting", 1.0))
        clock.now += EVERY_S
        line.tick()
        line.clear()
        stream.seek(0)
        assert stream.read() == "local - starting - 0:01\n"


class Terminal(io.StringIO):
    """What a terminal is sent."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class TestOnATerminal:
    def test_the_line_is_drawn_below_what_is_written_and_wiped_away(self):
        terminal = Terminal()
        line = live_line(Output(terminal, 80), moves=True)
        line.show(lambda: sweep_status(a_cell(64), HERE, LOADED, 35.0))
        line.write(Line("a curve that has ended", {}))
        line.clear()
        line.clear()
        sent = terminal.getvalue()
        assert "a curve that has ended\n" in sent
        drawn = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", part) for part in sent.split("\r")]
        assert drawn.count("━━━━━      local-uvicorn · batch 64 · cell 3/16 · 60 open · ~0:35 left") >= 2
        assert "\x1b[?25l" not in sent  # The cursor is never hidden: nothing has to show it again.
        assert sent.endswith("\x1b[2K")

    @pytest.mark.parametrize("columns", [60, 79, 80, 120])
    def test_the_line_leaves_the_last_column_free(self, columns: int):
        terminal = Terminal()
        line = live_line(Output(terminal, columns), moves=True)
        line.show(lambda: sweep_status(a_cell(64), HERE, replace(LOADED, failed=3), 35.0))
        line.clear()
        drawn = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", part) for part in re.split(r"[\r\n]", terminal.getvalue())]
        assert 0 < max(map(len, drawn)) < columns
