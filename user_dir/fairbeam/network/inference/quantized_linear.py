"""Linear layers in integers, by dynamic asymmetric quantization: each input row has a scale and a middle of its own,
computed when it comes; each output of the weight has a scale.

Sums are exact in 32 bits, so a row's result depends on the row alone, whatever else is in the batch. 8-bit layers run
natively where the processor multiplies integers (``native.multiplies_integers``), else by torch's operations; 16-bit
ones, which use as many bits as their sums have room for, run natively or not at all.
"""

import copy
import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.network.enums import Activation
from fairbeam.network.inference import native, structs

_PANEL = 64
"""Outputs whose weights lie side by side in the native layout (int_gemm.h)."""

_NATIVE_ACTIVATIONS = {
    Activation.LINEAR: 0,
    Activation.RELU: 1,
    Activation.GELU: 2,
    Activation.GELU_TANH: 3,
    Activation.SILU: 4,
}
"""Activations that the native library applies, under its own numbers (math.h)."""


def qmax_for(inputs: int, dtype: torch.dtype) -> int:
    """Return the highest integer of quantized weights and inputs, of which a product over ``inputs`` fits 32 bits."""
    if dtype is torch.int8:
        return 127
    return min(math.isqrt((2**31 - 1) // inputs), 2**15 - 1)


class QuantizedLinear:
    """``activation(x Wᵀ + b)`` with a quantized weight; inputs and outputs are float32."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, activation: Activation) -> None:
        """Quantize a float weight, (outputs, inputs), to the nearest integers of ``dtype``, int8 or int16."""
        self.outputs, self.inputs = weight.shape
        self.qmax = qmax_for(self.inputs, dtype)
        self.activates = activation in _NATIVE_ACTIVATIONS and native.multiplies_integers()
        """Whether calling the layer applies the activation."""
        scales = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / self.qmax
        integers = (weight / scales.unsqueeze(1)).round()
        bias = weight.new_zeros(self.outputs) if bias is None else bias.detach()
        self._per_output: tuple[Tensor, ...] = (scales, scales * integers.sum(1), bias)
        """Scales, scales times sums of integers, and biases; (outputs,), or padded to whole panels."""
        self.struct: structs.IntegerLinear | None = None
        """The layer as the native library reads it; None where torch computes it."""
        self._rows: Tensor | None = None
        """A copy of the weight by outputs, made by the first ``select_rows``."""
        if not native.multiplies_integers():
            assert dtype is torch.int8
            self._weight = integers.to(torch.int8).T.contiguous()
            return
        self._activation = _NATIVE_ACTIVATIONS[activation] if self.activates else 0
        missing = -self.outputs % _PANEL
        rows = _grouped(F.pad(integers, (0, 0, 0, missing)), dtype)
        self._lay_out(rows, tuple(F.pad(each, (0, missing)) for each in self._per_output))

    def _lay_out(self, rows: Tensor, per_output: tuple[Tensor, ...]) -> None:
        """Store (outputs, groups, group) integers and what each output has, both of whole panels, for the library."""
        self._weight = rows.unflatten(0, (-1, _PANEL)).transpose(1, 2).contiguous()
        self._per_output = tuple(each.contiguous() for each in per_output)
        addresses = [tensor.data_ptr() for tensor in (self._weight, *self._per_output)]
        self.struct = structs.IntegerLinear(*addresses, self.inputs, self.outputs, self.qmax, self._activation)

    def select_rows(self, outputs: Tensor) -> Self:
        """Return the layer of some outputs alone, (n,) indices, ``n`` a multiple of 64; native layers only."""
        assert len(outputs) % _PANEL == 0
        if self._rows is None:
            self._rows = self._weight.transpose(1, 2).flatten(0, 1)
        other = copy.copy(self)
        other.outputs, other._rows = len(outputs), None
        other._lay_out(self._rows[outputs], tuple(each[outputs] for each in self._per_output))
        return other

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # it never changes, and holds addresses

    @property
    def fully_native(self) -> bool:
        """Whether the native library computes the layer with its activation."""
        return self.struct is not None and self.activates

    def __call__(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to float32 (..., outputs)."""
        rows = x.float().contiguous()
        if self.struct is None:
            return self._by_torch(rows.view(-1, self.inputs)).view(*x.shape[:-1], -1)
        out = rows.new_empty(*x.shape[:-1], self.outputs)
        structs.ApplyLinear(rows.data_ptr(), out.data_ptr(), self.struct.address, rows.numel() // self.inputs).call()
        return out

    def output_delta(self, x: Tensor, exact: Tensor, rows: Tensor, outputs: Tensor, ids: Tensor) -> Tensor:
        """Return what quantization took from a few outputs of an 8-bit layer without activation: exact minus computed.

        Args:
            x: (batch, beams, inputs); one beam if all are equal.
            exact: (ids, inputs) float32, the weight before quantization.
            rows: (batch, count), the beam of each.
            outputs: (batch, count), the layer's output.
            ids: (batch, count), the output's row of ``exact``.

        Returns:
            (batch, count) float32.
        """
        scales = self._per_output[0]
        if self.struct is None:
            return self._output_delta_by_torch(x, exact, rows, outputs, ids)
        x = x.float().contiguous()
        deltas = x.new_empty(rows.shape)
        parents, columns, ids = rows.contiguous(), outputs.contiguous(), ids.contiguous()
        structs.LogitDelta(
            x=x.data_ptr(),
            exact_weight=exact.data_ptr(),
            scales=scales.data_ptr(),
            parents=parents.data_ptr(),
            columns=columns.data_ptr(),
            ids=ids.data_ptr(),
            deltas=deltas.data_ptr(),
            batch=len(x),
            beams=x.size(1),
            count=parents.size(1),
            inputs=self.inputs,
        ).call()
        return deltas

    def _output_delta_by_torch(self, x: Tensor, exact: Tensor, rows: Tensor, outputs: Tensor, ids: Tensor) -> Tensor:
        rows = rows if x.size(1) > 1 else torch.zeros_like(rows)
        features = x[torch.arange(len(x)).unsqueeze(1), rows]
        integers, scales, middles = self._quantized(features.reshape(-1, self.inputs))
        rounded = (integers * scales + middles).view_as(features)
        weight = self._weight.T[outputs] * self._per_output[0][outputs].unsqueeze(2)
        return (F.embedding(ids, exact) * features - weight * rounded).sum(2)

    def _by_torch(self, rows: Tensor) -> Tensor:
        weight_scales, weight_sums, bias = self._per_output
        integers, scales, middles = self._quantized(rows)
        product = torch._int_mm(integers.to(torch.int8), self._weight).float() * (scales * weight_scales)
        return product + (middles * weight_sums + bias)

    def _quantized(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return integers, scales and middles, (rows, 1): a row is about integers * scale + middle."""
        low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
        scales, middles = (high - low) / (2 * self.qmax), (high + low) / 2
        inverse = torch.where(scales > 0, 1 / scales, 0.0)
        return ((rows - middles) * inverse).round(), scales, middles


def _grouped(integers: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (outputs, inputs) integers as (outputs, groups, 4 bytes' integers); bytes are stored plus 128."""
    group = 4 if dtype is torch.int8 else 2
    rows = F.pad(integers, (0, -integers.size(1) % group)).unflatten(1, (-1, group))
    return (rows + 128).to(torch.uint8) if dtype is torch.int8 else rows.to(dtype)
