"""A stack of layers: the body of an encoder or a decoder.

One ``forward`` serves encoder and decoder, training and decoding: in training the query dimension is the sequence, at a
decoding step it is the beams.
"""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from fairbeam.network.attention import SelfAttention, expand_for_group
from fairbeam.network.cache import BeamSlots, CrossAttentionCache, KeyValues, slot_steps
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.enums import Activation, PositionKind
from fairbeam.network.inference import native, ops
from fairbeam.network.inference.fused_stack import FusedStack, supports, supports_memory
from fairbeam.network.layer import Layer, SegmentLayer
from fairbeam.network.linear import Linear
from fairbeam.network.norm import LayerNorm, build_norm
from fairbeam.network.positions import PositionIds, RelativeBuckets, RelativePositions, Rotary, distances
from fairbeam.network.segment_memory import (
    Segment,
    SegmentAttention,
    SegmentDistances,
    SegmentMemory,
    SegmentRecurrence,
)
from fairbeam.network.stack_config import DropoutConfig, StackConfig


class Transform(nn.Module):
    """Prediction head transform: linear layer, activation and norm between the last layer and the output projection of
    a masked language model (Devlin et al., 2019)."""

    def __init__(self, config: StackConfig, activation: Activation) -> None:
        super().__init__()
        self.linear = Linear(config.dim, config.embedding_width, activation=activation)
        self.norm = build_norm(config, config.embedding_width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to (..., embedding_width), float32."""
        transformed: Tensor = self.norm(self.linear(x).float())
        return transformed


def _is_padding_mask(mask: Tensor | BeamSlots | None, x: Tensor) -> TypeGuard[Tensor | None]:
    """Return whether a mask is the same for every query of ``x``, (rows, 1, length), or None."""
    return mask is None or (isinstance(mask, Tensor) and mask.dim() == 3 and mask.shape[1:] == (1, x.size(1)))


class Stack(nn.Module):
    """Layers with an optional final norm, with LayerDrop in training."""

    def __init__(self, config: StackConfig, memory_dim: int | None, dropouts: DropoutConfig, masks: MaskSource) -> None:
        super().__init__()
        self.config = config
        distinct = config.layers if config.distinct_layers is None else config.distinct_layers
        recurrent = config.positions.kind is PositionKind.RELATIVE_SINUSOIDAL
        build_layer = SegmentLayer if recurrent else Layer
        self.layers = nn.ModuleList(build_layer(config, memory_dim, dropouts, masks) for _ in range(distinct))
        self.final_norm = build_norm(config) if config.final_norm else None
        self.dropout = Dropout(dropouts.features, masks)
        self.scale = config.dim**-0.5 if config.scale_features else None
        self.transform = None if config.transform is None else Transform(config, config.transform)
        kind = config.positions.kind
        self.relative = (
            RelativeBuckets(config.positions, config.heads) if kind is PositionKind.RELATIVE_BUCKETS else None
        )
        self.rotary = Rotary(config.positions, config.head_dim_resolved) if kind is PositionKind.ROTARY else None
        self._fused: FusedStack | None = None
        self.recurrence = SegmentRecurrence(config, Dropout(dropouts.residual, masks)) if recurrent else None
        if recurrent and config.positions.share_biases:
            first, *others = (layer.self_attention for layer in self.in_order())
            for attention in others:
                attention.content_bias, attention.position_bias = first.content_bias, first.position_bias

    def share_layers_(self, other: "Stack") -> None:
        """Use the modules of ``other``'s layers in this stack's layers; cross-attention stays this stack's own."""
        for own, theirs in zip(self.layers, other.layers, strict=True):
            for name, module in theirs.named_children():
                setattr(own, name, module)

    def in_order(self) -> list[Layer]:
        """Return the layers in the order of application; a layer whose weights are shared is repeated in a row."""
        layers: list[Layer] = list(self.layers)  # type: ignore[arg-type]
        repeats = self.config.layers // len(layers)
        return [layer for layer in layers for _ in range(repeats)]

    def forward(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        caches: list[KeyValues] | Segment | None = None,
        memory: CrossAttentionCache | None = None,
        position_ids: PositionIds | None = None,
    ) -> Tensor:
        """Run all layers.

        Args:
            x: (batch, queries, dim), embedded tokens.
            mask: added to self-attention scores, (batch * key heads, queries or 1, keys) or (queries, keys); or the
                slot table of the beams' histories.
            caches: each layer's self-attention cache, or the segment that ``x`` is of.
            memory: the encoded source.
            position_ids: position ids of queries and keys for relative positions. If None they are columns, or the
                decoding steps of beams and slots where there are caches.

        Returns:
            Features (batch, queries, dim), or of the width of ``transform``.
        """
        mask, relative = self.attention_inputs(x, mask, caches, position_ids)
        if self._fused is None or relative is not None or not native.can_run(x):
            x = self._layer_by_layer(x, mask, caches, memory, relative)
        elif isinstance(mask, BeamSlots) and supports_memory(memory):
            assert isinstance(caches, list)
            x = self._fused.step(x, caches, mask, memory)
        elif memory is None and not caches and _is_padding_mask(mask, x):
            x = self._fused.encode(x, mask)
        else:
            x = self._layer_by_layer(x, mask, caches, memory, relative)
        x = self.dropout(x if self.final_norm is None else self._normalised(x))
        x = x if self.scale is None else x * self.scale
        return x if self.transform is None else self.transform(x)

    def _normalised(self, x: Tensor) -> Tensor:
        norm: Any = self.final_norm
        if self._fused is None or not isinstance(norm, LayerNorm):
            normalised: Tensor = norm(x)
            return normalised
        return ops.add_norm(x, None, norm.weight, norm.bias, norm.epsilon)

    def fuse_(self) -> None:
        """Run all layers in one native call from now on, if they support it; call it after the weights are packed."""
        layers = self.in_order()
        self._fused = FusedStack(layers) if all(map(supports, layers)) else None

    @property
    def fused(self) -> FusedStack | None:
        """The fused layers, if the native library runs them in one call and only a norm follows; None otherwise."""
        plain = self.scale is None and self.transform is None and isinstance(self.final_norm, LayerNorm | None)
        return self._fused if plain else None

    def _layer_by_layer(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        caches: list[KeyValues] | Segment | None,
        memory: CrossAttentionCache | None,
        relative: RelativePositions | SegmentDistances | None,
    ) -> Tensor:
        for number, layer in enumerate(self.in_order()):
            if self.training and self.config.layer_drop and float(torch.rand(())) < self.config.layer_drop:
                continue
            x = layer(
                x,
                mask,
                caches[number] if caches else None,
                memory.layers[number] if memory else None,
                memory.mask if memory else None,
                relative,
            )
        return x

    def cache_memory(self, memory: SegmentMemory, spare: int) -> list[KeyValues]:
        """Return each layer's keys and values of the segment memory, with ``spare`` empty slots behind them."""
        assert self.recurrence is not None
        vectors = self.recurrence.vectors(self.config.positions.memory_length, memory.layers[0].device)
        caches = []
        for layer, states in zip(self.in_order(), memory.layers, strict=True):
            attention: SegmentAttention = layer.self_attention  # type: ignore[assignment]
            caches.append(attention.cache_memory(layer.self_attention_residual.block_input(states), vectors, spare))
        return caches

    def attention_inputs(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        caches: list[KeyValues] | Segment | None,
        position_ids: PositionIds | None = None,
    ) -> tuple[Tensor | BeamSlots | None, RelativePositions | SegmentDistances | None]:
        """Compute the self-attention inputs that all layers share; arguments as for ``forward``.

        Returns:
            The mask with relative position biases added, (batch * heads, queries, keys); and the rotation or distances
            that each layer applies, None where the mask says everything.
        """
        if isinstance(mask, BeamSlots):
            return mask, None
        if self.recurrence is not None:
            inputs: tuple[Tensor, SegmentDistances] = self.recurrence(x, mask, caches)
            return inputs
        assert not isinstance(caches, Segment)
        group = self.config.heads // self.config.num_kv_heads
        if group > 1 and mask is not None:
            mask = expand_for_group(mask, group)
        if not self.config.positions.kind.acts_in_attention:
            return mask, None
        position_ids = position_ids or _default_position_ids(x, caches)
        if self.rotary is not None:
            return mask, self.rotary(position_ids.queries)
        if self.relative is None:
            return mask, distances(position_ids.relative_positions(), len(x), x.size(1), self.config)
        first: SelfAttention = self.layers[0].self_attention  # type: ignore[assignment]
        bias = self.relative(position_ids.relative_positions()).to(first.attention_dtype)
        if mask is None or mask.dim() == 2:
            bias = bias if mask is None else bias + mask
            return bias.repeat(len(x), 1, 1), None
        return (mask.unflatten(0, (len(x), -1)) + bias).flatten(0, 1), None


def _default_position_ids(x: Tensor, caches: list[KeyValues] | None) -> PositionIds:
    """Return position ids from 0: the columns of ``x``, or, with caches, the decoding steps of beams and slots."""
    if caches is None:
        columns = torch.arange(x.size(1), device=x.device)
        return PositionIds(columns, columns)
    steps = slot_steps(caches[0].length + x.size(1), x.size(1), x.device)
    return PositionIds(steps[-1:], steps)
