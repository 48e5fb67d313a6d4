"""Distributions and concurrency from rows: thinned, and exact where they are drawn."""

from __future__ import annotations

import math

import pytest
from cells import a_cell, a_failure, a_meta, a_part, a_row
from figures_samples import stored
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from study_samples import sample, stored_run

from pytest_openenv_scale.analysis.study import join_runs
from pytest_openenv_scale.reporting.figures import sessions
from pytest_openenv_scale.reporting.figures import sessions as figure
from pytest_openenv_scale.reporting.figures.sessions import StudyRows, overhead_distribution, session_concurrency
from pytest_openenv_scale.results.parts import Part

SECONDS = st.floats(0.0, 30.0, allow_nan=False).map(lambda value: round(value, 4))
IN_ONE_FOLDER = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def part_of(folder, rows, *, arrival="hold", repetition=1) -> Part:
    meta = a_meta(a_cell(max(len(rows), 1), arrival=arrival), repetition=repetition)
    return a_part(folder, rows, meta)


class TestOverheadDistribution:
    @given(values=st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=60))
    @IN_ONE_FOLDER
    def test_a_share_is_exactly_that_of_the_sessions_at_most_so_slow(self, values, tmp_path):
        rows = [a_row(at, total_latency=1.0 + value) for at, value in enumerate(values)]
        overheads = [row.total_latency - 1.0 for row in rows]
        count, seconds, shares = overhead_distribution([part_of(tmp_path, rows)])
        assert count == len(values)
        assert shares[-1] == 1.0
        for at, share in zip(seconds, shares, strict=True):
            # A value on the edge of a step may be on either side of it by rounding.
            below = sum(value <= at * (1 - 1e-9) for value in overheads)
            upto = sum(value <= at * (1 + 1e-9) for value in overheads)
            assert below <= round(share * len(values)) <= upto

    def test_it_is_over_all_repetitions_and_successes_only(self, tmp_path):
        first = part_of(tmp_path, [a_row(0, total_latency=1.1), a_failure(1)])
        second = part_of(tmp_path, [a_row(0, total_latency=1.2)], repetition=2)
        count, seconds, shares = overhead_distribution([first, second])
        assert (count, shares) == (2, [0.5, 1.0])
        assert seconds == pytest.approx([0.1, 0.2], rel=0.02)

    def test_sessions_that_are_not_judged_are_not_among_it(self, tmp_path):
        rows = [a_row(0, total_latency=1.1), a_row(1, total_latency=9.0, judged=False)]
        assert overhead_distribution([part_of(tmp_path, rows, arrival="steady=60,ramp=10")])[0] == 1

    def test_it_does_not_grow_with_the_rows(self, tmp_path):
        rows = [a_row(at, total_latency=1.01 + at * 1e-5) for at in range(20_000)]
        count, seconds, _ = overhead_distribution([part_of(tmp_path, rows)])
        assert count == 20_000
        assert len(seconds) < 200

    def test_no_overhead_at_all_has_a_place_too(self, tmp_path):
        count, seconds, _ = overhead_distribution([part_of(tmp_path, [a_row(0, total_latency=0.99)])])
        assert (count, seconds) == (1, [pytest.approx(1e-5)])

    def test_no_success_is_no_distribution(self, tmp_path):
        assert overhead_distribution([part_of(tmp_path, [a_failure(0)])]) == (0, [], [])


class TestConcurrency:
    @given(spans=st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=1, max_size=30))
    @IN_ONE_FOLDER
    def test_open_and_stepping_are_exact_at_every_moment_drawn(self, spans, tmp_path):
        rows = [
            a_row(at, reset_done_s=up, hold_latency=hold, closed_s=up + hold + stepping)
            for at, (up, hold, stepping) in enumerate(spans)
        ]
        concurrency = session_concurrency(part_of(tmp_path, rows))
        if concurrency is None:
            return
        for at, opened, stepping in zip(concurrency.times, concurrency.opened, concurrency.stepping, strict=True):
            # A session that begins or ends within a rounding error of a moment may count there or not.
            for counted, starts in (
                (opened, [row.reset_done_s for row in rows]),
                (stepping, [row.reset_done_s + row.hold_latency for row in rows]),
            ):
                lives = list(zip(starts, [row.closed_s for row in rows], strict=True))
                surely = sum(start <= at - 1e-6 and at + 1e-6 < end for start, end in lives)
                maybe = sum(start <= at + 1e-6 and at - 1e-6 < end for start, end in lives)
                assert surely <= counted <= maybe

    def test_a_batch_is_asked_for_as_a_whole(self, tmp_path):
        concurrency = session_concurrency(part_of(tmp_path, [a_row(0), a_row(1), a_failure(2)]))
        assert concurrency is not None
        assert set(concurrency.asked) == {3}
        assert max(concurrency.opened) == 2

    def test_at_a_rate_asked_for_is_what_is_due_and_not_over(self, tmp_path):
        rows = [a_row(at, due_s=at * 1.0, reset_done_s=at + 0.1, closed_s=at + 0.5) for at in range(3)]
        concurrency = session_concurrency(part_of(tmp_path, rows, arrival="rate=1"))
        assert concurrency is not None
        assert max(concurrency.asked) == 1
        assert 0 in concurrency.asked[1:-1]

    def test_a_session_that_never_closed_stays_to_the_end(self, tmp_path):
        concurrency = session_concurrency(part_of(tmp_path, [a_row(0, reset_done_s=0.1, closed_s=None), a_row(1)]))
        assert concurrency is not None
        assert concurrency.opened[-1] >= 1

    def test_no_reset_is_no_concurrency(self, tmp_path):
        assert session_concurrency(part_of(tmp_path, [a_failure(0)])) is None

    def test_its_length_does_not_grow_with_the_rows(self, tmp_path):
        rows = [a_row(at, reset_done_s=at * 1e-3, closed_s=at * 1e-3 + 5) for at in range(5_000)]
        concurrency = session_concurrency(part_of(tmp_path, rows))
        assert concurrency is not None
        assert len(concurrency.times) <= 502
        assert max(concurrency.opened) == pytest.approx(5_000, rel=0.01)


class TestFigures:
    def test_overhead_has_a_line_per_batch_that_ends_at_all_sessions(self, tmp_path):
        study = stored(tmp_path)
        content = sessions.overhead_content(study, StudyRows.from_study(study))
        assert content is not None
        lines = content.frames["lines"]
        assert content.facts["batches"] == [1, 8, 32, 128]
        keys = list(zip(lines["infrastructure"], lines["panel"], lines["batch"], strict=True))
        assert len(set(keys)) == 2 * 2 * 4
        for key in set(keys):
            shares = [share for share, one in zip(lines["share"], keys, strict=True) if one == key]
            assert shares[0] == 0
            assert shares[-1] == 1
            assert shares == sorted(shares)

    def test_concurrency_shows_max_batch_and_the_first_that_fails(self, tmp_path):
        study = stored(tmp_path)
        content = figure.concurrency_content(study, StudyRows.from_study(study))
        assert content is not None
        assert [panel for panel in content.facts["panels"] if "wait 1 s" in panel] == [
            f"local-{name}\nws · wait 1 s · batch {batch}"
            for name in ("hypercorn", "uvicorn")
            for batch in ("32: passes", "128: fails ✕")
        ]
        assert (
            list(content.frames["peaks"]["text"])
            == [
                "at most 32 open of 32",
                "at most 96 open of 128",
            ]
            * 4
        )

    def test_of_many_cells_the_longest_waits_are_shown_and_the_rest_is_told(self, tmp_path):
        curves = {("ws", wait): {1: (1.0, 0.004), 4: (0.5, 0.1)} for wait in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)}
        study = join_runs([stored_run(tmp_path, sample(curves=curves))])
        content = figure.concurrency_content(study, StudyRows.from_study(study))
        assert content is not None
        assert len(content.facts["panels"]) == 2
        assert all("wait 1 s" in panel for panel in content.facts["panels"])
        assert content.notes[-1].startswith("12 more cells not shown")

    def test_slots_have_no_moment_from_which_on_all_step(self, tmp_path):
        study = join_runs([stored_run(tmp_path, sample("local-uvicorn", {8: (1.0, 0.01)}, arrival="steady=60"))])
        content = figure.concurrency_content(study, StudyRows.from_study(study))
        assert content is not None
        assert content.facts["measures"] == ["asked for", "open"]
        assert content.facts["panels"] == ["local-uvicorn\nws · wait 1 s · steady 60 s · 8 slots: passes"]

    def test_of_very_many_cells_each_curve_shows_the_one_beyond_its_max_batch(self, tmp_path):
        targets = [
            sample(f"target{at}", {1: (1.0, 0.004), 4: (0.5, 0.1)}, target=f"local,workers={at}")
            for at in range(1, figure.MOST_PANELS // 2 + 3)
        ]
        study = join_runs([stored_run(tmp_path, *targets)])
        content = figure.concurrency_content(study, StudyRows.from_study(study))
        assert content is not None
        assert len(content.facts["panels"]) == len(targets)
        assert all(panel.endswith("batch 4: fails ✕") for panel in content.facts["panels"])

    def test_a_damaged_part_is_left_out(self, tmp_path):
        study = stored(tmp_path)
        for part in (study.runs[0].path / "sessions.parquet").glob("*w1-b128-*"):
            content = bytearray(part.read_bytes())
            middle = len(content) // 3
            content[middle : middle + 200] = bytes(200)
            part.write_bytes(bytes(content))
        found = sessions.overhead_content(study, StudyRows.from_study(study))
        assert found is not None
        assert 32 in found.facts["batches"]
        assert math.isfinite(sum(found.frames["lines"]["seconds"]))
