"""What a model's text side must do, whatever it is made of."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol


class TextSide(Protocol):
    """Text in, ids out, and back, for one side of a model: a ``Tokenizer`` or a ``PretrainedTokenizer``."""

    @property
    def kind(self) -> str:
        """What a bundle calls this way of making ids of text."""
        ...

    @property
    def language(self) -> str | None:
        """The language, or the side of the corpus."""
        ...

    @property
    def bos(self) -> int | None:
        """The id of the token a text begins with; None where there is none, as for the next ones."""
        ...

    @property
    def pad(self) -> int | None:
        """The id of padding."""
        ...

    @property
    def eos(self) -> int | None:
        """The id of the token a text ends with."""
        ...

    @property
    def unk(self) -> int | None:
        """The id of what the vocabulary does not know."""
        ...

    @property
    def language_id(self) -> int | None:
        """The id of the language's own token, where the vocabulary has one."""
        ...

    @property
    def language_ids(self) -> frozenset[int]:
        """The ids of all languages' tokens."""
        ...

    @property
    def language_needed(self) -> bool:
        """Whether a text in the target language begins with a language's token, and no language is chosen."""
        ...

    @property
    def closing(self) -> int:
        """How many ids stand behind a text."""
        ...

    def __len__(self) -> int:
        """The highest id, plus one."""
        ...

    def fits(self, rows: int) -> bool:
        """Whether an embedding of so many rows can be this vocabulary's."""
        ...

    def with_language(self, language: str) -> "TextSide":
        """The same for another language, where that makes a difference."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of a line, ended as the model wants it."""
        ...

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """``encode`` of every line, in order."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without padding and sentence marks."""
        ...

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """The tokens of ids."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the files that it is read from again; two sides share a folder."""
        ...
