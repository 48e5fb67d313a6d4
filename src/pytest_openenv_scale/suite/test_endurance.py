"""Nothing drifts while sessions play on and on."""

import pytest

from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.checks.under_load import endurance
from pytest_openenv_scale.plugin.check import CheckRunner

pytestmark = pytest.mark.endurance


@pytest.mark.parametrize("check", [endurance.steady_soak], ids=["soak"])
def test_endurance(openenv_check: CheckRunner, check: Check) -> None:
    """Latency, memory, threads, descriptors and errors stay as they are for `--openenv-soak`."""
    openenv_check(check)
