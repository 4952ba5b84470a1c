"""Layers and the stacks built of them. One ``forward`` serves encoder and decoder, training and decoding:
in training the query dimension is the sequence, at a decoding step it is the beams."""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from fairbeam.network.attention import SelfAttention, for_group
from fairbeam.network.cache import BeamSlots, CrossAttentionCache, KeyValues, slot_steps
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.enums import Activation, PositionKind
from fairbeam.network.inference import native, ops
from fairbeam.network.inference.fused_stack import FusedStack, supports, supports_memory
from fairbeam.network.layer import Layer, SegmentLayer
from fairbeam.network.linear import Linear
from fairbeam.network.norm import LayerNorm, build_norm
from fairbeam.network.positions import PositionIds, Relation, RelativeBuckets, Rotary, distances
from fairbeam.network.segment_memory import Segment, SegmentAttention, SegmentMemory, SegmentRecurrence, Sight
from fairbeam.network.stack_config import DropoutConfig, StackConfig


class Transform(nn.Module):
    """A linear layer to the embeddings' width, an activation and a norm: what masked language models put between the
    last layer and the output projection (Devlin et al., 2019)."""

    def __init__(self, config: StackConfig, activation: Activation) -> None:
        super().__init__()
        self.linear = Linear(config.dim, config.embedding_width, activation=activation)
        self.norm = build_norm(config, config.embedding_width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., embedding_width), float32."""
        transformed: Tensor = self.norm(self.linear(x).float())
        return transformed


def _hides_tokens(mask: Tensor | BeamSlots | None, x: Tensor) -> TypeGuard[Tensor | None]:
    """Whether a mask does no more than hide some tokens of ``x`` from all of them alike."""
    return mask is None or (isinstance(mask, Tensor) and mask.dim() == 3 and mask.shape[1:] == (1, x.size(1)))


class Stack(nn.Module):
    """Layers with an optional final norm; layers may be dropped whole in training."""

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
        self.rotary = Rotary(config.positions, config.head_width) if kind is PositionKind.ROTARY else None
        self._fused: FusedStack | None = None
        self.recurrence = SegmentRecurrence(config, Dropout(dropouts.residual, masks)) if recurrent else None
        if recurrent and config.positions.share_biases:
            first, *others = (layer.self_attention for layer in self.in_order())
            for attention in others:
                attention.content_bias, attention.position_bias = first.content_bias, first.position_bias

    def share_(self, other: "Stack") -> None:
        """Take the layers of ``other`` for one's own, except for cross-attention."""
        for own, theirs in zip(self.layers, other.layers, strict=True):
            for name, module in theirs.named_children():
                setattr(own, name, module)

    def in_order(self) -> list[Layer]:
        """The layers as they are applied; where weights are shared, a layer comes several times in a row."""
        layers: list[Layer] = list(self.layers)  # type: ignore[arg-type]
        repeats = self.config.layers // len(layers)
        return [layer for layer in layers for _ in range(repeats)]

    def forward(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        caches: list[KeyValues] | Segment | None = None,
        memory: CrossAttentionCache | None = None,
        places: PositionIds | None = None,
    ) -> Tensor:
        """Run all layers on (batch, queries, dim).

        ``places`` say where queries and keys stand if position numbers differ between sentences; they are columns if
        None, or, with caches, the step of the beams and of the slots.
        """
        mask, relation = self.place(x, mask, caches, places)
        if self._fused is None or relation is not None or not native.can_run(x):
            x = self._layer_by_layer(x, mask, caches, memory, relation)
        elif isinstance(mask, BeamSlots) and supports_memory(memory):
            assert isinstance(caches, list)
            x = self._fused.step(x, caches, mask, memory)
        elif memory is None and not caches and _hides_tokens(mask, x):
            x = self._fused.encode(x, mask)
        else:
            x = self._layer_by_layer(x, mask, caches, memory, relation)
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
        """Run all layers in one native call from now on, if the library supports them; call it after packing."""
        layers = self.in_order()
        self._fused = FusedStack(layers) if all(map(supports, layers)) else None

    @property
    def fused(self) -> FusedStack | None:
        """The layers in one native call, if they are fused and nothing but a norm follows; None otherwise."""
        plain = self.scale is None and self.transform is None and isinstance(self.final_norm, LayerNorm | None)
        return self._fused if plain else None

    def _layer_by_layer(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        caches: list[KeyValues] | Segment | None,
        memory: CrossAttentionCache | None,
        relation: Relation | Sight | None,
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
                relation,
            )
        return x

    def recall(self, memory: SegmentMemory, spare: int) -> list[KeyValues]:
        """Each layer's keys and values of what segments left, with room for ``spare`` more."""
        assert self.recurrence is not None
        vectors = self.recurrence.vectors(self.config.positions.memory_length, memory.layers[0].device)
        caches = []
        for layer, states in zip(self.in_order(), memory.layers, strict=True):
            attention: SegmentAttention = layer.self_attention  # type: ignore[assignment]
            caches.append(attention.recall(layer.self_attention_residual.enter(states), vectors, spare))
        return caches

    def place(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        caches: list[KeyValues] | Segment | None,
        places: PositionIds | None = None,
    ) -> tuple[Tensor | BeamSlots | None, Relation | Sight | None]:
        """What tells self-attention where tokens stand, once for all layers: the mask with the biases of distances
        added, (batch * heads, queries, keys), and the rotation of queries and new keys, or the distances between."""
        if isinstance(mask, BeamSlots):
            return mask, None
        if self.recurrence is not None:
            seen: tuple[Tensor, Sight] = self.recurrence(x, mask, caches)
            return seen
        assert not isinstance(caches, Segment)
        group = self.config.heads // self.config.kept_heads
        if group > 1 and mask is not None:
            mask = for_group(mask, group)
        if not self.config.positions.kind.acts_in_attention:
            return mask, None
        places = places or _columns(x, caches)
        if self.rotary is not None:
            return mask, self.rotary(places.queries)
        if self.relative is None:
            return mask, distances(places.ahead(), len(x), x.size(1), self.config)
        first: SelfAttention = self.layers[0].self_attention  # type: ignore[assignment]
        bias = self.relative(places.ahead()).to(first.attention_dtype)
        if mask is None or mask.dim() == 2:
            bias = bias if mask is None else bias + mask
            return bias.repeat(len(x), 1, 1), None
        return (mask.unflatten(0, (len(x), -1)) + bias).flatten(0, 1), None


def _columns(x: Tensor, caches: list[KeyValues] | None) -> PositionIds:
    """Position numbers of queries and keys, from 0: columns, or, with a cache, the step of the beams and slots."""
    if caches is None:
        columns = torch.arange(x.size(1), device=x.device)
        return PositionIds(columns, columns)
    steps = slot_steps(caches[0].length + x.size(1), x.size(1), x.device)
    return PositionIds(steps[-1:], steps)
