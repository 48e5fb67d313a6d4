"""What travels between the parent and its load processes arrives as it was sent."""

from __future__ import annotations

import pickle

import pytest
from cells import a_failure, a_row

from pytest_openenv_scale.load.ipc import ShareResult


@pytest.mark.parametrize("rows", [[], [a_row(1)], [a_row(1), a_failure(2), a_row(3, pid=None, host_url=None)]])
def test_rows_travel_by_columns_and_arrive_as_rows(rows):
    result = ShareResult(rows, 1.5, 0.5, 0.001, 0.02, 1 << 20, None, None, 0.25)
    received = pickle.loads(pickle.dumps(result))
    assert received == result
    assert [type(row) for row in received.rows] == [type(row) for row in rows]
