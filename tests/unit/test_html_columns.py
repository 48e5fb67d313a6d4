"""Which columns of a table a page shows at which width."""

from __future__ import annotations

from itertools import pairwise

import pytest
from html_pages import large_study
from report_samples import steady_sweep
from study_samples import a_study

from pytest_openenv_scale.analysis.study import batch_points
from pytest_openenv_scale.reporting.content.study_tables import study_tables
from pytest_openenv_scale.reporting.content.tables import batches_table, text_table
from pytest_openenv_scale.reporting.content.wording import visible_columns
from pytest_openenv_scale.reporting.html.columns import WIDTHS, fit_columns

TABLES = [table for study in (a_study(), large_study()) for table in study_tables(study) if table]


def widths(table) -> list[int]:
    return [int(name.removeprefix("w")) for name, _ in fit_columns(table).left_out]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.key)
def test_what_is_left_out_first_needs_the_widest_page_and_the_first_column_stays(table) -> None:
    assert all(one >= other for one, other in pairwise(widths(table)))
    assert set(widths(table)) <= set(WIDTHS)
    classes = fit_columns(table).classes
    assert list(classes) == list(table.heads)
    assert "w" not in classes[table.heads[0]]


def test_a_batch_and_its_verdict_stay_and_others_go_as_on_the_terminal() -> None:
    (view,) = steady_sweep().curves
    points = batch_points(view)
    table = batches_table(view, points, "verdict", lambda point: "✓")
    assert table.heads[:2] == ("slots", "verdict")
    by_drop = sorted(visible_columns(view, points)[1:], key=lambda column: -column.drop)
    left_out = [name for _, name in fit_columns(table).left_out]
    assert left_out[:6] == ["rps", "reset", "overhead", "step", "connect", "total"]
    assert left_out == [column.name for column in by_drop[: len(left_out)]]


def test_numbers_go_before_names_and_those_before_what_can_be_broken_into_lines() -> None:
    message = "a message that is long enough to be broken into several lines"
    table = text_table("t", "T", "a|b|kind|message|count", [["x" * 12] * 3 + [message, "1,024"]], right="count")
    assert [name for _, name in fit_columns(table).left_out] == ["count", "kind", "message"]


def test_a_table_that_always_fits_leaves_nothing_out() -> None:
    assert fit_columns(text_table("t", "T", "a|b|c", [["1", "2", "3"]])).left_out == ()
