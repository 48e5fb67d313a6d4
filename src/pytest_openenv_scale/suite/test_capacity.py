"""Past its limit a server says so, and slots come back."""

import pytest

from pytest_openenv_scale.checking import Checking
from pytest_openenv_scale.checks import capacity
from pytest_openenv_scale.checks.run import Check

pytestmark = pytest.mark.capacity

_CHECKS = [capacity.refusal, capacity.others_go_on, capacity.freed_slot]


@pytest.mark.parametrize("check", _CHECKS, ids=["refusal", "others_go_on", "freed_slot"])
def test_capacity(openenv_check: Checking, check: Check) -> None:
    """One session too many is refused at once and disturbs nobody; a slot that is freed is usable again."""
    openenv_check(check)
