"""What no client should send gets an error or a documented close, and the server goes on."""

import pytest

from pytest_openenv_scale.checking import Checking
from pytest_openenv_scale.checks import protocol
from pytest_openenv_scale.checks.run import Check

pytestmark = pytest.mark.protocol


@pytest.mark.parametrize("check", protocol.CHECKS.values(), ids=protocol.CHECKS)
def test_protocol(openenv_check: Checking, check: Check) -> None:
    """The answer is OpenEnv's, the session goes on where OpenEnv's does, and a new one works."""
    openenv_check(check)
