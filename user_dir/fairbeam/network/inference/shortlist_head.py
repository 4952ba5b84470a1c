"""An output projection that scores a few symbols, and estimates what all others would add to the softmax.

Probabilities among the few alone would be too high wherever a network is unsure, by an amount that differs from one
hypothesis to the next, so that other hypotheses won. The logits of many symbols are nearly normally distributed: with
the mean ``m`` and the covariance ``C`` of their weights, exponentials of logits ``w h`` are ``exp(m h + h C h / 2)`` on
average.
"""

from typing import TypeVar

import torch
from torch import Tensor

from fairbeam.network.base import DecodingNetwork
from fairbeam.network.heads import ShortlistHead
from fairbeam.network.linear import Linear

_ROWS = 1 << 14
"""Weights that moments are taken of, at most."""

AnyDecoding = TypeVar("AnyDecoding", bound=DecodingNetwork)


def rest_moments(network: DecodingNetwork, rest: Tensor) -> Linear:
    """The first two moments of the logits of some symbols, as a layer to be applied to the features.

    Args:
        network: made by ``for_inference``.
        rest: (n,) ids; if there are none, of all symbols.

    Returns:
        A layer in float32, or in 16 bits where the head is compiled in integers: the mean of the logits, then numbers
        whose squares add up to their variance.

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
    integers = network.head.integers
    dtype = torch.float32 if integers is None or not integers.whole else torch.int16
    return network.head.with_weight(
        moments[:, :width].contiguous(), None if bias is None else moments[:, width].contiguous(), dtype
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
    few = network.head.of_outputs(symbols, weight, bias)
    return network.with_head(ShortlistHead(few, moments, temperature), symbols)
