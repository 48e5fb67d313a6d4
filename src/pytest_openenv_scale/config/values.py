"""How the text of an option or ini key becomes a value; each raises `GrammarError` and nothing else."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from pytest_openenv_scale.core.endpoint import Proxy
from pytest_openenv_scale.core.errors import GrammarError
from pytest_openenv_scale.core.parsing import (
    Arrival,
    parse_arrival,
    parse_batches,
    parse_count,
    parse_header,
    parse_modes,
    parse_seconds,
    parse_waits,
    short_repr,
    suggestion,
)
from pytest_openenv_scale.core.target_spec import TargetSpec, parse_target
from pytest_openenv_scale.core.text import redact_text

from .figures import FIGURE_FORMATS
from .limits import Limit, parse_fail_on, parse_reference, parse_slo_expression
from .search import parse_precision, parse_search
from .settings import DEFAULT_CAP, HTTP_CONNECTIONS, PLAYED, Source, Steps
from .think import parse_think
from .workload import parse_action, parse_reset

REPORTS = ("md", "html", "figures", "latex", "csv", "log")
_MAX_STEPS = 1_000_000
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


@dataclass(frozen=True, slots=True)
class ValueOrigin:
    """Where a value is written: its source, its name in errors, and the directory paths are relative to."""

    source: Source
    label: str
    directory: Path


Parser = Callable[[Any, ValueOrigin], Any]


def parse_targets(values: Any) -> tuple[TargetSpec, ...]:
    """Parse target specifications, each kept once."""
    texts: list[str] = [values] if isinstance(values, str) else values
    if not texts:
        raise GrammarError('no target is named; write for example "local"')
    return tuple(dict.fromkeys(parse_target(text) for text in texts))


def parse_url(value: Any, origin: ValueOrigin) -> tuple[TargetSpec, ...]:
    """Parse URLs joined by commas, or `env:FILE`, into one target."""
    text = value.strip() if isinstance(value, str) else ""
    file = text.removeprefix("env:").strip() if text.startswith("env:") else None
    if file is None:
        spec = parse_target(text) if "://" in text else None
        problem = short_repr(value)
    else:
        problem = f"OPENENV_URL in {short_repr(file)}"
        try:
            spec = _with_hosts(
                parse_target(read_variable(file, "OPENENV_URL", origin.directory)), file, origin.directory
            )
        except UnusableUrl:
            raise
        except GrammarError:
            spec = None
    if spec is None or spec.name != "url":
        raise GrammarError(f"{problem} is not a URL; write http://host:port or env:FILE")
    return (spec,)


class UnusableUrl(GrammarError):
    """A file that should hold a URL cannot be read or lacks it."""


def read_variable(file: str, variable: str, directory: Path) -> str:
    """Return a variable of a file of `NAME=value` lines; the last one counts, quotes and comments are dropped.

    Raises:
        UnusableUrl: the file cannot be read or does not set the variable.
    """
    if not file or "\0" in file:
        raise UnusableUrl('env: names no file; write for example "env:.env"')
    text = _read_variables(file, directory).get(variable)
    if not text:
        path = directory / Path(file).expanduser()
        raise UnusableUrl(f"{str(path)!r} does not set {variable}; write {variable}=URL into it")
    return text


def _with_hosts(spec: TargetSpec, file: str, directory: Path) -> TargetSpec:
    """Add how many hosts are behind the URL, where the file tells: the scripts of deploy/slurm write NUM_WORKERS."""
    hosts = _read_variables(file, directory).get("NUM_WORKERS", "")
    if spec.name != "url" or spec.option("hosts") is not None or not re.fullmatch(r"[1-9]\d*", hosts):
        return spec
    return replace(spec, options=tuple(sorted([*spec.options, ("hosts", hosts)])))


def _read_variables(file: str, directory: Path) -> dict[str, str]:
    path = directory / Path(file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UnusableUrl(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UnusableUrl(f"{str(path)!r} is not UTF-8 text; write OPENENV_URL=URL into it") from None
    matches = [match for line in lines if (match := _ASSIGNMENT.fullmatch(line.strip()))]
    return {match[1]: _unquote(match[2]) for match in matches}


def _unquote(text: str) -> str:
    quoted = re.fullmatch(r"""(["'])(.*?)\1\s*(?:#.*)?""", text)
    return quoted[2] if quoted else re.split(r"\s#", text, maxsplit=1)[0].strip()


def parse_limits(values: Any, origin: ValueOrigin) -> tuple[Limit, ...]:
    """Parse limits, several joined by commas; of two with one name the last counts."""
    parsed: dict[str, Limit] = {}
    for text in cast("list[str]", values):
        for expression in text.split(","):
            limit = parse_slo_expression(expression, origin.source)
            parsed[limit.name] = limit
    return tuple(parsed.values())


def parse_headers(values: Any, origin: ValueOrigin) -> dict[str, str]:
    """Parse headers; `env:VARIABLE` as a value reads the environment, and is all that ini may hold."""
    by_name: dict[str, tuple[str, str]] = {}
    for text in cast("list[str]", values):
        name, content = parse_header(text)
        variable = content.removeprefix("env:").strip() if content.startswith("env:") else None
        if variable is None and origin.source == "ini":
            raise GrammarError(f'header {name!r} must not hold its value here; write "{name}: env:VARIABLE"')
        if variable is not None:
            if not os.environ.get(variable):
                raise GrammarError(f"header {name!r} reads ${variable}, which is not set; set it or drop the header")
            name, content = parse_header(f"{name}: {os.environ[variable]}")
        by_name[name.lower()] = name, content
    return dict(by_name.values())


def join_headers(nearest_first: list[Mapping[str, str]]) -> dict[str, str]:
    """Combine headers of several sources; names are compared without case and the nearest wins."""
    by_name: dict[str, tuple[str, str]] = {}
    for source in nearest_first:
        for name, content in source.items():
            by_name.setdefault(name.lower(), (name, content))
    return dict(by_name.values())


def parse_proxy(value: Any, origin: ValueOrigin) -> Proxy:
    """Parse the URL of an HTTP proxy; `env:VARIABLE` reads it from the environment, a password must be there in ini."""
    text = parse_text(value)
    variable = text.removeprefix("env:").strip() if text.startswith("env:") else None
    if variable is not None and not (text := os.environ.get(variable, "").strip()):
        raise GrammarError(f"the proxy is read from ${variable}, which is not set; set it or drop the proxy")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme != "http" or not host or not port or parts.path.strip("/") or parts.query or parts.fragment:
        shown = f"${variable}" if variable else short_repr(redact_text(text.rpartition("@")[2]))
        raise GrammarError(f"{shown} is not the URL of a proxy; write http://host:port")
    if parts.username is None:
        return Proxy(host, port)
    if variable is None and origin.source == "ini":
        raise GrammarError('a proxy must not hold its password here; write "env:VARIABLE"')
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(host, port, f"Basic {b64encode(pair.encode()).decode()}")


def parse_steps(value: Any) -> Steps:
    """Parse how many steps a session takes; "until_done=200" ends it with its episode, or after as many."""
    name, equals, cap = (part.strip() for part in (value if isinstance(value, str) else "").partition("="))
    if name != "until_done":
        try:
            return Steps(parse_count(value, maximum=_MAX_STEPS, what="steps"))
        except GrammarError as error:
            raise GrammarError(f"{error}; or until_done=N, to end with the episode, after N at most") from None
    count = parse_count(cap, maximum=_MAX_STEPS, what="steps until_done=N") if equals else DEFAULT_CAP
    return Steps(count, until_done=True)


def parse_written_arrival(value: Any) -> Arrival:
    """Parse how sessions arrive; a ramp, and for how long they arrive at a rate, are settings of their own."""
    arrival = parse_arrival(value)
    if arrival.ramp or (arrival.rate is not None and arrival.seconds is not None):
        raise GrammarError(
            "a ramp, and for how long sessions arrive at a rate, are written apart (--openenv-ramp, --openenv-for;"
            f" ramp= and for_= in a mark), got {short_repr(str(value))}"
        )
    return arrival


def parse_choice(value: Any, *, choices: Sequence[str]) -> str:
    """Accept exactly one of `choices`."""
    if value not in choices:
        raise GrammarError(f"it must be {' or '.join(choices)}, got {short_repr(value)}")
    return value


def parse_ping(value: Any) -> float | None:
    """Parse how often sessions ping, in seconds; "off" is None."""
    if value == "off":
        return None
    try:
        return parse_seconds(value, positive=True, what="the ping")
    except GrammarError as error:
        raise GrammarError(f'{error}, or "off"') from None


def parse_processes(value: Any) -> int | None:
    """Parse a number of processes; "auto" is None."""
    if value == "auto":
        return None
    try:
        return parse_count(value, maximum=256, what="processes")
    except GrammarError as error:
        raise GrammarError(f'{error}; write a number or "auto"') from None


def parse_text(value: Any) -> str:
    """Parse text that is not empty."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise GrammarError(f"it must be text that is not empty, got {short_repr(value)}")
    return value.strip()


def parse_directory(value: Any, origin: ValueOrigin) -> Path | None:
    """Parse a directory; "none" is None."""
    name = parse_text(value)
    return None if name == "none" else origin.directory / Path(name).expanduser()


def parse_file(value: Any, origin: ValueOrigin) -> Path:
    """Parse the name of a file to write."""
    path = origin.directory / Path(parse_text(value)).expanduser()
    if path.is_dir():
        raise GrammarError(f"{str(path)!r} is a directory; write the name of a file")
    return path


def parse_reports(value: object) -> tuple[str, ...]:
    """Return the names of reports, each once; "none" alone is empty.

    Raises:
        GrammarError: there is no such report.
    """
    names = _names(value, (*REPORTS, "none"), "report")
    if "none" in names and len(names) > 1:
        raise GrammarError("there is no report 'none' beside others; write it alone")
    return () if names == ("none",) else names


def parse_figure_formats(value: object) -> tuple[str, ...]:
    """Return the formats that figures are written in, each once.

    Raises:
        GrammarError: there is no such format.
    """
    return _names(value, FIGURE_FORMATS, "figure format")


def parse_dpi(value: object) -> int:
    """Return dots per inch."""
    return parse_count(value, minimum=36, maximum=1_200, what="the dots per inch")


def _names(value: object, choices: Sequence[str], what: str) -> tuple[str, ...]:
    listed = value.split(",") if isinstance(value, str) else value
    names = cast("list[object]", listed) if isinstance(listed, list) else [listed]
    items = [item.strip() if isinstance(item, str) else item for item in names]
    for item in items:
        if item not in choices:
            raise GrammarError(f"there is no {what} {short_repr(item)}{suggestion(str(item), choices)}")
    return tuple(dict.fromkeys(map(str, items)))


def _plain(parse: Callable[..., Any], **bounds: Any) -> Parser:
    """Return the parser of a value that says all by itself."""
    return lambda value, origin: parse(value, **bounds)


def _relative(parse: Callable[[Any, Path], Any]) -> Parser:
    """Return the parser of a value in which a path may be."""
    return lambda value, origin: parse(value, origin.directory)


PARSERS: Mapping[str, Parser] = MappingProxyType(
    {
        "target": _plain(parse_targets),
        "url": parse_url,
        "batches": _plain(parse_batches),
        "waits": _plain(parse_waits),
        "reps": _plain(parse_count, maximum=1_000, what="reps"),
        "again": _plain(parse_count, minimum=0, maximum=100, what="again"),
        "modes": _plain(parse_modes),
        "steps": _plain(parse_steps),
        "think": _relative(parse_think),
        "arrival": _plain(parse_written_arrival),
        "ramp": _plain(parse_seconds, what="the ramp"),
        "for": _plain(parse_seconds, positive=True, what="the time for which sessions arrive"),
        "timeout": _plain(parse_seconds, positive=True, what="timeout"),
        "action": _relative(parse_action),
        "reset": _relative(parse_reset),
        "until-done": _plain(bool),
        "slo": parse_limits,
        "inconclusive": _plain(parse_choice, choices=("fail", "warn")),
        "full-grid": _plain(bool),
        "search": _plain(parse_search),
        "precision": _plain(parse_precision),
        "budget": _plain(parse_seconds, positive=True, what="the budget"),
        "max-sessions": _plain(parse_count, what="max-sessions"),
        "lock-timeout": _plain(parse_seconds, what="the lock timeout"),
        "plan": _plain(bool),
        "http-connections": _plain(parse_choice, choices=HTTP_CONNECTIONS),
        "played": _plain(parse_choice, choices=PLAYED),
        "ping": _plain(parse_ping),
        "no-samples": _plain(bool),
        "processes": _plain(parse_processes),
        "seed": _plain(parse_count, minimum=0, maximum=10**18 - 1, what="the seed"),
        "header": parse_headers,
        "insecure": _plain(bool),
        "proxy": parse_proxy,
        "note": _plain(parse_text),
        "results": parse_directory,
        "json": parse_file,
        "outputs": parse_file,
        "report": _plain(parse_reports),
        "figure-formats": _plain(parse_figure_formats),
        "dpi": _plain(parse_dpi),
        "soak": _plain(parse_seconds, what="the soak"),
        "baseline": _relative(parse_reference),
        "fail-on": _plain(parse_fail_on),
    }
)
"""How each option is read, by its name in the table; the arguments of the `scaling` mark are read like the options."""
