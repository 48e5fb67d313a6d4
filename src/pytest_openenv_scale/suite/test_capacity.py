"""Past its limit a server says so, and slots come back."""

import pytest

from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.checks.under_load import limit as under_load_limit
from pytest_openenv_scale.plugin.check import CheckRunner

pytestmark = pytest.mark.capacity

_CHECKS = [under_load_limit.refusal, under_load_limit.others_go_on, under_load_limit.freed_slot]


@pytest.mark.parametrize("check", _CHECKS, ids=["refusal", "others_go_on", "freed_slot"])
def test_capacity(openenv_check: CheckRunner, check: Check) -> None:
    """One session too many is refused at once and disturbs nobody; a slot that is freed is usable again."""
    openenv_check(check)
