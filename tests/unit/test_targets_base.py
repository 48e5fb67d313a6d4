"""A target takes down all it has started, on every way out, and says what it could not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from goldens import Golden
from pytest_openenv_scale.core.endpoint import Endpoint
from pytest_openenv_scale.core.errors import TargetError
from pytest_openenv_scale.core.target_spec import parse_target
from pytest_openenv_scale.targets.common.base import DescriptionPart, StartedTarget
from pytest_openenv_scale.targets.common.options import TargetContext, TargetOptions

ENDPOINT = Endpoint(("http://h",), "h", "x", cores=8, hardware="found")


def failing(message: str) -> Callable[[], None]:
    def stop() -> None:
        raise TargetError(message)

    return stop


class _Target(StartedTarget):
    """Starts two things that cannot be stopped around one that can."""

    stopped = False
    failure: BaseException | None = None

    def describe(self) -> list[DescriptionPart]:
        return []

    def start(self, stack: ExitStack) -> Endpoint:
        stack.callback(failing("the first may still run"))
        stack.callback(setattr, self, "stopped", True)
        stack.callback(failing("the last may still run"))
        if self.failure is not None:
            raise self.failure
        return ENDPOINT


@pytest.fixture
def target(tmp_path: Path) -> _Target:
    return _Target(parse_target("x:y,env.TOKEN=secret"), TargetContext(tmp_path), TargetOptions(label="mine", cores=3))


def test_leaving_stops_everything_and_names_all_that_could_not_be_stopped(golden: Golden, target: _Target) -> None:
    assert target.spec == "x:y,env.TOKEN=***"
    target.__enter__()
    assert not target.stopped
    with pytest.raises(TargetError) as caught:
        target.__exit__(None, None, None)
    golden(caught.value)
    assert target.stopped


def test_what_the_specification_says_of_the_endpoint_comes_first(target: _Target) -> None:
    endpoint = target.__enter__()
    assert (endpoint.label, endpoint.cores, endpoint.hardware) == ("mine", 3, "found")


def test_a_start_that_fails_says_why_and_what_is_left(golden: Golden, target: _Target) -> None:
    target.failure = TargetError("no server")
    with pytest.raises(TargetError) as caught, target:
        pass
    golden(caught.value)
    assert target.stopped


def test_an_interrupted_start_stays_an_interrupt(target: _Target) -> None:
    target.failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), target:
        pass
    assert target.stopped
