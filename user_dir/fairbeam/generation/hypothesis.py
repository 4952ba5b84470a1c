"""What decoding gives."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Hypothesis:
    """One finished translation."""

    tokens: Tensor
    """(length,) ids, ``</s>`` last."""
    score: float
    """Log probability in nats, divided by the length penalty, plus the coverage penalty where there is one; of a
    stochastic beam the perturbed log probability."""
    positional_scores: Tensor
    """(length,) log probability of each token in nats."""
    attention: Tensor | None = None
    """(length, source): where the last decoder layer looked in the source, padding included, when it wrote each token;
    the mean over heads, and over the models of an ensemble. Only where the options ask for it."""
