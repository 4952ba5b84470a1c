"""Tokenizer of a pretrained model of any family: a backend, special tokens and templates."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fairbeam.errors import ConfigError, InputError
from fairbeam.files import atomic_write, inside, read_object
from fairbeam.text.backends import Backend, SentencePieceBackend, Side, TokenizersBackend
from fairbeam.text.reading import MAX_OPTIONS_BYTES
from fairbeam.text.tokenizer_config import FIRST, LANGUAGE, SECOND, Kind, TokenizerConfig

CONFIG = "tokenizer.fairbeam.json"


@dataclass(frozen=True, kw_only=True)
class TypedIds:
    """Token ids and token type ids, of one length."""

    ids: list[int]
    types: list[int]


@dataclass(frozen=True, kw_only=True)
class PretrainedTokenizer:
    """Tokenizer that encodes and decodes text as the model was trained.

    Attributes:
        config: special tokens, templates and languages.
        backend: vocabulary and the library that splits text into it.
        language: code whose token the template asks for; without such a template a mere name, or None.
        side: side of the model that it is for.

    Raises:
        ConfigError: the template needs a language, and the model does not know ``language``; on the target side it
            may stay None until a text is encoded.
        InputError: a token with a role, of the template or of a language is not in the vocabulary.
    """

    config: TokenizerConfig
    backend: Backend
    language: str | None = None
    side: Side = Side.SOURCE

    def __post_init__(self) -> None:
        config = self.config
        for token in (*config.special.tokens(), *config.template.tokens(), *config.languages.values()):
            if self.backend.index(token) is None:
                raise InputError(f"the tokenizer's vocabulary lacks {token!r}, which its configuration names")
        chosen = self.language in config.languages or (self.side is Side.TARGET and self.language is None)
        if config.template.names_language and not chosen:
            known = ", ".join(list(config.languages)[:200])
            raise ConfigError(f"language is {self.language!r}; this tokenizer needs one of {known}")

    @classmethod
    def load(cls, folder: str | Path, language: str | None = None, *, side: Side = Side.SOURCE) -> Self:
        """Read the files that ``save`` wrote.

        Raises:
            ConfigError: the language is missing or unknown, or the tokenizers library is not installed.
            InputError: a file is missing, malformed, too large or leads out of the folder.
        """
        folder = Path(folder)
        path = inside(folder, CONFIG)
        if path is None:
            raise InputError(f"{folder / CONFIG}: no such file; expected a tokenizer's configuration")
        config = TokenizerConfig.from_dict(read_object(path, MAX_OPTIONS_BYTES), path)
        backend: Backend
        if config.kind is Kind.TOKENIZERS:
            backend = TokenizersBackend.load(folder)
        else:
            backend = SentencePieceBackend.load(folder, config, side)
        return cls(config=config, backend=backend, language=language, side=side)

    def save(self, folder: str | Path) -> None:
        """Write the configuration and this side's files; two sides of a model share a folder."""
        folder = Path(folder)
        self.backend.save(folder, self.side)
        with atomic_write(folder / CONFIG) as stream:
            stream.write(json.dumps(self.config.to_dict(), ensure_ascii=False, indent=2) + "\n")

    def with_language(self, language: str) -> Self:
        """Return the tokenizer for another language.

        Raises:
            ConfigError: it has languages, and this is none of them.
        """
        languages = self.config.languages
        if languages and language not in languages:
            raise ConfigError(f"language is {language!r}; expected one of {', '.join(list(languages)[:200])}")
        return dataclasses.replace(self, language=language)

    @property
    def kind(self) -> str:
        """Name of the tokenizer's kind in a bundle's configuration."""
        return "pretrained"

    @property
    def bos(self) -> int | None:
        """BOS id, or None if the vocabulary has none; the ids below likewise."""
        return self._index(self.config.special.bos)

    @property
    def pad(self) -> int | None:
        """Padding id."""
        return self._index(self.config.special.pad)

    @property
    def eos(self) -> int | None:
        """EOS id."""
        return self._index(self.config.special.eos)

    @property
    def unk(self) -> int | None:
        """Id of the unknown token."""
        return self._index(self.config.special.unk)

    @property
    def mask(self) -> int | None:
        """Mask id."""
        return self._index(self.config.special.mask)

    @property
    def language_id(self) -> int | None:
        """Id of this tokenizer's language, which a multilingual decoder is forced to begin with (forced BOS)."""
        return self._index(self.config.languages.get(self.language or ""))

    @property
    def language_ids(self) -> frozenset[int]:
        """Ids of all languages' tokens."""
        found = (self.backend.index(token) for token in self.config.languages.values())
        return frozenset(index for index in found if index is not None)

    @property
    def language_needed(self) -> bool:
        """Whether the model must be told a language, and no language is chosen."""
        return self.config.template.names_language and self.language is None

    @property
    def closing(self) -> int:
        """Number of ids that the template puts behind a text."""
        single = self.config.template.single
        return len(single) - single.index(FIRST) - 1

    def fits(self, rows: int) -> bool:
        """Whether an embedding of ``rows`` rows has one for each id; many models pad theirs."""
        return len(self) <= rows

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id; its number in angle brackets if it has none."""
        return [self.backend.token(i) or f"<{i}>" for i in ids]

    def __len__(self) -> int:
        """Return the rows that an embedding needs: the highest id, plus one."""
        return self.backend.size

    def index(self, token: str) -> int | None:
        """Return the id of a token, or None if the vocabulary lacks it."""
        return self.backend.index(token)

    def token(self, index: int) -> str | None:
        """Return the token of an id, or None if it has none."""
        return self.backend.token(index)

    def encode(self, text: str) -> list[int]:
        """Encode a text, with the template around it."""
        return self.encode_batch([text])[0]

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """Encode every line, in order, on several threads where the backend can."""
        around = self._resolve(self.config.template.single)
        return [_fill(around, (ids,)) for ids in self._bare(lines, threads)]

    def encode_typed(self, first: str, second: str | None = None) -> TypedIds:
        """Encode a text or a pair of texts, with the template around it, and give each id its token type."""
        template = self.config.template
        if second is None:
            entries, types = template.single, template.single_types
        else:
            entries, types = template.pair, template.pair_types
        bare = self._bare([first] if second is None else [first, second], 1)
        around = self._resolve(entries)
        of_each = types or (0,) * len(entries)
        lengths = [1 if type(entry) is int else len(bare[entry == SECOND]) for entry in around]
        repeated = [kind for kind, length in zip(of_each, lengths, strict=True) for _ in range(length)]
        return TypedIds(ids=_fill(around, bare), types=repeated)

    def encode_pair(self, first: str, second: str) -> TypedIds:
        """Encode a pair of texts, with the template around it, and give each id its token type."""
        return self.encode_typed(first, second)

    def decode(self, ids: Iterable[int], *, keep_special: bool = False) -> str:
        """Decode ids to text, without special tokens unless ``keep_special``.

        Ids outside of the vocabulary, such as the rows that some models pad their embeddings with or the
        negative ones of ignored labels, are left out; bytes that are not UTF-8 become U+FFFD.
        """
        return self.backend.decode([i for i in ids if 0 <= i < self.backend.size], keep_special=keep_special)

    def _bare(self, lines: Sequence[str], threads: int) -> list[list[int]]:
        for number, line in enumerate(lines, start=1):
            if not line.isascii() and any("\ud800" <= character <= "\udfff" for character in line):
                raise InputError(f"text {number} of {len(lines)} holds a lone surrogate; expected Unicode text")
        return self.backend.encode_batch(lines, threads)

    def _resolve(self, entries: Sequence[str]) -> list[int | str]:
        """Return the entries of a template, tokens turned to ids and slots of text left as they are."""
        language = self.config.languages.get(self.language or "")
        if language is None and LANGUAGE in entries:
            raise ConfigError("language is None, but the template around a text names one; choose it first")
        named = [language if entry == LANGUAGE else entry for entry in entries]
        return [entry if entry in (FIRST, SECOND) else self._index(entry) for entry in named]  # type: ignore[misc]

    def _index(self, token: str | None) -> int | None:
        return None if token is None else self.backend.index(token)


def _fill(around: Sequence[int | str], bare: Sequence[list[int]]) -> list[int]:
    filled: list[int] = []
    for entry in around:
        if isinstance(entry, int):
            filled.append(entry)
        else:
            filled.extend(bare[entry == SECOND])
    return filled
