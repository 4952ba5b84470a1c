"""The chunked loss against fairseq's formula, and what it allocates."""

import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fairbeam.network import losses
from fairbeam.network.losses import label_smoothed_cross_entropy

PAD = 1


def problem(tokens: int = 50, vocabulary: int = 23, dim: int = 8):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(tokens, dim, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, dim, generator=generator, requires_grad=True)
    target = torch.randint(2, vocabulary, (tokens,), generator=generator)
    target[::7] = PAD
    return features, weight, target


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [16, 1 << 20])
@pytest.mark.parametrize("biased", [False, True])
def test_loss_and_gradients_equal_fairseq(smoothing, chunk, biased, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock = pytest.importorskip("fairseq.criterions.label_smoothed_cross_entropy")
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", chunk * 23)
    features, weight, target = problem()
    bias = torch.linspace(-2, 2, len(weight), requires_grad=True) if biased else None
    inputs = [features, weight, *([bias] if biased else [])]
    lprobs = torch.log_softmax(features @ weight.T + (bias if biased else 0.0), dim=-1)
    expected, expected_nll = stock.label_smoothed_nll_loss(lprobs, target, smoothing, ignore_index=PAD)
    (3.0 * expected).backward()
    gradients = [tensor.grad.clone() for tensor in inputs]
    for tensor in inputs:
        tensor.grad = None

    sums = label_smoothed_cross_entropy(features, weight, target, smoothing=smoothing, pad=PAD, bias=bias)
    (3.0 * sums.loss).backward()
    torch.testing.assert_close(sums.loss, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.nll, expected_nll.detach(), rtol=1e-5, atol=1e-5)
    for tensor, gradient in zip(inputs, gradients, strict=True):
        torch.testing.assert_close(tensor.grad, gradient, rtol=1e-5, atol=1e-5)
    real = target.ne(PAD)
    assert sums.correct == lprobs.argmax(1)[real].eq(target[real]).sum()


class Largest(TorchDispatchMode):
    """Dispatch mode that records the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_the_whole_matrix_never_exists(monkeypatch):
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", 1 << 12)
    features, weight, target = problem(tokens=600, vocabulary=500)
    with Largest() as largest:
        label_smoothed_cross_entropy(features, weight, target, smoothing=0.1, pad=PAD).loss.backward()
    assert largest.elements < 600 * 500 / 10


def test_without_gradients_in_bfloat16():
    features, weight, target = problem()
    exact = label_smoothed_cross_entropy(features, weight, target, smoothing=0.1, pad=PAD)
    with torch.no_grad():
        rough = label_smoothed_cross_entropy(features, weight, target, smoothing=0.1, pad=PAD, dtype=torch.bfloat16)
    assert rough.loss.dtype == torch.float32
    torch.testing.assert_close(rough.loss, exact.loss.detach(), rtol=0.01, atol=0)
