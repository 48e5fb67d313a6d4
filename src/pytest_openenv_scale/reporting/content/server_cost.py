"""What sessions and steps cost the server, in words."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_openenv_scale.config.limits import LIMITS, Limit
from pytest_openenv_scale.core import formatting
from pytest_openenv_scale.metrics.cost import LEAST_POINTS
from pytest_openenv_scale.results.outcome import Cost, CurveVerdict, LimitVerdict, Outcome

_NOUNS: Mapping[str, str] = {
    "memory_per_session": "memory",
    "threads_per_session": "threads",
    "descriptors_per_session": "descriptors",
    "cpu_per_step": "CPU",
}


def cost_sentence(verdict: CurveVerdict) -> str | None:
    """Say what an open session and a step cost, as far as enough samples tell; None where they tell nothing.

    What may as well be nothing is left out: "the server's cost: memory 1.1 MiB (0.98 to 1.2 MiB), threads 0,
    descriptors 2 per open session; CPU 2.1 ms (1.9 to 2.3 ms) per step (95 % sure)".
    """
    costs: dict[str, Cost] = {name: cost for name in _NOUNS if (cost := getattr(verdict.cost, name)) is not None}
    told = {name: cost for name, cost in costs.items() if cost.high is not None and not _is_unclear(cost)}
    of_session = [f"{_NOUNS[name]} {_cost_text(name, told[name])}" for name in told if name != "cpu_per_step"]
    parts = [f"{', '.join(of_session)} per open session"] if of_session else []
    if "cpu_per_step" in told:
        parts.append(f"CPU {_cost_text('cpu_per_step', told['cpu_per_step'])} per step")
    if not parts:
        return None
    confidence = min((cost.confidence for cost in told.values() if cost.confidence is not None), default=None)
    sure = "" if confidence is None else f" ({confidence * 100:.0f} % sure)"
    return f"the server's cost: {'; '.join(parts)}{sure}"


def _cost_text(name: str, cost: Cost) -> str:
    """Return a cost with its interval: "1.1 MiB (0.98 to 1.2 MiB)"."""
    low, high = (_figure(name, end) for end in (cost.low, cost.high))
    if cost.value is None:
        return f"{high} at most"
    span = "" if low == high else f" ({formatting.text_range(low, high)})"
    return f"{_figure(name, cost.value)}{span}"


def _is_unclear(cost: Cost) -> bool:
    return cost.low is not None and cost.high is not None and cost.low <= 0 <= cost.high and cost.low < cost.high


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return formatting.MISSING
    text = formatting.format_observed(LIMITS[name].unit, value, value)
    return text.replace("-", "−")


def cost_limit_words(judged: LimitVerdict, limit: Limit) -> str:
    """Return what became of a limit on a cost: "memory_per_session ≤ 2 MiB, got 1.1 MiB (0.98 to 1.2 MiB)"."""
    if judged.cause == "unseen":
        return f"{limit.text} cannot be judged: the server's processes cannot be seen from here"
    figures = judged.figures
    low, value, high = (_figure(limit.name, figures.get(name)) for name in ("low", "value", "high"))
    if judged.cause == "few_points":
        of_steps = f"cells of {LEAST_POINTS} numbers of steps"
        of_sessions = f"samples at {LEAST_POINTS} counts of open sessions, the first 0 and each more than ever before"
        of, remedy = (
            (of_steps, "") if limit.name == "cpu_per_step" else (of_sessions, ", with steps that last a second")
        )
        bound = "" if figures.get("high") is None else f"; with all that the server used it is {high} at most"
        seen = f"it takes {of}, and there are {figures['points']}: ask for more batches{remedy}"
        return f"{limit.text} cannot be judged: {seen}{bound}"
    if figures.get("value") is None:
        return f"{limit.text}, got {high} at most"
    span = "" if low == high else f"{formatting.text_range(low, high)}, "
    got = f"{value} ({span}{float(figures['confidence'] or 0) * 100:.0f} %)"
    if judged.outcome is Outcome.MISSED:
        return f"{limit.name} {got} > {formatting.format_value(limit.kind.unit, limit.allowed)}"
    return f"{limit.text}{' is not decided' if judged.cause == 'open' else ''}, got {got}"
