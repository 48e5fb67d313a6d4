"""A step of one session holds up nobody else."""

import pytest

from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.checks.under_load import responsiveness
from pytest_openenv_scale.plugin.check import CheckRunner

pytestmark = pytest.mark.responsiveness


@pytest.mark.parametrize("check", [responsiveness.health, responsiveness.parallel], ids=["health", "parallel"])
def test_responsiveness(openenv_check: CheckRunner, check: Check) -> None:
    """While steps run, HTTP is answered; steps of several sessions run side by side."""
    openenv_check(check)
