"""Prediction heads, sentence embeddings and the output projection of a shortlist."""

import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.config import HeadConfig
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.inference import native
from fairbeam.network.linear import Linear
from fairbeam.network.norm import LayerNorm


class Head(nn.Module):
    """A prediction head: one linear layer, or two with an activation and an optional norm between them."""

    def __init__(self, config: HeadConfig, inputs: int, epsilon: float, masks: MaskSource) -> None:
        """Make a head on states of width ``inputs``; ``epsilon`` is its norm's."""
        super().__init__()
        width = inputs if config.hidden is None else config.hidden
        self.input_dropout = Dropout(config.input_dropout, masks)
        self.hidden = None if config.hidden is None else Linear(inputs, width, activation=config.activation)
        self.norm = LayerNorm(width, epsilon) if config.norm else None
        self.dropout = Dropout(config.dropout, masks)
        self.output = Linear(width, config.outputs)

    def forward(self, states: Tensor) -> Tensor:
        """Map states (..., dim) to float32 logits (..., outputs)."""
        if self.hidden is not None:
            states = self.hidden(self.input_dropout(states)).float()
        if self.norm is not None:
            states = self.norm(states)
        return self.output(self.dropout(states)).float()


def sentence_vectors(states: Tensor, real: Tensor) -> Tensor:
    """Return sentence embeddings: the mean of each sentence's states, L2-normalized (Reimers and Gurevych, 2019).

    Args:
        states: (batch, length, dim).
        real: (batch, length) bool, true at tokens, false at padding.

    Returns:
        (batch, dim)
    """
    weights = real.unsqueeze(2).to(states.dtype)
    return F.normalize((states * weights).sum(1) / weights.sum(1).clamp_min(1), dim=1)


class ShortlistHead(nn.Module):
    """Scores of a few symbols; the last column is the estimate of what all others would add to the softmax."""

    def __init__(self, few: Linear, moments: Linear, temperature: float) -> None:
        """The last column of ``few`` is overwritten; ``moments`` as ``narrowed.rest_moments`` makes them."""
        super().__init__()
        self.few, self.moments, self.temperature = few, moments, temperature

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., dim) to float32 logits (..., columns)."""
        logits: Tensor = self.few(features).float()
        moments: Tensor = self.moments(features)
        # Logits are divided by the temperature later, this one like the others.
        logits[..., -1] = moments[..., 0] + moments[..., 1:].square().sum(-1) / (2 * self.temperature)
        return logits

    @property
    def whole(self) -> bool:
        """Whether compiled loops compute all of it."""
        return all(layer.integers is not None and layer.integers.whole for layer in (self.few, self.moments))

    def compiled(self, symbols: Tensor, added: Tensor) -> native.Narrowed:
        """As compiled loops read it, if both layers are whole.

        Args:
            symbols: (columns,) ids.
            added: (batch, 1, columns) float32, to the logits.
        """
        assert self.moments.integers is not None
        assert self.moments.integers.compiled is not None
        moments = native.address(self.moments.integers.compiled)
        return native.Narrowed(symbols.data_ptr(), added.data_ptr(), moments)
