"""Absolute position schemes: each turns position numbers into vectors added to the token embeddings."""

import math

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
        case PositionKind.NONE:
            return None


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
