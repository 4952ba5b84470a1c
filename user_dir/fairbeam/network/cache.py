"""Key-value caches of attention: self-attention's growing ones and the encoded source's, as explicit values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def per_head(mask: Tensor, heads: int) -> Tensor:
    """(batch, queries, keys) written out for every head, (batch * heads, queries, keys), which all layers share."""
    return mask.repeat_interleave(heads, dim=0)


def slot_steps(slots: int, beams: int, device: torch.device) -> Tensor:
    """The step that filled each slot, (slots,): 0, then ``beams`` slots a step."""
    return (torch.arange(slots, device=device) + (beams - 1)) // beams


def of_sentences(rows: Tensor, sentences: Tensor, batch: int) -> Tensor:
    """The rows of some sentences of ``batch``, where each sentence has as many: (batch * n, …) to (kept * n, …)."""
    return rows.unflatten(0, (batch, -1)).index_select(0, sentences).flatten(0, 1)


@dataclass
class KeyValues:
    """Growing self-attention keys and values of one layer."""

    storage: Tensor
    """Keys and values, (2, batch, heads, capacity, head_dim); the first ``length`` slots are filled."""
    length: int = 0

    @classmethod
    def empty(cls, batch: int, heads: int, head_dim: int, like: Tensor, capacity: int = 64) -> "KeyValues":
        """Storage for ``capacity`` slots in the dtype and on the device of ``like``."""
        return cls(like.new_empty(2, batch, heads, capacity, head_dim))

    def append(self, added: Tensor) -> Tensor:
        """Add (2, batch, heads, new, head_dim) and return all filled slots, (2, batch * heads, length, head_dim)."""
        start = self.reserve(added.size(3))
        self.storage[:, :, :, start : self.length] = added
        return self.storage[:, :, :, : self.length].flatten(1, 2)

    def reserve(self, slots: int) -> int:
        """Make room for more slots, which the caller fills; the number of the first."""
        start, self.length = self.length, self.length + slots
        if self.length > self.storage.size(3):
            self._rebuild(self.storage[:, :, :, :start], max(self.length, 2 * self.storage.size(3)))
        return start

    def select(self, sentences: Tensor) -> None:
        """Keep only these rows of the batch."""
        self._rebuild(self.storage[:, :, :, : self.length].index_select(1, sentences), self.storage.size(3))

    def join_columns(self, other: "KeyValues", dead: int, slot: int) -> None:
        """Append sentences whose one slot becomes ``slot`` after the first ``dead`` ones are dropped."""
        kept = self.storage[:, :, :, dead : self.length]
        batch, self.length = kept.size(1), kept.size(3)
        joined = kept.new_empty(2, batch + other.storage.size(1), *self.storage.shape[2:])
        joined[:, :batch, :, : self.length] = kept
        joined[:, batch:, :, : self.length] = 0.0  # a closed slot has a weight of 0, and 0 * nan is nan
        joined[:, batch:, :, slot] = other.storage[:, :, :, 0]
        self.storage = joined

    def join_rows(self, other: "KeyValues", rows: Tensor, slot: int) -> None:
        """Put sentences into ``rows``, which are free or new, their one slot into ``slot``."""
        if (wanted := int(rows.max()) + 1) > self.storage.size(1):
            grown = self.storage.new_empty(2, wanted, *self.storage.shape[2:])
            grown[:, : self.storage.size(1)] = self.storage
            self.storage = grown
        self.storage[:, :, :, slot].index_copy_(1, rows, other.storage[:, :, :, 0])

    def _rebuild(self, filled: Tensor, capacity: int) -> None:
        self.storage = filled.new_empty(*filled.shape[:3], capacity, filled.size(4))
        self.storage[:, :, :, : filled.size(3)] = filled


class CrossKeyValues(NamedTuple):
    """The encoded source as the cross-attention of one layer reads it; each (batch * heads, source, head_dim)."""

    keys: Tensor
    values: Tensor
    rows: Tensor | None = None
    """(kept,) long: the sentences that are left, for who reads keys and values where they are; None for all."""


class AbsorbedKeyValues(NamedTuple):
    """The same with the projections of queries and outputs multiplied in, for queries of the residual stream."""

    keys: Tensor
    """(batch, dim, heads * source), scaled."""
    bias: Tensor
    """(batch, 1, heads * source): the share of the queries' bias, and the mask."""
    values: Tensor
    """(batch, heads * source, dim)."""


@dataclass
class CrossAttentionCache:
    """The encoded source as the decoder's cross-attention reads it: projected once, never copied per beam."""

    batch: int
    layers: Sequence[CrossKeyValues | AbsorbedKeyValues]
    """One for each decoder layer."""
    mask: Tensor | None
    """(batch * heads, 1, source), 0 at tokens and -inf at padding; None where nothing is padded."""

    def select(self, sentences: Tensor) -> None:
        """Keep only these rows of the batch."""
        first = self.layers[0]
        if isinstance(first, CrossKeyValues) and first.rows is not None:
            rows = first.rows[sentences]
            self.layers = [CrossKeyValues(layer[0], layer[1], rows) for layer in self.layers]
            self.batch = len(sentences)
            return

        def kept(tensor: Tensor) -> Tensor:
            return of_sentences(tensor, sentences, self.batch)

        self.layers = [
            CrossKeyValues(*map(kept, layer[:2]))
            if isinstance(layer, CrossKeyValues)
            else AbsorbedKeyValues(*map(kept, layer))
            for layer in self.layers
        ]
        self.mask = None if self.mask is None else kept(self.mask)
        self.batch = len(sentences)

    def join(self, other: "CrossAttentionCache") -> None:
        """Append the sentences of another, which like this one is not folded, and none of which has left."""
        first = self.layers[0]
        heads = len(other.layers[0].keys) // other.batch
        width = max(self._width(heads), other.layers[0].keys.size(1))
        if isinstance(first, CrossKeyValues) and first.rows is not None:
            self._join_rows(other, first.rows, heads, width)
        else:
            every = torch.arange(self.batch, device=first.keys.device)
            self._rebuild(every, self.batch, heads, width)
            self.layers = [
                CrossKeyValues(
                    torch.cat([mine.keys, _of_width(theirs.keys, width)]),
                    torch.cat([mine.values, _of_width(theirs.values, width)]),
                )
                for mine, theirs in zip(self.layers, other.layers, strict=True)
            ]
            assert self.mask is not None
            self.mask = torch.cat([self.mask, other.mask_of_width(width, heads)])
        self.batch += other.batch

    def mask_of_width(self, width: int, heads: int) -> Tensor:
        """The mask for sources padded to ``width``, (batch * heads, 1, width)."""
        keys = self.layers[0].keys
        open_ = keys.new_zeros(len(keys), 1, keys.size(1)) if self.mask is None else self.mask
        return _of_width(open_.mT, width, float("-inf")).mT.contiguous()

    def _join_rows(self, other: "CrossAttentionCache", rows: Tensor, heads: int, width: int) -> None:
        pool, before = len(self.layers[0].keys) // heads, self.layers[0].keys.size(1)
        # Sources that have got shorter are not to be read at the width of those before for long.
        if len(rows) + other.batch > pool or not 0.75 * before < width <= before or self.mask is None:
            pool = max(pool, len(rows) + other.batch)
            self._rebuild(rows, pool, heads, width)
            rows = torch.arange(len(rows))
        before = self.layers[0].keys.size(1)
        free = free_rows(rows, pool)[: other.batch]
        places = (free.unsqueeze(1) * heads + torch.arange(heads)).flatten()
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.keys[places] = _of_width(theirs.keys, before)
            mine.values[places] = _of_width(theirs.values, before)
        assert self.mask is not None
        self.mask[places] = other.mask_of_width(before, heads)
        rows = torch.cat([rows, free])
        self.layers = [CrossKeyValues(layer[0], layer[1], rows) for layer in self.layers]

    def _rebuild(self, rows: Tensor, pool: int, heads: int, width: int) -> None:
        """Lay these rows out one behind the other, with room for ``pool`` rows."""
        mask = self.mask_of_width(max(width, self.layers[0].keys.size(1)), heads)
        kept = (rows.unsqueeze(1) * heads + torch.arange(heads, device=rows.device)).flatten()

        def laid_out(tensor: Tensor) -> Tensor:
            room = tensor.new_zeros(pool * heads, width, tensor.size(2))
            room[: len(kept)] = _of_width(tensor[kept], width)
            return room

        self.layers = [CrossKeyValues(laid_out(layer[0]), laid_out(layer[1])) for layer in self.layers]
        self.mask = mask.new_full((pool * heads, 1, width), float("-inf"))
        self.mask[: len(kept)] = mask[kept, :, :width]

    def _width(self, heads: int) -> int:
        """Columns up to the last token of any sentence that is left."""
        first = self.layers[0]
        if self.mask is None:
            return first.keys.size(1)
        mask = self.mask.unflatten(0, (-1, heads))[:, 0, 0]
        if isinstance(first, CrossKeyValues) and first.rows is not None:
            mask = mask[first.rows]
        return int(mask.eq(0).any(0).nonzero().max()) + 1


def free_rows(taken: Tensor, pool: int) -> Tensor:
    """The rows of a pool that are not taken, and as many behind it as are, (pool,) long."""
    free = torch.ones(pool + len(taken), dtype=torch.bool).index_fill_(0, taken, False)
    return free.nonzero()[:, 0]


def _of_width(tensor: Tensor, width: int, value: float = 0.0) -> Tensor:
    """(rows, columns, …) cut or padded behind to ``width`` columns."""
    if tensor.size(1) >= width:
        return tensor[:, :width]
    return F.pad(tensor, (0, 0, 0, width - tensor.size(1)), value=value)


class BeamSlots(NamedTuple):
    """Each beam's history as the slots that hold it."""

    numbers: Tensor
    """(batch, beams or 1, steps) int32, the latest last; below 0, before all others, where there are fewer steps."""
    rows: Tensor
    """(batch,) long: where in the caches each sentence is."""
    starts: Tensor | None = None
    """(batch,) long: the first slot of each sentence's latest tokens; the cache's next ones if None."""
