"""Checks of what clients send, by hand, with the error objects an OpenEnv server (pydantic) gives.

By hand because this runs once per message of every session; the accepted values, the order of the problems
and their fields are pydantic's, lax conversions ("0.5", true) included.
"""

from __future__ import annotations

import json
import math
from typing import Any, cast

MAX_WAIT_SECONDS = 3600
MAX_TEXT_FIELD = 255

Json = dict[str, Any]
Problem = dict[str, Any]

_EXPLAINED_AT = "https://errors.pydantic.dev/2.14/v/"


def problem(kind: str, field: str, msg: str, value: object, ctx: Json | None = None) -> Problem:
    """One validation error at a field."""
    found: Problem = {"type": kind, "loc": [field], "msg": msg, "input": value}
    if ctx is not None:
        found["ctx"] = ctx
    found["url"] = _EXPLAINED_AT + kind
    return found


def message_problems(message: Json, *, data: str) -> list[Problem]:
    """What is wrong with a WebSocket message's envelope; `data` is 'required', 'optional' or 'forbidden'."""
    problems: list[Problem] = []
    if data != "forbidden":
        if "data" in message:
            problems += _not_a_dict(message, "data")
        elif data == "required":
            problems.append(problem("missing", "data", "Field required", message))
    allowed = {"type"} if data == "forbidden" else {"type", "data"}
    return problems + extra_problems(message, allowed)


def extra_problems(given: Json, allowed: set[str]) -> list[Problem]:
    """One problem per field that is not allowed."""
    return [
        problem("extra_forbidden", field, "Extra inputs are not permitted", value)
        for field, value in given.items()
        if field not in allowed
    ]


def parse_wait(action: Json) -> tuple[float, list[Problem]]:
    """The wait of an action in seconds (0 where absent) and everything that is wrong with the action."""
    problems: list[Problem] = []
    if "metadata" in action:
        problems += _not_a_dict(action, "metadata")
    given = action.get("wait_seconds", 0.0)
    wait, wrong = _as_float(given)
    if wrong is None and not wait <= MAX_WAIT_SECONDS:
        msg = f"Input should be less than or equal to {MAX_WAIT_SECONDS}"
        wrong = problem("less_than_equal", "wait_seconds", msg, given, {"le": float(MAX_WAIT_SECONDS)})
    elif wrong is None and wait < 0:
        msg = "Input should be greater than or equal to 0"
        wrong = problem("greater_than_equal", "wait_seconds", msg, given, {"ge": 0.0})
    if wrong is not None:
        problems.append(wrong)
    return wait, problems + extra_problems(action, {"metadata", "wait_seconds"})


def reset_problems(body: Json) -> list[Problem]:
    """What is wrong with an HTTP reset: seed and episode_id are checked, anything else is welcome."""
    problems: list[Problem] = []
    seed = body.get("seed")
    if seed is not None:
        wrong = _seed_problem(seed)
        problems += [wrong] if wrong else []
    episode_id = body.get("episode_id")
    if episode_id is not None and not isinstance(episode_id, str):
        problems.append(problem("string_type", "episode_id", "Input should be a valid string", episode_id))
    elif episode_id is not None and len(episode_id) > MAX_TEXT_FIELD:
        msg = f"String should have at most {MAX_TEXT_FIELD} characters"
        problems.append(problem("string_too_long", "episode_id", msg, episode_id, {"max_length": MAX_TEXT_FIELD}))
    return problems


def in_body(problems: list[Problem]) -> list[Problem]:
    """The same problems as an HTTP body's: located under `body`, without the explanation's address."""
    return [
        {**{key: value for key, value in found.items() if key != "url"}, "loc": ["body", *found["loc"]]}
        for found in problems
    ]


def encode(value: object) -> str:
    """Compact JSON. NaN and infinity, which a client can smuggle into an echoed input, become null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in cast(Json, value).items()}
    if isinstance(value, list):
        return [_finite(item) for item in cast(list[Any], value)]
    return value


def _not_a_dict(given: Json, field: str) -> list[Problem]:
    value = given[field]
    if isinstance(value, dict):
        return []
    return [problem("dict_type", field, "Input should be a valid dictionary", value)]


def _as_float(given: object) -> tuple[float, Problem | None]:
    msg = "Input should be a valid number"
    if isinstance(given, str):
        try:
            return float(given), None
        except ValueError:
            msg += ", unable to parse string as a number"
            return 0.0, problem("float_parsing", "wait_seconds", msg, given)
    if isinstance(given, (int, float)):
        try:
            return float(given), None
        except OverflowError:
            pass
    return 0.0, problem("float_type", "wait_seconds", msg, given)


def _seed_problem(seed: object) -> Problem | None:
    msg = "Input should be a valid integer"
    if isinstance(seed, str):
        try:
            number = int(seed)
        except ValueError:
            return problem("int_parsing", "seed", f"{msg}, unable to parse string as an integer", seed)
    elif isinstance(seed, int):
        number = seed
    elif not isinstance(seed, float):
        return problem("int_type", "seed", msg, seed)
    elif not math.isfinite(seed):
        return problem("finite_number", "seed", "Input should be a finite number", seed)
    elif seed.is_integer():
        number = int(seed)
    else:
        return problem("int_from_float", "seed", f"{msg}, got a number with a fractional part", seed)
    if number >= 0:
        return None
    return problem("greater_than_equal", "seed", "Input should be greater than or equal to 0", seed, {"ge": 0})
