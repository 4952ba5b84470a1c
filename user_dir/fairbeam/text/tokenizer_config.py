"""What a pretrained tokenizer is besides its vocabulary: special tokens, templates and languages, all of it data."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from fairbeam.errors import ConfigError

FORMAT = 1
FIRST, SECOND, LANGUAGE = "$A", "$B", "$LANG"
"""Slots of a template: the sentence, the second one of a pair, the token of the language."""
_MAX_SLOTS = 64
_MAX_TYPE = 255


class Kind(StrEnum):
    """What splits the text: a ``tokenizer.json``, or SentencePiece models with a vocabulary of their own."""

    TOKENIZERS = "tokenizers"
    SENTENCEPIECE = "sentencepiece"


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """The tokens with a role; None where the tokenizer has none for it."""

    bos: str | None = None
    eos: str | None = None
    unk: str | None = None
    pad: str | None = None
    cls: str | None = None
    sep: str | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        for name, value in self.items():
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigError(f"special.{name} is {value!r}; expected a token or null")

    def items(self) -> list[tuple[str, str | None]]:
        """(role, token) of every role."""
        return [(part.name, getattr(self, part.name)) for part in dataclasses.fields(self)]

    def tokens(self) -> list[str]:
        """The tokens there are, each once."""
        return list(dict.fromkeys(token for _, token in self.items() if token is not None))


@dataclass(frozen=True, kw_only=True)
class Template:
    """What stands before and after a sentence or a pair.

    Attributes:
        single: tokens and slots around one sentence; ``$A`` once.
        pair: the same for two; ``$A`` and ``$B`` once each.
        single_types: the token type of each entry of ``single``; empty means all 0.
        pair_types: the same for ``pair``.
    """

    single: tuple[str, ...] = (FIRST,)
    pair: tuple[str, ...] = (FIRST, SECOND)
    single_types: tuple[int, ...] = ()
    pair_types: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, slots in (("single", (FIRST,)), ("pair", (FIRST, SECOND))):
            entries, types = getattr(self, name), getattr(self, f"{name}_types")
            if not all(isinstance(entry, str) and entry for entry in entries) or len(entries) > _MAX_SLOTS:
                raise ConfigError(f"template.{name} is {entries!r:.200}; expected at most {_MAX_SLOTS} tokens")
            if sorted(entry for entry in entries if entry in (FIRST, SECOND)) != sorted(slots):
                raise ConfigError(f"template.{name} is {entries!r:.200}; expected {' and '.join(slots)} once")
            if types and len(types) != len(entries):
                raise ConfigError(f"template.{name}_types has {len(types)} entries, template.{name} {len(entries)}")
            if not all(type(value) is int and 0 <= value <= _MAX_TYPE for value in types):
                raise ConfigError(f"template.{name}_types is {types!r:.200}; expected 0 to {_MAX_TYPE}")

    @property
    def names_language(self) -> bool:
        """Whether the token of a language belongs into it."""
        return LANGUAGE in self.single or LANGUAGE in self.pair

    def tokens(self) -> list[str]:
        """The tokens it names, slots left out."""
        return [entry for entry in (*self.single, *self.pair) if entry not in (FIRST, SECOND, LANGUAGE)]


@dataclass(frozen=True, kw_only=True)
class AddedToken:
    """A token that is found in the text as it is written, before a SentencePiece model sees the rest.

    Attributes:
        content: the token.
        lstrip: white space in front of it belongs to it.
        rstrip: white space behind it belongs to it.
        special: decoding leaves it out.
        opening: it counts at the beginning of a text only.
    """

    content: str
    lstrip: bool = False
    rstrip: bool = False
    special: bool = True
    opening: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.content, str) or not self.content:
            raise ConfigError(f"added token {self.content!r}; expected a text that is not empty")
        for name in ("lstrip", "rstrip", "special", "opening"):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"added token {self.content!r}: {name} is {getattr(self, name)!r}; expected a bool")


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig:
    """All that is not in the vocabulary's own files.

    Attributes:
        kind: what splits the text.
        special: the tokens with a role.
        template: what goes around a sentence or a pair.
        languages: codes and the tokens that stand for them in the template.
        added: found in the text as they are; SentencePiece only, for a ``tokenizer.json`` has its own list.
        two_models: the source and the target side have a SentencePiece model each.
        two_vocabularies: they have a vocabulary each.
    """

    kind: Kind
    special: SpecialTokens = field(default_factory=SpecialTokens)
    template: Template = field(default_factory=Template)
    languages: Mapping[str, str] = field(default_factory=dict)
    added: tuple[AddedToken, ...] = ()
    two_models: bool = False
    two_vocabularies: bool = False

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) and text for pair in self.languages.items() for text in pair):
            raise ConfigError("languages: expected codes and their tokens")
        for name in ("two_models", "two_vocabularies"):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected a bool")
        if self.kind is Kind.SENTENCEPIECE and self.special.unk is None:
            raise ConfigError("special.unk is missing; a SentencePiece tokenizer needs an unknown token")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the format's number."""
        return {"format": FORMAT, **dataclasses.asdict(self), "languages": dict(self.languages)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What ``to_dict`` gave.

        Raises:
            ConfigError: another format, or a field that is missing, unknown or out of range; names it.
        """
        values = dict(values)
        if values.pop("format", None) != FORMAT:
            raise ConfigError(f"not a tokenizer's configuration of format {FORMAT}")
        values = _fields(cls, values, "tokenizer")
        if values["kind"] not in list(Kind):
            raise ConfigError(f"kind is {values['kind']!r:.80}; expected one of {', '.join(Kind)}")
        if not isinstance(values["languages"], dict):
            raise ConfigError(f"languages: expected an object, found {values['languages']!r:.80}")
        template = _fields(Template, values["template"], "template")
        lists = {name: _list(value, f"template.{name}") for name, value in template.items()}
        added = [AddedToken(**_fields(AddedToken, entry, "added token")) for entry in _list(values["added"], "added")]
        return cls(
            **{
                **values,
                "kind": Kind(values["kind"]),
                "special": SpecialTokens(**_fields(SpecialTokens, values["special"], "special")),
                "template": Template(**lists),
                "added": tuple(added),
            }
        )


def _fields(kind: type, values: Any, where: str) -> dict[str, Any]:
    expected = {part.name for part in dataclasses.fields(kind)}
    if not isinstance(values, dict) or values.keys() != expected:
        found = sorted(values) if isinstance(values, dict) else values
        raise ConfigError(f"{where}: expected the fields {', '.join(sorted(expected))}, found {found!r:.200}")
    return values


def _list(values: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(values, list):
        raise ConfigError(f"{where}: expected a list, found {values!r:.80}")
    return tuple(values)
