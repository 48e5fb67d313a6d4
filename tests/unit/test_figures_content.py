"""What every figure shows, as values: found without plotnine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from figures_samples import every_kind, in_doubt, one_point, replicas, steady_state, steady_state_of_hours, stored
from study_samples import a_study, sample

from pytest_openenv_scale.analysis.study import join_runs
from pytest_openenv_scale.core.formatting import seconds
from pytest_openenv_scale.reporting.figures import bars, lines, over_time
from pytest_openenv_scale.reporting.figures.content import (
    FigureContent,
    batch_breaks,
    round_ticks,
    side_by_side,
    wrap_label,
)
from pytest_openenv_scale.reporting.figures.write import KEYS, figure_contents


def rows_of(content: FigureContent | None, frame: str) -> list[dict]:
    assert content is not None
    columns = content.frames[frame]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def only_row(content: FigureContent | None, frame: str, **columns) -> dict:
    (match,) = (row for row in rows_of(content, frame) if columns.items() <= row.items())
    return match


class TestScaling:
    def test_a_point_is_the_worst_repetition_and_knows_the_range(self):
        study = a_study(sample("local-uvicorn", {8: (1.0, 0.01), 32: (0.5, 0.1)}, reps=2))
        point = only_row(lines.scaling_content(study), "points", batch=32)
        assert (point["success"], point["least"], point["most"], point["state"]) == (0.5, 0.5, 0.5, "fails")

    def test_the_line_to_stay_above_is_that_of_the_slo_or_95_percent(self):
        from cells import an_slo

        strict = sample("local-uvicorn", slo=an_slo(success=0.99))
        limits = rows_of(lines.scaling_content(a_study(strict, sample("local-docker", mode="http"))), "limits")
        assert {(limit["panel"], limit["limit"]) for limit in limits} == {
            ("ws · wait 1 s", 0.99),
            ("http · wait 1 s", 0.95),
        }

    def test_a_curve_whose_largest_batch_passes_ends_in_an_arrow(self):
        ends = rows_of(lines.scaling_content(every_kind()), "open")
        assert {(end["infrastructure"], end["batch"]) for end in ends} == {
            ("hf-spaces (cpu-upgrade)", 32),
            ("slurm-multi-nodes4", 16384),
        }

    def test_a_batch_in_doubt_is_neither_pass_nor_fail(self):
        states = {
            row["batch"]: row["state"]
            for row in rows_of(lines.scaling_content(in_doubt()), "points")
            if row["infrastructure"] == "local-uvicorn"
        }
        assert states == {8: "passes", 32: "passes", 128: "inconclusive"}

    def test_markers_of_one_batch_never_reach_the_next_batch(self):
        names = [f"name{at}" for at in range(12)]
        factors = side_by_side(names, [1, 2, 16384])
        assert list(factors) == names
        assert max(factors.values()) / min(factors.values()) < 2
        assert sorted(factors.values()) == list(factors.values())


class TestBars:
    @pytest.mark.parametrize(
        ("infrastructure", "value", "upper", "kind", "text"),
        [
            ("local-docker", 2048, 4096, "exact", "2,048"),
            ("slurm-multi-nodes4", 16384, None, "open", "≥ 16,384"),
            ("slurm-single", 512, 2048, "exact", "512"),
        ],
    )
    def test_a_bar_says_up_to_where_nothing_is_known(self, infrastructure, value, upper, kind, text):
        bar = only_row(bars.max_batch_content(every_kind()), "bars", infrastructure=infrastructure)
        assert (bar["value"], bar["upper"], bar["kind"], bar["text"]) == (value, upper, kind, text)

    def test_a_bar_in_doubt_says_at_least(self):
        bar = only_row(bars.max_batch_content(in_doubt()), "bars", infrastructure="local-uvicorn")
        assert (bar["value"], bar["upper"], bar["kind"], bar["text"]) == (32, 128, "unsure", "at least 32")

    def test_where_nothing_passes_the_bar_has_no_length(self):
        study = a_study(sample("local-uvicorn", {8: (0.0, 0.0), 32: (0.0, 0.0)}))
        bar = only_row(bars.max_batch_content(study), "bars")
        assert (bar["value"], bar["upper"], bar["text"]) == (0, 8, "none passes")

    def test_per_core_tells_the_batch_and_the_cores(self):
        bar = only_row(bars.batch_per_core_content(every_kind()), "bars", infrastructure="slurm-multi-nodes2")
        assert bar["value"] == pytest.approx(4096 / 96)
        assert bar["text"] == "42.7  (4,096 on 96 cores)"

    def test_per_core_leaves_out_what_has_no_known_cores_and_says_so(self, golden):
        content = bars.batch_per_core_content(a_study(sample("local-uvicorn"), sample("example.org", cores=None)))
        assert content is not None
        assert content.facts["infrastructures"] == ["local-uvicorn"]
        golden(content.notes[-1])

    def test_without_any_cores_there_is_no_figure_per_core(self):
        assert bars.batch_per_core_content(a_study(sample(cores=None))) is None

    @pytest.mark.parametrize(
        ("largest", "ticks"), [(0, [0]), (1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (250, [0, 50, 100, 150, 200, 250])]
    )
    def test_an_axis_has_round_numbers(self, largest, ticks):
        assert round_ticks(largest) == pytest.approx(ticks)


class TestHeat:
    def test_a_tile_is_the_p99_beyond_the_wait_of_the_slowest_repetition(self):
        tile = only_row(
            bars.heat_content(every_kind()), "tiles", infrastructure="local-uvicorn", panel="ws · wait 1 s", batch=512
        )
        assert tile["p99"] == pytest.approx(0.33 * 1.04)
        assert tile["text"] == seconds(0.33 * 1.04)

    def test_what_failed_is_marked_and_what_never_succeeded_has_no_colour(self):
        tiles = bars.heat_content(every_kind())
        assert (
            only_row(tiles, "tiles", infrastructure="hf-spaces (cpu-basic)", batch=256, panel="ws · wait 1 s")["text"]
            == "3.41 s ✕"
        )
        none = only_row(tiles, "tiles", infrastructure="hf-spaces (cpu-basic)", batch=512)
        assert (none["text"], none["shade"], none["p99"]) == ("none ✕", None, None)

    def test_slower_is_further_along_the_colours_in_every_panel(self):
        tiles = sorted(
            (row for row in rows_of(bars.heat_content(every_kind()), "tiles") if row["p99"]), key=lambda row: row["p99"]
        )
        reds = [int(tile["shade"][3:5], 16) for tile in tiles]
        assert reds == sorted(reds, reverse=True)
        assert reds[0] > reds[-1]

    def test_without_a_success_there_is_no_figure(self):
        assert bars.heat_content(a_study(sample(batches={8: (0.0, 0.0)}))) is None


class TestLatency:
    def test_phases_add_up_to_the_mean_overhead_at_max_batch(self):
        content = bars.latency_content(every_kind())
        for row in rows_of(content, "rows"):
            parts = [
                part
                for part in rows_of(content, "parts")
                if (part["infrastructure"], part["panel"]) == (row["infrastructure"], row["panel"])
            ]
            assert parts[-1]["end"] == pytest.approx(row["mean"])
            assert [part["start"] for part in parts[1:]] == [part["end"] for part in parts[:-1]]

    def test_http_has_no_connect_where_none_was_measured(self):
        parts = rows_of(bars.latency_content(a_study(sample(mode="http"))), "parts")
        assert [part["phase"] for part in parts] == ["queue", "reset", "step"]

    def test_where_no_batch_passes_the_largest_with_successes_is_shown_and_marked(self):
        study = a_study(sample(batches={8: (0.5, 0.1), 32: (0.25, 0.4), 128: (0.0, 0.0)}))
        row = only_row(bars.latency_content(study), "rows")
        assert row["batch"] == 32
        assert row["text"].startswith("batch 32 ✕: ")

    def test_without_a_wait_it_is_all_of_the_latency(self):
        assert rows_of(bars.latency_content(a_study(sample(wait=None))), "rows")


class TestThroughput:
    def test_efficiency_is_effective_concurrency_by_batch(self):
        study = every_kind()
        point = study.curve("local-docker", "ws", 1.0).points[1]
        efficiency = only_row(
            lines.throughput_content(study), "points", infrastructure="local-docker", batch=512, measure="efficiency"
        )
        assert efficiency["value"] == pytest.approx(point.effective_concurrency / 512)

    def test_the_ideal_is_every_session_done_in_its_waits(self):
        ideal = only_row(lines.throughput_content(every_kind()), "ideal", panel="ws · wait 5 s", batch=2048)
        assert ideal["value"] == pytest.approx(2048 / 5)

    def test_a_think_time_is_part_of_the_ideal_and_of_what_is_kept_busy(self):
        study = every_kind()
        thinking = [
            replace(
                curve,
                sweep=replace(curve.sweep, record=replace(curve.sweep.record, think_mean_s=3.0)),
                curve=replace(curve.curve, curve=replace(curve.curve.curve, think="3")),
            )
            for curve in study.curves
        ]
        figure = lines.throughput_content(replace(study, curves=tuple(thinking)))
        ideal = only_row(figure, "ideal", panel="ws · wait 5 s · think 3 s", batch=2048)
        assert ideal["value"] == pytest.approx(2048 / 8)
        point = study.curve("local-docker", "ws", 1.0).points[1]
        share = only_row(
            figure,
            "points",
            infrastructure="local-docker",
            batch=512,
            panel="ws · wait 1 s · think 3 s",
            measure="efficiency",
        )
        assert share["value"] == pytest.approx((point.effective_concurrency + 3 * point.requests_per_second) / 512)

    def test_without_waits_there_is_throughput_but_no_efficiency(self):
        content = lines.throughput_content(a_study(sample(wait=None)))
        assert {row["measure"] for row in rows_of(content, "points")} == {"sess/s"}
        assert content.facts["measures"] == ["sess/s"]


class TestOverTime:
    def test_a_panel_is_the_batch_on_either_side_of_max_batch_and_a_row_a_measure(self):
        content = over_time.over_time_content(steady_state())
        assert content is not None
        assert content.facts["panels"] == ["64 slots: passes", "128 slots: fails ✕"]
        load = "ws · wait 1 s · think exponential 2 s · steady 60 s, ramp 10 s"
        assert content.subtitle == f"local-uvicorn · {load}"
        assert content.facts["measures"] == ["sessions open", "step time", "success", "memory"]

    def test_a_point_is_in_the_middle_of_its_window_and_what_is_not_judged_is_shaded(self):
        content = over_time.over_time_content(steady_state())
        points = [row for row in rows_of(content, "points") if row["line"] == "step p99" and "64" in row["panel"]]
        assert [(row["seconds"], row["value"]) for row in points[:2]] == [(2.5, 0.012), (7.5, pytest.approx(0.013))]
        shaded = [(row["start"], row["end"]) for row in rows_of(content, "unjudged") if "64" in row["panel"]]
        assert shaded == [(0, 5), (5, 10), (60, 62.5)]

    def test_a_limit_is_drawn_where_its_measure_is(self):
        limits = rows_of(over_time.over_time_content(steady_state()), "limits")
        assert {(row["measure"], row["value"]) for row in limits} == {("success", 0.95)}

    def test_without_a_steady_state_there_is_no_figure(self):
        assert over_time.over_time_content(every_kind()) is None

    def test_a_check_that_lets_sessions_play_on_is_a_panel_beside(self):
        content = over_time.over_time_content(steady_state_of_hours())
        assert content is not None
        panel = content.facts["panels"][-1]
        assert panel == "local-uvicorn\nsoak: missed"
        assert content.subtitle == ""
        points = [row for row in rows_of(content, "points") if row["panel"] == panel]
        assert {row["line"] for row in points if row["measure"] == "step time"} == {"step p50", "step p99"}
        assert [row["seconds"] for row in points if row["measure"] == "memory"][:2] == [2.5, 7.5]
        # The first fifth is its warm-up.
        assert [row["end"] for row in rows_of(content, "unjudged") if row["panel"] == panel][-1] == 20


class TestNodes:
    def test_factors_are_relative_to_the_fewest(self):
        rows = {(row["measure"], row["replicas"]): row for row in rows_of(lines.nodes_content(replicas()), "points")}
        assert rows["max batch", 1]["factor"] == 1
        assert rows["max batch", 2]["factor"] == 1
        assert rows["max batch", 4]["factor"] == 4
        assert rows["max batch", 4]["text"] == "≥ 256 (100.0 %)"
        assert rows["max batch", 4]["open"]
        assert rows["max batch", 2]["text"] == "64 (50.0 %)"

    def test_nodes_are_counted_as_replicas_are(self):
        rows = {(row["measure"], row["replicas"]) for row in rows_of(lines.nodes_content(every_kind()), "points")}
        assert {("throughput", count) for count in (1, 2, 4)} <= rows

    def test_cores_are_said_of_the_target_that_shares_them(self, golden):
        golden(lines.nodes_content(replicas()).notes)
        assert not any("share" in note and "core" in note for note in lines.nodes_content(every_kind()).notes)

    def test_a_study_that_repeats_no_target_has_no_such_figure(self):
        assert lines.nodes_content(one_point()) is None


def test_figures_come_in_one_order_and_only_where_there_is_data(tmp_path):
    shown = [key for key in KEYS if key not in ("nodes", "over_time")]
    assert [content.key for content in figure_contents(stored(tmp_path))] == shown
    assert [content.key for content in figure_contents(every_kind())] == [
        key for key in KEYS if key not in ("overhead", "concurrency", "over_time")
    ]
    assert figure_contents(a_study(sample(curves={}))) == []


def test_one_panel_is_named_in_the_subtitle():
    assert {content.subtitle for content in figure_contents(one_point())} == {"ws · wait 1 s"}


def test_every_figure_says_in_words_what_it_shows():
    for content in figure_contents(every_kind()):
        assert content.alt_text.endswith(".")
        assert "local-uvicorn" in content.alt_text or "slurm" in content.alt_text


@pytest.mark.parametrize(
    ("batches", "most", "named"),
    [
        ([64], 5, [64]),
        ([1, 16384], 2, [1, 16384]),
        ([1, 8, 32, 128, 256], 7, [1, 8, 32, 128, 256]),
        ([2**at for at in range(15)], 5, [1, 8, 64, 512, 16384]),
    ],
)
def test_an_axis_names_its_ends_and_as_many_batches_as_fit(batches, most, named):
    assert batch_breaks(batches, most) == named


def test_long_names_are_broken_also_without_blanks():
    assert wrap_label("env.example-organisation.example", 16).count("\n") >= 1
    assert max(map(len, wrap_label("x" * 60, 16).split("\n"))) <= 17


def test_a_searched_curve_is_drawn_by_its_repetitions_and_its_bracket():
    from compare_samples import a_measured_run
    from test_search_reports import CASES, CLIFF

    drawn = lines.scaling_content(join_runs([a_measured_run(CASES["cliff"])]))
    assert [point["batch"] for point in rows_of(drawn, "points")] == [batch for batch, _ in CLIFF]
    assert rows_of(drawn, "brackets") == [{"panel": "ws · wait 1 s", "low": 777, "high": 778}]
    assert rows_of(lines.scaling_content(every_kind()), "brackets") == []
