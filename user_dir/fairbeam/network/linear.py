"""Linear layers with float32 master weights, a choice of compute dtype, and packed weights for inference."""

import copy
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.enums import Activation
from fairbeam.network.inference.quantized_linear import QuantizedLinear

# oneDNN's names of the activations it can fuse with a matrix product: (attribute, algorithm).
_FUSED = {
    Activation.LINEAR: ("none", ""),
    Activation.RELU: ("relu", ""),
    Activation.GELU: ("gelu", "none"),
    Activation.GELU_TANH: ("gelu", "tanh"),
    Activation.TANH: ("tanh", ""),
    Activation.SILU: ("swish", ""),
}


def activate(x: Tensor, activation: Activation) -> Tensor:
    """Apply a feed-forward activation elementwise."""
    match activation:
        case Activation.RELU:
            return F.relu(x)
        case Activation.RELU_SQUARED:
            return F.relu(x).square()
        case Activation.GELU:
            return F.gelu(x)
        case Activation.GELU_TANH:
            return F.gelu(x, approximate="tanh")
        case Activation.TANH:
            return torch.tanh(x)
        case Activation.SILU:
            return F.silu(x)
        case Activation.LINEAR:
            return x


class LoRA(nn.Module):
    """LoRA: the low-rank update of a frozen weight, a product of two narrow matrices (Hu et al., 2022, section 4.1)."""

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))  # zero: training begins at the frozen weight
        nn.init.normal_(self.down, std=inputs**-0.5)
        self.scale = alpha / rank

    def forward(self) -> Tensor:
        """Return the update of the weight, (outputs, inputs)."""
        return (self.up @ self.down) * self.scale


class Linear(nn.Module):
    """``activation(x Wᵀ + b)``, computed and returned in ``compute_dtype``.

    The weights stay float32 in training. ``pack_`` stores them in the dtype and layout of the CPU's matrix kernels,
    after which the layer is for inference only.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, activation: Activation = Activation.LINEAR
    ) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.activation = activation
        self.low_rank: LoRA | None = None
        self.compute_dtype = torch.float32
        self._fused = _FUSED.get(activation, ("none", ""))
        self._packed: Tensor | None = None
        self._packed_bias: Tensor | None = None
        self.integers: QuantizedLinear | None = None
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        if self.integers is not None:
            computed = self.integers(x)
            return computed if self.integers.activates else activate(computed, self.activation)
        dtype = self.compute_dtype
        x = x.to(dtype)
        if self._packed is not None:
            kind, algorithm = self._fused
            return torch.ops.mkldnn._linear_pointwise.default(x, self._packed, self._packed_bias, kind, [], algorithm)
        bias = None if self.bias is None else self.bias.to(dtype)
        weight = self.weight if self.low_rank is None else self.weight + self.low_rank()
        return activate(F.linear(x, weight.to(dtype), bias), self.activation)

    @torch.no_grad()
    def merge_(self) -> None:
        """Add the low-rank update, if there is one, to the weight and remove it."""
        if self.low_rank is not None:
            self.weight.add_(self.low_rank())
            self.low_rank = None

    @torch.no_grad()
    def pack_(self, dtype: torch.dtype) -> None:
        """Convert the weights for inference in ``dtype``; the layer can't be trained afterwards.

        oneDNN's float32 product on packed weights is about twice as fast as the default one and differs from it by
        rounding only. In int8 and int16 the weights are quantized per output channel and the input per row; input
        and output of the layer are float32.
        """
        self.merge_()
        if dtype in (torch.int8, torch.int16):
            self.compute_dtype = torch.float32
            self.integers = QuantizedLinear(self.weight.detach(), self.bias, dtype, self.activation)
            self.bias = None if self.bias is None else nn.Parameter(self.bias.detach(), requires_grad=False)
            self.weight = nn.Parameter(self.weight.new_empty(0), requires_grad=False)
            return
        self.compute_dtype = dtype
        weight = self.weight.detach().to(dtype)
        bias = None if self.bias is None else self.bias.detach().to(dtype)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        if weight.device.type == "cpu" and torch.backends.mkldnn.is_available() and self.activation in _FUSED:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
            self._packed_bias = bias
            self.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)  # one copy is enough

    @torch.no_grad()
    def with_weight(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None = None) -> Self:
        """Return a copy for inference with another weight, (outputs, inputs), and bias.

        It is packed if this layer is, and computes in ``dtype``, or as this layer does if None.
        """
        other = copy.copy(self)
        other._parameters, other._modules = {}, {}
        other.weight = nn.Parameter(weight, requires_grad=False)
        other.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        other.outputs, other.low_rank = len(weight), None
        other.compute_dtype = dtype or self.compute_dtype
        other._packed = None
        other.integers = None
        if self.integers is not None and dtype is None:
            other.pack_(torch.int8 if self.integers.qmax == 127 else torch.int16)
        elif self._packed is not None or self.integers is not None:
            other.pack_(other.compute_dtype)
        return other

    @torch.no_grad()
    def select_rows(self, outputs: Tensor, weight: Tensor, bias: Tensor | None) -> Self:
        """Return the layer of some outputs alone, for inference.

        Args:
            outputs: (n,) indices, ``n`` a multiple of 64.
            weight, bias: those of all outputs, as exact as they are kept.
        """
        if self.integers is None or not self.integers.fully_native:
            return self.with_weight(weight[outputs], None if bias is None else bias[outputs])
        other = copy.copy(self)
        other._parameters = {**self._parameters}  # the weight is empty
        other.bias = None if bias is None else nn.Parameter(bias[outputs], requires_grad=False)
        other.outputs, other.integers = len(outputs), self.integers.select_rows(outputs)
        return other

    @property
    def in_integers(self) -> bool:
        """Whether the weight is quantized to int8 or int16."""
        return self.integers is not None

    def unpacked(self) -> Tensor:
        """Return the weight, (outputs, inputs), from whichever layout it has."""
        if self._packed is not None:
            return self._packed.to_dense()
        return self.weight if self.low_rank is None else self.weight + self.low_rank()

    def extra_repr(self) -> str:
        return f"{self.inputs}, {self.outputs}, bias={self.bias is not None}, activation={self.activation}"
