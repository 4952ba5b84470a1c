"""Configuration of a pretrained tokenizer: special tokens, templates and languages, all of it data."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from annotated_types import Ge, Le, MaxLen, MinLen

from fairbeam import schema
from fairbeam.errors import ConfigError, InputError

FORMAT = 1
FIRST, SECOND, LANGUAGE = "$A", "$B", "$LANG"
"""Slots of a template: the text, the second text of a pair, the token of the language."""

Token = Annotated[str, MinLen(1)]
_Entries = Annotated[tuple[Token, ...], MaxLen(64)]
_Types = tuple[Annotated[int, Ge(0), Le(255)], ...]


class Kind(StrEnum):
    """Library that splits the text: a ``tokenizer.json``, or SentencePiece models with a vocabulary of their own."""

    TOKENIZERS = "tokenizers"
    SENTENCEPIECE = "sentencepiece"


@dataclass(frozen=True, kw_only=True)
class SpecialTokens:
    """Tokens with a role; None for a role that the tokenizer has no token for."""

    bos: Token | None = None
    eos: Token | None = None
    unk: Token | None = None
    pad: Token | None = None
    cls: Token | None = None
    sep: Token | None = None
    mask: Token | None = None

    def items(self) -> list[tuple[str, str | None]]:
        """Return (role, token) of every role."""
        return [(part.name, getattr(self, part.name)) for part in dataclasses.fields(self)]

    def tokens(self) -> list[str]:
        """Return the tokens that have a role, each once."""
        return list(dict.fromkeys(token for _, token in self.items() if token is not None))


@dataclass(frozen=True, kw_only=True)
class Template:
    """Tokens before and after a text or a pair of texts.

    Attributes:
        single: tokens and slots around one text; ``$A`` once.
        pair: tokens and slots around two texts; ``$A`` and ``$B`` once each.
        single_types: token type of each entry of ``single``; empty means all 0.
        pair_types: token type of each entry of ``pair``; empty means all 0.
    """

    single: _Entries = (FIRST,)
    pair: _Entries = (FIRST, SECOND)
    single_types: _Types = ()
    pair_types: _Types = ()

    def __post_init__(self) -> None:
        for name, slots in (("single", (FIRST,)), ("pair", (FIRST, SECOND))):
            entries, types = getattr(self, name), getattr(self, f"{name}_types")
            if sorted(entry for entry in entries if entry in (FIRST, SECOND)) != sorted(slots):
                raise ConfigError(f"template.{name} is {entries!r:.200}; expected {' and '.join(slots)} once")
            if types and len(types) != len(entries):
                raise ConfigError(f"template.{name}_types has {len(types)} entries, template.{name} {len(entries)}")

    @property
    def names_language(self) -> bool:
        """Whether the token of a language is part of it."""
        return LANGUAGE in self.single or LANGUAGE in self.pair

    def tokens(self) -> list[str]:
        """Return the tokens of both forms, without the slots."""
        return [entry for entry in (*self.single, *self.pair) if entry not in (FIRST, SECOND, LANGUAGE)]


@dataclass(frozen=True, kw_only=True)
class AddedToken:
    """A token that is found in the text as it is written, before a SentencePiece model sees the rest.

    Attributes:
        content: text of the token.
        lstrip: whether white space in front of it belongs to it.
        rstrip: whether white space behind it belongs to it.
        special: whether decoding leaves it out.
        opening: whether it counts at the beginning of a text only.
    """

    content: Token
    lstrip: bool = False
    rstrip: bool = False
    special: bool = True
    opening: bool = False


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Configuration of a tokenizer: all that is not in the vocabulary's own files.

    Attributes:
        kind: library that splits the text.
        special: tokens with a role.
        template: tokens around a text or a pair.
        languages: code to token of each language.
        added: tokens found in the text as they are; SentencePiece only, a ``tokenizer.json`` has its own list.
        two_models: whether source and target have a SentencePiece model each.
        two_vocabularies: whether source and target have a vocabulary each.
    """

    kind: Kind
    special: SpecialTokens = field(default_factory=SpecialTokens)
    template: Template = field(default_factory=Template)
    languages: Mapping[Token, Token] = field(default_factory=dict)
    added: tuple[AddedToken, ...] = ()
    two_models: bool = False
    two_vocabularies: bool = False

    def __post_init__(self) -> None:
        if self.kind is Kind.SENTENCEPIECE and self.special.unk is None:
            raise ConfigError("special.unk is missing; a SentencePiece tokenizer needs an unknown token")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the format's number."""
        return {"format": FORMAT, **dataclasses.asdict(self), "languages": dict(self.languages)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: str | Path = "tokenizer configuration") -> Self:
        """Check and return the configuration that ``to_dict`` wrote.

        Raises:
            InputError: another format, or a field that is missing, unknown or out of range; names ``path``, the
                field and what was expected.
        """
        values = dict(values)
        number = values.pop("format", None)
        if number != FORMAT:
            raise InputError(f"{path}: /format is {number!r:.80}; expected {FORMAT}")
        return schema.parse(cls, values, file=path, error=InputError)
