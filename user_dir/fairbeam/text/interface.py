"""Interface of a tokenizer, whatever it is made of."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol


class TextSide(Protocol):
    """Tokenizer of one side of a model: a ``Tokenizer`` or a ``PretrainedTokenizer``."""

    @property
    def kind(self) -> str:
        """Name of the tokenizer's kind in a bundle's configuration."""
        ...

    @property
    def language(self) -> str | None:
        """Code of the language, or name of the corpus's side."""
        ...

    @property
    def bos(self) -> int | None:
        """BOS id, or None if the vocabulary has none; `pad`, `eos` and `unk` likewise."""
        ...

    @property
    def pad(self) -> int | None:
        """Padding id."""
        ...

    @property
    def eos(self) -> int | None:
        """EOS id."""
        ...

    @property
    def unk(self) -> int | None:
        """Id of the unknown token."""
        ...

    @property
    def language_id(self) -> int | None:
        """Id of the language's own token, or None if the vocabulary has none."""
        ...

    @property
    def language_ids(self) -> frozenset[int]:
        """Ids of all languages' tokens."""
        ...

    @property
    def language_needed(self) -> bool:
        """Whether a text in the target language begins with a language's token, and no language is chosen."""
        ...

    @property
    def closing(self) -> int:
        """Number of special ids behind a text."""
        ...

    def __len__(self) -> int:
        """Return the highest id, plus one."""
        ...

    def fits(self, rows: int) -> bool:
        """Whether an embedding of ``rows`` rows can be this vocabulary's."""
        ...

    def with_language(self, language: str) -> "TextSide":
        """Return the tokenizer for another language; itself if its ids do not depend on the language."""
        ...

    def encode(self, text: str) -> list[int]:
        """Encode a line, with the special ids that the model expects around it."""
        ...

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[int]]:
        """Encode every line, in order."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids to text, without padding and sentence marks."""
        ...

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files; the two sides of a model share a folder."""
        ...
