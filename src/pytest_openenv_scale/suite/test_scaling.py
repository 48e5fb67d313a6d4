"""How many sessions the target holds, on the grid and against the limits of the options."""

import pytest

from pytest_openenv_scale.plugin.scaling_fixture import Scaling


@pytest.mark.scaling
def test_scaling(scaling: Scaling) -> None:
    """Max batch for each mode and wait; limits are given with `--openenv-slo`."""
    scaling.skip_where_sessions_do_not_play()
    scaling.run()
