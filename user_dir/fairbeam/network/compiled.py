"""A layer as the compiled loops run it in one call: what calls and small tensors cost between its parts is saved.

It computes what ``Layer.forward`` does, for the layers most models have: plain attention, layer norms, a feed-forward
block without a gate, and linear layers in integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from fairbeam.network import native
from fairbeam.network.attention import SelfAttention
from fairbeam.network.cache import KeyValues, Projected, Slots
from fairbeam.network.linear import Linear

if TYPE_CHECKING:
    from fairbeam.network.stacks import Layer, Residual

_HEAD_WIDTHS = {16, 32, 64, 80, 96, 128}
"""Of which attention is written in whole vectors."""


class CompiledLayer:
    """A layer for inference; its modules must outlive it and not change."""

    def __init__(self, layer: Layer) -> None:
        """A layer for which ``compilable`` holds."""
        attention = layer.self_attention
        crossed = getattr(layer, "cross_attention", None)
        linears = {"qkv": attention.qkv, "output": attention.output, "inner": layer.inner, "outer": layer.outer}
        norms = {"self_norm": layer.self_attention_residual, "feed_forward_norm": layer.feed_forward_residual}
        scales = {"self_scale": attention.scale}
        if crossed is not None:
            linears |= {"query": crossed.query, "cross_output": crossed.output}
            norms |= {"cross_norm": layer.cross_attention_residual}
            scales |= {"cross_scale": crossed.scale}
        self.crosses = crossed is not None
        self.heads = attention.heads
        self._structure = native.Layer(
            **{name: native.address(linear.integers.compiled) for name, linear in linears.items()},
            **{name: _norm(residual) for name, residual in norms.items()},
            **scales,
            heads=attention.heads,
            width=attention.output.inputs // attention.heads,
            norm_before=layer.self_attention_residual.before,
        )

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # it never changes, and holds addresses

    def step(
        self, x: Tensor, cache: KeyValues, slots: Slots, memory: Projected, memory_mask: Tensor | None
    ) -> Tensor:
        """The latest tokens of all beams, (batch, beams, dim) to the same; ``cache`` grows."""
        x, numbers = x.contiguous(), slots.numbers.contiguous()
        batch, beams, _ = x.shape
        start = cache.reserve(beams)
        _, sentences, _, capacity, _ = cache.storage.shape
        past = native.Past(
            cache.storage.data_ptr(), numbers.data_ptr(), slots.rows.data_ptr(), sentences, capacity, numbers.size(2),
            start,
        )  # fmt: skip
        assert memory.rows is not None
        source = native.Source(
            memory.keys.data_ptr(), memory.values.data_ptr(), None if memory_mask is None else memory_mask.data_ptr(),
            memory.rows.data_ptr(), memory.keys.size(1),
        )  # fmt: skip
        out = torch.empty_like(x)
        native.function("step_layer")(
            x.data_ptr(), out.data_ptr(), native.address(self._structure), native.address(past),
            native.address(source), batch, beams,
        )  # fmt: skip
        return out

    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Whole sequences, (batch, length, dim) to the same; ``mask`` is (batch * heads, 1, length)."""
        x = x.contiguous()
        batch, length, _ = x.shape
        out, numbers = torch.empty_like(x), torch.arange(batch)
        native.function("encoder_layer")(
            x.data_ptr(), out.data_ptr(), native.address(self._structure), None if mask is None else mask.data_ptr(),
            numbers.data_ptr(), batch, length,
        )  # fmt: skip
        return out


def compilable(layer: Layer) -> bool:
    """Whether the loops have all parts of a layer that is packed for inference."""
    attention, crossed = layer.self_attention, getattr(layer, "cross_attention", None)
    if layer.is_gated or type(attention) is not SelfAttention or attention.distances is not None:
        return False
    linears: list[Linear] = [attention.qkv, attention.output, layer.inner, layer.outer]
    residuals = [layer.self_attention_residual, layer.feed_forward_residual]
    if crossed is not None:
        linears += [crossed.query, crossed.output]
        residuals.append(layer.cross_attention_residual)
    return (
        attention.group == 1
        and attention.output.inputs // attention.heads in _HEAD_WIDTHS
        and all(residual.normalises_layers for residual in residuals)
        and all(linear.in_integers and linear.integers.whole for linear in linears)
    )


def _norm(residual: Residual) -> Any:
    norm: Any = residual.norm
    bias = None if norm.bias is None else norm.bias.data_ptr()
    return native.Norm(norm.weight.data_ptr(), bias, norm.epsilon)
