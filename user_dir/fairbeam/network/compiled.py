"""Layers as the compiled loops run them in one call: what calls and small tensors cost between their parts is saved.

They compute what ``Layer.forward`` does, for the layers that most models have: plain attention, layer norms, a
feed-forward block without a gate, and linear layers in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from fairbeam.network import native
from fairbeam.network.attention import SelfAttention
from fairbeam.network.cache import KeyValues, Memory, Projected, Slots
from fairbeam.network.linear import Linear

if TYPE_CHECKING:
    from fairbeam.network.stacks import Layer, Residual

_HEAD_WIDTHS = {16, 32, 64, 80, 96, 128}
"""Of which attention is written in whole vectors."""


class CompiledLayers:
    """Layers for inference; their modules must outlive them and not change."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        """Layers for all of which ``compilable`` holds."""
        self._structures = [_structure(layer) for layer in layers]
        self._layers = native.pointers(*map(native.address, self._structures))
        self._places: tuple[Any, Tensor, tuple[Any, ...]] | None = None
        """Where the memory and the caches of the latest step are, and their addresses; the next step has the same."""

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # it never changes, and holds addresses

    def step(self, x: Tensor, caches: Sequence[KeyValues], slots: Slots, memory: Memory) -> Tensor:
        """The latest tokens of all beams, (batch, beams, dim) float32 to the same; ``caches`` grow."""
        out = x.clone(memory_format=torch.contiguous_format)
        numbers = slots.numbers.contiguous()
        batch, beams, _ = out.shape
        starts = [cache.reserve(beams) for cache in caches]
        _, sentences, _, capacity, _ = caches[0].storage.shape
        kept: Any = memory.layers
        if self._places is None or self._places[0] is not kept or self._places[1] is not caches[0].storage:
            arrays = (
                native.pointers(*(cache.storage.data_ptr() for cache in caches)),
                native.pointers(*(layer.keys.data_ptr() for layer in kept)),
                native.pointers(*(layer.values.data_ptr() for layer in kept)),
            )
            self._places = kept, caches[0].storage, arrays
        step = native.Step(
            *map(native.address, self._places[2]),
            numbers.data_ptr(), slots.rows.data_ptr(), kept[0].rows.data_ptr(),
            None if memory.mask is None else memory.mask.data_ptr(),
            len(caches), batch, beams, sentences, capacity, numbers.size(2), starts[0], kept[0].keys.size(1),
        )  # fmt: skip
        native.function("decoder_layers")(out.data_ptr(), native.address(self._layers), native.address(step))
        return out

    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Whole sequences, (batch, length, dim) float32 to the same; ``mask`` is (batch * heads, 1, length)."""
        out = x.clone(memory_format=torch.contiguous_format)
        batch, length, _ = out.shape
        numbers = torch.arange(batch)
        native.function("encoder_layers")(
            out.data_ptr(), native.address(self._layers), None if mask is None else mask.data_ptr(),
            numbers.data_ptr(), len(self._structures), batch, length,
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
        and all(linear.integers is not None and linear.integers.whole for linear in linears)
    )


def readable(memory: Memory) -> bool:
    """Whether the loops can read what the encoder left."""
    first = memory.layers[0]
    return isinstance(first, Projected) and first.rows is not None


def _structure(layer: Layer) -> native.Layer:
    attention = layer.self_attention
    linears = {"qkv": attention.qkv, "output": attention.output, "inner": layer.inner, "outer": layer.outer}
    norms = {"self_norm": layer.self_attention_residual, "feed_forward_norm": layer.feed_forward_residual}
    scales = {"self_scale": attention.scale}
    if hasattr(layer, "cross_attention"):
        crossed = layer.cross_attention
        linears |= {"query": crossed.query, "cross_output": crossed.output}
        norms |= {"cross_norm": layer.cross_attention_residual}
        scales |= {"cross_scale": crossed.scale}
    addresses: dict[str, Any] = {}
    for name, linear in linears.items():
        assert linear.integers is not None
        assert linear.integers.compiled is not None
        addresses[name] = native.address(linear.integers.compiled)
    return native.Layer(
        **addresses,
        **{name: _norm(residual) for name, residual in norms.items()},
        **scales,
        heads=attention.heads,
        width=attention.output.inputs // attention.heads,
        norm_before=layer.self_attention_residual.before,
    )


def _norm(residual: Residual) -> native.Norm:
    norm: Any = residual.norm
    bias = None if norm.bias is None else norm.bias.data_ptr()
    return native.Norm(norm.weight.data_ptr(), bias, norm.epsilon)
