"""Tokenizer of one language of a fairseq model: subwords and a dictionary."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from fairbeam.text.dictionary import Dictionary
from fairbeam.text.subwords import SentencePiece, SubwordNMT, Subwords, Whitespace, find_model


class Marks(StrEnum):
    """Special ids around a text."""

    ENDED = "ended"
    """``text </s>``, as translation has it."""
    ENCLOSED = "enclosed"
    """``<s> text </s>``, as RoBERTa reads it."""
    OPENED = "opened"
    """``<s> text``, the prompt of a language model trained with ``--add-bos-token``."""
    CONTINUED = "continued"
    """``</s> text``, the prompt of fairseq's other language models, whose training texts follow each other."""


KINDS = {marks: "dictionary" if marks is Marks.ENDED else f"dictionary-{marks}" for marks in Marks}
"""Name of a tokenizer with these marks in a bundle's configuration."""
_UNENDED = (Marks.OPENED, Marks.CONTINUED)


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Tokenizer made of subwords and a dictionary.

    Attributes:
        language: code of the language, or name of the corpus's side, in the dictionary's file name; None for
            ``dict.txt``.
        subwords: segmentation of text into pieces.
        dictionary: vocabulary of the pieces.
        marks: special ids around a text.
    """

    language: str | None
    subwords: Subwords
    dictionary: Dictionary
    marks: Marks = Marks.ENDED

    @classmethod
    def load(
        cls, folder: str | Path, language: str | None, *, file: str | None = None, marks: Marks = Marks.ENDED
    ) -> Self:
        """Read ``dict.LANGUAGE.txt`` or ``dict.txt``, or ``file``, and the SentencePiece model beside it.

        Without a model the text is taken to be split already, in subword-nmt's notation where the dictionary
        has it.

        Raises:
            InputError: the dictionary is missing, or one of the files is malformed.
        """
        dictionary = Dictionary.load(Path(folder) / (file or _file_of(language)))
        model = find_model(folder, language)
        subwords: Subwords
        if model:
            subwords = SentencePiece.load(model)
        else:
            in_notation = any(token.endswith("@@") for token, _ in dictionary.entries())
            subwords = SubwordNMT() if in_notation else Whitespace()
        return cls(language=language, subwords=subwords, dictionary=dictionary, marks=marks)

    def save(self, folder: str | Path, *, file: str | None = None) -> None:
        """Write the files that ``load`` reads; languages with the same model share one ``spm.model``."""
        folder = Path(folder)
        self.dictionary.save(folder / (file or _file_of(self.language)))
        if isinstance(self.subwords, SentencePiece):
            shared = folder / "spm.model"
            taken = shared.is_file() and shared.read_bytes() != self.subwords.model
            self.subwords.save(folder / f"spm.{self.language}.model" if taken and self.language else shared)

    @property
    def kind(self) -> str:
        """Name of the tokenizer's kind in a bundle's configuration."""
        return KINDS[self.marks]

    @property
    def bos(self) -> int:
        """Id of ``<s>``."""
        return self.dictionary.bos

    @property
    def pad(self) -> int:
        """Id of ``<pad>``."""
        return self.dictionary.pad

    @property
    def eos(self) -> int:
        """Id of ``</s>``."""
        return self.dictionary.eos

    @property
    def unk(self) -> int:
        """Id of ``<unk>``."""
        return self.dictionary.unk

    @property
    def language_id(self) -> None:
        """None: a dictionary does not say how a text begins."""
        return

    @property
    def language_ids(self) -> frozenset[int]:
        """Ids of the languages' symbols; the language's own stands behind every text."""
        return frozenset(self.dictionary.index(symbol) for symbol in self.dictionary.languages)

    @property
    def last(self) -> int:
        """Id that ends a text: the language's symbol if the dictionary has those, else ``</s>``."""
        symbol = f"[{self.language}]"
        return self.dictionary.index(symbol) if symbol in self.dictionary.languages else self.eos

    @property
    def language_needed(self) -> bool:
        """False, as ``language_id`` is None."""
        return False

    @property
    def closing(self) -> int:
        """Number of special ids behind a text: 1 for ``</s>``, 2 with a language's symbol, 0 in a prompt."""
        if self.marks in _UNENDED:
            return 0
        return 1 if self.last == self.eos else 2

    def __len__(self) -> int:
        """Return the number of the dictionary's tokens."""
        return len(self.dictionary)

    def fits(self, rows: int) -> bool:
        """Whether an embedding has exactly a row for each entry, as fairseq makes them."""
        return len(self) == rows

    def with_language(self, language: str) -> Self:
        """Return itself: the language is a mere name here."""
        return self

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id."""
        return self.dictionary.symbols(ids)

    def encode(self, text: str) -> list[int]:
        """Encode a line, with its marks and perhaps a language's symbol; a blank line has those alone."""
        return self._ids(self.subwords.encode(text))

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """Encode every line, in order."""
        return [self._ids(pieces) for pieces in self.subwords.encode_batch(lines, threads)]

    def sample(self, text: str, *, alpha: float, rng: random.Random) -> list[int]:
        """Encode a random segmentation of a line (``Subwords.sample``), with the marks of ``encode``."""
        return self._ids(self.subwords.sample(text, alpha=alpha, rng=rng))

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids to text, without padding and sentence marks."""
        marks = {self.dictionary.pad, self.dictionary.bos, self.dictionary.eos, self.last}
        return self.subwords.decode(self.dictionary.symbols(i for i in ids if i not in marks))

    def _ids(self, pieces: Iterable[str]) -> list[int]:
        ids, last = self.dictionary.encode(pieces, eos=self.marks not in _UNENDED), self.last
        opening = {Marks.ENDED: [], Marks.CONTINUED: [self.eos]}.get(self.marks, [self.bos])
        return [*opening, *ids] if last == self.eos else [*opening, *ids, last]


def _file_of(language: str | None) -> str:
    return f"dict.{language}.txt" if language else "dict.txt"
