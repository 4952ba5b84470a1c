"""Text in, ids out, and back, for one language of a model."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fairbeam.text.dictionary import Dictionary
from fairbeam.text.subwords import SentencePiece, SubwordNMT, Subwords, Whitespace, find_model


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Subwords and their ids.

    Attributes:
        language: the language, or the side of the corpus, that names the dictionary's file.
        subwords: text to pieces and back.
        dictionary: pieces to ids and back.
    """

    language: str
    subwords: Subwords
    dictionary: Dictionary

    @classmethod
    def load(cls, folder: str | Path, language: str, *, file: str | None = None) -> Self:
        """Read ``dict.LANGUAGE.txt``, or ``file``, and the SentencePiece model beside it.

        Without a model the text is taken to be split already, in subword-nmt's notation where the dictionary
        has it.

        Raises:
            InputError: the dictionary is missing, or one of the files is malformed.
        """
        dictionary = Dictionary.load(Path(folder) / (file or f"dict.{language}.txt"))
        model = find_model(folder, language)
        subwords: Subwords
        if model:
            subwords = SentencePiece.load(model)
        else:
            in_notation = any(token.endswith("@@") for token, _ in dictionary.entries())
            subwords = SubwordNMT() if in_notation else Whitespace()
        return cls(language=language, subwords=subwords, dictionary=dictionary)

    def save(self, folder: str | Path, *, file: str | None = None) -> None:
        """Write what ``load`` reads: languages with the same model share one ``spm.model``."""
        folder = Path(folder)
        self.dictionary.save(folder / (file or f"dict.{self.language}.txt"))
        if isinstance(self.subwords, SentencePiece):
            shared = folder / "spm.model"
            taken = shared.is_file() and shared.read_bytes() != self.subwords.model
            self.subwords.save(folder / f"spm.{self.language}.model" if taken else shared)

    @property
    def kind(self) -> str:
        """What a bundle calls this way of making ids of text."""
        return "dictionary"

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
        """1, for ``</s>``, or 2 with a language's symbol behind it."""
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
        """The ids of a line, ended by ``</s>`` and perhaps a language's symbol; of a blank line, those alone."""
        return self._ids(self.subwords.encode(text))

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """``encode`` of every line, in order."""
        return [self._ids(pieces) for pieces in self.subwords.encode_batch(lines, threads)]

    def sample(self, text: str, *, alpha: float, rng: random.Random) -> list[int]:
        """The ids of one random segmentation (``Subwords.sample``), ended as ``encode`` ends them."""
        return self._ids(self.subwords.sample(text, alpha=alpha, rng=rng))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, without padding and sentence marks."""
        marks = {self.dictionary.pad, self.dictionary.bos, self.dictionary.eos, self.last}
        return self.subwords.decode(self.dictionary.symbols(i for i in ids if i not in marks))

    def _ids(self, pieces: Iterable[str]) -> list[int]:
        ids, last = self.dictionary.encode(pieces), self.last
        return ids if last == self.eos else [*ids, last]
