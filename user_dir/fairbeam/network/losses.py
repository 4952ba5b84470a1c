"""Training losses that never materialize the whole (tokens, vocabulary) matrix of logits."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22
"""Logits per chunk: 16 MiB stay in the last-level cache between passes over them, and chunks are few enough that adding
up the weight's gradient, a whole matrix each time, costs little."""


class LossSums(NamedTuple):
    """Sums over the tokens that are not padding; each a scalar."""

    loss: Tensor
    """Label-smoothed cross-entropy in nats; has a gradient."""
    nll: Tensor
    """Negative log-likelihood in nats, without gradient."""
    correct: Tensor
    """Number of tokens whose target is the most likely token."""


def label_smoothed_cross_entropy(
    features: Tensor,
    weight: Tensor,
    target: Tensor,
    *,
    smoothing: float,
    pad: int,
    bias: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> LossSums:
    """Sum the cross-entropy against smoothed labels (Szegedy et al., 2016, section 7), with fairseq's smoothing.

    The true token has probability ``1 - smoothing`` and the others share ``smoothing`` equally. Logits
    ``features @ weightᵀ`` exist for a few hundred tokens at a time; their gradient is computed in the same pass, so the
    backward pass keeps nothing of that size either.

    Args:
        features: (tokens, dim).
        weight: (vocabulary, dim) output projection.
        target: (tokens,) token ids.
        smoothing: probability shared by the other tokens.
        pad: id of targets that do not count.
        bias: (vocabulary,) added to the logits.
        dtype: dtype of the matrix products; all sums are float32.
    """
    real = target.ne(pad)
    if not bool(real.all()):
        features, target = features[real], target[real]
    return LossSums(*_ChunkedCrossEntropy.apply(features.to(dtype), weight, bias, target, smoothing))


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Label-smoothed cross-entropy with its gradients, chunk by chunk.

    The gradient of a row of logits is its softmax minus the smoothed label distribution. Only the softmax is a matrix;
    the smoothed labels contribute to the gradients as vectors.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        vocabulary = weight.size(0)
        others = smoothing / (vocabulary - 1)
        to_label = 1 - smoothing - others
        low = weight.to(features.dtype)
        vocabulary_sum = low.float().sum(0)  # its product with a feature vector is the sum of that token's logits
        bias_sum = 0.0 if bias is None else bias.sum()
        needs_gradient = any(ctx.needs_input_grad[:3])
        grad_features = torch.empty_like(features) if needs_gradient else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_gradient else None
        grad_bias = None if bias is None or not needs_gradient else torch.zeros_like(bias)
        loss, nll, correct = (features.new_zeros((), dtype=torch.float32) for _ in range(3))
        step = max(16, _CHUNK_ELEMENTS // vocabulary)
        for start in range(0, len(features), step):
            rows = slice(start, start + step)
            logits = F.linear(features[rows], low).float()
            if bias is not None:
                logits += bias
            best = logits.amax(dim=1)
            at_label = logits.gather(1, target[rows, None]).squeeze(1)
            probabilities = torch.softmax(logits, dim=1)
            log_normaliser = best - probabilities.amax(dim=1).log()
            token_nll = log_normaliser - at_label
            total = features[rows].float() @ vocabulary_sum + bias_sum
            nll += token_nll.sum()
            loss += (to_label * token_nll + others * (vocabulary * log_normaliser - total)).sum()
            correct += at_label.eq(best).sum()
            if grad_features is not None and grad_weight is not None:
                if grad_bias is not None:
                    grad_bias += probabilities.sum(0)
                probabilities = probabilities.to(features.dtype)
                taken = others * vocabulary_sum + to_label * low[target[rows]].float()
                grad_features[rows] = (torch.mm(probabilities, low).float() - taken).to(features.dtype)
                grad_weight += probabilities.T @ features[rows]
        if grad_weight is not None:
            grad_weight -= others * features.float().sum(0)
            grad_weight.index_add_(0, target, features.float(), alpha=-to_label)
        if grad_bias is not None:
            grad_bias -= others * len(features) + to_label * torch.bincount(target, minlength=vocabulary)
        ctx.save_for_backward(grad_features, grad_weight, grad_bias)
        ctx.mark_non_differentiable(nll, correct)
        return loss, nll, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grad_features, grad_weight, grad_bias = ctx.saved_tensors
        scale = gradients[0]
        at_bias = None if grad_bias is None else grad_bias * scale
        return grad_features * scale.to(grad_features.dtype), grad_weight * scale, at_bias, None, None
