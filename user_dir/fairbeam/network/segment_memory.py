"""Segment-level recurrence with relative positional encodings: Transformer-XL (Dai et al., 2019, section 3).

A long text is read in segments. The inputs of every layer are kept, without gradient, as memory that the next segment's
queries attend to. In decoding the latest token is a segment of its own, whose memory is the cached keys and values.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fairbeam.errors import ConfigError
from fairbeam.network.attention import SelfAttention, attend, contiguous_heads, merge_heads, split_heads
from fairbeam.network.cache import KeyValues, per_head
from fairbeam.network.dropout import Dropout
from fairbeam.network.linear import Linear
from fairbeam.network.stack_config import StackConfig


@dataclass
class SegmentMemory:
    """The latest inputs of every layer; running a segment updates it in place."""

    layers: list[Tensor]
    """For each layer (batch, memory length, dim) float32."""

    @classmethod
    def empty(cls, batch: int, config: StackConfig, like: Tensor) -> "SegmentMemory":
        """Make the memory before the first segment, which is zeros, on the device of ``like``."""
        shape = batch, config.positions.memory_length, config.dim
        return cls([like.new_zeros(shape, dtype=torch.float32) for _ in range(config.layers)])


@dataclass
class PastStates:
    """The memory of one layer while a segment runs."""

    memory: SegmentMemory
    layer: int
    kept: Tensor | None
    """(batch, memory length) columns of memory and segment to keep as memory; the last ones if None."""

    def extend(self, x: Tensor) -> Tensor:
        """Return memory and segment together, (batch, keys, dim), and keep the latest of them as memory."""
        past = self.memory.layers[self.layer]
        states = torch.cat([past, x], dim=1)
        if self.kept is None:
            latest = states[:, x.size(1) :]
        else:
            latest = states.gather(1, self.kept.unsqueeze(2).expand(-1, -1, x.size(2)))
        self.memory.layers[self.layer] = latest.detach().clone()
        return states


class Segment:
    """A segment to run: its padding and each layer's memory."""

    def __init__(self, memory: SegmentMemory, real: Tensor) -> None:
        """Prepare a segment.

        Args:
            memory: of earlier segments; updated as the segment runs.
            real: (batch, length) bool, true at tokens, false at padding.

        Raises:
            ConfigError: the memory has another number of sequences.
        """
        past = memory.layers[0]
        if len(past) != len(real):
            raise ConfigError(f"the memory is of {len(past)} sequences; expected {len(real)}, as many as are read")
        self.memory = memory
        self.real = None if bool(real.all()) else real
        self.length = real.size(1)
        self._kept = None
        if self.real is not None:  # keep the last tokens as memory, without the padding between them
            tokens = torch.cat([real.new_ones(past.shape[:2]), real], dim=1)
            self._kept = tokens.to(torch.uint8).sort(dim=1, stable=True).indices[:, -past.size(1) :]

    def __getitem__(self, layer: int) -> PastStates:
        return PastStates(self.memory, layer, self._kept)


@dataclass
class DistantKeyValues(KeyValues):
    """Self-attention cache of one layer with its projected distance encodings, which every step needs."""

    distances: Tensor = field(kw_only=True)
    """(heads, distances, head_dim)."""


class SegmentDistances(NamedTuple):
    """Distances between queries and keys, and their sinusoidal encodings."""

    queries: int
    """Number of queries."""
    pairs: Tensor
    """Index into ``vectors`` for each query and key, (batch or 1, queries or 1, keys)."""
    vectors: Tensor | None
    """Sinusoids of distances, (distances, dim); None where the caches hold them projected."""


class SegmentAttention(SelfAttention):
    """Self-attention whose scores add a content term and a distance term (Dai et al., 2019, section 3.3)."""

    def __init__(self, config: StackConfig, dropout: Dropout) -> None:
        super().__init__(replace(config, bias=False), dropout)
        width = config.head_dim_resolved
        self.positions = Linear(config.dim, self.heads * width, bias=False)
        self.content_bias, self.position_bias = (
            nn.Parameter(nn.init.normal_(torch.empty(self.heads, width), std=config.dim**-0.5)) for _ in range(2)
        )

    def forward(  # type: ignore[override]
        self, x: Tensor, mask: Tensor, cache: DistantKeyValues | PastStates, distances: SegmentDistances
    ) -> Tensor:
        """Attend from the last ``distances.queries`` positions of ``x``.

        Args:
            x: (batch, length, dim), memory and segment, or the latest tokens of the beams.
            mask: as in ``attend``.
            cache: keys and values of earlier tokens, or the layer's memory, which ``x`` then begins with.
            distances: between queries and keys.

        Returns:
            (batch, queries, dim)
        """
        projected = split_heads(self.qkv(x), self.heads, parts=3)
        query = contiguous_heads(projected[:1, :, :, -distances.queries :], self.attention_dtype)[0]
        query = query.unflatten(0, (-1, self.heads))
        if isinstance(cache, DistantKeyValues):
            (keys, values), vectors = cache.append(projected[1:]), cache.distances
        else:
            assert distances.vectors is not None
            keys, values = contiguous_heads(projected[1:], self.attention_dtype)
            vectors = self._project_distances(distances.vectors)
        content_bias, position_bias = (
            bias.to(query.dtype).unsqueeze(1) for bias in (self.content_bias, self.position_bias)
        )
        by_distance = (query + position_bias) @ vectors.mT  # (batch, heads, queries, distances)
        index = distances.pairs.unsqueeze(1).expand(*by_distance.shape[:3], -1)
        mask = by_distance.gather(3, index).flatten(0, 1).mul(self.scale).add(mask.to(by_distance.dtype))
        content_query = (query + content_bias).flatten(0, 1)
        context = attend(content_query, keys, values, mask, scale=self.scale, dropout=self.dropout)
        return self.output(merge_heads(context, self.heads, self.output.compute_dtype))

    def cache_memory(self, states: Tensor, vectors: Tensor, spare: int) -> KeyValues:
        """Project a layer's memory to a cache with ``spare`` empty slots.

        Args:
            states: (batch, memory length, dim), the memory.
            vectors: (distances, dim), sinusoids of distances.
            spare: number of slots behind those of the memory.
        """
        projected = split_heads(self.qkv(states), self.heads, parts=3)[1:]  # (2, batch, heads, memory length, head_dim)
        shape = (*projected.shape[:3], projected.size(3) + spare, projected.size(4))
        storage = projected.new_empty(shape, dtype=self.attention_dtype)
        cache = DistantKeyValues(storage, distances=self._project_distances(vectors))
        cache.append(projected)
        return cache

    def _project_distances(self, vectors: Tensor) -> Tensor:
        """Project sinusoids (distances, dim) to (heads, distances, head_dim)."""
        return contiguous_heads(split_heads(self.positions(vectors[None]), self.heads), self.attention_dtype)[0]


class SegmentRecurrence(nn.Module):
    """Mask and distances of self-attention over memory and segment, shared by the layers of a stack."""

    def __init__(self, config: StackConfig, dropout: Dropout) -> None:
        super().__init__()
        self.heads, self.dim, self.positions = config.heads, config.dim, config.positions
        self.dropout = dropout

    def forward(
        self, x: Tensor, mask: Tensor | None, caches: list[KeyValues] | Segment | None
    ) -> tuple[Tensor, SegmentDistances]:
        """Return the attention mask and the distances for ``x``, (batch, queries, dim).

        ``mask``, that of a decoding step, also hides keys beyond the memory length in the result; a segment has none.
        """
        if isinstance(caches, Segment):
            return self._segment_distances(caches, x.device)
        assert caches is not None
        assert mask is not None
        return self._step_distances(mask, caches[0].length, x.size(1))

    def vectors(self, most: int, device: torch.device) -> Tensor:
        """Return sinusoids of the distances from 0 to ``most``, or to ``clamp_length`` if less: (distances, dim)."""
        distances = torch.arange(self._clamped(most) + 1, dtype=torch.float, device=device)
        # In float32 like the reference implementation, with which models were trained.
        rates = 1 / (10000 ** (torch.arange(0, self.dim, 2, dtype=torch.float, device=device) / self.dim))
        angles = distances.unsqueeze(1) * rates
        return self.dropout(torch.cat([angles.sin(), angles.cos()], dim=1))

    def _segment_distances(self, segment: Segment, device: torch.device) -> tuple[Tensor, SegmentDistances]:
        """Return causal mask and distances of a segment's tokens to memory and segment."""
        past, real = self.positions.memory_length, segment.real
        columns = torch.arange(past + segment.length, device=device)
        position_ids = columns.unsqueeze(0)  # (batch or 1, keys)
        if real is not None:
            counted = real.cumsum(1) + (past - 1)
            position_ids = torch.cat([position_ids[:, :past].expand(len(real), -1), counted], dim=1)
        distances = position_ids[:, past:, None] - position_ids[:, None]  # (batch or 1, queries, keys)
        masked = columns > columns[past:, None]
        if self.positions.same_length:
            masked = masked | (distances >= past)
        if real is not None:  # padding sees itself, since the softmax of a row without keys is nan
            padding = torch.cat([real.new_zeros(len(real), past), ~real], dim=1).unsqueeze(1)
            masked = masked | (padding & columns.ne(columns[past:, None]))
        mask = torch.zeros(masked.shape, device=device).masked_fill_(masked, float("-inf"))
        most = self._clamped(len(columns) - 1)
        between = SegmentDistances(segment.length, distances.clamp(0, most), self.vectors(most, device))
        return mask if real is None else per_head(mask, self.heads), between

    def _step_distances(self, mask: Tensor, slots: int, beams: int) -> tuple[Tensor, SegmentDistances]:
        """Return mask and distances of a decoding step.

        The first slots are the memory's, shared by all beams; then come ``beams`` slots a step.
        """
        past = self.positions.memory_length
        position_ids = torch.arange(slots + beams, device=mask.device)
        position_ids = position_ids.minimum(past + (position_ids - past).div(beams, rounding_mode="floor"))
        distances = position_ids[-1] - position_ids
        far = distances >= past + (not self.positions.same_length)
        index = distances.clamp_max(self._clamped(past))[None, None]
        return mask.masked_fill(far, float("-inf")), SegmentDistances(beams, index, None)

    def _clamped(self, distance: int) -> int:
        """Return the distance, at most ``clamp_length``."""
        most = self.positions.clamp_length
        return distance if most is None else min(distance, most)
