"""An output projection that scores a few symbols, and estimates what all others would add to the softmax.

Probabilities among the few alone would be too high wherever a network is unsure, by an amount that differs from one
hypothesis to the next, so that other hypotheses won. The logits of many symbols are nearly normally distributed: with
the mean ``m`` and the covariance ``C`` of their weights, exponentials of logits ``w h`` are ``exp(m h + h C h / 2)`` on
average.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn

from fairbeam.network.base import DecodingNetwork
from fairbeam.network.linear import Linear

_ROWS = 1 << 14
"""Weights that moments are taken of, at most."""

AnyDecoding = TypeVar("AnyDecoding", bound=DecodingNetwork)


class NarrowedHead(nn.Module):
    """Scores of a few symbols; the last column is the estimate."""

    def __init__(self, few: Linear, moments: Linear, temperature: float) -> None:
        """The last column of ``few`` is overwritten; ``moments`` as ``rest_moments`` makes them."""
        super().__init__()
        self.few, self.moments, self.temperature = few, moments, temperature

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., dim) to float32 logits (..., columns)."""
        logits: Tensor = self.few(features).float()
        moments: Tensor = self.moments(features)
        # Logits are divided by the temperature later, this one like the others.
        logits[..., -1] = moments[..., 0] + moments[..., 1:].square().sum(-1) / (2 * self.temperature)
        return logits


def rest_moments(network: DecodingNetwork, rest: Tensor) -> Linear:
    """The first two moments of the logits of some symbols, as a layer to be applied to the features.

    Args:
        network: made by ``for_inference``.
        rest: (n,) ids; if there are none, of all symbols.

    Returns:
        A float32 layer: the mean of the logits, then numbers whose squares add up to their variance.

    Raises:
        ConfigError: the network has no plain output projection.
    """
    weight, bias = network.output_projection()
    assert isinstance(network.head, Linear)
    if not len(rest):
        rest = torch.arange(len(weight), device=weight.device)
    rest = rest[:: -(-len(rest) // _ROWS)]
    rows = weight[rest].float()
    if bias is not None:
        rows = torch.cat([rows, bias[rest].float().unsqueeze(1)], dim=1)
    mean = rows.mean(0, keepdim=True)
    root = torch.linalg.qr((rows - mean) / max(1, len(rows) - 1) ** 0.5, mode="r").R
    moments = torch.cat([mean, root])
    width = weight.size(1)
    return network.head.with_weight(
        moments[:, :width].contiguous(), None if bias is None else moments[:, width].contiguous(), torch.float32
    )


def narrowed(network: AnyDecoding, symbols: Tensor, moments: Linear, temperature: float) -> AnyDecoding:
    """The network, scoring ``symbols`` alone, under their places; ``step`` is given ids of the whole vocabulary.

    Args:
        network: made by ``for_inference``; all but the output projection is shared.
        symbols: (columns,) ids; the last column is used for the estimate, to which the logarithm of the number of
            symbols left out is to be added.
        moments: of ``rest_moments``.
    """
    weight, bias = network.output_projection()
    assert isinstance(network.head, Linear)
    few = network.head.with_weight(weight[symbols], None if bias is None else bias[symbols])
    return network.with_head(NarrowedHead(few, moments, temperature), symbols)
