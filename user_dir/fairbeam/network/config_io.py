"""Conversion of configurations to plain dictionaries and back, with names and types checked."""

import dataclasses
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from fairbeam.errors import ConfigError


class SerializableConfig:
    """A configuration dataclass that converts to and from JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested dictionaries, ready for JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make the configuration that ``to_dict`` described.

        Raises:
            ConfigError: an unknown or missing field, or a value of the wrong type; names the field.
        """
        return _build(cls, values, "network")


def _build(kind: type, values: Any, where: str) -> Any:
    """Make the dataclass ``kind`` from a dictionary, with its names and types checked; ``where`` is for errors."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected an object, found {values!r}")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(hints)}")
    required = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    missing = sorted(required - set(values))
    if missing:
        raise ConfigError(f"{where}: field {missing[0]!r} is missing")
    return kind(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Return ``value`` as the type ``hint`` asks, or raise ConfigError."""
    if isinstance(hint, UnionType):
        if value is None and NoneType in get_args(hint):
            return None
        hint = next(option for option in get_args(hint) if option is not NoneType)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where)
    if get_origin(hint) is tuple:  # tuple[T, ...], which JSON stores as a list
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, found {value!r}")
        return tuple(_convert(get_args(hint)[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError:
            raise ConfigError(f"{where}: {value!r} is not one of {', '.join(hint)}") from None
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value
