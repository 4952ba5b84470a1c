"""Text to bare ids and back, without templates: through the ``tokenizers`` library, or through SentencePiece."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from fairbeam.errors import InputError
from fairbeam.files import atomic_write
from fairbeam.text.reading import (
    MAX_TOKENS,
    explained,
    inside,
    parse_object,
    read_text,
    read_vocabulary,
)
from fairbeam.text.subwords import SentencePiece
from fairbeam.text.tokenizer_config import AddedToken, TokenizerConfig

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_JSON = "tokenizer.json"


class Side(StrEnum):
    """Which of a model's two texts a tokenizer is for; it matters where each has files of its own."""

    SOURCE = "source"
    TARGET = "target"


class Backend(Protocol):
    """A vocabulary and what splits text into it."""

    @property
    def size(self) -> int:
        """The highest id, plus one."""
        ...

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """The ids of each line, nothing put around them."""
        ...

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """The text of ids, all of them within ``size``; gaps of the vocabulary are left out."""
        ...

    def index(self, token: str) -> int | None:
        """The id of a token."""
        ...

    def token(self, index: int) -> str | None:
        """The token of an id."""
        ...

    def save(self, folder: Path, side: Side) -> None:
        """Write the vocabulary's files for a side."""
        ...


class TokenizersBackend:
    """What a ``tokenizer.json`` describes, run by the ``tokenizers`` library.

    Args:
        library: the library's tokenizer; its truncation and padding are turned off, for no text may be lost.
        where: where it came from, for error messages.
    """

    def __init__(self, library: "tokenizers.Tokenizer", where: str) -> None:
        library.no_truncation()
        library.no_padding()
        self.library = library
        self._where = where
        vocabulary = library.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values(), default=-1) + 1
        if not 0 < self.size <= MAX_TOKENS:
            raise InputError(f"{where}: ids up to {self.size - 1}; expected 0 to {MAX_TOKENS - 1}")

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """Build from the text of a ``tokenizer.json``.

        Raises:
            InputError: the text describes no tokenizer.
        """
        import tokenizers  # a moment that commands without such a tokenizer need not wait

        with explained(where, "a tokenizer.json of the tokenizers library"):
            return cls(tokenizers.Tokenizer.from_str(text), where)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``tokenizer.json``; errors as ``parse``."""
        path = inside(folder, TOKENIZER_JSON)
        if path is None:
            raise InputError(f"{folder / TOKENIZER_JSON}: no such file")
        text = read_text(path)
        parse_object(text, path)
        return cls.parse(text, str(path))

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """The ids of each line; the library takes its threads from ``RAYON_NUM_THREADS``, not from here."""
        with explained(self._where, "a tokenizer that can encode this text"):
            encodings = self.library.encode_batch_fast(list(lines), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD."""
        with explained(self._where, "a tokenizer that can decode these ids"):
            return self.library.decode(ids, skip_special_tokens=not keep_special)

    def index(self, token: str) -> int | None:
        """The id of a token."""
        return self.library.token_to_id(token)

    def token(self, index: int) -> str | None:
        """The token of an id."""
        return self.library.id_to_token(index)

    def save(self, folder: Path, side: Side) -> None:
        """Write ``tokenizer.json``, the same for both sides."""
        with atomic_write(folder / TOKENIZER_JSON) as stream:
            stream.write(self.library.to_str(pretty=False))


class SentencePieceBackend:
    """A SentencePiece model whose pieces get their ids from a vocabulary beside it.

    Args:
        model: splits the text and joins it.
        vocabulary: ids of the pieces and of all other tokens.
        config: the unknown token and the tokens found in the text as they are.
        where: where it came from, for error messages.

    Raises:
        InputError: the vocabulary lacks the unknown token or an added one.
    """

    def __init__(
        self, model: SentencePiece, vocabulary: Mapping[str, int], config: TokenizerConfig, where: str
    ) -> None:
        unknown = config.special.unk
        for token in (unknown, *(added.content for added in config.added)):
            if token not in vocabulary:
                raise InputError(f"{where}: the vocabulary lacks {token!r}; expected every special and added token")
        self.model = model
        self._ids = dict(vocabulary)
        self._tokens = {index: token for token, index in vocabulary.items()}
        self._unknown = self._ids[str(unknown)]
        self._names = _file_names(config)
        self._special = {
            *config.special.tokens(),
            *config.languages.values(),
            *(added.content for added in config.added if added.special),
        }
        self._added = {added.content for added in config.added}
        self._pattern = _pattern_of(config.added)
        self.size = max(self._tokens, default=-1) + 1

    @classmethod
    def load(cls, folder: Path, config: TokenizerConfig, side: Side) -> Self:
        """Read the files that ``save`` wrote.

        Raises:
            InputError: one is missing or malformed.
        """
        paths = [inside(folder, name) for name in _file_names(config)[side]]
        for path, name in zip(paths, _file_names(config)[side], strict=True):
            if path is None:
                raise InputError(f"{folder / name}: no such file; expected the tokenizer's vocabulary and model")
        vocabulary, model = (path for path in paths if path is not None)
        return cls(SentencePiece.load(model), read_vocabulary(vocabulary), config, str(vocabulary))

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """The ids of each line: added tokens first, the text between them on the model's own threads."""
        cut = [self._cut(line) for line in lines]
        texts = [part for parts in cut for part in parts if part not in self._added]
        pieces = iter(self.model.encode_batch(texts, threads) if texts else [])
        encoded = []
        for parts in cut:
            ids: list[int] = []
            for part in parts:
                tokens = [part] if part in self._added else next(pieces)
                ids.extend(self._ids.get(token, self._unknown) for token in tokens)
            encoded.append(ids)
        return encoded

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """The text of ids, without spaces around it; byte pieces that are not UTF-8 become U+FFFD."""
        parts: list[str] = []
        run: list[str] = []
        for token in (self._tokens[index] for index in ids if index in self._tokens):
            if token not in self._special:
                run.append(token)
            elif keep_special:
                parts += [self.model.decode(run), token]
                run = []
        return "".join([*parts, self.model.decode(run)]).strip(" ")

    def index(self, token: str) -> int | None:
        """The id of a token."""
        return self._ids.get(token)

    def token(self, index: int) -> str | None:
        """The token of an id."""
        return self._tokens.get(index)

    def save(self, folder: Path, side: Side) -> None:
        """Write the vocabulary as ``vocab.json`` and the model as it is; a side writes its own files alone."""
        vocabulary, model = self._names[side]
        with atomic_write(folder / vocabulary) as stream:
            json.dump(self._ids, stream, ensure_ascii=False, indent=0)
        self.model.save(folder / model)

    def _cut(self, line: str) -> list[str]:
        """The text and the added tokens in it, in order."""
        if self._pattern is None:
            return [line]
        parts: list[str] = []
        end = 0
        for found in self._pattern.finditer(line):
            parts += [line[end : found.start()], found[0].strip() if found[0] not in self._added else found[0]]
            end = found.end()
        return [part for part in (*parts, line[end:]) if part]


def _pattern_of(added: Iterable[AddedToken]) -> re.Pattern[str] | None:
    """Matches any of the tokens, the longest first, with the white space that belongs to it."""
    alternatives = [
        (r"\A" if token.opening else "")
        + (r"\s*" if token.lstrip else "")
        + re.escape(token.content)
        + (r"\s*" if token.rstrip else "")
        for token in sorted(added, key=lambda token: -len(token.content))
    ]
    return re.compile("|".join(alternatives)) if alternatives else None


def _file_names(config: TokenizerConfig) -> dict[Side, tuple[str, str]]:
    """The vocabulary's and the model's file of each side."""
    vocabularies = ("vocab.json", "target_vocab.json" if config.two_vocabularies else "vocab.json")
    models = ("source.spm", "target.spm") if config.two_models else ("tokenizer.spm", "tokenizer.spm")
    return dict(zip(Side, zip(vocabularies, models, strict=True), strict=True))
