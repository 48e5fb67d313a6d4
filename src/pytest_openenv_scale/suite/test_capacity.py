"""Past its limit a server says so, and slots come back."""

import pytest

from pytest_openenv_scale.checks.run import Check, Needs
from pytest_openenv_scale.checks.under_load import limit as under_load_limit
from pytest_openenv_scale.plugin.check import CheckRunner

pytestmark = pytest.mark.capacity


@pytest.mark.parametrize(
    ("check", "needs"),
    [
        pytest.param(under_load_limit.refusal, "sessions", id="refusal"),
        pytest.param(under_load_limit.others_go_on, "steps", id="others_go_on"),
        pytest.param(under_load_limit.freed_slot, "sessions", id="freed_slot"),
    ],
)
def test_capacity(openenv_check: CheckRunner, check: Check, needs: Needs) -> None:
    """One session too many is refused at once and disturbs nobody; a slot that is freed is usable again."""
    openenv_check(check, needs)
