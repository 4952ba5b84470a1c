"""Layer normalization and RMS normalization, computed in float32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.enums import NormKind
from fairbeam.network.stack_config import StackConfig


class LayerNorm(nn.Module):
    """Layer normalization (Ba et al., 2016), in float32 whatever dtype the blocks compute in."""

    def __init__(self, dim: int, epsilon: float, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


class RMSNorm(nn.Module):
    """Root mean square normalization (Zhang and Sennrich, 2019), in float32 like ``LayerNorm``."""

    def __init__(self, dim: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


def build_norm(config: StackConfig, width: int | None = None) -> nn.Module:
    """Build a norm of the stack's kind for vectors of ``width``, or of the stack's ``dim`` if None."""
    width = width or config.dim
    if config.norm is NormKind.RMS:
        return RMSNorm(width, config.norm_epsilon)
    return LayerNorm(width, config.norm_epsilon, bias=config.norm_bias)
