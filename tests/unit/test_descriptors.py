"""The limit of descriptors is raised as far as the system lets it, also where it says "infinity" and means less."""

from __future__ import annotations

import resource

import pytest

from pytest_openenv_scale.core.system import descriptor_limit, raise_descriptor_limit
from pytest_openenv_scale.targets.common import parent_death


class Limits:
    """A system that lets a process have `most`, whatever the hard limit says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, soft: int, hard: int, most: int) -> None:
        self.soft, self.hard, self.most = soft, hard, most
        monkeypatch.setattr(resource, "getrlimit", lambda kind: (self.soft, self.hard))
        monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: self.set(*limits))

    def set(self, soft: int, hard: int) -> None:
        assert hard == self.hard
        if not 0 <= soft <= self.most:
            raise ValueError("current limit exceeds maximum limit")
        self.soft = soft


@pytest.mark.parametrize(
    ("hard", "most", "reached"),
    [
        (4096, 4096, 4096),
        (resource.RLIM_INFINITY, 10_240, 10_240),
        (resource.RLIM_INFINITY, 61_440, 32_768),
        (resource.RLIM_INFINITY, 1 << 40, 1 << 20),
        (resource.RLIM_INFINITY, 1000, 256),
    ],
)
def test_it_is_raised_as_far_as_the_system_lets_it_and_foreseen_without_doing_so(monkeypatch, hard, most, reached):
    limits = Limits(monkeypatch, soft=256, hard=hard, most=most)
    assert descriptor_limit() == reached
    assert limits.soft == 256
    assert raise_descriptor_limit() == reached
    assert limits.soft == reached


def test_a_server_that_is_started_gets_what_the_system_lets_it_have(monkeypatch):
    limits = Limits(monkeypatch, soft=256, hard=resource.RLIM_INFINITY, most=61_440)
    parent_death.limit_descriptors(None)
    assert limits.soft == 10_240
