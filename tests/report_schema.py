"""The JSON schema of `report.json`: made of the types that the report is written from, and asked of every report.

`reporting/report.schema.json` holds the words, one per key; everything else in it follows from the code.
OPENENV_SCALE_WRITE_BASELINES=1 writes it (`tests/unit/test_report_schema.py`) and keeps the words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NotRequired, TypedDict, get_type_hints

import msgspec
from jsonschema import Draft202012Validator

from pytest_openenv_scale import reporting
from pytest_openenv_scale.analysis.axes import SERVER_AXES, ProtocolComparison
from pytest_openenv_scale.analysis.run import Run
from pytest_openenv_scale.config.limits import Limit
from pytest_openenv_scale.core.endpoint import ExitStatus
from pytest_openenv_scale.load.client_health import ClientStats
from pytest_openenv_scale.metrics.certainty import Interval
from pytest_openenv_scale.metrics.cost import ServerCost
from pytest_openenv_scale.metrics.percentiles import PhaseStats
from pytest_openenv_scale.metrics.summary import CellSummary
from pytest_openenv_scale.reporting import json as report_json
from pytest_openenv_scale.reporting.content.verdicts import ReasonLine
from pytest_openenv_scale.reporting.json import FIELDS_ABOVE, FORMAT
from pytest_openenv_scale.results.comparison import Change, Comparison, CurveComparison, Judgement
from pytest_openenv_scale.results.manifest import Status, SweepRecord
from pytest_openenv_scale.results.outcome import (
    Breach,
    CheckRecord,
    Outcome,
    Reason,
    Refusal,
    SearchOutcome,
)

PATH = Path(str(files(reporting) / "report.schema.json"))
ID = f"urn:pytest-openenv-scale:report:{FORMAT}"


KEYS: dict[str, tuple[str, ...]] = {}
"""The keys of the objects below in their order, which msgspec does not keep."""


def typed_dict(name: str, hints: Mapping[str, Any]) -> Any:
    """A TypedDict of this name and these keys."""
    KEYS[name] = tuple(hints)
    make: Any = TypedDict
    return make(name, dict(hints))


def extended(name: str, kind: type, *, without: tuple[str, ...] = (), **more: Any) -> Any:
    """What the fields of a dataclass are in the report: without some, and with others."""
    hints = get_type_hints(kind)
    return typed_dict(name, {**{key: hints[key] for key in hints if key not in without}, **more})


def optional(name: str, hints: Mapping[str, Any]) -> Any:
    """An object of which a run may have a part: an older or an imported one, or one of another system."""
    return typed_dict(name, {key: NotRequired[hint] for key, hint in hints.items()})


# What the functions of `reporting/json.py` return, in their order.

ENVIRONMENT = optional(
    "Environment",
    {
        "hostname": str,
        "machine": optional(
            "Machine",
            {
                "cpu": str | None,
                "architecture": str,
                "cores": int | None,
                "usable_cores": int | None,
                "memory_bytes": int,
                "load_average": float,
            },
        ),
        "os": optional("OperatingSystem", {"system": str, "release": str, "name": str}),
        "python": optional("Python", {"version": str, "implementation": str}),
        "packages": dict[str, str],
        "git": optional("Git", {"commit": str, "branch": str | None, "dirty": bool | None}) | None,
    },
)
PLAN = optional(
    "Plan",
    {
        "tests": list[str],
        "targets": list[str],
        "largest_batch": int,
        "imported": list[str],
        "summary_lines_without_sessions": list[dict[str, str]],
    },
)
SETTINGS = optional(
    "Settings",
    {
        "action": str,
        "seed": int,
        "until_done": bool,
        "think": str,
        "played": str,
        "reset": str,
        "http_connections": str,
    },
)
CHANGE = extended("Change", Change, without=("reason",), reason=str, cause=str, doubt=Reason | None)
CURVE_COMPARISON = extended("CurveComparison", CurveComparison, without=("changes",), changes=list[CHANGE])
COMPARISON = extended("Comparison", Comparison, without=("curves",), outcome=Judgement, curves=list[CURVE_COMPARISON])
PROTOCOL_COMPARISON = extended("ProtocolComparison", ProtocolComparison, notes=list[str])
SLO_LIMIT = extended("SloLimit", Limit, unit=str, direction=str)
BREACH = extended("Breach", Breach, text=str)
CELL_REASON = extended("CellReason", Reason, text=str)
REFUSAL = extended("Refusal", Refusal, text=str, remedy=str | None)
CERTAINTY = extended("Interval", Interval, least_samples=NotRequired[int])
REPETITION = extended(
    "Repetition",
    CellSummary,
    without=(*FIELDS_ABOVE, "phases", "client", "server_exit"),
    phases=dict[str, extended("Phase", PhaseStats, without=("intervals",))],
    client=optional("Client", {**get_type_hints(ClientStats), "older_place": int, "older_summary": dict[str, str]}),
    cpu_per_step=float | None,
    server_exit=str | None,
    exit=ExitStatus | None,
    batch=NotRequired[int],
)
CELL = typed_dict(
    "Cell",
    {
        "cell_id": str,
        "batch": int,
        "passed": bool | None,
        "breaches": list[BREACH],
        "reasons": list[CELL_REASON],
        "certainty": dict[str, CERTAINTY | None],
        "repetitions": list[REPETITION],
    },
)
CURVE = typed_dict(
    "Curve",
    {
        "curve_id": str,
        "mode": str,
        "wait": float | None,
        "batches": list[int],
        "slo": list[SLO_LIMIT],
        "outcome": Outcome,
        "headline": str,
        "max_batch": int | None,
        "max_batch_per_core": float | None,
        "cost": ServerCost,
        "feasible_max": int | None,
        "infeasible_min": int | None,
        "stop_reason": str | None,
        "search": SearchOutcome | None,
        "first_breach": BREACH | None,
        "refused": list[REFUSAL],
        "reasons": list[ReasonLine],
        "rerun": str | None,
        "cells": list[CELL],
        "set_aside": list[REPETITION],
    },
)
SWEEP = extended(
    "Sweep",
    SweepRecord,
    without=("curves", "slos", "outcome", "settings", "comparison"),
    settings=SETTINGS,
    comparison=COMPARISON | None,
    outcome=Outcome,
    protocols=list[PROTOCOL_COMPARISON],
    curves=list[CURVE],
)


def scaling(axis: str) -> Any:
    """What more servers bring, along an axis."""
    unit = axis.removesuffix("s")
    row = {
        axis: int,
        "max_batch": int | None,
        "max_batch_text": str,
        "is_open": bool,
        f"sessions_per_{unit}": float | None,
        "requests_per_second": float | None,
        "scaling_factor": float | None,
        "efficiency": float | None,
        "capacity_factor": float | None,
        "capacity_efficiency": float | None,
    }
    fields = {"test": str, "target": str, "mode": str, "wait": float | None, "cores": int | None}
    title = unit.capitalize()
    return typed_dict(f"{title}Scaling", {**fields, "rows": list[typed_dict(f"{title}Count", row)]})


REPORT = typed_dict(
    "Report",
    {
        "format": int,
        "run_id": str,
        "status": Status,
        "outcome": Outcome,
        "started_at": str,
        "finished_at": str | None,
        "note": str | None,
        "command": list[str],
        "kept": bool,
        "problems": list[str],
        "environment": ENVIRONMENT,
        "plan": PLAN,
        "sweeps": list[SWEEP],
        "checks": list[CheckRecord],
        **{axis: list[scaling(axis)] for axis in SERVER_AXES},
    },
)


def made_schema() -> dict[str, Any]:
    """The schema as the types tell it, with the words of the file."""
    (_,), components = msgspec.json.schema_components([REPORT], ref_template="#/$defs/{name}")
    words = described() if PATH.exists() else {}
    objects = {name: _with_words(name, _simple(schema), words) for name, schema in components.items()}
    report = objects.pop("Report")
    report["properties"]["format"]["const"] = FORMAT
    return {
        "$schema": Draft202012Validator.META_SCHEMA["$schema"],
        "$id": ID,
        "title": "report.json of pytest-openenv-scale",
        **report,
        "$defs": dict(sorted(objects.items())),
    }


def schema_text(schema: Mapping[str, Any]) -> str:
    """The schema as the file holds it: a line per key of a report."""
    lines: list[str] = []

    def in_a_line(part: Any) -> str:
        lines.append(json.dumps(part, ensure_ascii=False))
        return f"@{len(lines) - 1}"

    def shortened(part: Mapping[str, Any]) -> dict[str, Any]:
        if "properties" not in part:
            return {key: in_a_line(value) for key, value in part.items()}
        properties = {key: in_a_line(value) for key, value in part["properties"].items()}
        return {**part, "properties": properties, "required": in_a_line(part["required"])}

    objects = {name: shortened(part) for name, part in schema["$defs"].items()}
    text = json.dumps({**shortened(schema), "$defs": objects}, ensure_ascii=False, indent=1)
    return re.sub(r'"@(\d+)"', lambda match: lines[int(match[1])], text) + "\n"


def described() -> dict[tuple[str, str], str]:
    """The words of the file, by object and key; "" is the object itself."""
    stored = json.loads(PATH.read_text(encoding="utf-8"))
    objects = {"Report": stored, **stored["$defs"]}
    return {
        (name, key): part["description"]
        for name, schema in objects.items()
        for key, part in {"": schema, **schema.get("properties", {})}.items()
        if "description" in part
    }


SAME_WORDS = {"CellReason": "Reason", "SloLimit": "Limit", "NodeScaling": "ReplicaScaling", "NodeCount": "ReplicaCount"}
"""Objects whose keys mean what those of the same name mean in another one."""


def _simple(schema: Any) -> Any:
    """Say null beside a type in one word, and leave out defaults and titles, which are Python's."""
    if isinstance(schema, list):
        return [_simple(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    simple = {
        key: ({name: _simple(part) for name, part in value.items()} if key == "properties" else _simple(value))
        for key, value in schema.items()
        if key not in ("default", "title", "description")
    }
    match simple.get("anyOf"):
        case [{"type": str() as kind, **other}, {"type": "null"}]:
            return {"type": [kind, "null"], **other}
        case [{"enum": [*values]}, {"type": "null"}]:
            return {"enum": [*values, None]}
        case [{"type": "number"}, {"type": "integer"}, *others] if all("type" in other for other in others):
            return {"type": ["number", *(other["type"] for other in others)]}
        case _:
            return simple


def _with_words(name: str, schema: dict[str, Any], words: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    told = {"description": words.get((name, ""), "")}
    if "properties" not in schema:
        return {**told, **schema}
    parts = schema["properties"]
    properties = {
        key: {"description": words.get((SAME_WORDS.get(name, ""), key)) or words.get((name, key), ""), **parts[key]}
        for key in KEYS.get(name, parts)
    }
    # A field of a dataclass is always written, also where it has its default.
    required = [key for key in properties if name not in KEYS or key in schema["required"]]
    return {**told, **schema, "properties": properties, "required": required, "additionalProperties": False}


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(PATH.read_text(encoding="utf-8")))


def check_report(document: Mapping[str, Any]) -> None:
    """Fail where a report is not as the schema says; the first thing that is wrong is named."""
    error = next(_validator().iter_errors(document), None)
    assert error is None, f"report.json: {error.json_path}: {error.message[:300]}"


def check_every_report() -> None:
    """Check every report that is made in this process from now on."""
    make = report_json.run_document

    def made_and_checked(run: Run) -> dict[str, Any]:
        document = make(run)
        check_report(document)
        return document

    report_json.run_document = made_and_checked


def check_reports_below(folder: Path) -> None:
    """Check every report in a folder."""
    for path in folder.rglob("report.json"):
        check_report(json.loads(path.read_text(encoding="utf-8")))
