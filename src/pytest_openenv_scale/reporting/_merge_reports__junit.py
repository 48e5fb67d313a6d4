"""What a JUnit file says of a test besides passed or failed: a few properties per curve."""

from __future__ import annotations

from pytest_openenv_scale.core.compare_modes import compare_modes
from pytest_openenv_scale.core.grammar import format_number
from pytest_openenv_scale.core.plan import Curve
from pytest_openenv_scale.core.view import CurveView, SweepView

from . import protocols
from .columns import Row, rows_of
from .text import collapse


def junit_properties(view: SweepView) -> list[tuple[str, object]]:
    """Return names and values for `user_properties`; those of a curve name it, as in "openenv_max_batch[ws,wait=1]".

    `openenv_success` (a fraction) is that of the largest batch measured, `openenv_total_p99` (seconds) that of
    max batch, each the worst of the repetitions; what is not known is left out. Where ws and http were measured,
    `openenv_protocol_winner[wait=1]` and `openenv_protocol_ratio[wait=1]` compare them: ws max ÷ http max, as "4",
    "≥ 4", or "–" where it is not known.
    """
    found: list[tuple[str, object]] = [
        ("openenv_verdict", view.outcome.value),
        ("openenv_target", collapse(view.target)),
        ("openenv_infrastructure", collapse(view.infrastructure)),
    ]
    for curve in view.curves:
        name = _name(curve.curve)
        found += [(f"openenv_{key}[{name}]", value) for key, value in _figures(curve) if value is not None]
    for compared in compare_modes(view):
        name = "" if compared.wait is None else f"[wait={format_number(compared.wait)}]"
        found.append((f"openenv_protocol_winner{name}", compared.winner or "unknown"))
        found.append((f"openenv_protocol_ratio{name}", protocols.ratio(compared)))
    return found


def _name(curve: Curve) -> str:
    return curve.mode if curve.wait is None else f"{curve.mode},wait={format_number(curve.wait)}"


def _figures(view: CurveView) -> list[tuple[str, object]]:
    rows = rows_of(view)
    verdict = view.verdict
    best = next((row for row in rows if row.batch == verdict.max_batch), None)
    return [
        ("max_batch", "none" if verdict.max_batch is None else verdict.max_batch),
        ("max_batch_per_core", verdict.max_batch_per_core),
        ("success", _success(rows[-1]) if rows else None),
        ("total_p99", _total_p99(best) if best else None),
        ("reason", collapse(verdict.headline)),
    ]


def _success(row: Row) -> float | None:
    return min((cell.success_rate for cell in row.repetitions if cell.success_rate is not None), default=None)


def _total_p99(row: Row) -> float | None:
    worst = max((stats.p99 for cell in row.repetitions if (stats := cell.phase("total"))), default=None)
    return None if worst is None else round(worst, 6)
