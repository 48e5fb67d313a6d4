from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from jsonschema import Draft202012Validator, ValidationError

_V = TypeVar("_V", bound=Draft202012Validator)

def extend(
    validator: type[_V], validators: Mapping[str, Callable[[Any, Any, Any, Any], Iterator[ValidationError]]]
) -> type[_V]: ...
