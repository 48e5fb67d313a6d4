"""Which curve of one run is which of another, and what differs between the machines they were measured on."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, cast

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import short_repr
from pytest_openenv_scale.results.comparison import SettingDifference
from pytest_openenv_scale.results.manifest import SweepRecord
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

_LOOPBACK_PORT = re.compile(r"\b(localhost|127(?:\.\d{1,3}){3}|\[::1\]):\d+")
_OWN_PLACE = re.compile(r",(?:port|host)=[^,]*")
_FOLDERS = re.compile(r"(?<![\w/.~])/(?!/)(?:[^/,\s]+/)+")
_ALIKE = 0.6
"""How alike (a ratio of `difflib`) two test names must be to be taken for one that was renamed."""


@dataclass(frozen=True, slots=True)
class CurveOfSweep:
    """A curve with the sweep it belongs to."""

    sweep: SweepView
    curve: CurveView

    @property
    def test(self) -> str:
        """The node id of its test."""
        return self.sweep.test


@dataclass(frozen=True, slots=True)
class Pair:
    """A curve of the baseline and the same of the newer run; one of them may be missing."""

    baseline: CurveOfSweep | None
    now: CurveOfSweep | None

    @property
    def place(self) -> CurveOfSweep:
        """The newer of the two."""
        found = self.now or self.baseline
        assert found is not None
        return found


def steady_target(text: str) -> str:
    """Return a target or a label without what differs from run to run: loopback ports, and the folders of a path."""
    return _FOLDERS.sub("", _OWN_PLACE.sub("", _LOOPBACK_PORT.sub(r"\1", text)))


def pair_curves(baseline: Iterable[SweepView], now: Iterable[SweepView]) -> list[Pair]:
    """Pair curves of the same test, mode and wait, on the same target or else under the same label.

    A sweep that was measured again in its run counts as it was measured last. Ports on loopback and folders
    of paths tell nothing apart, but where a run has several targets that differ by these alone, those that are
    written the same belong together.
    """
    then, today = _places(baseline), _places(now)
    found: list[Pair] = []
    for named in (_by_written_target, _by_target, _by_label):
        left: dict[tuple[object, ...], list[CurveOfSweep]] = {}
        for place in then:
            left.setdefault(named(place), []).append(place)
        for place in list(today):
            if same := left.get(named(place)):
                found.append(Pair(same[0], place))
                then.remove(same[0])
                today.remove(place)
                del same[0]
    order = {id(place.curve): at for at, place in enumerate(_places(now))}
    found += [Pair(None, place) for place in today]
    found.sort(key=lambda pair: order[id(pair.place.curve)])
    return [*found, *(Pair(place, None) for place in then)]


def _places(sweeps: Iterable[SweepView]) -> list[CurveOfSweep]:
    found: dict[tuple[object, ...], CurveOfSweep] = {}
    for sweep in sweeps:
        for curve in sweep.curves:
            found[sweep.test, sweep.target, curve.curve.mode, curve.curve.wait] = CurveOfSweep(sweep, curve)
    return list(found.values())


def _by_written_target(place: CurveOfSweep) -> tuple[object, ...]:
    return (place.test, place.sweep.target, place.curve.curve.mode, place.curve.curve.wait)


def _by_target(place: CurveOfSweep) -> tuple[object, ...]:
    return (place.test, steady_target(place.sweep.target), place.curve.curve.mode, place.curve.curve.wait)


def _by_label(place: CurveOfSweep) -> tuple[object, ...]:
    return (place.test, steady_target(place.sweep.infrastructure), place.curve.curve.mode, place.curve.curve.wait)


def same_sweep(one: SweepView, other: SweepView) -> bool:
    """Say whether two sweeps are of the same test, on the same target or under the same label."""
    same_target = steady_target(one.target) == steady_target(other.target)
    same_label = steady_target(one.infrastructure) == steady_target(other.infrastructure)
    return one.test == other.test and (same_target or same_label)


def guess_renamed(test: str, here: Collection[str], there: Collection[str]) -> str | None:
    """Return the test of the other side (`there`) that this one of `here` may be; None where none is like it.

    The same function in another file comes first, then the name most alike, then the only one left.
    """
    candidates = [name for name in there if name not in here]
    if test in there or not candidates:
        return None
    same = [name for name in candidates if name.rpartition("::")[2] == test.rpartition("::")[2]]
    if same:
        return same[0]
    likeness: Callable[[str], float] = lambda name: SequenceMatcher(None, test, name, autojunk=False).ratio()  # noqa: E731
    best = max(candidates, key=likeness)
    alone = len(candidates) == 1 and len([name for name in here if name not in there]) == 1
    return best if alone or likeness(best) >= _ALIKE else None


def workload_differences(baseline: CurveOfSweep, now: CurveOfSweep) -> list[str]:
    """Return in words what keeps two curves from being compared: they were not asked to do the same.

    What one side does not tell, such as the seed of an imported run, is no difference.
    """
    then, today = _workload(baseline), _workload(now)
    known = [name for name in then if then[name] is not None and today.get(name) is not None]
    return [f"{name} {_told(then[name])} → {_told(today[name])}" for name in known if then[name] != today[name]]


def _workload(place: CurveOfSweep) -> dict[str, object]:
    record, curve = place.sweep.record, place.curve.curve
    settings: Mapping[str, Any] = record.settings
    told = {name.replace("_", " "): value for name, value in settings.items() if name != "http_connections"}
    if settings:  # An imported run has none: what its resets said is not known.
        told.setdefault("reset", "without data")
    if curve.mode == "http":
        told["http connections"] = settings.get("http_connections")
    timeout = None if record.timeout_s is None else formatting.seconds(record.timeout_s)
    return {"steps": curve.steps, "arrival": curve.arrival, "timeout": timeout, **told}


def _told(value: object) -> str:
    return formatting.MISSING if value is None else value if isinstance(value, str) else short_repr(value)


def server_differences(baseline: CurveOfSweep, now: CurveOfSweep) -> list[str]:
    """Return in words what differs about the server: compared all the same, as it may be what was changed."""
    then, today = _server(baseline.sweep.record), _server(now.sweep.record)
    names = [name for name in {**then, **today} if then.get(name) != today.get(name)]
    return [f"{name} {_told(then.get(name))} → {_told(today.get(name))}" for name in names]


def _server(record: SweepRecord) -> dict[str, object]:
    limits = {name: value for name, value in record.limits.items() if name not in ("port", "host", "pid")}
    limits = {name: steady_target(value) if isinstance(value, str) else value for name, value in limits.items()}
    facts = {"target": steady_target(record.target), "cores": record.cores, "hosts": record.hosts}
    return {**facts, "hardware": record.hardware, **limits}


def limit_differences(baseline: CurveView, now: CurveView) -> str | None:
    """Return in words how the limits that decide which cell passes differ; None where they are the same."""
    then, today = (_cell_limits(view) for view in (baseline, now))
    if then == today:
        return None
    return f"{', '.join(then) or 'none'} → {', '.join(today) or 'none'}"


def _cell_limits(view: CurveView) -> Sequence[str]:
    return sorted(limit.text for limit in view.verdict.slo.limits if limit.kind.scope == "cell")


_MEMORY_TOLERANCE = 0.05
"""What the kernel keeps for itself differs by about this share from one boot or virtual machine to the next."""

_FIGURES = {
    "cpu": ("machine", "cpu"),
    "architecture": ("machine", "architecture"),
    "cores": ("machine", "cores"),
    "usable cores": ("machine", "usable_cores"),
    "memory": ("machine", "memory_bytes"),
    "system": ("os", "system"),
    "kernel": ("os", "release"),
    "python": ("python", "version"),
    "interpreter": ("python", "implementation"),
}


def machine_differences(baseline: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[SettingDifference, ...]:
    """Compare two fingerprints; host names, load, paths and commits are no difference between machines.

    What one of them does not tell is left out, but for packages: one that was not installed is a difference.
    """
    found: list[SettingDifference] = []
    for name, (group, key) in _FIGURES.items():
        then, today = _group(baseline, group).get(key), _group(now, group).get(key)
        if then is not None and today is not None and not _same(key, then, today):
            found.append(SettingDifference(name, _value_text(key, then), _value_text(key, today)))
    then, today = _group(baseline, "packages"), _group(now, "packages")
    if then and today:
        names = [name for name in {**then, **today} if then.get(name) != today.get(name)]
        found += [
            SettingDifference(name, _value_text(name, then.get(name)), _value_text(name, today.get(name)))
            for name in names
        ]
    return tuple(found)


def _group(fingerprint: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = fingerprint.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def _same(key: str, then: Any, now: Any) -> bool:
    if key == "memory_bytes" and isinstance(then, int) and isinstance(now, int):
        return abs(now - then) <= _MEMORY_TOLERANCE * max(then, now)
    return then == now


def _value_text(key: str, value: object) -> str:
    if value is None:
        return "not installed"
    return formatting.size(value) if key == "memory_bytes" and isinstance(value, int) else f"{value}"
