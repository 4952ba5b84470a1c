"""Position schemes: absolute position embeddings, and relative positions inside self-attention.

Absolute schemes map position ids to vectors that are added to token embeddings. Relative schemes act in
self-attention, on the distance between query and key.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.enums import PositionKind
from fairbeam.network.stack_config import PositionConfig, StackConfig


def sinusoids(positions: int, dim: int, kind: PositionKind = PositionKind.SINUSOIDAL) -> Tensor:
    """Return sinusoidal position embeddings, sines before cosines (Vaswani et al., 2017, section 3.5).

    Wavelengths are spaced over ``dim / 2 - 1`` steps as in tensor2tensor and fairseq, or over the paper's ``dim / 2``
    steps if ``kind`` is ``SINUSOIDAL_OPEN``.

    Returns:
        (positions, dim) float32. If ``dim`` is odd the last column is zero; ``SINUSOIDAL_OPEN`` has one more sine.
    """
    half = dim // 2
    if kind is PositionKind.SINUSOIDAL_OPEN:
        # The reference computes in double precision: float32 angles of late positions are off by 1e-4.
        rates = 10000.0 ** (torch.arange(dim - half, dtype=torch.double) * (-2 / dim))
        angles = torch.arange(positions, dtype=torch.double).unsqueeze(1) * rates
        return torch.cat([angles.sin(), angles[:, :half].cos()], dim=1).float()
    rates = torch.exp(torch.arange(half, dtype=torch.float) * -(math.log(10000) / (half - 1)))
    angles = torch.arange(positions, dtype=torch.float).unsqueeze(1) * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, dim % 2))


class SinusoidalPositions(nn.Module):
    """Sinusoidal position embeddings; the table is computed, so it is not among the saved weights."""

    table: Tensor

    def __init__(self, config: PositionConfig, dim: int) -> None:
        super().__init__()
        table = sinusoids(config.offset + config.max_positions, dim, config.kind)
        self.register_buffer("table", table, persistent=False)

    def forward(self, position_ids: Tensor) -> Tensor:
        """Map position ids (...) to vectors (..., dim)."""
        return F.embedding(position_ids, self.table)


class LearnedPositions(nn.Module):
    """Learned position embeddings in fairseq's layout: padding gets row ``offset - 1``, which begins as zeros."""

    def __init__(self, config: PositionConfig, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.offset + config.max_positions, dim))
        nn.init.normal_(self.weight, std=dim**-0.5)
        nn.init.zeros_(self.weight[config.offset - 1 : config.offset])

    @property
    def table(self) -> Tensor:
        """Position vectors, (positions, dim)."""
        return self.weight

    def forward(self, position_ids: Tensor) -> Tensor:
        """Map position ids (...) to vectors (..., dim)."""
        return F.embedding(position_ids, self.weight)


def build_positions(config: PositionConfig, dim: int) -> nn.Module | None:
    """Build the absolute position embedding of a scheme, which maps ids (...) to (..., dim); None if it has none."""
    match config.kind:
        case PositionKind.SINUSOIDAL | PositionKind.SINUSOIDAL_OPEN:
            return SinusoidalPositions(config, dim)
        case PositionKind.LEARNED:
            return LearnedPositions(config, dim)
        case _:
            return None


class RelativeBuckets(nn.Module):
    """Relative position bias: one learned scalar per head and distance bucket (Raffel et al., 2020, section 2.1)."""

    def __init__(self, config: PositionConfig, heads: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.buckets, heads))
        nn.init.normal_(self.weight, std=heads**-0.5)

    def forward(self, relative_positions: Tensor) -> Tensor:
        """Map relative positions (..., queries, keys) to biases of attention scores, (..., heads, queries, keys)."""
        return F.embedding(distance_buckets(relative_positions, self.config), self.weight).movedim(-1, -3)


def distance_buckets(relative_positions: Tensor, config: PositionConfig) -> Tensor:
    """Return the bucket of each relative position: small distances have one each, larger ones share logarithmic ones.

    Args:
        relative_positions: key position less query position, long, of any shape; negative for keys before the query.

    Returns:
        Bucket indices from 0 to ``config.buckets - 1``, in the shape of ``relative_positions``.
    """
    if config.bidirectional:
        buckets = config.buckets // 2
        distance, first = relative_positions.abs(), relative_positions.gt(0) * buckets
    else:
        buckets = config.buckets
        distance, first = relative_positions.neg().clamp(min=0), torch.zeros_like(relative_positions)
    near = buckets // 2
    span = math.log(config.max_distance / near)
    wide = near + (torch.log(distance.clamp(min=1).float() / near) / span * (buckets - near)).long()
    return first + torch.where(distance < near, distance, wide.clamp(max=buckets - 1))


class Rotation(NamedTuple):
    """Cosines and sines of the angles that queries and new keys are rotated by, each (length, head_dim), or (batch, 1,
    length, head_dim) where position ids differ between sentences."""

    cosines: Tensor
    sines: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """Rotate the pairs ``(x[i], x[i + head_dim / 2])`` of ``x``, (batch, heads, length, head_dim)."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cosines + torch.cat([-second, first], dim=-1) * self.sines


class Rotary(nn.Module):
    """Rotary position embedding (Su et al., 2021, section 3.2.2); the rates are computed, so they are not among the
    saved weights."""

    rates: Tensor

    def __init__(self, config: PositionConfig, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("rates", rotary_rates(config, head_dim), persistent=False)

    def forward(self, position_ids: Tensor) -> Rotation:
        """Return the rotation for position ids, (length,) or (batch, length)."""
        angles = position_ids.unsqueeze(-1) * self.rates
        angles = torch.cat([angles, angles], dim=-1)
        angles = angles if position_ids.dim() == 1 else angles.unsqueeze(1)
        return Rotation(angles.cos(), angles.sin())


def rotary_rates(config: PositionConfig, head_dim: int) -> Tensor:
    """Return the angular frequency of each rotary pair in radians per position, (head_dim / 2,) float32.

    Pair ``i`` has ``rotary_base ** (-2 i / head_dim)``, reduced as ``config.rotary_scaling`` says.
    """
    # A quotient, as in the reference: late positions multiply a rate's last-bit error by thousands.
    rates = 1.0 / config.rotary_base ** (torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim)
    scaling = config.rotary_scaling
    if scaling is None:
        return rates
    if scaling.trained_positions is None:
        return rates / scaling.factor
    turns = scaling.trained_positions * rates / (2 * math.pi)
    kept = ((turns - scaling.slowed_turns) / (scaling.kept_turns - scaling.slowed_turns)).clamp(0.0, 1.0)
    return (1.0 - kept) * rates / scaling.factor + kept * rates


class Distances(NamedTuple):
    """Distance of each query to each key, as a row of a table of distance vectors."""

    rows: Tensor
    """(batch * heads, queries, keys) indices into the rows for distances from ``-reach`` to ``reach``."""
    reach: int
    """Largest distance whose vector is used."""


def distances(relative_positions: Tensor, batch: int, queries: int, config: StackConfig) -> Distances:
    """Return the query-key distances for every head, shared by all layers.

    A query ``d`` positions behind its key uses row ``max_positions - 1 + d`` of a layer's table.

    Args:
        relative_positions: (queries or 1, keys) or (batch, queries or 1, keys), of ``PositionIds``.
        batch: number of sentences.
        queries: number of queries; all stand at the same position if ``relative_positions`` has one.
        config: the stack's.
    """
    keys = relative_positions.size(-1)  # no distance is larger than the number of keys
    reach = min(keys, config.positions.max_positions) - 1
    # Distances beyond the table occur only for masked keys, those of sentences that have left.
    rows = (reach - relative_positions).clamp(0, 2 * reach).expand(batch, queries, keys)
    return Distances(rows.unsqueeze(1).expand(-1, config.heads, -1, -1).flatten(0, 1), reach)


class DistanceVectors(nn.Module):
    """Relative position embeddings: one learned vector per distance, added to keys (Shaw et al., 2018, section 3.2), or
    to keys and queries (Huang et al., 2020, method 4)."""

    def __init__(self, config: PositionConfig, head_dim: int) -> None:
        super().__init__()
        self.max_positions = config.max_positions
        self.with_keys = config.kind is PositionKind.RELATIVE_KEY_QUERY
        self.weight = nn.Parameter(torch.empty(2 * config.max_positions - 1, head_dim))
        nn.init.normal_(self.weight, std=head_dim**-0.5)

    def forward(self, query: Tensor, keys: Tensor, between: Distances, scale: float) -> Tensor:
        """Return the bias of the scaled attention scores, (rows, queries, keys).

        Args:
            query: (rows, queries, head_dim).
            keys: (rows, keys, head_dim).
            between: distances of queries to keys.
            scale: factor of the attention scores.
        """
        nearest, reach = self.max_positions - 1, between.reach
        vectors = (self.weight[nearest - reach : nearest + reach + 1] * scale).to(query.dtype).T
        # Multiply with every distance and gather: gathering a vector per pair would read far more memory.
        scores = torch.matmul(query, vectors).gather(2, between.rows)
        if not self.with_keys:
            return scores
        return scores + torch.matmul(keys, vectors).gather(2, between.rows.mT).mT


RelativePositions = Rotation | Distances
"""Relative positions as self-attention of every layer reads them: rotary or learned distance vectors."""


class PositionIds(NamedTuple):
    """Position ids of queries and keys, without a batch dimension where all sentences have the same."""

    queries: Tensor
    """(queries,) or (batch, queries); a single id if all queries have the same, as beams do."""
    keys: Tensor
    """(keys,) or (batch, keys)."""

    def relative_positions(self) -> Tensor:
        """Return key position less query position, (queries, keys) or (batch, queries, keys)."""
        keys = self.keys if self.keys.dim() == 1 else self.keys.unsqueeze(1)
        return keys - self.queries.unsqueeze(-1)


def position_ids(mask: Tensor, config: PositionConfig) -> Tensor:
    """Return the position ids of a batch, long, broadcastable to ``mask``: (batch, length) bool, true at tokens."""
    if config.count_padding:
        return torch.arange(mask.size(1), device=mask.device).unsqueeze(0) + config.offset
    return cumulative_position_ids(mask, config.offset)


def cumulative_position_ids(mask: Tensor, offset: int) -> Tensor:
    """Return position ids that count tokens only, whether padding is on the left or the right.

    Args:
        mask: (batch, length) bool, true at tokens, false at padding.
        offset: id of the first token; padding gets ``offset - 1``.

    Returns:
        (batch, length) long.
    """
    return mask.cumsum(1) * mask + (offset - 1)
