"""Backends that split text into ids, without templates: the ``tokenizers`` library and SentencePiece."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from fairbeam.errors import InputError
from fairbeam.files import atomic_write, inside, parse_object, read_text
from fairbeam.text.reading import MAX_TABLE_BYTES, MAX_TOKENS, explained, read_vocabulary
from fairbeam.text.subwords import SentencePiece
from fairbeam.text.tokenizer_config import FIRST, SECOND, AddedToken, Template, TokenizerConfig

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_JSON = "tokenizer.json"


class Side(StrEnum):
    """Side of a translation model: its source or its target text, which may have vocabularies of their own."""

    SOURCE = "source"
    TARGET = "target"


class Backend(Protocol):
    """A vocabulary and the algorithm that splits text into its tokens."""

    @property
    def size(self) -> int:
        """Rows that an embedding needs: the highest id, plus one."""
        ...

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """Encode each line, without special tokens around it."""
        ...

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Decode ids, all of them below ``size``; ids without a token are left out."""
        ...

    def index(self, token: str) -> int | None:
        """Return the id of a token, or None if the vocabulary lacks it."""
        ...

    def token(self, index: int) -> str | None:
        """Return the token of an id, or None if it has none."""
        ...

    def save(self, folder: Path, side: Side) -> None:
        """Write the vocabulary's files of one side."""
        ...


class TokenizersBackend:
    """Backend that a ``tokenizer.json`` describes, run by the ``tokenizers`` library.

    Args:
        library: the library's tokenizer; its truncation and padding are turned off, for no text may be lost.
        where: name of its file or folder, for error messages.
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
        text = read_text(path, MAX_TABLE_BYTES)
        parse_object(text, path)
        return cls.parse(text, str(path))

    def template(self) -> Template | None:
        """Return the template that the library's post-processor puts around texts, or None if it puts none there."""
        import tokenizers

        probe = tokenizers.Tokenizer(tokenizers.models.WordLevel({FIRST: 0, SECOND: 1}, unk_token=FIRST))
        probe.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        processor = self.library.post_processor
        if processor is None:
            return None
        probe.post_processor = processor
        with explained(self._where, "a post-processor that the tokenizers library can run"):
            single, pair = probe.encode(FIRST), probe.encode(FIRST, SECOND)
        if len(single) == 1 and not isinstance(processor, tokenizers.processors.TemplateProcessing):
            return None  # such as ByteLevel, which changes offsets alone
        types = [tuple(found.type_ids) if any(found.type_ids) else () for found in (single, pair)]
        return Template(
            single=tuple(single.tokens), pair=tuple(pair.tokens), single_types=types[0], pair_types=types[1]
        )

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """Encode each line; the library takes its threads from ``RAYON_NUM_THREADS``, not from here."""
        with explained(self._where, "a tokenizer that can encode this text"):
            encodings = self.library.encode_batch_fast(list(lines), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Decode ids; bytes that are not UTF-8 become U+FFFD."""
        with explained(self._where, "a tokenizer that can decode these ids"):
            return self.library.decode(ids, skip_special_tokens=not keep_special)

    def index(self, token: str) -> int | None:
        """Return the id of a token, or None if the vocabulary lacks it."""
        return self.library.token_to_id(token)

    def token(self, index: int) -> str | None:
        """Return the token of an id, or None if it has none."""
        return self.library.id_to_token(index)

    def save(self, folder: Path, side: Side) -> None:
        """Write ``tokenizer.json``, the same for both sides."""
        with atomic_write(folder / TOKENIZER_JSON) as stream:
            stream.write(self.library.to_str(pretty=False))


class SentencePieceBackend:
    """Backend of a SentencePiece model whose pieces get their ids from a vocabulary beside it.

    Args:
        model: SentencePiece model that splits and joins the text.
        vocabulary: token to id, for the pieces and all other tokens.
        config: configuration that names the unknown token and those found in the text as they are.
        where: name of its file or folder, for error messages.

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
        """Encode each line: find its added tokens, then split the text between them on SentencePiece's threads."""
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
        """Decode ids and strip spaces around the text; byte pieces that are not UTF-8 become U+FFFD."""
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
        """Return the id of a token, or None if the vocabulary lacks it."""
        return self._ids.get(token)

    def token(self, index: int) -> str | None:
        """Return the token of an id, or None if it has none."""
        return self._tokens.get(index)

    def save(self, folder: Path, side: Side) -> None:
        """Write the vocabulary as ``vocab.json`` and the model as it is; a side writes its own files alone."""
        vocabulary, model = self._names[side]
        with atomic_write(folder / vocabulary) as stream:
            json.dump(self._ids, stream, ensure_ascii=False, indent=0)
        self.model.save(folder / model)

    def _cut(self, line: str) -> list[str]:
        """Split a line into its added tokens and the text between them."""
        if self._pattern is None:
            return [line]
        parts: list[str] = []
        end = 0
        for found in self._pattern.finditer(line):
            parts += [line[end : found.start()], found[0].strip() if found[0] not in self._added else found[0]]
            end = found.end()
        return [part for part in (*parts, line[end:]) if part]


def _pattern_of(added: Iterable[AddedToken]) -> re.Pattern[str] | None:
    """Return a pattern of any of the tokens, the longest first, with the white space that belongs to it."""
    alternatives = [
        (r"\A" if token.opening else "")
        + (r"\s*" if token.lstrip else "")
        + re.escape(token.content)
        + (r"\s*" if token.rstrip else "")
        for token in sorted(added, key=lambda token: -len(token.content))
    ]
    return re.compile("|".join(alternatives)) if alternatives else None


def _file_names(config: TokenizerConfig) -> dict[Side, tuple[str, str]]:
    """Return the names of each side's vocabulary and model."""
    vocabularies = ("vocab.json", "target_vocab.json" if config.two_vocabularies else "vocab.json")
    models = ("source.spm", "target.spm") if config.two_models else ("tokenizer.spm", "tokenizer.spm")
    return dict(zip(Side, zip(vocabularies, models, strict=True), strict=True))
