"""Vocabulary in fairseq's ``dict.txt`` format."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from fairbeam.errors import InputError
from fairbeam.files import atomic_write, decode_line

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
"""Special tokens: the first of every dictionary, never written to its file."""

MAX_ENTRIES = 10_000_000
MAX_LINE = 4096  # characters

_MASK = "<mask>"
_LANGUAGE = re.compile(r"\[[A-Za-z][A-Za-z0-9_-]*\]")
_OVERWRITE = " #fairseq:overwrite"


class Dictionary:
    """A fairseq dictionary: tokens in the order of their ids, each with its count in the training text.

    Ids 0 to 3 are ``<s>``, ``<pad>``, ``</s>`` and ``<unk>``. Where a token occurs twice, which a file allows
    only with the flag ``#fairseq:overwrite``, the later id is the one it is encoded to.

    Args:
        entries: (token, count) pairs after the special tokens.
    """

    bos, pad, eos, unk = range(len(SPECIALS))

    def __init__(self, entries: Iterable[tuple[str, int]] = ()) -> None:
        self._tokens = list(SPECIALS)
        self._counts = [1] * len(SPECIALS)
        for token, count in entries:
            self._tokens.append(token)
            self._counts.append(count)
        self._ids = {token: i for i, token in enumerate(self._tokens)}

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], padding_factor: int = 8) -> Self:
        """Return the dictionary that ``fairseq-preprocess`` makes of counts: by frequency, then by code point.

        Args:
            counts: number of occurrences of each token; special tokens are left out.
            padding_factor: number that the size is a multiple of, thanks to tokens ``madeupword0000`` ….
        """
        words = sorted(
            ((token, count) for token, count in counts.items() if token not in SPECIALS),
            key=lambda entry: (-entry[1], entry[0]),
        )
        missing = -(len(SPECIALS) + len(words)) % padding_factor
        fillers = (filler for i in itertools.count() if (filler := f"madeupword{i:04d}") not in counts)
        return cls([*words, *((filler, 0) for filler in itertools.islice(fillers, missing))])

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a ``dict.txt``: one ``token count`` a line, split at the last space.

        Raises:
            InputError: the file is missing, not UTF-8, too large, or a line of it is malformed or repeats a
                token without the overwrite flag; names the file and the line.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such dictionary")
        entries: list[tuple[str, int]] = []
        seen = set(SPECIALS)
        for number, line in _bounded_lines(path):
            where = f"{path}, line {number}"
            token, count, overwrite = _parse(line, where)
            if token in seen and not overwrite:
                raise InputError(
                    f"{where}: duplicate token {token!r}; each token may occur once, unless its line ends in"
                    f"{_OVERWRITE!r}"
                )
            seen.add(token)
            entries.append((token, count))
        return cls(entries)

    def save(self, path: str | Path) -> None:
        """Write the file that ``load``, and fairseq's own ``Dictionary.load``, read back.

        Raises:
            InputError: a token holds a line break, which the format cannot express.
        """
        seen = set(SPECIALS)
        with atomic_write(path) as stream:
            for token, count in self.entries():
                if "\n" in token or "\r" in token:
                    raise InputError(f"{path}: token {token!r} holds a line break; a dictionary file cannot")
                stream.write(f"{token} {count}{_OVERWRITE if token in seen else ''}\n")
                seen.add(token)

    def entries(self) -> Iterator[tuple[str, int]]:
        """Return (token, count) in the order of ids, without the special tokens."""
        start = len(SPECIALS)
        return zip(self._tokens[start:], self._counts[start:], strict=True)

    @cached_property
    def languages(self) -> frozenset[str]:
        """Symbols ``[xx_XX]`` of languages, if they stand at the end before ``<mask>``, as mBART has them."""
        if self._tokens[-1] != _MASK:
            return frozenset()
        return frozenset(itertools.takewhile(_LANGUAGE.fullmatch, reversed(self._tokens[:-1])))

    def extended(self, symbols: Iterable[str]) -> Self:
        """Return the dictionary with the symbols that it lacks appended, as fairseq's tasks do."""
        missing = [symbol for symbol in dict.fromkeys(symbols) if symbol not in self]
        return type(self)([*self.entries(), *((symbol, 1) for symbol in missing)])

    def without(self, symbols: Sequence[str]) -> Self:
        """Return the dictionary without the symbols, if they stand at its end in this order."""
        kept = len(self) - len(symbols)
        if not symbols or kept < len(SPECIALS) or self._tokens[kept:] != list(symbols):
            return self
        return type(self)(itertools.islice(self.entries(), kept - len(SPECIALS)))

    def index(self, token: str) -> int:
        """Return the token's id, or ``unk``."""
        return self._ids.get(token, self.unk)

    def encode(self, pieces: Iterable[str], *, eos: bool = True) -> list[int]:
        """Map pieces to ids, ended by ``</s>`` unless ``eos`` is false."""
        ids = [self._ids.get(piece, self.unk) for piece in pieces]
        if eos:
            ids.append(self.eos)
        return ids

    def symbols(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id."""
        return [self._tokens[i] for i in ids]

    def __getitem__(self, index: int) -> str:
        return self._tokens[index]

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __len__(self) -> int:
        return len(self._tokens)

    def __eq__(self, other: object) -> bool:
        """Whether both give the same tokens the same ids; counts do not matter."""
        return isinstance(other, Dictionary) and self._tokens == other._tokens

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Dictionary({len(self)} tokens)"


def _bounded_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbered lines; refuse a file that is no dictionary before it fills the memory."""
    longest = 4 * MAX_LINE  # bytes: no character of UTF-8 takes more than four
    with path.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(longest + 1), b""), start=1):
            if len(line) > longest or len(text := decode_line(line, str(path), number)) > MAX_LINE:
                raise InputError(f"{path}, line {number}: over {MAX_LINE} characters; not a dictionary")
            if number > MAX_ENTRIES:
                raise InputError(f"{path}: more than {MAX_ENTRIES} lines; not a dictionary")
            yield number, text


def _parse(line: str, where: str) -> tuple[str, int, bool]:
    entry = line.rstrip()
    overwrite = entry.endswith(_OVERWRITE)
    token, space, count = entry.removesuffix(_OVERWRITE).rpartition(" ")
    try:
        if not space:
            raise ValueError
        return token, int(count), overwrite
    except ValueError:
        raise InputError(f"{where}: expected 'token count', found {line[:80]!r}") from None
