"""JSON in, frozen dataclasses out: one check of names, types and ranges for every configuration that is stored.

A dataclass's annotations are its schema. ``Annotated[int, Ge(1), Le(9)]`` (from ``annotated_types``) bounds a number;
checks of several fields together stay in ``__post_init__``. Nothing is converted but JSON's own forms: a list becomes
a tuple, a string a ``StrEnum``, an integer a float where one is expected.
"""

import dataclasses
import json
from collections.abc import Hashable, Iterator
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin, get_type_hints

from fairbeam.errors import ConfigError, FairbeamError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
_SHOWN = 80
"""Characters of a wrong value, and of a name, in an error."""
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_RANGES = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
"""Pydantic's names of the errors whose message says how large a number must be, but not that it is one."""


def parse(
    kind: type[T],
    values: Any,
    *,
    file: str | Path | None = None,
    pointer: str = "",
    error: type[FairbeamError] = ConfigError,
    known_fields_only: bool = True,
) -> T:
    """Return ``values``, as ``json.load`` gives them, as an instance of ``kind``.

    Args:
        kind: a dataclass, a pydantic model, or any other annotation: ``dict[str, int]``.
        values: JSON values; enums and tuples, as ``dataclasses.asdict`` leaves them, are taken too.
        file: where the values come from, for the errors.
        pointer: JSON pointer (RFC 6901) of ``values`` within the file: ``"/network"``.
        error: class of the errors.
        known_fields_only: refuse fields that ``kind`` does not have; otherwise its own configuration says what becomes
            of them, and by default they are left out.

    Raises:
        FairbeamError: of the class ``error``; a field is unknown, missing, of another type or out of range. One line
            with the file, the field's JSON pointer, the value and what was expected. Errors of ``__post_init__`` get
            the file in front of them.
    """
    from pydantic import ValidationError

    where = "" if file is None else f"{file}: "
    try:
        # Through JSON's text: of Python's values a strict check would refuse the list that stands for a tuple.
        validate = _adapter(cast(Hashable, kind)).validate_json
        return validate(json.dumps(values), strict=True, extra="forbid" if known_fields_only else None)
    except ValidationError as found:
        first = found.errors(include_url=False)[0]
        raise error(f"{where}{_explain(kind, values, pointer, first)}") from None
    except (TypeError, ValueError, RecursionError) as found:
        raise error(f"{where}{pointer or 'the value'} cannot be written as JSON ({str(found)[:_SHOWN]})") from None
    except FairbeamError as found:
        raise error(f"{where}{found}") from None


def json_schema(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what ``parse`` takes for ``kind``."""
    return _closed(_adapter(kind).json_schema())


def to_json(value: Any) -> Any:
    """Return a dataclass instance as the values that ``json.dump`` writes; inverse of ``parse``."""
    return _adapter(cast(Hashable, type(value))).dump_python(value, mode="json")


@cache
def _adapter(kind: Hashable) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter  # an eighth of a second, which commands without a configuration need not wait

    return TypeAdapter(cast(Any, kind))


def _explain(kind: Any, values: Any, pointer: str, found: Any) -> str:
    """Return one error of pydantic's as "POINTER is VALUE; expected WHAT"."""
    path, reason = list(_within(values, found)), found["msg"].removeprefix("Input should be ")
    place = pointer + "".join(f"/{_escaped(part)}" for part in path)
    if found["type"] == "json_invalid":
        return f"{place or 'the value'}: {reason}"
    if found["type"] == "missing":
        return f"{place} is missing"
    if found["type"] in _UNKNOWN:
        return f"{place} is an unknown field; known are {', '.join(_fields(kind, path[:-1]))}"
    number = "a number " if found["type"] in _RANGES else ""
    return f"{place or 'the value'} is {_shown(found['input'])}; expected {number}{reason}"


def _within(values: Any, found: Any) -> Iterator[str | int]:
    """Yield the steps from ``values`` to the culprit, without pydantic's names of a union's members."""
    for number, part in enumerate(found["loc"], start=1):
        last_is_missing = found["type"] == "missing" and number == len(found["loc"])
        if isinstance(values, dict) and (part in values or last_is_missing):
            values = values.get(part)
        elif isinstance(values, list | tuple) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            continue
        yield part


def _escaped(part: str | int) -> str:
    return str(part)[:_SHOWN].replace("~", "~0").replace("/", "~1")


def _shown(value: Any) -> str:
    """Return a wrong value as JSON writes it."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _fields(kind: Any, path: list[str | int]) -> list[str]:
    """Return the names of the fields of the dataclass at ``path`` within ``kind``."""
    for part in path:
        kinds = _dataclasses(kind)
        hints = {name: hint for one in kinds for name, hint in get_type_hints(one).items()}
        kind = hints.get(str(part), kind)  # an entry of a list: the list's kind names that of its entries too
    return [field.name for one in _dataclasses(kind) for field in dataclasses.fields(one) if field.init]


def _dataclasses(kind: Any) -> Iterator[type]:
    """Yield the dataclasses that an annotation names."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        yield kind
    elif isinstance(kind, UnionType) or get_origin(kind) is not None:
        for part in get_args(kind):
            yield from _dataclasses(part)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Say of every object with named properties that it has no others, as ``parse`` has it."""
    for part in (schema, *schema.get("$defs", {}).values()):
        if "properties" in part:
            part["additionalProperties"] = False
    return schema
