"""Dropout whose masks cost next to nothing on a CPU.

``torch.bernoulli_`` draws one Mersenne-Twister number an element, which takes as long as the linear layer it
follows. Here one small fast counter (SFC64) stream gives four 16-bit draws a number.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 16


class MaskSource:
    """The random bits of one forward pass, seeded from torch's generator.

    ``restart`` draws one seed from torch, so a training step repeats exactly when torch's seed does.
    """

    def __init__(self) -> None:
        self._bits: np.random.BitGenerator | None = None

    def restart(self) -> None:
        """Begin a new stream from torch's current state."""
        self._bits = np.random.SFC64(int(torch.randint(2**62, ())))

    def keep(self, shape: torch.Size, p: float) -> Tensor:
        """Boolean mask of ``shape``, false with probability ``p`` (to the nearest 1/65536)."""
        if self._bits is None:
            self.restart()
        assert self._bits is not None
        count = shape.numel()
        draws = self._bits.random_raw((count + 3) // 4).view(np.int16)[:count]
        return torch.from_numpy(draws).view(shape) >= round(p * _LEVELS) - _LEVELS // 2


class Dropout(nn.Module):
    """Zeroes elements with probability ``p`` in training and scales the rest by ``1 / (1 - p)``.

    Srivastava et al. (2014). On a CPU the mask comes from ``source``; elsewhere from torch.
    """

    def __init__(self, p: float, source: MaskSource) -> None:
        super().__init__()
        self.p = p
        self.source = source

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        mask = self.source.keep(x.shape, self.p).to(x.dtype)
        return x * mask.mul_(1.0 / (1.0 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"
