"""Prediction heads on hidden states, and sentence embeddings."""

import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.config import HeadConfig
from fairbeam.network.dropout import Dropout, MaskSource
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
