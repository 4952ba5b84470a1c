"""Products of integers: each row of the input has a scale and a middle, found as they are needed, each output a scale.

Sums are exact in 32 bits, so a row's result depends on nothing but the row, whatever else is in the batch. Integers of
8 bits are compiled where the processor multiplies them (``native``), else made by torch's operations; those of 16, of
which as many bits are used as the sum has room for, are compiled or not at all.
"""

import copy
import functools
import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.network.enums import Activation
from fairbeam.network.inference import native

_PANEL = 64
"""Outputs whose weights lie side by side for the compiled product."""

_COMPILED = {
    Activation.LINEAR: 0,
    Activation.RELU: 1,
    Activation.GELU: 2,
    Activation.GELU_TANH: 3,
    Activation.SILU: 4,
}


def qmax_for(inputs: int, dtype: torch.dtype) -> int:
    """The highest integer that a product over so many inputs may meet on either side."""
    if dtype is torch.int8:
        return 127
    return min(math.isqrt((2**31 - 1) // inputs), 2**15 - 1)


class QuantizedLinear:
    """``activation(x Wᵀ + b)`` with a matrix of integers, each output's times a number."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, activation: Activation) -> None:
        """The nearest to a float matrix (outputs, inputs); ``dtype`` is int8 or int16."""
        self.outputs, self.inputs = weight.shape
        self.most = qmax_for(self.inputs, dtype)
        self.activates = activation in _COMPILED and native.multiplies_integers()
        """Whether the result is activated."""
        scales = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / self.most
        integers = (weight / scales.unsqueeze(1)).round()
        numbers = (scales, scales * integers.sum(1), weight.new_zeros(self.outputs) if bias is None else bias.detach())
        self._numbers: tuple[Tensor, ...]
        self._compiled: native.Linear | None = None
        self._apart: Tensor | None = None
        """The values once more, each output's together, once ``of_outputs`` was asked."""
        if not native.multiplies_integers():
            assert dtype is torch.int8
            self._values, self._numbers = integers.to(torch.int8).T.contiguous(), numbers
            return
        self._code = _COMPILED[activation] if self.activates else 0
        missing = -self.outputs % _PANEL
        self._lay_out(
            _rows(F.pad(integers, (0, 0, 0, missing)), dtype), tuple(F.pad(each, (0, missing)) for each in numbers)
        )

    def _lay_out(self, rows: Tensor, numbers: tuple[Tensor, ...]) -> None:
        """Take (outputs, groups, of a group) integers and each output's numbers, of whole panels."""
        self._values = rows.unflatten(0, (-1, _PANEL)).transpose(1, 2).contiguous()
        self._numbers = tuple(each.contiguous() for each in numbers)
        pointers = [tensor.data_ptr() for tensor in (self._values, *self._numbers)]
        self._compiled = native.Linear(*pointers, self.inputs, self.outputs, self.most, self._code)

    def of_outputs(self, numbers: Tensor) -> Self:
        """The layer whose outputs are some of this one's, by their numbers, in whole panels of 64; compiled alone."""
        assert len(numbers) % _PANEL == 0
        if self._apart is None:
            self._apart = self._values.transpose(1, 2).flatten(0, 1)
        other = copy.copy(self)
        other.outputs, other._apart = len(numbers), None
        other._lay_out(self._apart[numbers], tuple(each[numbers] for each in self._numbers))
        return other

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # it never changes, and holds addresses

    @property
    def whole(self) -> bool:
        """Whether compiled loops compute all of it, the activation, too."""
        return self._compiled is not None and self.activates

    @property
    def compiled(self) -> "native.Linear | None":
        """The layer as compiled loops read it."""
        return self._compiled

    def __call__(self, x: Tensor) -> Tensor:
        """(..., inputs) to float32 (..., outputs)."""
        rows = x.float().contiguous()
        if self._compiled is None:
            return self._by_torch(rows.view(-1, self.inputs)).view(*x.shape[:-1], -1)
        found = rows.new_empty(*x.shape[:-1], self.outputs)
        product = native.function("integer_product")
        product(rows.data_ptr(), found.data_ptr(), native.address(self._compiled), rows.numel() // self.inputs)
        return found

    def rounding(self, x: Tensor, exact: Tensor, beams: Tensor, columns: Tensor, ids: Tensor) -> Tensor:
        """What rounding to 8 bits took from a few numbers that the layer made.

        Args:
            x: (batch, beams or 1 for all alike, inputs).
            exact: (symbols, inputs), of whose rows the matrix's outputs are roundings.
            beams, columns, ids: (batch, count): of which beam, which output, and which row of ``exact`` it is.

        Returns:
            (batch, count), to be added.
        """
        scales = self._numbers[0]
        if self._compiled is None:
            features = x.expand(-1, int(beams.max()) + 1, -1)[torch.arange(len(x)).unsqueeze(1), beams]
            values, steps, middles = self._integers(features.reshape(-1, self.inputs))
            rounded = (values * steps + middles).view_as(features)
            weight = self._values.T[columns] * scales[columns].unsqueeze(2)
            return (F.embedding(ids, exact) * features - weight * rounded).sum(2)
        rows = x.float().contiguous()
        taken = rows.new_empty(beams.shape)
        owners, columns, ids = beams.contiguous(), columns.contiguous(), ids.contiguous()
        native.function("int8_rounding")(
            rows.data_ptr(), exact.data_ptr(), scales.data_ptr(), owners.data_ptr(), columns.data_ptr(),
            ids.data_ptr(), taken.data_ptr(), len(rows), rows.size(1), beams.size(1), self.inputs,
        )  # fmt: skip
        return taken

    def best_continuations(
        self,
        x: Tensor,
        exact: Tensor,
        totals: Tensor,
        closed: Sequence[int],
        count: int,
        narrowed: native.Narrowed | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations of beams, if the compiled layer scores symbols: what log-softmax, ``topk_of_sums``,
        ``rounding`` and ``renormalised`` give together, of a few sentences at a time, whose scores stay in the cache.

        Args:
            x: (batch, beams, inputs) float32.
            exact: (symbols, inputs) that the layer is a rounding of.
            totals: (batch, beams) float32.
            closed: symbols that no beam may be continued with.
            count: how many of each sentence.
            narrowed: says which symbols the columns are, if they are not all in their order.

        Returns:
            Totals, parents and tokens, each (batch, count), the best first.
        """
        x, totals = x.contiguous(), totals.contiguous()
        sums, parents = totals.new_empty(len(x), count), totals.new_empty(len(x), count, dtype=torch.long)
        tokens, columns = torch.empty_like(parents), symbols(tuple(closed))
        assert self._compiled is not None
        native.function("best_continuations")(
            x.data_ptr(), native.address(self._compiled), exact.data_ptr(), totals.data_ptr(), columns.data_ptr(),
            None if narrowed is None else native.address(narrowed),
            sums.data_ptr(), parents.data_ptr(), tokens.data_ptr(), *x.shape[:2], count, len(closed),
        )  # fmt: skip
        return sums, parents, tokens

    def _by_torch(self, rows: Tensor) -> Tensor:
        scales, sums, bias = self._numbers
        values, steps, middles = self._integers(rows)
        found = torch._int_mm(values.to(torch.int8), self._values).float() * (steps * scales)
        return found + (middles * sums + bias)

    def _integers(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows as integers, and the (rows, 1) steps and middles that make numbers of them again."""
        low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
        steps, middles = (high - low) / (2 * self.most), (high + low) / 2
        inverse = torch.where(steps > 0, 1 / steps, 0.0)
        return ((rows - middles) * inverse).round(), steps, middles


@functools.lru_cache(maxsize=64)
def symbols(numbers: tuple[int, ...]) -> Tensor:
    """Numbers of symbols as a tensor, which must not be changed."""
    return torch.tensor(numbers, dtype=torch.long)


def _rows(integers: Tensor, dtype: torch.dtype) -> Tensor:
    """(outputs, inputs) as (outputs, groups, 4 bytes); bytes are 128 more than the integers."""
    group = 4 if dtype is torch.int8 else 2
    rows = F.pad(integers, (0, -integers.size(1) % group)).unflatten(1, (-1, group))
    return (rows + 128).to(torch.uint8) if dtype is torch.int8 else rows.to(dtype)
