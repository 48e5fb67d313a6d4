"""Arrivals and think times as people read them, the same in every report."""

from __future__ import annotations

from .parsing import format_number, parse_arrival


def arrival_text(arrival: str) -> str:
    """Return an arrival as people read it: "hold", "rate=50 for 60 s", "steady 60 s, ramp 10 s"."""
    parsed = parse_arrival(arrival)
    if parsed.seconds is None:
        return arrival
    lasting = f"{format_number(parsed.seconds)} s"
    text = f"steady {lasting}" if parsed.rate is None else f"rate={format_number(parsed.rate)} for {lasting}"
    return f"{text}, ramp {format_number(parsed.ramp)} s" if parsed.ramp else text


def think_text(think: str) -> str:
    """Return a think time as people read it: "think 2 s", "think 1 to 3 s", "think exponential 2 s"."""
    kind, separator, arguments = think.partition("=")
    first, _, second = arguments.partition(".." if kind == "uniform" else ",")
    match kind:
        case "uniform":
            return f"think {first} to {second} s"
        case "lognormal":
            return f"think lognormal {first} s, σ {second}"
        case "samples":
            return f"think one of {arguments.partition(' ')[0]} samples"
        case _:
            return f"think {kind} {first} s" if separator else f"think {kind} s"
