"""Options as fields of dataclasses, declared once with all that doors, checks and pages derive from them.

A field is ``name: T = option(default, help, …)``. The command line, fairseq's task, requests, bundles, Hugging Face's
``generation_config.json`` and the documentation read the declarations; nothing about an option is written again.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Flag, StrEnum, auto
from functools import cache
from numbers import Integral, Real
from typing import Any

from fairbeam.errors import ConfigError, Dialect, OptionName
from fairbeam.generation.features import Feature

GROUPS = (
    "Model and files", "Search", "Length", "Sampling", "Constraints", "Prefix", "Reranking", "Speed", "Output",
)  # fmt: skip
"""Panels of the command line's help and sections of the documentation, in their order."""


class Source(Flag):
    """Places that can set an option."""

    CLI = auto()
    """``fairbeam translate``."""
    TASK = auto()
    """fairseq's commands with ``--task fairbeam_translation``."""
    MODEL = auto()
    """A bundle, whose defaults it saves."""
    REQUEST = auto()
    """JSON."""
    HUGGING_FACE = auto()
    """The ``generation_config.json`` of a model folder, whose other entries are not applied."""


CLI, TASK, MODEL, REQUEST, HUGGING_FACE = Source
PER_CALL = CLI | TASK | REQUEST
"""Sources of an option that is no model's default."""
ANY = PER_CALL | MODEL


@dataclass(frozen=True)
class Needs:
    """A condition on another option without which an option means nothing."""

    option: str
    at_least: float | None = None
    at_most: float | None = None
    """Bounds of the other option's value; without any it must be on."""


@dataclass(frozen=True)
class HuggingFace:
    """An entry of ``generation_config.json``."""

    name: str
    more: int = 0
    """Tokens that Hugging Face counts and fairbeam does not: ``</s>``, or the start symbol, too."""
    least: int = 0
    """Minimum of the option when those are taken off."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """All that is said of an option beside its name, type and default."""

    help: str
    group: str
    feature: Feature
    sources: Source
    at_least: float | None
    above: float | None
    at_most: float | None
    below: float | None
    off_up_to: float | None
    needs: str | Needs | None
    hugging_face: tuple[HuggingFace, ...]
    unit: str | None
    """What its numbers count or measure."""


def option(
    default: Any,
    help: str,
    *,
    group: str,
    feature: Feature = Feature.UNDECLARED,
    sources: Source = ANY,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    off_up_to: float | None = None,
    needs: str | Needs | None = None,
    hugging_face: str | Sequence[HuggingFace] = (),
    unit: str | None = None,
) -> Any:
    """Declare an option as a dataclass field.

    Args:
        default: the value that asks for nothing.
        help: a sentence with the standard term, and the paper where there is one; ``{beam}`` is another option.
        group: the panel it is shown in, one of ``GROUPS``.
        feature: what it asks of a search where it is on. Without one, every search refuses it.
        sources: where it can be set.
        at_least, above, at_most, below: bounds of its value.
        off_up_to: values up to this one turn it off, as fairseq's -1 does; bounds hold for the others.
        needs: the option that must be on for this one to be on, or a condition on its value.
        hugging_face: its name in ``generation_config.json``; or several, the first that is there counts.
        unit: what its numbers count or measure.
    """
    declared = Declaration(
        help=help,
        group=group,
        feature=feature,
        sources=sources,
        at_least=at_least,
        above=above,
        at_most=at_most,
        below=below,
        off_up_to=off_up_to,
        needs=needs,
        hugging_face=(HuggingFace(hugging_face),) if isinstance(hugging_face, str) else tuple(hugging_face),
        unit=unit,
    )
    return dataclasses.field(default=default, metadata={_KEY: declared})


_KEY = "option"
_LONGEST = 80
"""Characters of a value that an error shows."""


class _Spelling(dict[str, str]):
    """Spells the options that a sentence names, ``{beam}``."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self._dialect = dialect

    def __missing__(self, name: str) -> str:
        return self._dialect(OptionName(name))


@dataclass(frozen=True)
class Option:
    """A declared option."""

    name: str
    type: Any
    default: Any
    declared: Declaration

    @property
    def label(self) -> OptionName:
        """Name of it for errors."""
        return OptionName(self.name)

    def help(self, dialect: Dialect) -> str:
        """Return the sentence about it, in which other options are spelt in a dialect."""
        return self.declared.help.format_map(_Spelling(dialect))

    def is_on(self, value: Any) -> bool:
        """Return whether a value asks for anything."""
        off = self.declared.off_up_to
        return bool(value != self.default) and not (off is not None and value <= off)

    def shown(self, value: Any) -> str:
        """Return a value as an error puts it behind the option's name; nothing for a flag."""
        return "" if self.is_flag else f" {_short(value)}"

    @property
    def choices(self) -> type[StrEnum] | None:
        """The values it has where it has a few."""
        kind = without_none(self.type)
        return kind if isinstance(kind, type) and issubclass(kind, StrEnum) else None

    @property
    def is_flag(self) -> bool:
        """Whether it is on or off."""
        return self.type is bool

    @property
    def bounds(self) -> str:
        """The range of its values in words, ``at least 0 and below 1``; nothing where there is none."""
        named = (("at least", "at_least"), ("greater than", "above"), ("at most", "at_most"), ("below", "below"))
        found = [(words, getattr(self.declared, bound)) for words, bound in named]
        said = [f"{words} {bound:g}" for words, bound in found if bound not in (None, math.inf)]
        return " and ".join([*said, "finite"] if self.declared.below == math.inf else said)


def without_none(kind: Any) -> Any:
    """Return ``T`` of ``T | None``, any other annotation as it is."""
    if not isinstance(kind, types.UnionType):
        return kind
    (inner,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
    return inner


def declared_options(kind: type) -> Mapping[str, Option]:
    """Return the options of a dataclass by name, in the order of their panels and fields."""
    return _declared(typing.cast(Hashable, kind))


@cache
def _declared(kind: Any) -> Mapping[str, Option]:
    types_of = typing.get_type_hints(kind)
    found = [
        Option(field.name, types_of[field.name], field.default, field.metadata[_KEY])
        for field in dataclasses.fields(kind)
        if _KEY in field.metadata
    ]
    found.sort(key=lambda one: GROUPS.index(one.declared.group))
    return types.MappingProxyType({one.name: one for one in found})


def options_from(kind: type, source: Source) -> Mapping[str, Option]:
    """Return the options of a dataclass that a source can set."""
    return {name: one for name, one in declared_options(kind).items() if source in one.declared.sources}


def features(options: Any) -> dict[Feature, OptionName]:
    """Return the features that options ask for, each with the option that does."""
    asked: dict[Feature, OptionName] = {}
    for name, one in declared_options(type(options)).items():
        if one.is_on(getattr(options, name)):
            asked.setdefault(one.declared.feature, one.label)
    return asked


def check_options(options: Any) -> None:
    """Parse and check every option of a dataclass in place: its type, its range and what it needs.

    Raises:
        ConfigError: a value is of another type, out of range, or means nothing without another option.
    """
    known = declared_options(type(options))
    for name, one in known.items():
        object.__setattr__(options, name, parse_option(one, getattr(options, name)))
    for name, one in known.items():
        if one.is_on(getattr(options, name)):
            _check_needs(one, options, known)


def parse_option(one: Option, value: Any) -> Any:
    """Return an option's value in its own type: texts become choices, lists become tuples.

    Raises:
        ConfigError: it is of another type, or out of range.
    """
    try:
        parsed = _parsed(one.type, value)
    except _UnexpectedError as error:
        raise ConfigError("{} {}: expected {}", one.label, _short(value), error) from None
    is_off = one.declared.off_up_to is not None and parsed <= one.declared.off_up_to
    if isinstance(parsed, Real) and not isinstance(parsed, bool) and not is_off:
        _check_range(one, parsed)
    return parsed


def _check_range(one: Option, value: Any) -> None:
    said = one.declared
    inside = (
        (said.at_least is None or value >= said.at_least)
        and (said.above is None or value > said.above)
        and (said.at_most is None or value <= said.at_most)
        and (said.below is None or value < said.below)
    )
    if not inside:
        raise ConfigError("{} {}: must be {}", one.label, value, one.bounds)


def _check_needs(one: Option, options: Any, known: Mapping[str, Option]) -> None:
    needs = one.declared.needs
    if needs is None:
        return
    needs = Needs(needs) if isinstance(needs, str) else needs
    other, value = known[needs.option], getattr(options, needs.option)
    who = one.label, one.shown(getattr(options, one.name))
    if needs.at_most is not None and value > needs.at_most:
        raise ConfigError("{}{}: needs {} of at most {}, not {}", *who, other.label, needs.at_most, value)
    if needs.at_least is not None and value < needs.at_least:
        raise ConfigError("{}{}: needs {} of at least {}, not {}", *who, other.label, needs.at_least, value)
    if needs.at_most is None and needs.at_least is None and not other.is_on(value):
        raise ConfigError("{}{}: needs {}", *who, other.label)


class _UnexpectedError(Exception):
    """Says what was expected instead of a value."""


def _parsed(kind: Any, value: Any) -> Any:
    """Return a value in the type of an option's annotation."""
    inner = without_none(kind)
    if inner is not kind:
        return None if value is None else _parsed(inner, value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _choice(kind, value)
    if typing.get_origin(kind) is tuple:
        return _parsed_tuple(kind, value)
    if typing.get_origin(kind) is not None:  # Callable[…]
        if callable(value):
            return value
        raise _UnexpectedError("a function")
    return _SCALARS[kind](value)


def _parsed_tuple(kind: Any, value: Any) -> tuple[Any, ...]:
    element = typing.get_args(kind)[0]
    expected = "lists of token ids" if typing.get_origin(element) is tuple else "numbers in a list"
    if not isinstance(value, list | tuple):
        raise _UnexpectedError(expected)
    try:
        parsed = tuple(_parsed(element, one) for one in value)
    except _UnexpectedError:
        raise _UnexpectedError(expected) from None
    if element is int and any(token < 0 for token in parsed):
        raise _UnexpectedError(expected)
    return parsed


def _choice(kind: type[StrEnum], value: Any) -> StrEnum:
    try:
        return kind(str(getattr(value, "value", value)))  # fairseq has enumerations of its own
    except ValueError:
        raise _UnexpectedError(" or ".join(kind)) from None


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _UnexpectedError("true or false")


def _whole(value: Any) -> int:
    is_whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if is_whole and not isinstance(value, bool):
        return int(value)
    raise _UnexpectedError("a whole number")


def _number(value: Any) -> float:
    if isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value):
        return float(value)
    raise _UnexpectedError("a number")


_SCALARS: dict[Any, Callable[[Any], Any]] = {bool: _flag, int: _whole, float: _number}


def _short(value: Any) -> str:
    text = str(value)
    text = text if text.isprintable() and text else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
