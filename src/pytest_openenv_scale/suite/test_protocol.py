"""What no client should send gets an error or a documented close, and the server goes on."""

import pytest

from pytest_openenv_scale.checks.protocol import checks as protocol_checks
from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.plugin.check import CheckRunner

pytestmark = pytest.mark.protocol


@pytest.mark.parametrize("check", protocol_checks.CHECKS.values(), ids=protocol_checks.CHECKS)
def test_protocol(openenv_check: CheckRunner, check: Check) -> None:
    """The answer is OpenEnv's, the session goes on where OpenEnv's does, and a new one works."""
    openenv_check(check, needs="sessions")
