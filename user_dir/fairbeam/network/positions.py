"""Position schemes.

Absolute ones turn position numbers into vectors added to the token embeddings. Relative ones act inside
self-attention, on the distance from query to key.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.enums import PositionKind
from fairbeam.network.stack_config import PositionConfig, StackConfig


def sinusoids(positions: int, dim: int, kind: PositionKind = PositionKind.SINUSOIDAL) -> Tensor:
    """Sines in the first half of the columns, cosines in the second (Vaswani et al., 2017, section 3.5).

    Wavelengths are spaced over ``dim / 2 - 1`` steps as in tensor2tensor and fairseq, or, open, over the paper's
    ``dim / 2``.

    Returns:
        (positions, dim) float32; an odd last column is zero, or, open, one more sine before the cosines.
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
    """Fixed sinusoids; the table is not part of the saved weights."""

    table: Tensor

    def __init__(self, config: PositionConfig, dim: int) -> None:
        super().__init__()
        table = sinusoids(config.offset + config.max_positions, dim, config.kind)
        self.register_buffer("table", table, persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        return F.embedding(numbers, self.table)


class LearnedPositions(nn.Module):
    """One trained vector a position; the rows below ``offset`` are kept for layout and never trained."""

    def __init__(self, config: PositionConfig, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.offset + config.max_positions, dim))
        nn.init.normal_(self.weight, std=dim**-0.5)
        nn.init.zeros_(self.weight[config.offset - 1 : config.offset])

    @property
    def table(self) -> Tensor:
        """(positions, dim)."""
        return self.weight

    def forward(self, numbers: Tensor) -> Tensor:
        return F.embedding(numbers, self.weight)


def build_positions(config: PositionConfig, dim: int) -> nn.Module | None:
    """The module for a scheme: position numbers (...) in, vectors (..., dim) out; None for no scheme."""
    match config.kind:
        case PositionKind.SINUSOIDAL | PositionKind.SINUSOIDAL_OPEN:
            return SinusoidalPositions(config, dim)
        case PositionKind.LEARNED:
            return LearnedPositions(config, dim)
        case _:
            return None


class RelativeBuckets(nn.Module):
    """A trained number a head and a bucket of distances, added to attention scores (Raffel et al., 2020, 2.1)."""

    def __init__(self, config: PositionConfig, heads: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.buckets, heads))
        nn.init.normal_(self.weight, std=heads**-0.5)

    def forward(self, ahead: Tensor) -> Tensor:
        """Distances (..., queries, keys) as in ``distance_buckets`` to what is added to the scores,
        (..., heads, queries, keys)."""
        return F.embedding(distance_buckets(ahead, self.config), self.weight).movedim(-1, -3)


def distance_buckets(ahead: Tensor, config: PositionConfig) -> Tensor:
    """The bucket of each distance: near ones have one each, far ones share them evenly on a logarithmic scale.

    Args:
        ahead: by how many positions the key stands behind the query in the sequence, long; negative before it.

    Returns:
        Numbers below ``config.buckets``, of the shape of ``ahead``.
    """
    if config.bidirectional:
        buckets = config.buckets // 2
        distance, first = ahead.abs(), ahead.gt(0) * buckets
    else:
        buckets = config.buckets
        distance, first = ahead.neg().clamp(min=0), torch.zeros_like(ahead)
    near = buckets // 2
    span = math.log(config.max_distance / near)
    wide = near + (torch.log(distance.clamp(min=1).float() / near) / span * (buckets - near)).long()
    return first + torch.where(distance < near, distance, wide.clamp(max=buckets - 1))


class Rotation(NamedTuple):
    """By which angles queries and new keys are turned; each (length, head_dim), or (batch, 1, length, head_dim) where
    sentences differ."""

    cosines: Tensor
    sines: Tensor

    def turn(self, x: Tensor) -> Tensor:
        """Turn the pairs ``(x[i], x[i + head_dim / 2])`` of (batch, heads, length, head_dim)."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cosines + torch.cat([-second, first], dim=-1) * self.sines


class Rotary(nn.Module):
    """The angles of positions (Su et al., 2021, section 3.2.2); the rates are not part of the saved weights."""

    rates: Tensor

    def __init__(self, config: PositionConfig, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("rates", rotary_rates(config, head_dim), persistent=False)

    def forward(self, numbers: Tensor) -> Rotation:
        """Position numbers (length,), or (batch, length), to a rotation."""
        angles = numbers.unsqueeze(-1) * self.rates
        angles = torch.cat([angles, angles], dim=-1)
        angles = angles if numbers.dim() == 1 else angles.unsqueeze(1)
        return Rotation(angles.cos(), angles.sin())


def rotary_rates(config: PositionConfig, head_dim: int) -> Tensor:
    """By how many radians a position each pair turns, (head_dim / 2,): pair ``i`` by ``base ** (-2 i / head_dim)``,
    or as much of it as ``config.rotary_scaling`` leaves."""
    # A quotient, as the reference has it: late positions multiply the last bit of a rate by thousands.
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
    """Which vector of a table stands for the distance from each query to each key."""

    rows: Tensor
    """(batch * heads, queries, keys) rows of the part of the table that is used."""
    reach: int
    """The part has distances from ``-reach`` to ``reach``."""


def distances(ahead: Tensor, batch: int, queries: int, config: StackConfig) -> Distances:
    """The distances of ``PositionIds.ahead`` for every head, which all layers share.

    The table's row of a query that stands by ``d`` positions behind a key is ``max_positions - 1 + d``.
    """
    keys = ahead.size(-1)  # no two stand further apart than there are keys
    reach = min(keys, config.positions.max_positions) - 1
    # Keys that stand further away than the table reaches are not looked at: of sentences that have left.
    rows = (reach - ahead).clamp(0, 2 * reach).expand(batch, queries, keys)
    return Distances(rows.unsqueeze(1).expand(-1, config.heads, -1, -1).flatten(0, 1), reach)


class DistanceVectors(nn.Module):
    """A trained vector a distance, which stands beside the key in products with queries (Shaw et al., 2018), or beside
    the query in products with keys as well (Huang et al., 2020)."""

    def __init__(self, config: PositionConfig, head_dim: int) -> None:
        super().__init__()
        self.max_positions = config.max_positions
        self.with_keys = config.kind is PositionKind.RELATIVE_KEY_QUERY
        self.weight = nn.Parameter(torch.empty(2 * config.max_positions - 1, head_dim))
        nn.init.normal_(self.weight, std=head_dim**-0.5)

    def forward(self, query: Tensor, keys: Tensor, between: Distances, scale: float) -> Tensor:
        """What is added to the scaled scores of (rows, queries, head_dim) and (rows, keys, head_dim)."""
        nearest, reach = self.max_positions - 1, between.reach
        vectors = (self.weight[nearest - reach : nearest + reach + 1] * scale).to(query.dtype).T
        # Products with every distance, of which each pair picks its own: one vector a pair would be far more to read.
        scores = torch.matmul(query, vectors).gather(2, between.rows)
        if not self.with_keys:
            return scores
        return scores + torch.matmul(keys, vectors).gather(2, between.rows.mT).mT


Relation = Rotation | Distances
"""What a scheme tells self-attention, the same for all layers."""


class PositionIds(NamedTuple):
    """Position numbers of what attends and what is attended to: those of all sentences, or each sentence's own."""

    queries: Tensor
    """(queries,) or (batch, queries); one where they all stand at the same position, as beams do."""
    keys: Tensor
    """(keys,) or (batch, keys)."""

    def ahead(self) -> Tensor:
        """By how many positions each key stands behind each query in the sequence, negative before it:
        (queries, keys) or (batch, queries, keys)."""
        keys = self.keys if self.keys.dim() == 1 else self.keys.unsqueeze(1)
        return keys - self.queries.unsqueeze(-1)


def position_ids(mask: Tensor, config: PositionConfig) -> Tensor:
    """Position numbers of a batch, broadcastable to ``mask``: (batch, length) bool, true at real tokens."""
    if config.count_padding:
        return torch.arange(mask.size(1), device=mask.device).unsqueeze(0) + config.offset
    return number_tokens(mask, config.offset)


def number_tokens(mask: Tensor, offset: int) -> Tensor:
    """Position numbers that count real tokens only, on whichever side the padding stands.

    Args:
        mask: (batch, length) bool, true at real tokens.
        offset: number of the first real token; padding gets ``offset - 1``.

    Returns:
        (batch, length) long.
    """
    return mask.cumsum(1) * mask + (offset - 1)
