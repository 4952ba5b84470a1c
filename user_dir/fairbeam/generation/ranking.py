"""Rankers: which of the finished hypotheses is best."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fairbeam.generation.features import (
    DIVERSITY,
    MASKS,
    RANKING,
    Capabilities,
    Feature,
)
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.options import GenerationOptions, LengthNormalization

LengthPenalty = Callable[[int], float]
"""What divides the log probability of a hypothesis of so many tokens, ``</s>`` included."""


_BEAM_SEARCHES = (
    MASKS
    | RANKING
    | DIVERSITY
    | Feature.SAMPLING
    | Feature.CONSTRAINTS
    | Feature.SOURCE_LENGTH
    | Feature.PATIENCE
    | Feature.PREFIX_BIAS
    | Feature.ENSEMBLE
    | Feature.SHALLOW_FUSION
    | Feature.SHORTLIST
)
MINIMUM_BAYES_RISK = Capabilities(
    name="minimum Bayes risk",
    provides=Feature.MINIMUM_BAYES_RISK,
    supports=_BEAM_SEARCHES | Feature.STOCHASTIC_BEAM,
)
"""The ranking of candidates by their expected utility, ``fairbeam.scoring.minimum_bayes_risk``."""
RERANKING = Capabilities(name="reranking", provides=Feature.RERANKING, supports=_BEAM_SEARCHES)
"""The ranking of candidates with the scores of other models, ``fairbeam.reranking``."""


def length_penalty(options: GenerationOptions) -> LengthPenalty:
    """The length penalty that ``options`` ask for."""
    exponent = options.lenpen
    if options.unnormalized:
        return lambda length: 1.0
    if options.length_normalization is LengthNormalization.GNMT:  # Wu et al. (2016), equation 14
        return lambda length: ((5 + length) / 6) ** exponent
    return lambda length: length**exponent


def coverage(attention: Tensor) -> float:
    """Log of the attention that each source token got, at most all of one target token's, summed (Wu et al., 2016,
    equation 14); 0 where all are covered.

    Args:
        attention: (target, source), rows sum to one; without padding.
    """
    return float(attention.sum(0).clamp(torch.finfo(attention.dtype).tiny, 1.0).log().sum())


def with_coverage(hypothesis: Hypothesis, real: Tensor, strength: float) -> Hypothesis:
    """The hypothesis with ``strength`` times its coverage added to its score.

    Args:
        hypothesis: one with its attention.
        real: (source,) bool, False at padding.
    """
    assert hypothesis.attention is not None
    return replace(hypothesis, score=hypothesis.score + strength * coverage(hypothesis.attention[:, real]))


def best_first(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    """By score; those that are equal stay in the order they ended in."""
    return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)
