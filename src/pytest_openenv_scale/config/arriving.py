"""How the sessions of one test arrive: its arrival, ramp and time put together, and what does not fit."""

from __future__ import annotations

from dataclasses import replace

from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import MAX_BATCH, format_number

from .search import NO_SEARCH
from .settings import SOURCES, Settings, field_name


def with_whole_arrival(settings: Settings) -> Settings:
    """Return the settings of a test with its ramp and its time in `arrival`, its batch being what arrives in that time.

    What does not fit is left out where it is written farther away than what it does not fit, or in the ini file, where
    it may be for other tests.

    Raises:
        GrammarError: it is written as near or nearer, or the ramp leaves nothing to judge.
    """
    settings, decisive = _with_arriving_sessions(settings)
    ramp, arrival = settings.ramp, settings.arrival
    if not ramp:
        return settings
    if arrival.seconds is None:
        if not _insists(settings, "ramp", decisive):
            return settings
        raise GrammarError(
            f"{_label(settings, 'ramp')}: a ramp of {format_number(ramp)} s needs arrival steady=TIME, or rate=R for a"
            f" time, and the arrival is {arrival}"
        )
    try:
        return replace(settings, arrival=replace(arrival, ramp=ramp))
    except GrammarError as error:
        raise GrammarError(f"{_label(settings, 'ramp')}: {error}") from None


def check_written_together(settings: Settings) -> None:
    """Refuse a ramp or a time on the command line that does not fit the arrival there: no mark changes either.

    Raises:
        GrammarError: naming the option.
    """
    if settings.sources["arrival"] != "command line":
        return
    ramp, seconds = (
        getattr(settings, field_name(name)) if settings.sources[name] == "command line" else None
        for name in ("ramp", "for")
    )
    with_whole_arrival(replace(settings, ramp=ramp, for_=seconds))


def _with_arriving_sessions(settings: Settings) -> tuple[Settings, str]:
    """Return settings that ask for the sessions that arrive for a time, if any, and the option that decides whether."""
    seconds, rate = settings.for_, settings.arrival.rate
    if seconds is None:
        return settings, "arrival"
    if rate is None:
        if not _insists(settings, "for", "arrival"):
            return settings, "arrival"
        raise GrammarError(
            f"{_label(settings, 'for')}: sessions that arrive for {format_number(seconds)} s need arrival rate=R, and"
            f" the arrival is {settings.arrival}"
        )
    sessions = max(round(rate * seconds), 1)
    how = f"{format_number(rate)} per second for {format_number(seconds)} s are {sessions:,} sessions"
    for name in ("batches", "search"):
        if settings.sources[name] == "default" or not getattr(settings, name):
            continue
        if settings.sources[name] == settings.sources["for"]:
            words = {"search": "the search"}.get(name, name)
            raise GrammarError(f"{_label(settings, 'for')}: {how}; leave {words} out")
        if _is_nearer(settings, name, "for"):
            return settings, name
    if sessions > MAX_BATCH:
        raise GrammarError(f"{_label(settings, 'for')}: {how}; keep to {MAX_BATCH:,}")
    arriving = replace(
        settings,
        arrival=replace(settings.arrival, seconds=seconds),
        batches=(sessions,),
        search=NO_SEARCH,
        declared={**settings.declared, "batches": (sessions,)},
    )
    return arriving, "for"


def _insists(settings: Settings, name: str, other: str) -> bool:
    """Whether a setting that does not fit another one is a mistake."""
    source = settings.sources[name]
    return source == settings.sources[other] or (source != "ini" and _is_nearer(settings, name, other))


def _is_nearer(settings: Settings, name: str, other: str) -> bool:
    return SOURCES.index(settings.sources[name]) < SOURCES.index(settings.sources[other])


def _label(settings: Settings, name: str) -> str:
    """Return where a setting is written, as errors name it."""
    labels = {"command line": f"--openenv-{name}", "ini": f"openenv_{name}"}
    return labels.get(settings.sources[name], "mark scaling")
