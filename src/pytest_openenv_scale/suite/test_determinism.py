"""The same seed and the same actions give the same observations, alone and among others."""

import pytest

from pytest_openenv_scale.checks.isolation.determinism import determinism
from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.plugin.check import CheckRunner

pytestmark = pytest.mark.determinism


@pytest.mark.parametrize("check", [pytest.param(determinism, id="among_others")])
def test_determinism(openenv_check: CheckRunner, check: Check) -> None:
    """What a seed gives does not depend on who else plays."""
    openenv_check(check)
