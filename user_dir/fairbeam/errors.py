"""The errors fairbeam raises for things a user can mend.

Each message names the value, the place (file, line, option or tensor) and what was expected. Commands print
the message alone, without a traceback, and exit with status 2; library users catch ``FairbeamError``.

An error about an option speaks the language of whoever reads it: ``min_p`` in Python, ``--min-p`` on a command line,
``/min_p`` over HTTP. Its message has ``{}`` where an ``OptionName`` stands, and a dialect spells the names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class OptionName:
    """An option that an error names."""

    name: str
    """Name of its field, with underscores."""
    python: str | None = None
    """Name of the argument in Python where it differs."""

    def __str__(self) -> str:
        return python(self)


Dialect = Callable[[OptionName], str]
"""Spells an option as one kind of caller writes it."""


def python(option: OptionName) -> str:
    """Spell an option as a Python argument: ``min_p``."""
    return option.python or option.name


def command_line(option: OptionName) -> str:
    """Spell an option as fairbeam's and fairseq's commands have it: ``--min-p``."""
    return f"--{option.name.replace('_', '-')}"


def json_pointer(option: OptionName) -> str:
    """Spell an option as a JSON pointer into a request's body (RFC 6901): ``/min_p``."""
    return f"/{option.name}"


class FairbeamError(Exception):
    """Base of every error that is the input's or the configuration's fault, not fairbeam's."""

    def __init__(self, message: str = "", *parts: object) -> None:
        """Take a message, with ``{}`` for each of the parts where there are any; parts may be an ``OptionName``."""
        super().__init__(message, *parts)

    def __str__(self) -> str:
        return self.spoken(python)

    def spoken(self, dialect: Dialect) -> str:
        """Return the message with options spelt in a dialect."""
        message, *parts = self.args
        named = (dialect(part) if isinstance(part, OptionName) else part for part in parts)
        return str(message).format(*named) if parts else str(message)

    def followed_by(self, text: str) -> Self:
        """Return the same error with more behind its message."""
        message, *parts = self.args
        return type(self)(f"{message}{{}}", *parts, text) if parts else type(self)(f"{message}{text}")


class InputError(FairbeamError):
    """Text, data or files that cannot be used as they are."""


class ConfigError(FairbeamError):
    """Options or configuration values that contradict each other or are out of range."""


class CheckpointError(FairbeamError):
    """A checkpoint or bundle that is truncated, hostile, or does not fit the network it is loaded into."""
