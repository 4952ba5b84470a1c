"""Dropout with fast random masks on a CPU.

``torch.bernoulli_`` draws one Mersenne Twister number per element, which takes as long as the linear layer before it.
Here NumPy's SFC64 generator gives eight 8-bit draws per number.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 8


class MaskSource:
    """Random bits of one forward pass, seeded from torch's generator.

    ``restart`` draws one seed from torch, so that torch's seed determines a training step exactly.
    """

    def __init__(self) -> None:
        self._bits: np.random.BitGenerator | None = None

    def restart(self) -> None:
        """Begin a new random stream, seeded from torch's generator."""
        self._bits = np.random.SFC64(int(torch.randint(2**62, ())))

    def keep(self, shape: torch.Size, p: float, dtype: torch.dtype) -> Tensor:
        """Draw a mask of ``shape``: 0 with probability ``p``, a multiple of 1/256, else 1."""
        if self._bits is None:
            self.restart()
        assert self._bits is not None
        count = shape.numel()
        draws = torch.from_numpy(self._bits.random_raw((count + 7) // 8).view(np.int8)[:count]).view(shape)
        # Comparing directly into the wanted dtype is ten times as fast as converting a boolean mask.
        return torch.ge(draws, round(p * _LEVELS) - _LEVELS // 2, out=torch.empty(shape, dtype=dtype))


class Dropout(nn.Module):
    """Dropout (Srivastava et al., 2014): zero elements with probability ``p``, scale the others by ``1 / (1 - p)``.

    On a CPU the mask comes from ``source``, and ``p`` is rounded to a multiple of 1/256; elsewhere torch makes it.
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
        p = round(self.p * _LEVELS) / _LEVELS
        return x * self.source.keep(x.shape, p, x.dtype).mul_(1.0 / (1.0 - p))

    def extra_repr(self) -> str:
        return f"p={self.p}"
