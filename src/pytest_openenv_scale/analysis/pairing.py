"""Pairs the curves of two runs, and lists what differs between their workloads, servers, limits and machines."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.core.parsing import short_repr
from pytest_openenv_scale.results.comparison import SettingDifference
from pytest_openenv_scale.results.manifest import SweepRecord, fact_group
from pytest_openenv_scale.verdict.sweep import CurveView, SweepView

_LOOPBACK_PORT = re.compile(r"\b(localhost|127(?:\.\d{1,3}){3}|\[::1\]):\d+")
_OWN_ADDRESS = re.compile(r",(?:port|host)=[^,]*")
_FOLDERS = re.compile(r"(?<![\w/.~])/(?!/)(?:[^/,\s]+/)+")
_MIN_LIKENESS = 0.6
"""How alike (a ratio of `difflib`) two test names must be to be taken for one that was renamed."""


@dataclass(frozen=True, slots=True)
class SweepCurve:
    """A curve with the sweep it belongs to."""

    sweep: SweepView
    curve: CurveView

    @property
    def test(self) -> str:
        """The node id of its test."""
        return self.sweep.test


@dataclass(frozen=True, slots=True)
class CurvePair:
    """A curve of the baseline and the same of the newer run; one of them may be missing."""

    baseline: SweepCurve | None
    now: SweepCurve | None

    @property
    def latest(self) -> SweepCurve:
        """The newer of the two."""
        curve = self.now or self.baseline
        assert curve is not None
        return curve


def normalised_target(text: str) -> str:
    """Return a target or a label without what differs from run to run: loopback ports, and the folders of a path."""
    return _FOLDERS.sub("", _OWN_ADDRESS.sub("", _LOOPBACK_PORT.sub(r"\1", text)))


def pair_curves(baseline: Iterable[SweepView], now: Iterable[SweepView]) -> list[CurvePair]:
    """Pair curves of the same test, mode and wait, on the same target or else under the same label.

    A sweep that was measured again in its run counts as it was measured last. Ports on loopback and folders
    of paths tell nothing apart, but where a run has several targets that differ by these alone, those that are
    written the same belong together.
    """
    old, new = _latest_curves(baseline), _latest_curves(now)
    pairs: list[CurvePair] = []
    for key_of in (_by_written_target, _by_target, _by_label):
        unpaired: dict[tuple[object, ...], list[SweepCurve]] = {}
        for curve in old:
            unpaired.setdefault(key_of(curve), []).append(curve)
        for curve in list(new):
            if matches := unpaired.get(key_of(curve)):
                pairs.append(CurvePair(matches[0], curve))
                old.remove(matches[0])
                new.remove(curve)
                del matches[0]
    order = {id(curve.curve): at for at, curve in enumerate(_latest_curves(now))}
    pairs += [CurvePair(None, curve) for curve in new]
    pairs.sort(key=lambda pair: order[id(pair.latest.curve)])
    return [*pairs, *(CurvePair(curve, None) for curve in old)]


def _latest_curves(sweeps: Iterable[SweepView]) -> list[SweepCurve]:
    curves: dict[tuple[object, ...], SweepCurve] = {}
    for sweep in sweeps:
        for curve in sweep.curves:
            curves[sweep.test, sweep.target, curve.curve.mode, curve.curve.wait] = SweepCurve(sweep, curve)
    return list(curves.values())


def _by_written_target(sweep_curve: SweepCurve) -> tuple[object, ...]:
    return (sweep_curve.test, sweep_curve.sweep.target, sweep_curve.curve.curve.mode, sweep_curve.curve.curve.wait)


def _by_target(sweep_curve: SweepCurve) -> tuple[object, ...]:
    return (
        sweep_curve.test,
        normalised_target(sweep_curve.sweep.target),
        sweep_curve.curve.curve.mode,
        sweep_curve.curve.curve.wait,
    )


def _by_label(sweep_curve: SweepCurve) -> tuple[object, ...]:
    return (
        sweep_curve.test,
        normalised_target(sweep_curve.sweep.infrastructure),
        sweep_curve.curve.curve.mode,
        sweep_curve.curve.curve.wait,
    )


def same_sweep(sweep: SweepView, other: SweepView) -> bool:
    """Say whether two sweeps are of the same test, on the same target or under the same label."""
    same_target = normalised_target(sweep.target) == normalised_target(other.target)
    same_label = normalised_target(sweep.infrastructure) == normalised_target(other.infrastructure)
    return sweep.test == other.test and (same_target or same_label)


def guess_renamed(test: str, here: Collection[str], there: Collection[str]) -> str | None:
    """Return the test of the other run (`there`) that a test of this run (`here`) may have been renamed to or from.

    None where none has a similar name.

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
    is_only_one = len(candidates) == 1 and len([name for name in here if name not in there]) == 1
    return best if is_only_one or likeness(best) >= _MIN_LIKENESS else None


def workload_differences(baseline: SweepCurve, now: SweepCurve) -> list[str]:
    """Return in words which settings of the workload differ, which keeps two curves from being compared.

    What one side does not tell, such as the seed of an imported run, is no difference.
    """
    then, today = _workload_settings(baseline), _workload_settings(now)
    comparable = [name for name in then if then[name] is not None and today.get(name) is not None]
    return [
        f"{name} {_setting_text(then[name])} → {_setting_text(today[name])}"
        for name in comparable
        if then[name] != today[name]
    ]


def _workload_settings(sweep_curve: SweepCurve) -> dict[str, object]:
    record, curve = sweep_curve.sweep.record, sweep_curve.curve.curve
    settings: Mapping[str, Any] = record.settings
    settings_by_name = {name.replace("_", " "): value for name, value in settings.items() if name != "http_connections"}
    if settings:  # An imported run has none: what its resets said is not known.
        settings_by_name.setdefault("reset", "without data")
    if curve.mode == "http":
        settings_by_name["http connections"] = settings.get("http_connections")
    timeout = None if record.timeout_s is None else formatting.seconds(record.timeout_s)
    shape = {"steps": curve.steps, "think": curve.think or "none", "arrival": curve.arrival}
    return {**shape, "timeout": timeout, **settings_by_name}


def _setting_text(value: object) -> str:
    return formatting.MISSING if value is None else value if isinstance(value, str) else short_repr(value)


def server_differences(baseline: SweepCurve, now: SweepCurve) -> list[str]:
    """Return in words how the servers differ; their curves are compared nonetheless."""
    then, today = _server_settings(baseline.sweep.record), _server_settings(now.sweep.record)
    names = [name for name in {**then, **today} if then.get(name) != today.get(name)]
    return [f"{name} {_setting_text(then.get(name))} → {_setting_text(today.get(name))}" for name in names]


def _server_settings(record: SweepRecord) -> dict[str, object]:
    limits = {name: value for name, value in record.limits.items() if name not in ("port", "host", "pid")}
    limits = {name: normalised_target(value) if isinstance(value, str) else value for name, value in limits.items()}
    facts = {"target": normalised_target(record.target), "cores": record.cores, "hosts": record.hosts}
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

_MACHINE_FACTS = {
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
    differences: list[SettingDifference] = []
    for name, (group, key) in _MACHINE_FACTS.items():
        then, today = fact_group(baseline, group).get(key), fact_group(now, group).get(key)
        if then is not None and today is not None and not _same_fact(key, then, today):
            differences.append(SettingDifference(name, _value_text(key, then), _value_text(key, today)))
    then, today = fact_group(baseline, "packages"), fact_group(now, "packages")
    if then and today:
        names = [name for name in {**then, **today} if then.get(name) != today.get(name)]
        differences += [
            SettingDifference(name, _value_text(name, then.get(name)), _value_text(name, today.get(name)))
            for name in names
        ]
    return tuple(differences)


def _same_fact(key: str, then: Any, now: Any) -> bool:
    if key == "memory_bytes" and isinstance(then, int) and isinstance(now, int):
        return abs(now - then) <= _MEMORY_TOLERANCE * max(then, now)
    return then == now


def _value_text(key: str, value: object) -> str:
    if value is None:
        return "not installed"
    return formatting.size(value) if key == "memory_bytes" and isinstance(value, int) else f"{value}"
