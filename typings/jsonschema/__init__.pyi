# The part of jsonschema this project uses.
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Self

class ValidationError(Exception):
    message: str
    absolute_schema_path: deque[str | int]
    def __init__(self, message: str) -> None: ...

class Draft202012Validator:
    def __init__(self, schema: Mapping[str, Any]) -> None: ...
    def evolve(self, *, schema: Mapping[str, Any]) -> Self: ...
    def iter_errors(self, instance: object) -> Iterator[ValidationError]: ...
