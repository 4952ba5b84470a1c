"""Products in 8-bit integers: a scale and a middle for each row of the input, found as it is needed, and a scale for each
output.

Sums are exact in 32 bits, so a row's result depends on nothing but the row, whatever else is in the batch. Compiled
where the processor multiplies bytes (``native``), else in torch's operations.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.network import native

_MOST = 127
_PANEL = 64
"""Outputs whose weights lie side by side for the compiled product."""


class Int8Weight(NamedTuple):
    """A matrix as integers, each output's times a number."""

    values: Tensor
    """(inputs, outputs) int8; or, for the compiled product, uint8 of 128 more, (panels, inputs / 4, 64 outputs, 4)."""
    scales: Tensor
    """(outputs,) float32, padded to whole panels, as are the next two."""
    sums: Tensor
    """The scale times the sum of the output's integers: what the input's middle is multiplied by."""
    bias: Tensor
    inputs: int
    outputs: int

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None) -> "Int8Weight":
        """The nearest to a float matrix (outputs, inputs)."""
        outputs, inputs = weight.shape
        scales = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _MOST
        integers = (weight / scales.unsqueeze(1)).round()
        numbers = (scales, scales * integers.sum(1), weight.new_zeros(outputs) if bias is None else bias.detach())
        if not native.has_int8():
            return cls(integers.to(torch.int8).T.contiguous(), *numbers, inputs, outputs)
        missing = -outputs % _PANEL
        panels = F.pad(integers, (0, -inputs % 4, 0, missing)).view(-1, _PANEL, -(-inputs // 4), 4).transpose(1, 2)
        values = (panels + 128).to(torch.uint8).contiguous()
        return cls(values, *(F.pad(each, (0, missing)) for each in numbers), inputs, outputs)

    def product(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """``x W + b``, rectified if asked, (..., outputs) float32; ``x`` is (..., inputs)."""
        rows = x.float().contiguous()
        if self.values.dtype is torch.int8:
            return self._by_torch(rows.view(-1, self.inputs), relu=relu).view(*x.shape[:-1], -1)
        found = rows.new_empty(*x.shape[:-1], self.outputs)
        native.function("int8_product")(
            rows.data_ptr(), self.values.data_ptr(), self.scales.data_ptr(), self.sums.data_ptr(),
            self.bias.data_ptr(), found.data_ptr(), rows.numel() // self.inputs, self.inputs, self.outputs, relu,
        )  # fmt: skip
        return found

    def rounding(self, x: Tensor, exact: Tensor, beams: Tensor, columns: Tensor, ids: Tensor) -> Tensor:
        """What rounding took from a few numbers of ``product(x)``.

        Args:
            x: (batch, beams or 1 for all alike, inputs).
            exact: (symbols, inputs), of whose rows the matrix's outputs are roundings.
            beams, columns, ids: (batch, count): of which beam, which output, and which row of ``exact`` it is.

        Returns:
            (batch, count), to be added.
        """
        if self.values.dtype is torch.int8:
            features = x.expand(-1, int(beams.max()) + 1, -1)[torch.arange(len(x)).unsqueeze(1), beams]
            values, scales, middles = _integers(features.reshape(-1, self.inputs))
            rounded = (values * scales + middles).view_as(features)
            weight = self.values.T[columns] * self.scales[columns].unsqueeze(2)
            return (F.embedding(ids, exact) * features - weight * rounded).sum(2)
        rows = x.float().contiguous()
        taken = rows.new_empty(beams.shape)
        owners, columns, ids = beams.contiguous(), columns.contiguous(), ids.contiguous()
        native.function("int8_rounding")(
            rows.data_ptr(), exact.data_ptr(), self.scales.data_ptr(), owners.data_ptr(), columns.data_ptr(),
            ids.data_ptr(), taken.data_ptr(), len(rows), rows.size(1), beams.size(1), self.inputs,
        )  # fmt: skip
        return taken

    def _by_torch(self, rows: Tensor, *, relu: bool) -> Tensor:
        values, scales, middles = _integers(rows)
        found = torch._int_mm(values.to(torch.int8), self.values).float() * (scales * self.scales)
        found = found + (middles * self.sums + self.bias)
        return found.relu() if relu else found


def _integers(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows as whole numbers of [-127, 127], and the (rows, 1) scales and middles that make numbers of them again."""
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    scales, middles = (high - low) / (2 * _MOST), (high + low) / 2
    inverse = torch.where(scales > 0, 1 / scales, 0.0)
    return ((rows - middles) * inverse).round(), scales, middles
