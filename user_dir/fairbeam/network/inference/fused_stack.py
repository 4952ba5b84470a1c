"""Transformer layers that run in one native call, which saves what calls and small tensors cost between their parts.

They compute what ``Layer.forward`` does, for the layers that most models have: plain attention, layer norms, a
feed-forward block without a gate, and linear layers in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, TypeGuard

import torch
from torch import Tensor

from fairbeam.network.attention import SelfAttention
from fairbeam.network.cache import BeamSlots, CrossAttentionCache, CrossKeyValues, KeyValues
from fairbeam.network.inference import native, structs
from fairbeam.network.linear import Linear

if TYPE_CHECKING:
    from fairbeam.network.layer import Layer
    from fairbeam.network.norm import LayerNorm

_HEAD_DIMS = {16, 32, 64, 80, 96, 128}
"""Head sizes with a vectorised native attention kernel (attention.cpp)."""


class FusedStack:
    """Layers of an encoder or a decoder prepared for inference, all of which ``supports`` accepts."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = list(layers)  # their weights must outlive the structs
        self._structs = [_layer_struct(layer) for layer in layers]
        self._addresses = native.address_array(*(struct.address for struct in self._structs))
        self._step_addresses: tuple[Any, Tensor, tuple[Any, ...]] | None = None
        """Source keys and values and the first cache of the latest step, and the addresses of all: a search's next step
        has the same."""

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # it never changes, and holds addresses

    def step(self, x: Tensor, caches: Sequence[KeyValues], slots: BeamSlots, memory: CrossAttentionCache) -> Tensor:
        """Run a decoding step through all layers.

        Args:
            x: (batch, beams, dim) float32, the latest tokens.
            caches: self-attention caches of the layers; the latest keys and values are added.
            slots: cache slots of each beam's history, the latest token's included.
            memory: the encoded source.

        Returns:
            (batch, beams, dim) float32.
        """
        out = x.clone(memory_format=torch.contiguous_format)
        table = slots.table.contiguous()
        starts = [0 if slots.starts is not None else cache.reserve(x.size(1)) for cache in caches]
        step = self.decoder_step(caches, slots.rows, memory, x.size(1))
        step.x, step.slots, step.steps, step.start = out.data_ptr(), table.data_ptr(), table.size(2), starts[0]
        step.starts = None if slots.starts is None else slots.starts.data_ptr()
        step.call()
        return out

    def decoder_step(
        self, caches: Sequence[KeyValues], rows: Tensor, memory: CrossAttentionCache, beams: int
    ) -> structs.DecoderStep:
        """Return the arguments of a decoding step but for x, the slots, their steps and where the latest go."""
        _, sentences, _, capacity, _ = caches[0].storage.shape
        source: Any = memory.layers
        latest = self._step_addresses
        if latest is None or latest[0] is not source or latest[1] is not caches[0].storage:
            arrays = (
                native.address_array(*(cache.storage.data_ptr() for cache in caches)),
                native.address_array(*(layer.keys.data_ptr() for layer in source)),
                native.address_array(*(layer.values.data_ptr() for layer in source)),
            )
            latest = self._step_addresses = source, caches[0].storage, arrays
        storages, keys, values = map(native.address_of, latest[2])
        return structs.DecoderStep(
            layers=native.address_of(self._addresses),
            storages=storages,
            keys=keys,
            values=values,
            mask=None if memory.mask is None else memory.mask.data_ptr(),
            rows=rows.data_ptr(),
            source_rows=source[0].rows.data_ptr(),
            layer_count=len(caches),
            batch=len(rows),
            beams=beams,
            sentences=sentences,
            capacity=capacity,
            length=source[0].keys.size(1),
        )

    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Run whole sequences, (batch, length, dim) float32, through all layers of an encoder.

        ``mask`` is added to attention scores, (batch * heads, 1, length).
        """
        out = x.clone(memory_format=torch.contiguous_format)
        batch, length, _ = out.shape
        structs.EncoderPass(
            x=out.data_ptr(),
            layers=native.address_of(self._addresses),
            mask=None if mask is None else mask.data_ptr(),
            layer_count=len(self._structs),
            batch=batch,
            length=length,
        ).call()
        return out


def supports(layer: Layer) -> bool:
    """Return whether the native library has all parts of a layer, which is packed for inference."""
    attention, cross = layer.self_attention, getattr(layer, "cross_attention", None)
    if layer.is_gated or type(attention) is not SelfAttention or attention.distances is not None:
        return False
    linears: list[Linear] = [attention.qkv, attention.output, layer.inner, layer.outer]
    residuals = [layer.self_attention_residual, layer.feed_forward_residual]
    if cross is not None:
        linears += [cross.query, cross.output]
        residuals.append(layer.cross_attention_residual)
    return (
        attention.group == 1
        and attention.output.inputs // attention.heads in _HEAD_DIMS
        and all(residual.normalises_layers for residual in residuals)
        and all(linear.integers is not None and linear.integers.fully_native for linear in linears)
    )


def supports_memory(memory: CrossAttentionCache | None) -> TypeGuard[CrossAttentionCache]:
    """Return whether the native library reads this form of the encoded source: keys and values that stay in place."""
    first = None if memory is None else memory.layers[0]
    return isinstance(first, CrossKeyValues) and first.rows is not None


def norm_struct(norm: LayerNorm) -> structs.Norm:
    """Return a layer norm as the native library reads it; its weights must outlive the struct."""
    return structs.Norm(norm.weight.data_ptr(), None if norm.bias is None else norm.bias.data_ptr(), norm.epsilon)


def _layer_struct(layer: Layer) -> structs.TransformerLayer:
    attention = layer.self_attention
    linears = {"qkv": attention.qkv, "output": attention.output, "up": layer.inner, "down": layer.outer}
    norms = {"self_norm": layer.self_attention_residual, "feed_forward_norm": layer.feed_forward_residual}
    scales = {"self_scale": attention.scale}
    if hasattr(layer, "cross_attention"):
        cross = layer.cross_attention
        linears |= {"query": cross.query, "cross_output": cross.output}
        norms |= {"cross_norm": layer.cross_attention_residual}
        scales |= {"cross_scale": cross.scale}
    addresses: dict[str, Any] = {}
    for name, linear in linears.items():
        assert linear.integers is not None
        assert linear.integers.struct is not None
        addresses[name] = linear.integers.struct.address
    return structs.TransformerLayer(
        **addresses,
        **{name: norm_struct(residual.norm) for name, residual in norms.items()},  # type: ignore[arg-type]
        **scales,
        heads=attention.heads,
        head_dim=attention.output.inputs // attention.heads,
        norm_before=layer.self_attention_residual.before,
    )
