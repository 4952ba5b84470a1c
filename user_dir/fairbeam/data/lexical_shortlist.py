"""Vocabulary shortlists: which target symbols may translate a source symbol, found in binarised parallel text.

Lists come from the translation probabilities of IBM Model 1 (Brown et al., 1993, section 4.1), as Jean et al. (2015,
section 3.2) use them to keep most of a large vocabulary out of the output layer. The ``</s>`` behind every source
stands for the empty word that the model needs.
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
"""The file's name in a data folder, beside a checkpoint's dictionaries, and in a bundle."""
_FORMAT = {"format": "fairbeam shortlist 1"}
_ARRAYS = ("offsets", "symbols", "common", "target_vocabulary")
_MAX_BYTES = 1 << 28
_MAX_LINKS = 1 << 25
"""Pairs of a source and a target token in the sentences that are looked at; each takes some 30 bytes."""

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ShortlistOptions:
    """How lists are made."""

    size: int = 20
    """Target symbols in the list of a source symbol at most."""
    common: int = 4500
    """So many most frequent target symbols are in every sentence's list."""
    iterations: int = 5
    """Of expectation maximisation."""

    def __post_init__(self) -> None:
        for name in ("size", "common", "iterations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"shortlist: {name} is {getattr(self, name)}; expected at least 1")


@dataclass(frozen=True, eq=False)
class Shortlist:
    """Target symbols for each source symbol. Equal where the arrays are."""

    offsets: Ids
    """(source vocabulary + 1,): where the list of each source symbol begins in ``symbols``, and how many there are."""
    symbols: Ids
    """(total,) target ids, the list of one source symbol behind another's."""
    common: Ids
    """(common,) target ids that any sentence may need."""
    target_vocabulary: int

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
        """Read what ``save`` wrote, assuming that somebody hostile did.

        Raises:
            InputError: the file is missing, too large, not of this format, or its lists are impossible.
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
        """Write the file that ``load`` reads back to an equal shortlist."""
        vocabulary = np.array([self.target_vocabulary], dtype=np.int32)
        arrays = {name: getattr(self, name).astype(np.int32) for name in _ARRAYS[:3]}
        with atomic_write(path, "wb") as stream:
            stream.write(save({**arrays, "target_vocabulary": vocabulary}, _FORMAT))

    @property
    def source_vocabulary(self) -> int:
        """Source symbols that have a list, if an empty one."""
        return len(self.offsets) - 1

    def check(self, source: int, target: int) -> None:
        """Refuse vocabularies of other sizes.

        Raises:
            ConfigError: names them.
        """
        if (self.source_vocabulary, self.target_vocabulary) != (source, target):
            raise ConfigError(
                f"the shortlist is for vocabularies of {self.source_vocabulary} and {self.target_vocabulary} symbols, "
                f"but the model has {source} and {target}; make it with the model's own dictionaries"
            )

    def extended(self, source: int, target: int) -> Self:
        """The same for vocabularies that symbols were added to, which have no lists and are in none."""
        more = np.full(max(0, source - self.source_vocabulary), self.offsets[-1])
        return type(self)(np.append(self.offsets, more), self.symbols, self.common, max(target, self.target_vocabulary))

    def members(self, source: Ids) -> NDArray[np.bool_]:
        """Which symbols may be in the target of each sentence.

        Args:
            source: (batch, length) ids; padding is any number below 0.

        Returns:
            (batch, target vocabulary)
        """
        found = np.zeros((len(source), self.target_vocabulary), dtype=bool)
        found[:, self.common] = True
        rows, columns = np.nonzero(source >= 0)
        ids = source[rows, columns]
        lengths = self._lengths[ids]
        # One after the other: for each token of the batch the places of its list.
        ends = lengths.cumsum()
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.offsets[ids] - (ends - lengths), lengths)
        found[np.repeat(rows, lengths), self.symbols[places]] = True
        return found

    @cached_property
    def _lengths(self) -> Ids:
        return np.diff(self.offsets)


def build_shortlist(folder: str | Path, options: ShortlistOptions = ShortlistOptions()) -> Shortlist:
    """The shortlist of the training text in a data folder.

    Raises:
        InputError: the folder has no parallel training text, or something in it is malformed.
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
    chosen = _within_budget(readers[0].sizes, readers[1].sizes, _MAX_LINKS)
    source, target = ([reader[int(row)] for row in chosen] for reader in readers)
    same = np.array([dictionaries[1].index(token) for token in dictionaries[0].symbols(range(len(dictionaries[0])))])
    return shortlist_of(source, target, same, len(dictionaries[1]), options)


def shortlist_of(
    source: Sequence[Ids], target: Sequence[Ids], same: Ids, target_vocabulary: int, options: ShortlistOptions
) -> Shortlist:
    """The shortlist of parallel sentences.

    Args:
        source, target: ids of each sentence, ``</s>`` last.
        same: (source vocabulary,) the target symbol spelled like each source symbol, which names are copied with.
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
    """Translation probabilities; each array (entries,), sorted by source, then target."""

    sources: Ids
    targets: Ids
    probabilities: NDArray[np.float64]
    """Of the target symbol, given the source symbol."""


def model_1(source: Sequence[Ids], target: Sequence[Ids], iterations: int) -> TranslationTable:
    """IBM Model 1 by expectation maximisation (Brown et al., 1993, equations 14 and 17), from equal probabilities.

    Args:
        source, target: ids of each sentence, ``</s>`` last; that of the target is left out.
    """
    targets = [row[:-1] for row in target]
    lengths = np.array([len(row) for row in source]), np.array([len(row) for row in targets])
    flat_source, flat_target = np.concatenate([*source, np.arange(0)]), np.concatenate([*targets, np.arange(0)])
    # A link for every source token of every target token, the links of one target token side by side.
    per_target = np.repeat(lengths[0], lengths[1])
    ends = per_target.cumsum()
    first = np.repeat(np.repeat(lengths[0].cumsum() - lengths[0], lengths[1]) - (ends - per_target), per_target)
    width = int(flat_target.max(initial=0)) + 1
    keys = flat_source[np.arange(len(first)) + first] * width + np.repeat(flat_target, per_target)
    entries, entry_of = np.unique(keys, return_inverse=True)
    del keys, first
    sources, targets_of_entries = np.divmod(entries, width)
    place_of = np.repeat(np.arange(len(per_target), dtype=np.int32), per_target)
    probabilities = np.ones(len(entries))
    for _ in range(iterations):
        shares = probabilities[entry_of]
        shares /= np.bincount(place_of, shares)[place_of]
        expected = np.bincount(entry_of, shares, minlength=len(entries))
        probabilities = expected / np.bincount(sources, expected)[sources]
    return TranslationTable(sources, targets_of_entries, probabilities)


def _within_budget(source: NDArray[np.int32], target: NDArray[np.int32], links: int) -> Ids:
    """Rows, evenly spread, of which as many are taken as have ``links`` pairs of tokens in all."""
    cost = (source.astype(np.int64) * target).sum()
    kept = len(source) if cost <= links else max(1, int(len(source) * (links / cost)))
    return np.linspace(0, max(0, len(source) - 1), kept).astype(np.int64)
