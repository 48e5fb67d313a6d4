"""A server as checks see it, for tests that ask them without pytest's plugin."""

from __future__ import annotations

from typing import Any

from pytest_openenv_scale.checks.subject import Subject
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.workload import Workload


def subject(url: str, *, endpoint: dict[str, Any] | None = None, **changes: Any) -> Subject:
    """The server at a base URL, which takes `wait_seconds`; patient for a second or two, up to eight sessions."""
    given: dict[str, Any] = {
        "workload": Workload(({"wait_seconds": "$wait"},)),
        "most": 8,
        "wait_s": 0.0,
        "timeout_s": 2.0,
        "soak_s": 2.0,
    }
    return Subject(Endpoint((url,), "here", url, **(endpoint or {})), **{**given, **changes})
