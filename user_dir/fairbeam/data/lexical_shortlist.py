"""Lexical shortlists (vocabulary selection): the target tokens that may translate a source token.

The lists hold the most probable translations under IBM Model 1 (Brown et al., 1993, section 4.1), trained on binarised
parallel text. Decoding then scores only the tokens of a sentence's lists (Jean et al., 2015, section 3.2). The ``</s>``
at the end of every source serves as the model's empty word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fairbeam.data.databin import DataBin
from fairbeam.data.indexed import IndexedReader
from fairbeam.errors import ConfigError, InputError
from fairbeam.files import atomic_write
from fairbeam.text import Dictionary

SHORTLIST = "shortlist.safetensors"
"""Name of the file in a data folder, beside a checkpoint's dictionaries, and in a bundle."""
_FORMAT = {"format": "fairbeam shortlist 1"}
_ARRAYS = ("offsets", "symbols", "common", "target_vocabulary")
_MAX_BYTES = 1 << 28
_MAX_LINKS = 1 << 25
"""Most alignment links (pairs of a source and a target token) to train on; each takes some 30 bytes."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ShortlistOptions:
    """Options for making a shortlist."""

    size: int = 20
    """Most target tokens in the list of a source token."""
    common: int = 4500
    """Number of most frequent target tokens that every sentence gets."""
    iterations: int = 5
    """Number of iterations of expectation maximization."""

    def __post_init__(self) -> None:
        for name in ("size", "common", "iterations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"shortlist: {name} is {getattr(self, name)}; expected at least 1")


@dataclass(frozen=True, eq=False)
class Shortlist:
    """Target tokens for each source token. Shortlists are equal if their arrays are."""

    offsets: Ids
    """(source vocabulary + 1,): start of each source token's list in ``symbols``, and its end behind the last."""
    symbols: Ids
    """(total,) target ids: the lists of all source tokens, concatenated."""
    common: Ids
    """(common,) target ids that every sentence gets."""
    target_vocabulary: int
    """Number of target tokens."""

    def __post_init__(self) -> None:
        for name in ("offsets", "symbols", "common"):
            value = getattr(self, name)
            if value.ndim != 1 or not np.issubdtype(value.dtype, np.integer):
                raise InputError(f"{name} is {value.dtype} {value.shape}; expected a row of integers")
        ordered = len(self.offsets) > 1 and self.offsets[0] == 0 and bool((np.diff(self.offsets) >= 0).all())
        if not ordered or self.offsets[-1] != len(self.symbols):
            raise InputError(f"offsets do not divide {len(self.symbols)} symbols into lists")
        for name in ("symbols", "common"):
            value = getattr(self, name)
            if len(value) and not 0 <= value.min() <= value.max() < self.target_vocabulary:
                raise InputError(f"{name} has an id outside of 0 to {self.target_vocabulary - 1}")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Shortlist)
            and self.target_vocabulary == other.target_vocabulary
            and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in _ARRAYS[:3])
        )

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a shortlist file, which may be hostile.

        Raises:
            InputError: the file is missing, too large, not of this format, or its lists are inconsistent.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: larger than {_MAX_BYTES} bytes; not a shortlist")
        try:
            with safe_open(path, framework="numpy") as file:
                if file.metadata() != _FORMAT or set(file.keys()) != set(_ARRAYS):
                    raise InputError(
                        f"holds {sorted(file.keys())!r:.200}, {file.metadata()!r:.80}; expected a shortlist"
                    )
                arrays = {name: file.get_tensor(name) for name in _ARRAYS}
            vocabulary = arrays.pop("target_vocabulary")
            if vocabulary.shape != (1,) or vocabulary.dtype != np.int32 or vocabulary[0] < 1:
                raise InputError(f"target_vocabulary is {vocabulary!r:.80}; expected one number")
            wide = {name: array.astype(np.int64, casting="safe") for name, array in arrays.items()}
            return cls(**wide, target_vocabulary=int(vocabulary[0]))
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            raise InputError(f"{path}: not a shortlist ({error})") from None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write the shortlist to a file, from which ``load`` reads an equal one."""
        vocabulary = np.array([self.target_vocabulary], dtype=np.int32)
        arrays = {name: getattr(self, name).astype(np.int32) for name in _ARRAYS[:3]}
        with atomic_write(path, "wb") as stream:
            stream.write(save({**arrays, "target_vocabulary": vocabulary}, _FORMAT))

    @property
    def source_vocabulary(self) -> int:
        """Number of source tokens; each has a list, which may be empty."""
        return len(self.offsets) - 1

    def check(self, source: int, target: int) -> None:
        """Check that the model's vocabularies have the shortlist's sizes.

        Raises:
            ConfigError: they don't; names the sizes.
        """
        if (self.source_vocabulary, self.target_vocabulary) != (source, target):
            raise ConfigError(
                f"the shortlist is for vocabularies of {self.source_vocabulary} and {self.target_vocabulary} symbols, "
                f"but the model has {source} and {target}; make it with the model's own dictionaries"
            )

    def extended(self, source: int, target: int) -> Self:
        """Return the shortlist for larger vocabularies; the added tokens have empty lists and are in none."""
        empty = np.full(max(0, source - self.source_vocabulary), self.offsets[-1])
        return type(self)(
            np.append(self.offsets, empty), self.symbols, self.common, max(target, self.target_vocabulary)
        )

    def members(self, source: Ids) -> NDArray[np.bool_]:
        """Return the target tokens of each sentence's shortlist, as a mask.

        Args:
            source: (batch, length) ids; negative ids are padding.

        Returns:
            (batch, target vocabulary) bool, true at the tokens of the lists.
        """
        members = np.zeros((len(source), self.target_vocabulary), dtype=bool)
        members[:, self.common] = True
        rows, columns = np.nonzero(source >= 0)
        ids = source[rows, columns]
        lengths = self._lengths[ids]
        # Indices into ``symbols``: the lists of all tokens of the batch, concatenated.
        ends = lengths.cumsum()
        indices = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.offsets[ids] - (ends - lengths), lengths)
        members[np.repeat(rows, lengths), self.symbols[indices]] = True
        return members

    @cached_property
    def _lengths(self) -> Ids:
        """Length of each source token's list, (source vocabulary,)."""
        return np.diff(self.offsets)


def build_shortlist(folder: str | Path, options: ShortlistOptions = ShortlistOptions()) -> Shortlist:
    """Make a shortlist from the training text of a binarised data folder.

    Raises:
        InputError: the folder has no parallel training text, or a file in it is malformed.
    """
    data = DataBin.open(folder)
    if data.source is None or data.target is None:
        raise InputError(f"{folder}: no parallel text in it; a shortlist needs a source and a target")
    dictionaries = [Dictionary.load(data.dictionary_path(language)) for language in (data.source, data.target)]
    readers = [IndexedReader(data.prefix("train", language)) for language in (data.source, data.target)]
    if len(readers[0]) != len(readers[1]):
        raise InputError(f"{folder}: {len(readers[0])} sentences in {data.source}, {len(readers[1])} in {data.target}")
    for reader, dictionary in zip(readers, dictionaries, strict=True):
        if (largest := reader.max_id()) >= len(dictionary):
            raise InputError(f"{reader.prefix}.bin: id {largest}, but the dictionary has {len(dictionary)} tokens")
    rows = _within_budget(readers[0].sizes, readers[1].sizes, _MAX_LINKS)
    source, target = ([reader[int(row)] for row in rows] for reader in readers)
    same = np.array([dictionaries[1].index(token) for token in dictionaries[0].symbols(range(len(dictionaries[0])))])
    return shortlist_of(source, target, same, len(dictionaries[1]), options)


def shortlist_of(
    source: Sequence[Ids], target: Sequence[Ids], same: Ids, target_vocabulary: int, options: ShortlistOptions
) -> Shortlist:
    """Make a shortlist from parallel sentences.

    Args:
        source: ids of each source sentence, ``</s>`` last.
        target: ids of each target sentence, ``</s>`` last.
        same: (source vocabulary,) id of the target token spelled like each source token, which is added to its list so
            that names can be copied.
        target_vocabulary: number of target tokens.
        options: sizes and iterations.
    """
    table = model_1(source, target, options.iterations)
    order = np.lexsort((-table.probabilities, table.sources))
    sources, targets = table.sources[order], table.targets[order]
    rank = np.arange(len(sources)) - np.searchsorted(sources, sources)
    best = rank < options.size
    pairs = np.stack([sources[best], targets[best]])
    copies = np.stack([np.arange(len(same)), same])
    pairs = np.unique(np.concatenate([pairs, copies], axis=1), axis=1)
    offsets = np.searchsorted(pairs[0], np.arange(len(same) + 1))
    counts = np.bincount(np.concatenate([*target, np.arange(0)]), minlength=target_vocabulary)
    common = np.argsort(-counts, kind="stable")[: options.common]
    return Shortlist(offsets, pairs[1], np.sort(common[counts[common] > 0]), target_vocabulary)


@dataclass(frozen=True)
class TranslationTable:
    """Lexical translation probabilities; each array is (entries,), sorted by source id, then target id."""

    sources: Ids
    targets: Ids
    probabilities: NDArray[np.float64]
    """Probability of the target token given the source token."""


def model_1(source: Sequence[Ids], target: Sequence[Ids], iterations: int) -> TranslationTable:
    """Train IBM Model 1 by expectation maximization (Brown et al., 1993, equations 14 and 17), from a uniform start.

    Args:
        source: ids of each source sentence, ``</s>`` last.
        target: ids of each target sentence, ``</s>`` last, which is left out.
        iterations: of expectation maximization.
    """
    targets = [row[:-1] for row in target]
    lengths = np.array([len(row) for row in source]), np.array([len(row) for row in targets])
    flat_source, flat_target = np.concatenate([*source, np.arange(0)]), np.concatenate([*targets, np.arange(0)])
    # One link for each pair of a target token and a source token; links of the same target token are consecutive.
    per_target = np.repeat(lengths[0], lengths[1])
    ends = per_target.cumsum()
    first = np.repeat(np.repeat(lengths[0].cumsum() - lengths[0], lengths[1]) - (ends - per_target), per_target)
    width = int(flat_target.max(initial=0)) + 1
    keys = flat_source[np.arange(len(first)) + first] * width + np.repeat(flat_target, per_target)
    entries, entry_of = np.unique(keys, return_inverse=True)
    del keys, first
    sources, targets_of_entries = np.divmod(entries, width)
    target_of = np.repeat(np.arange(len(per_target), dtype=np.int32), per_target)
    probabilities = np.ones(len(entries))
    for _ in range(iterations):
        shares = probabilities[entry_of]
        shares /= np.bincount(target_of, shares)[target_of]
        expected = np.bincount(entry_of, shares, minlength=len(entries))
        probabilities = expected / np.bincount(sources, expected)[sources]
    return TranslationTable(sources, targets_of_entries, probabilities)


def _within_budget(source: NDArray[np.int32], target: NDArray[np.int32], links: int) -> Ids:
    """Return evenly spaced rows of the corpus, as many as have about ``links`` pairs of tokens together."""
    cost = (source.astype(np.int64) * target).sum()
    kept = len(source) if cost <= links else max(1, int(len(source) * (links / cost)))
    return np.linspace(0, max(0, len(source) - 1), kept).astype(np.int64)
