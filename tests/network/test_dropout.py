"""Dropout drops what it says, scales the rest, and repeats with torch's seed."""

import pytest
import torch

from fairbeam.network.dropout import Dropout, MaskSource


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
def test_rate_and_scale(p):
    torch.manual_seed(0)
    x = torch.ones(1000, 301)
    y = Dropout(p, MaskSource()).train()(x)
    kept = y.ne(0)
    p = round(256 * p) / 256
    # five standard deviations of a binomial proportion
    assert abs(kept.float().mean() - (1 - p)) < 5 * (p * (1 - p) / x.numel()) ** 0.5
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / (1 - p)))
    # no two rows or columns share a mask
    assert torch.corrcoef(kept.float()).fill_diagonal_(0).abs().max() < 0.4
    assert torch.corrcoef(kept.float().T).fill_diagonal_(0).abs().max() < 0.3


def test_masks_repeat_with_the_seed_and_differ_otherwise():
    x, dropout = torch.ones(64, 64), Dropout(0.3, MaskSource()).train()

    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        dropout.source.restart()
        return dropout(x)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert not torch.equal(dropout(x), dropout(x))


def test_nothing_happens_outside_training():
    x = torch.randn(3, 3)
    assert Dropout(0.5, MaskSource()).eval()(x) is x


def test_gradient_passes_where_the_value_does():
    torch.manual_seed(0)
    x = torch.randn(50, 50, requires_grad=True)
    y = Dropout(0.4, MaskSource()).train()(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())
