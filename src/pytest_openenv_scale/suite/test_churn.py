"""Sessions that come and go, well or badly, leave nothing behind."""

import pytest

from pytest_openenv_scale.checks.run import Check
from pytest_openenv_scale.checks.under_load import churn
from pytest_openenv_scale.plugin.check import CheckRunner

pytestmark = pytest.mark.churn

_CHECKS = [churn.short_sessions, churn.dropped_sessions, churn.silent_clients, churn.clients_not_reading]


@pytest.mark.parametrize("check", _CHECKS, ids=["short", "dropped", "silent", "not_reading"])
def test_churn(openenv_check: CheckRunner, check: Check) -> None:
    """Afterwards slots, threads, descriptors and memory are back, and a lone session is as fast as before."""
    openenv_check(check)
