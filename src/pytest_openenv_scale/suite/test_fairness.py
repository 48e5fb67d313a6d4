"""No session starves among others."""

import pytest

from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.checks.under_load import fairness
from pytest_openenv_scale.plugin.check import CheckRunner

pytestmark = pytest.mark.fairness


@pytest.mark.parametrize("check", [fairness.fair_shares], ids=["shares"])
def test_fairness(openenv_check: CheckRunner, check: Check) -> None:
    """Sessions that step as fast as they are answered get about as much as each other."""
    openenv_check(check)
