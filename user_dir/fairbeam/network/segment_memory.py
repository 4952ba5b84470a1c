"""Segments that are read with the memory of those before them, at relative positions (Dai et al., 2019, section 3).

A long text is read in segments. What every layer read is kept, without gradient, and the next segment's queries see
it. In decoding the latest token is a segment of its own, whose memory are the keys and values of those before it.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fairbeam.errors import ConfigError
from fairbeam.network.attention import SelfAttention, attend, heads_apart, heads_together, packed
from fairbeam.network.cache import KeyValues, per_head
from fairbeam.network.dropout import Dropout
from fairbeam.network.linear import Linear
from fairbeam.network.stack_config import StackConfig


@dataclass
class SegmentMemory:
    """What every layer read last; reading a segment changes it."""

    layers: list[Tensor]
    """For each layer (batch, memory length, dim), in float32."""

    @classmethod
    def empty(cls, batch: int, config: StackConfig, like: Tensor) -> "SegmentMemory":
        """The memory of nothing, which is zeros, on the device of ``like``."""
        shape = batch, config.positions.memory_length, config.dim
        return cls([like.new_zeros(shape, dtype=torch.float32) for _ in range(config.layers)])


@dataclass
class PastStates:
    """The memory of one layer while a segment is read."""

    memory: SegmentMemory
    layer: int
    kept: Tensor | None
    """(batch, memory length) columns of memory and segment that stay; the last ones if None."""

    def extend(self, x: Tensor) -> Tensor:
        """What is remembered and the segment behind it, (batch, keys, dim); the newest of it is remembered."""
        past = self.memory.layers[self.layer]
        seen = torch.cat([past, x], dim=1)
        if self.kept is None:
            newest = seen[:, x.size(1) :]
        else:
            newest = seen.gather(1, self.kept.unsqueeze(2).expand(-1, -1, x.size(2)))
        self.memory.layers[self.layer] = newest.detach().clone()
        return seen


class Segment:
    """A segment about to be read: where its tokens are, and each layer's memory."""

    def __init__(self, memory: SegmentMemory, real: Tensor) -> None:
        """``real`` is (batch, length) bool, true at tokens.

        Raises:
            ConfigError: the memory is of another number of sequences.
        """
        past = memory.layers[0]
        if len(past) != len(real):
            raise ConfigError(f"the memory is of {len(past)} sequences; expected {len(real)}, as many as are read")
        self.memory = memory
        self.real = None if bool(real.all()) else real
        self.length = real.size(1)
        self._kept = None
        if self.real is not None:  # padding is not remembered: tokens are brought together behind it
            there = torch.cat([real.new_ones(past.shape[:2]), real], dim=1)
            self._kept = there.to(torch.uint8).sort(dim=1, stable=True).indices[:, -past.size(1) :]

    def __getitem__(self, layer: int) -> PastStates:
        return PastStates(self.memory, layer, self._kept)


@dataclass
class DistantKeyValues(KeyValues):
    """Keys and values of one layer, and its projected distances, which every step needs."""

    distances: Tensor = field(kw_only=True)
    """(heads, distances, head_dim)."""


class Sight(NamedTuple):
    """Where queries stand to keys."""

    queries: int
    pairs: Tensor
    """The row of ``vectors`` for each pair, (batch or 1, queries or 1, keys)."""
    vectors: Tensor | None
    """Sinusoids of distances, (distances, dim); None where caches have them projected."""


class SegmentAttention(SelfAttention):
    """Self-attention that scores a key by its content and by its distance (Dai et al., 2019, section 3.3)."""

    def __init__(self, config: StackConfig, dropout: Dropout) -> None:
        super().__init__(replace(config, bias=False), dropout)
        width = config.head_width
        self.positions = Linear(config.dim, self.heads * width, bias=False)
        self.content_bias, self.position_bias = (
            nn.Parameter(nn.init.normal_(torch.empty(self.heads, width), std=config.dim**-0.5)) for _ in range(2)
        )

    def forward(  # type: ignore[override]
        self, x: Tensor, mask: Tensor, cache: DistantKeyValues | PastStates, sight: Sight
    ) -> Tensor:
        """(batch, length, dim), of which the last ones ask, to (batch, queries, dim); ``mask`` as in ``attend``."""
        apart = heads_apart(self.qkv(x), self.heads, parts=3)
        query = packed(apart[:1, :, :, -sight.queries :], self.attention_dtype)[0].unflatten(0, (-1, self.heads))
        if isinstance(cache, DistantKeyValues):
            (keys, values), distances = cache.append(apart[1:]), cache.distances
        else:
            assert sight.vectors is not None
            (keys, values), distances = packed(apart[1:], self.attention_dtype), self._project(sight.vectors)
        content_bias, position_bias = (
            bias.to(query.dtype).unsqueeze(1) for bias in (self.content_bias, self.position_bias)
        )
        by_distance = (query + position_bias) @ distances.mT  # (batch, heads, queries, distances)
        index = sight.pairs.unsqueeze(1).expand(*by_distance.shape[:3], -1)
        mask = by_distance.gather(3, index).flatten(0, 1).mul(self.scale).add(mask.to(by_distance.dtype))
        asking = (query + content_bias).flatten(0, 1)
        context = attend(asking, keys, values, mask, scale=self.scale, dropout=self.dropout)
        return self.output(heads_together(context, self.heads, self.output.compute_dtype))

    def recall(self, states: Tensor, vectors: Tensor, spare: int) -> KeyValues:
        """Keys and values of (batch, memory length, dim), with room for ``spare`` more."""
        apart = heads_apart(self.qkv(states), self.heads, parts=3)[1:]  # (2, batch, heads, memory length, head_dim)
        shape = (*apart.shape[:3], apart.size(3) + spare, apart.size(4))
        storage = apart.new_empty(shape, dtype=self.attention_dtype)
        cache = DistantKeyValues(storage, distances=self._project(vectors))
        cache.append(apart)
        return cache

    def _project(self, vectors: Tensor) -> Tensor:
        """(distances, dim) to (heads, distances, head_dim)."""
        return packed(heads_apart(self.positions(vectors[None]), self.heads), self.attention_dtype)[0]


class SegmentRecurrence(nn.Module):
    """Which keys a stack's queries see, and at which distances."""

    def __init__(self, config: StackConfig, dropout: Dropout) -> None:
        super().__init__()
        self.heads, self.dim, self.positions = config.heads, config.dim, config.positions
        self.dropout = dropout

    def forward(self, x: Tensor, mask: Tensor | None, caches: list[KeyValues] | Segment | None) -> tuple[Tensor, Sight]:
        """What (batch, queries, dim) see: the mask, made or narrowed, and their distances."""
        if isinstance(caches, Segment):
            return self._of_segment(caches, x.device)
        assert caches is not None
        assert mask is not None
        return self._of_step(mask, caches[0].length, x.size(1))

    def vectors(self, most: int, device: torch.device) -> Tensor:
        """Sinusoids of the distances from 0 to ``most`` or the longest that is told apart, (distances, dim)."""
        numbers = torch.arange(self._clamped(most) + 1, dtype=torch.float, device=device)
        # In float32 as in the reference, with which models were trained.
        rates = 1 / (10000 ** (torch.arange(0, self.dim, 2, dtype=torch.float, device=device) / self.dim))
        angles = numbers.unsqueeze(1) * rates
        return self.dropout(torch.cat([angles.sin(), angles.cos()], dim=1))

    def _of_segment(self, segment: Segment, device: torch.device) -> tuple[Tensor, Sight]:
        past, real = self.positions.memory_length, segment.real
        columns = torch.arange(past + segment.length, device=device)
        numbers = columns.unsqueeze(0)  # (batch or 1, keys)
        if real is not None:
            counted = real.cumsum(1) + (past - 1)
            numbers = torch.cat([numbers[:, :past].expand(len(real), -1), counted], dim=1)
        distances = numbers[:, past:, None] - numbers[:, None]  # (batch or 1, queries, keys)
        closed = columns > columns[past:, None]
        if self.positions.same_length:
            closed = closed | (distances >= past)
        if real is not None:  # padding sees itself, since a row without any key has no softmax
            padding = torch.cat([real.new_zeros(len(real), past), ~real], dim=1).unsqueeze(1)
            closed = closed | (padding & columns.ne(columns[past:, None]))
        mask = torch.zeros(closed.shape, device=device).masked_fill_(closed, float("-inf"))
        most = self._clamped(len(columns) - 1)
        sight = Sight(segment.length, distances.clamp(0, most), self.vectors(most, device))
        return mask if real is None else per_head(mask, self.heads), sight

    def _of_step(self, mask: Tensor, slots: int, beams: int) -> tuple[Tensor, Sight]:
        """The memory's slots are the prompt's, which all beams share; then come ``beams`` slots a step."""
        past = self.positions.memory_length
        numbers = torch.arange(slots + beams, device=mask.device)
        numbers = numbers.minimum(past + (numbers - past).div(beams, rounding_mode="floor"))
        distances = numbers[-1] - numbers
        far = distances >= past + (not self.positions.same_length)
        index = distances.clamp_max(self._clamped(past))[None, None]
        return mask.masked_fill(far, float("-inf")), Sight(beams, index, None)

    def _clamped(self, distance: int) -> int:
        most = self.positions.clamp_length
        return distance if most is None else min(distance, most)
