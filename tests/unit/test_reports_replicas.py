"""What replicas and nodes bring: a table of the run, when a target is repeated with other numbers of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cells import a_cell, a_summary
from report_samples import a_run, a_sweep

from goldens import Golden
from pytest_openenv_scale.analysis.axes import efficiency, server_scalings
from pytest_openenv_scale.reporting.json import run_json
from pytest_openenv_scale.reporting.markdown.run import report_markdown, step_summary
from pytest_openenv_scale.reporting.text.overview import run_lines, scaling_lines
from pytest_openenv_scale.verdict.sweep import SweepView


def sweep(
    replicas: int, max_batch: int, rps: float, *, more: str = "", failed: bool = True, **record: Any
) -> SweepView:
    """A curve whose batch `max_batch` passes with a throughput; unless told otherwise one larger fails."""
    batches = (max_batch, 2 * max_batch) if failed else (max_batch,)
    target = f"envoy:replicas={replicas}{more}"
    summaries = [
        a_summary(
            batch,
            failed=0 if batch == max_batch else max_batch,
            cell=a_cell(batch, target=target),
            requests_per_second=rps * (batch / max_batch),
        )
        for batch in batches
    ]
    limits = {"replicas": replicas, "workers": 1}
    return a_sweep(
        *summaries,
        **{"target": target, "limits": limits, "infrastructure": f"envoy-local-replicas{replicas}", **record},
    )


def text_of(*sweeps: SweepView, width: int = 110) -> list[str]:
    return [line.text for line in scaling_lines(sweeps, width=width)]


def test_one_two_and_four_replicas_end_in_a_table(golden: Golden) -> None:
    golden(text_of(sweep(1, 64, 60.0), sweep(4, 128, 150.0), sweep(2, 128, 114.0)))


def test_efficiency_is_per_replica_relative_to_each_of_the_fewest() -> None:
    assert efficiency(120.0, 2, 60.0) == 1.0
    assert efficiency(120.0, 4, 60.0) == 0.5
    assert efficiency(None, 4, 60.0) is None
    assert efficiency(120.0, 4, None) is None
    assert efficiency(120.0, 4, 0.0) is None


def test_without_one_replica_the_fewest_are_the_unit() -> None:
    (table,) = server_scalings([sweep(2, 64, 100.0), sweep(4, 64, 100.0)])
    assert [row.efficiency for row in table.rows] == [1.0, 0.5]
    assert [row.capacity_efficiency for row in table.rows] == [1.0, 0.5]
    assert any("relative to 2 replicas" in line for line in text_of(sweep(2, 64, 100.0), sweep(4, 64, 100.0)))


def test_throughput_is_that_of_passing_batches_only() -> None:
    (table,) = server_scalings([sweep(1, 64, 60.0), sweep(2, 64, 60.0)])
    assert [row.requests_per_second for row in table.rows] == [60.0, 60.0]


def test_a_max_batch_that_nothing_bounded_is_marked_and_explained(golden: Golden) -> None:
    lines = text_of(sweep(1, 64, 60.0), sweep(2, 64, 60.0, failed=False))
    assert "≥ 64" in lines[3]
    golden(lines)


def test_a_curve_on_which_nothing_passes_has_no_figures() -> None:
    (table,) = server_scalings(
        [sweep(1, 64, 60.0), a_sweep(target="envoy:replicas=2", limits={"replicas": 2}, batches=(64,))]
    )
    row = table.rows[1]
    assert (row.max_batch, row.sessions_each, row.scaling_factor, row.efficiency) == (None, None, None, None)


@pytest.mark.parametrize(
    "sweeps",
    [
        (),
        (sweep(1, 64, 60.0),),
        (sweep(1, 64, 60.0), sweep(2, 64, 60.0, more=",lb=least_request")),
        (sweep(1, 64, 60.0), sweep(2, 64, 60.0, test="test_other.py::test_it")),
        (a_sweep(a_summary(4), limits={}), a_sweep(a_summary(4), limits={})),
    ],
)
def test_what_is_not_the_same_target_and_test_is_not_compared(sweeps: tuple[SweepView, ...]) -> None:
    assert server_scalings(sweeps) == []
    assert scaling_lines(sweeps) == []


def test_keys_that_do_not_change_what_is_measured_do_not_keep_targets_apart() -> None:
    (table,) = server_scalings([sweep(1, 8, 1.0, more=",label=one"), sweep(2, 8, 2.0, more=",label=two")])
    assert table.target == "envoy"


def on_nodes(nodes: int, max_batch: int, rps: float, target: str = "") -> SweepView:
    return sweep(
        nodes,
        max_batch,
        rps,
        target=target or f"slurm:nodes={nodes}",
        limits={"nodes": nodes, "workers": 2},
        infrastructure="slurm-single" if nodes == 1 else "slurm-multi",
        cores=2 * nodes,
    )


def test_one_node_and_several_are_one_table_with_what_each_node_brings(golden: Golden) -> None:
    golden(text_of(on_nodes(1, 64, 60.0), on_nodes(3, 192, 162.0), on_nodes(2, 128, 114.0), width=120))


def test_a_target_that_does_not_say_its_one_node_belongs_to_the_same_table() -> None:
    (table,) = server_scalings([on_nodes(1, 64, 60.0, target="slurm"), on_nodes(2, 96, 90.0)])
    assert [(row.count, row.scaling_factor, row.capacity_factor) for row in table.rows] == [
        (1, 1.0, 1.0),
        (2, 1.5, 1.5),
    ]


def test_every_report_of_a_run_on_nodes_speaks_of_nodes(golden: Golden, tmp_path: Path) -> None:
    run = a_run(tmp_path, on_nodes(1, 64, 60.0), on_nodes(2, 128, 114.0))
    assert any("nodes · slurm · ws" in line.text for line in run_lines(run))
    (row,) = [line.split("|")[4:7] for line in report_markdown(run).splitlines() if "×1.90" in line]
    assert [cell.strip() for cell in row] == ["nodes", "2", "64"]
    golden([line for line in step_summary(run).splitlines() if line.startswith("#")])
    document = json.loads(run_json(run))
    assert document["replicas"] == []
    (table,) = document["nodes"]
    assert [(row["nodes"], row["sessions_per_node"], row["scaling_factor"]) for row in table["rows"]] == [
        (1, 64.0, 1.0),
        (2, 64.0, 1.9),
    ]


def test_cores_that_differ_are_not_said_to_be_shared() -> None:
    lines = text_of(sweep(1, 64, 60.0, cores=2), sweep(2, 64, 60.0, cores=4))
    assert not any("share the same" in line for line in lines)


def test_every_report_of_a_run_has_the_table(golden: Golden, tmp_path: Path) -> None:
    run = a_run(tmp_path, sweep(1, 64, 60.0), sweep(2, 128, 114.0))
    assert any("replicas · envoy · ws" in line.text for line in run_lines(run))
    report = report_markdown(run)
    golden([line for line in report.splitlines() if line.startswith("#")])
    (row,) = [line.split("|")[4:-1] for line in report.splitlines() if "×1.90" in line]
    cells = ["replicas", "2", "64", "128", "×2.00", "100.0 %", "114", "×1.90", "95.0 %"]
    assert [cell.strip() for cell in row] == cells
    golden([line for line in step_summary(run).splitlines() if line.startswith("#")])
    document = json.loads(run_json(run))
    assert document["nodes"] == []
    (table,) = document["replicas"]
    assert [row["efficiency"] for row in table["rows"]] == [1.0, 0.95]
    assert (table["target"], table["mode"], table["cores"]) == ("envoy", "ws", 2)
