"""Training losses that never hold the whole (tokens x vocabulary) matrix."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22
"""Logits computed at a time: 16 MiB stay in the last-level cache between the passes over them, and the sums
of the weight's gradient, a whole matrix each, stay few."""


class LossSums(NamedTuple):
    """Sums over the tokens that are not padding."""

    loss: Tensor
    """Label-smoothed cross-entropy in nats; carries the gradient."""
    nll: Tensor
    """Negative log-likelihood in nats, without gradient."""
    correct: Tensor
    """How often the most likely token was the target."""


def label_smoothed_cross_entropy(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    smoothing: float,
    pad: int,
    dtype: torch.dtype = torch.float32,
) -> LossSums:
    """Cross-entropy against smoothed labels (Szegedy et al., 2016, section 7), as fairseq sums it.

    The true token has probability ``1 - smoothing`` and the others share ``smoothing`` equally. Logits
    ``features @ weightᵀ`` exist for a few hundred tokens at a time; the gradient is computed in the same
    pass, so nothing of that size is kept for the backward pass either.

    Args:
        features: (tokens, dim).
        weight: (vocabulary, dim) output projection.
        target: (tokens,) ids; ``pad`` marks tokens that do not count.
        dtype: what the matrix products compute in; all sums are float32.
    """
    real = target.ne(pad)
    if not bool(real.all()):
        features, target = features[real], target[real]
    return LossSums(*_ChunkedCrossEntropy.apply(features.to(dtype), weight, target, smoothing))


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Loss and gradients chunk by chunk: with p the softmax, the gradient of a row is p - smoothed labels."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, target: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        vocabulary = weight.size(0)
        others = smoothing / (vocabulary - 1)
        low = weight.to(features.dtype)
        needs_gradient = any(ctx.needs_input_grad[:2])
        grad_features = torch.empty_like(features) if needs_gradient else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_gradient else None
        loss, nll, correct = (features.new_zeros((), dtype=torch.float32) for _ in range(3))
        step = max(16, _CHUNK_ELEMENTS // vocabulary)
        for start in range(0, len(features), step):
            rows = slice(start, start + step)
            logits = F.linear(features[rows], low).float()
            labels = target[rows].unsqueeze(1)
            best = logits.amax(dim=1, keepdim=True)
            at_label = logits.gather(1, labels).squeeze(1)
            total = logits.sum(1)
            probabilities = logits.sub_(best).exp_()
            normaliser = probabilities.sum(1)
            log_normaliser = normaliser.log() + best.squeeze(1)
            token_nll = log_normaliser - at_label
            nll += token_nll.sum()
            loss += ((1 - smoothing - others) * token_nll + others * (vocabulary * log_normaliser - total)).sum()
            correct += at_label.eq(best.squeeze(1)).sum()
            if grad_features is not None and grad_weight is not None:
                gradient = probabilities.div_(normaliser.unsqueeze(1)).sub_(others)
                gradient.scatter_add_(1, labels, gradient.new_full(labels.shape, smoothing + others - 1))
                gradient = gradient.to(features.dtype)
                grad_features[rows] = gradient @ low
                grad_weight += gradient.T @ features[rows]
        ctx.save_for_backward(grad_features, grad_weight)
        ctx.mark_non_differentiable(nll, correct)
        return loss, nll, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grad_features, grad_weight = ctx.saved_tensors
        scale = gradients[0]
        return grad_features * scale.to(grad_features.dtype), grad_weight * scale, None, None
