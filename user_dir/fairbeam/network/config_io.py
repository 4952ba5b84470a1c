"""Conversion of configurations to plain dictionaries and back."""

import dataclasses
from typing import Any, Self

from fairbeam.schema import parse


class SerializableConfig:
    """A configuration dataclass that converts to and from JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain nested dictionaries, ready for JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Make the configuration that ``to_dict`` described; errors as for `parse`."""
        return parse(cls, values)
