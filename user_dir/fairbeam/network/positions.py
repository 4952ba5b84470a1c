"""Position schemes.

Absolute ones turn position numbers into vectors added to the token embeddings. Relative ones act inside
self-attention, on the distance from query to key.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.config import PositionConfig, PositionKind


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

    def forward(self, numbers: Tensor) -> Tensor:
        return F.embedding(numbers, self.weight)


def build_positions(config: PositionConfig, dim: int) -> nn.Module | None:
    """The module for a scheme: position numbers (...) in, vectors (..., dim) out; None for no scheme."""
    match config.kind:
        case PositionKind.SINUSOIDAL | PositionKind.SINUSOIDAL_OPEN:
            return SinusoidalPositions(config, dim)
        case PositionKind.LEARNED:
            return LearnedPositions(config, dim)
        case PositionKind.RELATIVE_BUCKETS | PositionKind.ROTARY | PositionKind.RELATIVE_SINUSOIDAL | PositionKind.NONE:
            return None


class RelativeBuckets(nn.Module):
    """A trained number a head and a bucket of distances, added to attention scores (Raffel et al., 2020, 2.1)."""

    def __init__(self, config: PositionConfig, heads: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.buckets, heads))
        nn.init.normal_(self.weight, std=heads**-0.5)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Position numbers (queries,) and (keys,) to what is added to the scores, (heads, queries, keys)."""
        buckets = distance_buckets(keys - queries.unsqueeze(1), self.config)
        return F.embedding(buckets, self.weight).permute(2, 0, 1)


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
    """By which angles queries and new keys are turned; each (length, head_dim)."""

    cosines: Tensor
    sines: Tensor

    def turn(self, x: Tensor) -> Tensor:
        """Turn the pairs ``(x[i], x[i + head_dim / 2])`` of (..., length, head_dim)."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cosines + torch.cat([-second, first], dim=-1) * self.sines


def rotation(numbers: Tensor, head_dim: int, base: float) -> Rotation:
    """The angles of positions (length,): pair ``i`` turns by ``base ** (-2 i / head_dim)`` a position (Su et al.,
    2021, section 3.2.2)."""
    rates = base ** (torch.arange(0, head_dim, 2, dtype=torch.float, device=numbers.device) / -head_dim)
    angles = (numbers.unsqueeze(1) * rates).repeat(1, 2)
    return Rotation(angles.cos(), angles.sin())


def number_positions(mask: Tensor, config: PositionConfig) -> Tensor:
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
