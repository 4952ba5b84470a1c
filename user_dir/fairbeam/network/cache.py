"""Key-value caches of self-attention and cross-attention, as explicit values.

Beams of one sentence ride in the query dimension and share one self-attention cache. Its columns are *slots*: at step 0
all beams are equal and share slot 0; each later step fills ``beams`` consecutive slots, one per beam. The slot table of
``BeamSlots``, or a mask over slots, says which slots form each beam's history, so reordering beams gathers rows of that
small table and never copies a key or a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def per_head(mask: Tensor, heads: int) -> Tensor:
    """Repeat a mask (batch, queries, keys) for every head: (batch * heads, queries, keys)."""
    return mask.repeat_interleave(heads, dim=0)


def slot_steps(slots: int, beams: int, device: torch.device) -> Tensor:
    """Return the step that filled each slot, (slots,): slot 0 at step 0, then ``beams`` slots a step."""
    return (torch.arange(slots, device=device) + (beams - 1)) // beams


def select_sentences(rows: Tensor, sentences: Tensor, batch: int) -> Tensor:
    """Keep the rows of the given sentences, where each of ``batch`` sentences has n consecutive rows.

    Args:
        rows: (batch * n, …).
        sentences: (kept,) long, indices of the sentences to keep.

    Returns:
        (kept * n, …)
    """
    return rows.unflatten(0, (batch, -1)).index_select(0, sentences).flatten(0, 1)


@dataclass
class KeyValues:
    """Self-attention cache of one layer, which grows as tokens are decoded."""

    storage: Tensor
    """Keys and values, (2, batch, heads, capacity, head_dim); the first ``length`` slots are filled."""
    length: int = 0
    """Number of filled slots."""

    @classmethod
    def empty(cls, batch: int, heads: int, head_dim: int, like: Tensor, capacity: int = 64) -> "KeyValues":
        """Allocate ``capacity`` slots in the dtype and on the device of ``like``."""
        return cls(like.new_empty(2, batch, heads, capacity, head_dim))

    def append(self, added: Tensor) -> Tensor:
        """Add (2, batch, heads, new, head_dim) and return all filled slots, (2, batch * heads, length, head_dim)."""
        start = self.reserve(added.size(3))
        self.storage[:, :, :, start : self.length] = added
        return self.storage[:, :, :, : self.length].flatten(1, 2)

    def reserve(self, slots: int) -> int:
        """Make room for ``slots`` more slots, for the caller to fill, and return the index of the first."""
        start, self.length = self.length, self.length + slots
        if self.length > self.storage.size(3):
            self._reallocate(self.storage[:, :, :, :start], max(self.length, 2 * self.storage.size(3)))
        return start

    def select(self, sentences: Tensor) -> None:
        """Keep only these rows of the batch, (kept,) long."""
        self._reallocate(self.storage[:, :, :, : self.length].index_select(1, sentences), self.storage.size(3))

    def join_columns(self, other: "KeyValues", expired: int, slot: int) -> None:
        """Drop the first ``expired`` slots, then append ``other``'s sentences, whose only slot becomes ``slot``."""
        kept = self.storage[:, :, :, expired : self.length]
        batch, self.length = kept.size(1), kept.size(3)
        joined = kept.new_empty(2, batch + other.storage.size(1), *self.storage.shape[2:])
        joined[:, :batch, :, : self.length] = kept
        joined[:, batch:, :, : self.length] = 0.0  # a masked slot has a weight of 0, and 0 * nan is nan
        joined[:, batch:, :, slot] = other.storage[:, :, :, 0]
        self.storage = joined

    def join_rows(self, other: "KeyValues", rows: Tensor, slot: int) -> None:
        """Write the only slot of each sentence of ``other`` into ``slot`` of the given free or new ``rows``."""
        if (wanted := int(rows.max()) + 1) > self.storage.size(1):
            grown = self.storage.new_empty(2, wanted, *self.storage.shape[2:])
            grown[:, : self.storage.size(1)] = self.storage
            self.storage = grown
        self.storage[:, :, :, slot].index_copy_(1, rows, other.storage[:, :, :, 0])

    def _reallocate(self, filled: Tensor, capacity: int) -> None:
        """Copy the filled slots to new storage of ``capacity`` slots."""
        self.storage = filled.new_empty(*filled.shape[:3], capacity, filled.size(4))
        self.storage[:, :, :, : filled.size(3)] = filled


class CrossKeyValues(NamedTuple):
    """Cross-attention keys and values of one layer, each (rows * heads, source, head_dim)."""

    keys: Tensor
    values: Tensor
    rows: Tensor | None = None
    """(batch,) long: each sentence's row of ``keys`` and ``values``, for kernels that read them in place; None if the
    rows are the batch."""


class AbsorbedKeyValues(NamedTuple):
    """Cross-attention keys and values of one layer with the query and output projections multiplied in, so that
    queries and outputs are vectors of the residual stream."""

    keys: Tensor
    """(batch, dim, heads * source), multiplied by the attention scale."""
    bias: Tensor
    """(batch, 1, heads * source): contribution of the query projection's bias to the scores, plus the padding mask."""
    values: Tensor
    """(batch, heads * source, dim)."""


@dataclass
class CrossAttentionCache:
    """Cross-attention keys and values of all decoder layers: projected once a sentence, never copied per beam."""

    batch: int
    layers: Sequence[CrossKeyValues | AbsorbedKeyValues]
    """One for each decoder layer."""
    mask: Tensor | None
    """Padding mask (rows * heads, 1, source), 0 at tokens and -inf at padding; None where nothing is padded."""

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences of the batch, (kept,) long."""
        first = self.layers[0]
        if isinstance(first, CrossKeyValues) and first.rows is not None:
            rows = first.rows[sentences]
            self.layers = [CrossKeyValues(layer[0], layer[1], rows) for layer in self.layers]
            self.batch = len(sentences)
            return

        def kept(tensor: Tensor) -> Tensor:
            return select_sentences(tensor, sentences, self.batch)

        self.layers = [
            CrossKeyValues(*map(kept, layer[:2]))
            if isinstance(layer, CrossKeyValues)
            else AbsorbedKeyValues(*map(kept, layer))
            for layer in self.layers
        ]
        self.mask = None if self.mask is None else kept(self.mask)
        self.batch = len(sentences)

    def join(self, other: "CrossAttentionCache") -> None:
        """Append the sentences of ``other``, none of which has left; neither cache may hold ``AbsorbedKeyValues``."""
        first = self.layers[0]
        heads = len(other.layers[0].keys) // other.batch
        width = max(self._used_width(heads), other.layers[0].keys.size(1))
        if isinstance(first, CrossKeyValues) and first.rows is not None:
            self._join_rows(other, first.rows, heads, width)
        else:
            every = torch.arange(self.batch, device=first.keys.device)
            self._reallocate(every, self.batch, heads, width)
            self.layers = [
                CrossKeyValues(
                    torch.cat([mine.keys, _resize(theirs.keys, width)]),
                    torch.cat([mine.values, _resize(theirs.values, width)]),
                )
                for mine, theirs in zip(self.layers, other.layers, strict=True)
            ]
            assert self.mask is not None
            self.mask = torch.cat([self.mask, other.mask_padded_to(width)])
        self.batch += other.batch

    def mask_padded_to(self, width: int) -> Tensor:
        """Return the mask for sources cut or padded to ``width``, (rows * heads, 1, width)."""
        keys = self.layers[0].keys
        mask = keys.new_zeros(len(keys), 1, keys.size(1)) if self.mask is None else self.mask
        return _resize(mask.mT, width, float("-inf")).mT.contiguous()

    def _join_rows(self, other: "CrossAttentionCache", rows: Tensor, heads: int, width: int) -> None:
        """Write the sentences of ``other`` into free rows; the rows in use stay where they are if there is room."""
        pool, before = len(self.layers[0].keys) // heads, self.layers[0].keys.size(1)
        # Shrink the rows once sources have become shorter: kernels read the whole width.
        if len(rows) + other.batch > pool or not 0.75 * before < width <= before or self.mask is None:
            pool = max(pool, len(rows) + other.batch)
            self._reallocate(rows, pool, heads, width)
            rows = torch.arange(len(rows))
        before = self.layers[0].keys.size(1)
        free = free_rows(rows, pool)[: other.batch]
        head_rows = (free.unsqueeze(1) * heads + torch.arange(heads)).flatten()
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.keys[head_rows] = _resize(theirs.keys, before)
            mine.values[head_rows] = _resize(theirs.values, before)
        assert self.mask is not None
        self.mask[head_rows] = other.mask_padded_to(before)
        rows = torch.cat([rows, free])
        self.layers = [CrossKeyValues(layer[0], layer[1], rows) for layer in self.layers]

    def _reallocate(self, rows: Tensor, pool: int, heads: int, width: int) -> None:
        """Copy these rows, cut or padded to ``width``, to new storage of ``pool`` rows, in this order."""
        mask = self.mask_padded_to(max(width, self.layers[0].keys.size(1)))
        kept = (rows.unsqueeze(1) * heads + torch.arange(heads, device=rows.device)).flatten()

        def copied(tensor: Tensor) -> Tensor:
            room = tensor.new_zeros(pool * heads, width, tensor.size(2))
            room[: len(kept)] = _resize(tensor[kept], width)
            return room

        self.layers = [CrossKeyValues(copied(layer[0]), copied(layer[1])) for layer in self.layers]
        self.mask = mask.new_full((pool * heads, 1, width), float("-inf"))
        self.mask[: len(kept)] = mask[kept, :, :width]

    def _used_width(self, heads: int) -> int:
        """Return the number of columns up to the last token of any sentence of the batch."""
        first = self.layers[0]
        if self.mask is None:
            return first.keys.size(1)
        mask = self.mask.unflatten(0, (-1, heads))[:, 0, 0]
        if isinstance(first, CrossKeyValues) and first.rows is not None:
            mask = mask[first.rows]
        return int(mask.eq(0).any(0).nonzero().max()) + 1


class BeamSlots(NamedTuple):
    """Slot table: each beam's history as the cache slots that hold it."""

    table: Tensor
    """(batch, beams or 1, steps) int32 slots, the latest step last; histories shorter than ``steps`` are padded on the
    left with negative numbers."""
    rows: Tensor
    """(batch,) long: each sentence's row in the caches."""
    starts: Tensor | None = None
    """(batch,) long: first slot of each sentence's new tokens; None if they go behind the filled slots."""


def free_rows(taken: Tensor, pool: int) -> Tensor:
    """Return ``pool`` unused row indices, ascending: those of the pool not in ``taken``, then new ones behind it."""
    free = torch.ones(pool + len(taken), dtype=torch.bool).index_fill_(0, taken, False)
    return free.nonzero()[:, 0]


def _resize(tensor: Tensor, width: int, value: float = 0.0) -> Tensor:
    """Cut (rows, columns, …) to ``width`` columns, or pad it on the right with ``value``."""
    if tensor.size(1) >= width:
        return tensor[:, :width]
    return F.pad(tensor, (0, 0, 0, width - tensor.size(1)), value=value)
