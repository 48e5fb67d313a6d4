"""Sessions see nothing of each other: side by side, under load, one after the other, and one episode of the next."""

import pytest

from pytest_openenv_scale.checks.isolation.concurrent import interleaved, under_load
from pytest_openenv_scale.checks.isolation.sequential import reset_twice, sequential
from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.plugin.check import CheckRunner

pytestmark = pytest.mark.isolation


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(interleaved, id="interleaved"),
        pytest.param(under_load, id="under_load"),
        pytest.param(reset_twice, id="reset_twice"),
        pytest.param(sequential, id="sequential"),
    ],
)
def test_isolation(openenv_check: CheckRunner, check: Check) -> None:
    """What a session is shown is its own."""
    openenv_check(check)
