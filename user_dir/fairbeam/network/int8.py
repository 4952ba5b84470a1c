"""Products in 8-bit integers: a scale for each row of the input and for each output, found as they are needed.

Sums are exact in 32 bits, so a row's result depends on nothing but the row, whatever else is in the batch.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairbeam.network import kernels

_MOST = 127


class Int8Weight(NamedTuple):
    """A matrix as integers, each output's times a number."""

    values: Tensor
    """(inputs, outputs) int8."""
    scales: Tensor
    """(outputs,) float32."""

    @classmethod
    def of(cls, weight: Tensor) -> "Int8Weight":
        """The nearest to a float matrix (outputs, inputs)."""
        scales = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _MOST
        return cls(
            (weight / scales.unsqueeze(1)).round().to(torch.int8).T.clone(memory_format=torch.contiguous_format), scales
        )


def product(x: Tensor, weight: Int8Weight, bias: Tensor | None, *, relu: bool) -> Tensor:
    """``x W + b``, rectified if asked, (..., outputs) float32; ``x`` is (..., inputs)."""
    rows = x.reshape(-1, x.size(-1)).float().contiguous()
    quantise, finish = (_quantise, _finish) if kernels.available() else (_quantise_by_torch, _finish_by_torch)
    values, scales = quantise(rows)
    sums = torch._int_mm(values, weight.values)
    return finish(sums, scales, weight.scales, bias, relu).view(*x.shape[:-1], -1)


def prepare() -> None:
    """Compile before a process forks; see ``kernels.prepare``."""
    _to_integers()
    _to_floats()


def _quantise(rows: Tensor) -> tuple[Tensor, Tensor]:
    values, scales = torch.empty_like(rows, dtype=torch.int8), rows.new_empty(len(rows))
    _to_integers()(rows.numpy(), values.numpy(), scales.numpy())
    return values, scales


def _finish(sums: Tensor, scales: Tensor, outputs: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    finished = torch.empty_like(sums, dtype=torch.float32)
    added = scales.new_zeros(0) if bias is None else bias
    _to_floats()(sums.numpy(), scales.numpy(), outputs.numpy(), added.numpy(), relu, finished.numpy())
    return finished


def _quantise_by_torch(rows: Tensor) -> tuple[Tensor, Tensor]:
    highest = rows.abs().amax(1)
    inverse = torch.where(highest > 0, _MOST / highest, 0.0)
    return (rows * inverse.unsqueeze(1)).round().to(torch.int8), highest / _MOST


def _finish_by_torch(sums: Tensor, scales: Tensor, outputs: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    finished = sums.float() * scales.unsqueeze(1) * outputs
    finished = finished if bias is None else finished + bias
    return finished.relu() if relu else finished


@functools.cache
def _to_integers() -> Callable[..., None]:
    @kernels.compiled("void(f4[:,::1], i1[:,::1], f4[::1])")
    def compute(rows, values, scales):  # type: ignore[no-untyped-def]
        count, width = rows.shape
        for row in range(count):
            highest = np.float32(0)
            for i in range(width):
                highest = max(highest, abs(rows[row, i]))
            inverse = np.float32(_MOST) / highest if highest > 0 else np.float32(0)
            for i in range(width):
                values[row, i] = np.int8(np.rint(rows[row, i] * inverse))
            scales[row] = highest / np.float32(_MOST)

    return compute


@functools.cache
def _to_floats() -> Callable[..., None]:
    @kernels.compiled("void(i4[:,::1], f4[::1], f4[::1], f4[::1], b1, f4[:,::1])")
    def compute(sums, scales, outputs, bias, relu, finished):  # type: ignore[no-untyped-def]
        count, width = sums.shape
        for row in range(count):
            scale = scales[row]
            for i in range(width):
                finished[row, i] = np.float32(sums[row, i]) * scale * outputs[i]
            if len(bias):
                for i in range(width):
                    finished[row, i] += bias[i]
            if relu:
                for i in range(width):
                    finished[row, i] = max(finished[row, i], np.float32(0))

    return compute
