"""An output projection of a few tokens, with an estimate of what all others would add to the softmax.

Probabilities among the few alone would be too high wherever a network is unsure, by an amount that differs from one
hypothesis to the next, so that other hypotheses won. The logits of many tokens are nearly normally distributed: with
the mean ``m`` and the covariance ``C`` of their weights, exponentials of logits ``w h`` are ``exp(m h + h C h / 2)`` on
average.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from fairbeam.network.linear import Linear

if TYPE_CHECKING:
    from fairbeam.network.inference.heads import DecodingNetwork

    AnyDecoding = TypeVar("AnyDecoding", bound=DecodingNetwork)

_MOST_ROWS = 1 << 14
"""Most weights that moments are taken of."""


class ShortlistHead(nn.Module):
    """Output projection of a shortlist; its last column estimates what all other tokens would add to the softmax."""

    def __init__(self, selected: Linear, tail_moments: Linear, temperature: float) -> None:
        """Project to ``selected``, whose last column is overwritten; ``tail_moments`` is of ``tail_moments_of``."""
        super().__init__()
        self.selected, self.tail_moments, self.temperature = selected, tail_moments, temperature

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., dim) to float32 logits (..., columns)."""
        logits: Tensor = self.selected(features).float()
        moments: Tensor = self.tail_moments(features)
        # Logits are divided by the temperature later, this one like the others.
        logits[..., -1] = moments[..., 0] + moments[..., 1:].square().sum(-1) / (2 * self.temperature)
        return logits

    @property
    def fully_native(self) -> bool:
        """Whether the native library computes both layers."""
        layers = (self.selected, self.tail_moments)
        return all(layer.integers is not None and layer.integers.fully_native for layer in layers)


def tail_moments_of(network: DecodingNetwork, tail: Tensor) -> Linear:
    """Return a layer that maps features to the first two moments of the logits of some tokens.

    Args:
        network: made by ``for_inference``.
        tail: (n,) token ids; of all tokens if it is empty.

    Returns:
        A layer in float32, or in 16-bit integers where the output projection is native: the mean of the logits, then
        numbers whose squares add up to their variance.

    Raises:
        ConfigError: the network has no plain output projection.
    """
    weight, bias = network.output_projection()
    assert isinstance(network.head, Linear)
    if not len(tail):
        tail = torch.arange(len(weight), device=weight.device)
    tail = tail[:: -(-len(tail) // _MOST_ROWS)]
    rows = weight[tail].float()
    if bias is not None:
        rows = torch.cat([rows, bias[tail].float().unsqueeze(1)], dim=1)
    mean = rows.mean(0, keepdim=True)
    root = torch.linalg.qr((rows - mean) / max(1, len(rows) - 1) ** 0.5, mode="r").R
    moments = torch.cat([mean, root])
    width = weight.size(1)
    integers = network.head.integers
    dtype = torch.float32 if integers is None or not integers.fully_native else torch.int16
    return network.head.with_weight(
        moments[:, :width].contiguous(), None if bias is None else moments[:, width].contiguous(), dtype
    )


def with_shortlist(network: AnyDecoding, token_ids: Tensor, tail_moments: Linear, temperature: float) -> AnyDecoding:
    """Return the network with logits of ``token_ids`` alone; its inputs are still ids of the whole vocabulary.

    Args:
        network: made by ``for_inference``; all but the output projection is shared.
        token_ids: (columns,) ids; the last column is overwritten by the estimate, to which the logarithm of the number
            of tokens left out is to be added.
        tail_moments: of ``tail_moments_of``.
        temperature: what logits will be divided by.
    """
    weight, bias = network.output_projection()
    assert isinstance(network.head, Linear)
    selected = network.head.select_rows(token_ids, weight, bias)
    return network.with_head(ShortlistHead(selected, tail_moments, temperature), selected, token_ids)
