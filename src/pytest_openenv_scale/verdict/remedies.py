"""What to change on a server so that it does not refuse again: settings as values, in the order to change them."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, replace
from typing import NamedTuple

from pytest_openenv_scale.core.endpoint import SessionSettings
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.target_spec import TargetSpec, parse_target
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.results.outcome import Refusal, Step

FLAG = "SUPPORTS_CONCURRENT_SESSIONS"
ARGUMENT = "max_concurrent_envs"
VARIABLE = "MAX_CONCURRENT_ENVS"

SPARE_CONNECTIONS = 10
"""Room for connections besides sessions: health checks, browsers."""

HEALTHCHECK_S = 120
"""How long uvicorn's supervisor should wait for a busy worker, in seconds."""

_SERVED_BY_US = ("local", "envoy", "docker", "slurm", "spaces", "provider")
"""The targets whose keys set the servers, and do not only describe them."""

_LEAST_SEEN = 4
"""Sessions per worker from which on a split says how the next one will be."""

_DEVIATIONS = 3.0
"""Standard deviations of a random split that a worker gets room for, beyond the share that was seen."""


class Split(NamedTuple):
    """How sessions were spread over workers: `busiest` of `total` were on the one that had most of them."""

    busiest: int
    total: int


def split_seen(
    summary: CellSummary, *, workers: int | None, limit: int | None = None, refused: int = 0
) -> Split | None:
    """Return how the sessions of a cell were spread over `workers`; None where they do not tell.

    Those that `limit` per worker refused had met a full worker: where not all were full, at most they and a full
    worker's sessions were meant for one. In a steady state the same slot may have been refused many times.
    """
    if refused and summary.is_steady:
        return None
    total = summary.held + refused if refused else summary.successful
    if workers is None or workers < 2 or total < _LEAST_SEEN * workers:
        return None
    if refused:
        return Split(limit + refused, total) if limit is not None and summary.held < workers * limit else None
    return Split(summary.busiest_worker, total) if summary.busiest_worker and summary.pids == workers else None


def room_per_worker(needed: int, workers: int | None, split: Split | None) -> int:
    """Return how many of `needed` sessions each worker needs room for.

    That is the share of the busiest worker that was seen, and three standard deviations of a random split beyond it;
    all of them where no split was seen.
    """
    if workers is None or workers < 2 or split is None:
        return needed
    share = min(max(split.busiest / split.total, 1 / workers), 1.0)
    chance = _DEVIATIONS * math.sqrt(needed * share * (1 - share))
    return min(needed, math.ceil(needed * share + chance))


@dataclass(frozen=True)
class Setter:
    """Where the settings of a server are made: by keys of its `target` if the plugin starts it, else by its owner."""

    target: str

    @property
    def spec(self) -> TargetSpec | None:
        """The target, where it can be read."""
        try:
            return parse_target(self.target)
        except GrammarError:
            return None

    @property
    def has_keys(self) -> bool:
        """Whether keys of the target set the server; on a URL they only describe it."""
        spec = self.spec
        return spec is not None and spec.name in _SERVED_BY_US and not re.search(r"\burls=", self.target)

    def variable(self, name: str, value: int | str) -> Step:
        """Return the step that sets an environment variable of the server."""
        if not self.has_keys:
            return Step("variable", name, value)
        return Step("key", "max_envs" if name == VARIABLE else f"env.{name}", value)

    def asking(self, subject: str, steps: tuple[Step, ...]) -> Step:
        """Return the step that has the suite ask about a subject, with the keys of `steps` in the target."""
        command, spec = f"pytest --pyargs pytest_openenv_scale.suite -m {subject}", self.spec
        if spec is not None and "***" not in self.target:
            keys = {step.name: str(step.value) for step in steps if step.kind == "key"}
            changed = replace(spec, options=tuple(sorted({**dict(spec.options), **keys}.items())))
            command += f" --openenv-target {shlex.quote(str(changed))}"
        return Step("ask", subject, command)


def session_steps(
    value: int | str, *, setter: Setter, settings: SessionSettings | None, limit: int | None
) -> tuple[Step, ...]:
    """Return what lets each worker hold `value` sessions, where it holds `limit` now, first things first.

    What binds is told by the application's source, `settings`, unless the server contradicts it; where it does not
    tell, all that may bind is listed.
    """
    known = settings if settings is not None and _agrees(settings, limit) else None
    steps = [*_sharing(known), *_flag(known, limit), *_limit(known, value, setter)]
    return (*steps, setter.asking("isolation", tuple(steps)))


def _agrees(settings: SessionSettings, limit: int | None) -> bool:
    """Say whether a server may run what its source says: it may have changed since the server started."""
    if limit is None:
        return True
    return settings.argument in (None, limit) and not (settings.flag is False and limit > 1)


def _sharing(settings: SessionSettings | None) -> list[Step]:
    if settings is None or settings.shared is None:
        return []
    return [Step("object", settings.environment or "environment", "one per session", settings.shared)]


def _flag(settings: SessionSettings | None, limit: int | None) -> list[Step]:
    flag = settings.flag if settings is not None else None
    if flag or (limit or 1) > 1:
        return []  # Without the flag a server of several sessions does not start.
    if settings is None or flag is None:
        return [Step("attribute", FLAG, True, sure=False)]
    return [Step("attribute", FLAG, True, f"{settings.environment} ({settings.class_at})")]


def _limit(settings: SessionSettings | None, value: int | str, setter: Setter) -> list[Step]:
    if settings is not None and settings.option is not None:
        return [Step("option", settings.option, value)]
    if settings is not None and settings.variable is not None:
        return [setter.variable(settings.variable, value)]
    if settings is not None and settings.argument is not None:
        return [Step("argument", ARGUMENT, value, f"{settings.function} ({settings.call})")]
    where = f"{settings.function} ({settings.call})" if settings is not None else "create_app(...)"
    return [setter.variable(VARIABLE, value), Step("argument", ARGUMENT, value, where, sure=False)]


def remedy_steps(refusal: Refusal, summary: CellSummary) -> tuple[Step, ...]:
    """Return which settings to change so that what refused does not refuse again; none where none would help."""
    setter = Setter(summary.cell.target)
    needed = int(refusal.figures.get("needed") or refusal.batch)
    room = int(refusal.figures.get("room") or needed)
    match refusal.cause:
        case "capacity" | "one_session":
            limit = refusal.figures.get("limit")
            return session_steps(
                room,
                setter=setter,
                settings=summary.session_settings,
                limit=int(limit) if isinstance(limit, int | float) else None,
            )
        case "limit_concurrency":
            value = room + SPARE_CONNECTIONS
            by_key = "limit_concurrency" in summary.limits and setter.has_keys
            return (
                Step("key", "limit_concurrency", value) if by_key else Step("option", "--limit-concurrency", value),
            )
        case "descriptors":
            by_key = "nofile" in summary.limits and setter.has_keys
            value = 2 * needed + 64
            return (Step("key", "nofile", value) if by_key else Step("ulimit", "-n", value),)
        case "worker_killed" if refusal.figures.get("supervised") and not refusal.figures.get("out_of_memory"):
            return (Step("option", "--timeout-worker-healthcheck", HEALTHCHECK_S),)
        case "proxy" if refusal.figures.get("is_key_of_target"):
            return (Step("key", "max_connections", needed),)
        case "proxy":
            names = ("max_connections", "max_requests", "max_pending_requests")
            return tuple(Step("breaker", name, needed) for name in names)
        case _:
            return ()
