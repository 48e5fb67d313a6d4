"""The specification of a `spaces` target: which Space, its settings for the run, and the cores of its hardware."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import short_repr
from pytest_openenv_scale.core.target_spec import TargetSpec, names_secret
from pytest_openenv_scale.targets.common import options
from pytest_openenv_scale.targets.common.application import BUILT_IN

FREE = "cpu-basic"
"""The hardware every Space has unless it is asked for more; its sleep time is fixed."""

VCPUS = {
    "cpu-basic": 2,
    "cpu-upgrade": 8,
    "t4-small": 4,
    "t4-medium": 8,
    "l40sx1": 8,
    "l40sx4": 48,
    "l40sx8": 192,
    "a10g-small": 4,
    "a10g-large": 12,
    "a10g-largex2": 24,
    "a10g-largex4": 48,
    "a100-large": 12,
}
"""Processors of a Space by the name of its hardware (source: https://huggingface.co/docs/hub/spaces-gpus)."""

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_DURATION = re.compile(r"(\d+)\s*(s|m|h|)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
NEVER = -1
"""The sleep time of a Space that never sleeps, as the Hub's API writes it."""

SAFE_SLEEP_S = 3600
"""Seconds after which hardware asked for a run sleeps, unless told otherwise: a killed run is not billed for ever."""


def sleep_time(value: str, what: str) -> int:
    """Parse seconds ("300", "5m", "1h"), or "never"."""
    if value == "never":
        return NEVER
    match = _DURATION.fullmatch(value)
    if match is None or int(match[1]) == 0:
        raise GrammarError(f"{what} must be a time, got {short_repr(value)}; write 300, 5m, 1h or never")
    return int(match[1]) * _SECONDS[match[2]]


def flag(value: str, what: str) -> bool:
    """Parse a key that stands without a value, as in `,temporary`."""
    if value not in ("yes", "true", "1"):
        raise GrammarError(f"{what} is written without a value, got {short_repr(value)}; leave it out for no")
    return True


@dataclass(frozen=True)
class SpaceSpec(options.TargetOptions, options.StartOptions):
    """A parsed specification; `variables` are those the Space is to have during the run.

    `repo_id` is None for a temporary Space whose name is ours to choose; `sleep_time` is in seconds, or `NEVER`.
    """

    repo_id: str | None = None
    sleep_time: int | None = options.option(sleep_time)
    temporary: bool = options.option(flag, False)
    app: str | None = options.option()
    folder: str | None = options.option()
    variables: Mapping[str, str] = options.variables()


def parse_space(spec: TargetSpec) -> SpaceSpec:
    """Return what `spaces:USER/NAME,key=value…` asks for.

    Raises:
        GrammarError: it names no Space, a key is unknown, or keys do not go together.
    """
    space = options.read_options(spec, SpaceSpec)
    if spec.argument is None and not space.temporary:
        raise GrammarError("target spaces: name the Space, spaces:USER/NAME; or write spaces,temporary for one of ours")
    if spec.argument is not None and not _REPO_ID.fullmatch(spec.argument):
        raise GrammarError(f"target spaces: {short_repr(spec.argument)} names no Space; write spaces:USER/NAME")
    for key, value in (("app", space.app), ("folder", space.folder)):
        if value and not space.temporary:
            raise GrammarError(f"target spaces: {key}= is for a Space made for the run; add ,temporary")
    if space.app == BUILT_IN and space.folder:
        raise GrammarError("target spaces: app=builtin is no app of a folder; leave out folder=")
    if space.sleep_time is not None and space.hardware == FREE:
        raise GrammarError(f"target spaces: the sleep time of {FREE} is fixed to 48 h; leave out sleep_time=")
    for name in space.variables:
        if names_secret(name):
            raise GrammarError(
                f"target spaces: anybody can read the variables of a Space; make {name} one of its secrets, "
                "in its settings, instead of env."
            )
    variables = {**space.variables, **options.variables_for(**space.declared)}
    return replace(space, repo_id=spec.argument, variables=variables)
