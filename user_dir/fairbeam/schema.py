"""JSON in, frozen dataclasses out: one check of names, types and ranges for every configuration that is stored.

A dataclass's annotations are its schema. ``Annotated[int, Ge(1), Le(9)]`` (from ``annotated_types``) bounds a number;
checks of several fields together stay in ``__post_init__``. Nothing is converted but JSON's own forms: a list becomes
a tuple, a string a ``StrEnum``, an integer a float where one is expected.
"""

import dataclasses
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from fairbeam.errors import ConfigError, FairbeamError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
_SHOWN = 80
"""Characters of a wrong value, and of a name, in an error."""
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
"""Pydantic's names of the error of a field that there is not."""
_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", type(None): "null"}
_CONTAINERS = {tuple: "a list", list: "a list", dict: "an object", Mapping: "an object"}


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
        raise error(f"{where}{_explain(kind, values, pointer, found.errors(include_url=False))}") from None
    except (TypeError, ValueError, RecursionError) as found:
        raise error(f"{where}{pointer or 'the value'} cannot be written as JSON ({str(found)[:_SHOWN]})") from None
    except FairbeamError as found:  # from __post_init__; its parts keep the names of options open
        message, *parts = found.args
        raise error(f"{where.replace('{', '{{').replace('}', '}}') if parts else where}{message}", *parts) from None


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


def _explain(kind: Any, values: Any, pointer: str, errors: Sequence[Any]) -> str:
    """Return the first of pydantic's errors as "POINTER is VALUE; expected WHAT".

    Of a union there is an error for each member: the one that leads deepest is of the member that was meant.
    """
    paths = [list(_within(values, found)) for found in errors]
    path, found = max(
        ((path, found) for path, found in zip(paths, errors, strict=True) if path[: len(paths[0])] == paths[0]),
        key=lambda pair: len(pair[0]),
    )
    place = pointer + "".join(f"/{_escaped(part)}" for part in path) or "the value"
    if found["type"] == "json_invalid":
        return f"{place}: {found['msg']}"
    if found["type"] == "missing":
        return f"{place} is missing"
    if found["type"] in _UNKNOWN:
        parents = _dataclasses(_annotations(kind, path[:-1]))
        known = ", ".join(field.name for parent in parents for field in dataclasses.fields(parent))
        return f"{place} is an unknown field" + (f"; known are {known}" if known else "")
    expected = " or ".join(filter(None, map(_described, _annotations(kind, path))))
    return f"{place} is {_shown(found['input'])}; expected {expected or found['msg'].removeprefix('Input should be ')}"


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


def _annotations(kind: Any, path: Sequence[str | int]) -> list[Any]:
    """Return the annotations, members of a union one by one, of the value at ``path`` within ``kind``."""
    found = _members(kind)
    for part in path:
        inner: list[Any] = []
        for one in found:
            bare, arguments = _bare(one), get_args(_bare(one))
            if dataclasses.is_dataclass(bare) and isinstance(bare, type):
                inner += _members(get_type_hints(bare, include_extras=True).get(str(part)))
            elif arguments:  # of a mapping the values', of a list the entries'
                inner += _members(arguments[-1] if arguments[-1] is not ... else arguments[0])
        found = inner
    return found


def _members(kind: Any) -> list[Any]:
    """Return the members of a union, or the annotation alone."""
    return list(get_args(kind)) if get_origin(kind) in (UnionType, Union) else [] if kind is None else [kind]


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _dataclasses(kinds: Iterable[Any]) -> list[type]:
    return [kind for kind in map(_bare, kinds) if dataclasses.is_dataclass(kind) and isinstance(kind, type)]


def _described(kind: Any) -> str:
    """Return what an annotation takes: "an integer from 1 to 9"; an empty string if only pydantic knows."""
    bare = _bare(kind)
    if isinstance(bare, type) and issubclass(bare, StrEnum):
        return f"one of {', '.join(bare)}"
    if dataclasses.is_dataclass(bare):
        return "an object"
    word = _WORDS.get(bare) or _CONTAINERS.get(get_origin(bare) or bare, "")
    return word + (_range(get_args(kind)[1:]) if bare in (int, float) and bare is not kind else "")


def _range(bounds: Iterable[Any]) -> str:
    """Return the bounds of a number in words: " from 1 to 9", " above 0"."""
    limits = {type(part).__name__: part for bound in bounds for part in getattr(bound, "metadata", [bound])}
    words = {"Ge": " from {.ge}", "Gt": " above {.gt}", "Le": " to {.le}", "Lt": " below {.lt}"}
    return "".join(text.format(limits[name]) for name, text in words.items() if name in limits)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Say of every object with named properties that it has no others, as ``parse`` has it."""
    for part in (schema, *schema.get("$defs", {}).values()):
        if "properties" in part:
            part["additionalProperties"] = False
    return schema
