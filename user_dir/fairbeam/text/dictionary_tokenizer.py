"""Text in, ids out, and back, for one language of a model."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from fairbeam.text.dictionary import Dictionary
from fairbeam.text.subwords import SentencePiece, SubwordNMT, Subwords, Whitespace, find_model


class Marks(StrEnum):
    """What stands around the ids of a text."""

    ENDED = "ended"
    """``text </s>``, as translation has it."""
    ENCLOSED = "enclosed"
    """``<s> text </s>``, as RoBERTa reads it."""
    OPENED = "opened"
    """``<s> text``: what a language model trained with ``--add-bos-token`` continues."""
    CONTINUED = "continued"
    """``</s> text``: what any other of fairseq's language models continues; texts follow each other in training."""


KINDS = {marks: "dictionary" if marks is Marks.ENDED else f"dictionary-{marks}" for marks in Marks}
"""What a bundle calls a tokenizer with these marks."""
_UNENDED = (Marks.OPENED, Marks.CONTINUED)


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Subwords and their ids.

    Attributes:
        language: the language, or the side of the corpus, that names the dictionary's file; None for ``dict.txt``.
        subwords: text to pieces and back.
        dictionary: pieces to ids and back.
        marks: what stands around a text.
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
        """Write what ``load`` reads: languages with the same model share one ``spm.model``."""
        folder = Path(folder)
        self.dictionary.save(folder / (file or _file_of(self.language)))
        if isinstance(self.subwords, SentencePiece):
            shared = folder / "spm.model"
            taken = shared.is_file() and shared.read_bytes() != self.subwords.model
            self.subwords.save(folder / f"spm.{self.language}.model" if taken and self.language else shared)

    @property
    def kind(self) -> str:
        """What a bundle calls this way of making ids of text."""
        return KINDS[self.marks]

    @property
    def bos(self) -> int:
        """The id of ``<s>``."""
        return self.dictionary.bos

    @property
    def pad(self) -> int:
        """The id of ``<pad>``."""
        return self.dictionary.pad

    @property
    def eos(self) -> int:
        """The id of ``</s>``."""
        return self.dictionary.eos

    @property
    def unk(self) -> int:
        """The id of ``<unk>``."""
        return self.dictionary.unk

    @property
    def language_id(self) -> None:
        """None: a dictionary says nothing of how a text begins."""
        return

    @property
    def language_ids(self) -> frozenset[int]:
        """The ids of languages' symbols, of which the language's own stands behind every text."""
        return frozenset(self.dictionary.index(symbol) for symbol in self.dictionary.languages)

    @property
    def last(self) -> int:
        """The id that ends a text: of the language's symbol, where the dictionary has those, else of ``</s>``."""
        symbol = f"[{self.language}]"
        return self.dictionary.index(symbol) if symbol in self.dictionary.languages else self.eos

    @property
    def language_needed(self) -> bool:
        """False, as ``language_id`` is None."""
        return False

    @property
    def closing(self) -> int:
        """1, for ``</s>``, or 2 with a language's symbol behind it; 0 where a text is to be continued."""
        if self.marks in _UNENDED:
            return 0
        return 1 if self.last == self.eos else 2

    def __len__(self) -> int:
        """Entries of the dictionary."""
        return len(self.dictionary)

    def fits(self, rows: int) -> bool:
        """Whether an embedding has exactly a row for each entry, as fairseq makes them."""
        return len(self) == rows

    def with_language(self, language: str) -> Self:
        """Itself: the language is a mere name here."""
        return self

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """The tokens of ``ids``."""
        return self.dictionary.symbols(ids)

    def encode(self, text: str) -> list[int]:
        """The ids of a line with its marks, and perhaps a language's symbol; of a blank line, those alone."""
        return self._ids(self.subwords.encode(text))

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """``encode`` of every line, in order."""
        return [self._ids(pieces) for pieces in self.subwords.encode_batch(lines, threads)]

    def sample(self, text: str, *, alpha: float, rng: random.Random) -> list[int]:
        """The ids of one random segmentation (``Subwords.sample``), with the marks of ``encode``."""
        return self._ids(self.subwords.sample(text, alpha=alpha, rng=rng))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, without padding and sentence marks."""
        marks = {self.dictionary.pad, self.dictionary.bos, self.dictionary.eos, self.last}
        return self.subwords.decode(self.dictionary.symbols(i for i in ids if i not in marks))

    def _ids(self, pieces: Iterable[str]) -> list[int]:
        ids, last = self.dictionary.encode(pieces, eos=self.marks not in _UNENDED), self.last
        opening = {Marks.ENDED: [], Marks.CONTINUED: [self.eos]}.get(self.marks, [self.bos])
        return [*opening, *ids] if last == self.eos else [*opening, *ids, last]


def _file_of(language: str | None) -> str:
    return f"dict.{language}.txt" if language else "dict.txt"
