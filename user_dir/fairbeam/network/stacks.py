"""Layers and the stacks built of them. One ``forward`` serves encoder and decoder, training and decoding:
in training the query dimension is the sequence, at a decoding step it is the beams."""

import math
from typing import Any, ClassVar, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.attention import CrossAttention, SelfAttention, for_group
from fairbeam.network.cache import (
    AbsorbedKeyValues,
    BeamSlots,
    CrossAttentionCache,
    CrossKeyValues,
    KeyValues,
    slot_steps,
)
from fairbeam.network.config import Activation, DropoutConfig, NormKind, NormPlacement, PositionKind, StackConfig
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.inference import native, ops
from fairbeam.network.inference.fused_stack import FusedStack, compilable, readable
from fairbeam.network.linear import Linear
from fairbeam.network.positions import PositionIds, Relation, RelativeBuckets, Rotary, build_positions, distances
from fairbeam.network.segment_memory import (
    PastStates,
    Segment,
    SegmentAttention,
    SegmentMemory,
    SegmentRecurrence,
    Sight,
)


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al., 2016), in float32 whatever the blocks compute in."""

    def __init__(self, dim: int, epsilon: float, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


class RMSNorm(nn.Module):
    """Division by the root of the mean square (Zhang and Sennrich, 2019), in float32 like ``LayerNorm``."""

    def __init__(self, dim: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


def build_norm(config: StackConfig, width: int | None = None) -> nn.Module:
    """A norm of the stack's kind, and of its width if no other is given."""
    width = width or config.dim
    if config.norm is NormKind.RMS:
        return RMSNorm(width, config.norm_epsilon)
    return LayerNorm(width, config.norm_epsilon, bias=config.norm_bias)


class Residual(nn.Module):
    """The norm and the residual sum around a block, on whichever side the norm stands.

    The residual stream is float32 in every precision: bfloat16 has too few digits to sum many blocks in.
    """

    def __init__(self, config: StackConfig, dropout: Dropout) -> None:
        super().__init__()
        self.norm = build_norm(config)
        self.dropout = dropout
        self.before = config.norm_placement is NormPlacement.PRE

    @property
    def normalises_layers(self) -> bool:
        """Whether the norm is ``LayerNorm``."""
        return isinstance(self.norm, LayerNorm)

    def enter(self, x: Tensor) -> Tensor:
        """What the block sees of the residual stream."""
        return self.norm(x) if self.before else x

    def leave(self, x: Tensor, block: Tensor) -> Tensor:
        """The residual stream after the block's output is added."""
        if not self.before and self.normalises_layers and not self.training and native.serves(x, block):
            norm: Any = self.norm
            return ops.add_norm(x, block, norm.weight, norm.bias, norm.epsilon)
        x = x + self.dropout(block)
        return x if self.before else self.norm(x)


class Layer(nn.Module):
    """Self-attention, cross-attention where there is a memory, and a feed-forward block."""

    attention: ClassVar[type[SelfAttention]] = SelfAttention

    def __init__(self, config: StackConfig, memory_dim: int | None, dropouts: DropoutConfig, masks: MaskSource) -> None:
        super().__init__()
        dim = config.dim

        def residual() -> Residual:
            return Residual(config, Dropout(dropouts.residual, masks))

        self.self_attention = self.attention(config, Dropout(dropouts.attention, masks))
        self.self_attention_residual = residual()
        if memory_dim is not None:
            self.cross_attention = CrossAttention(config, memory_dim, Dropout(dropouts.attention, masks))
            self.cross_attention_residual = residual()
        activated = Linear(dim, config.ffn_dim, bias=config.bias, activation=config.activation)
        self.is_gated = config.gated
        if config.gated:
            self.gate, self.gated = activated, Linear(dim, config.ffn_dim, bias=config.bias)
        else:
            self.inner = activated
        self.outer = Linear(config.ffn_dim, dim, bias=config.bias)
        self.activation_dropout = Dropout(dropouts.activation, masks)
        self.feed_forward_residual = residual()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        cache: KeyValues | PastStates | None = None,
        memory: CrossKeyValues | AbsorbedKeyValues | None = None,
        memory_mask: Tensor | None = None,
        relation: Relation | Sight | None = None,
    ) -> Tensor:
        """(batch, queries, dim) to the same; masks are added to attention scores."""
        x = self.attend_to_self(x, mask, cache, relation)
        if memory is not None:
            around = self.cross_attention_residual
            x = around.leave(x, self.cross_attention(around.enter(x), memory, memory_mask))
        around = self.feed_forward_residual
        return around.leave(x, self.outer(self.activation_dropout(self._inner(around.enter(x)))))

    def attend_to_self(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        cache: KeyValues | PastStates | None,
        relation: Relation | Sight | None = None,
    ) -> Tensor:
        """The first block, (batch, queries, dim) to the same."""
        around = self.self_attention_residual
        return around.leave(x, self.self_attention(around.enter(x), mask, cache, relation))

    def alignment(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        cache: KeyValues | None,
        keys: Tensor,
        memory_mask: Tensor | None,
        relation: Relation | Sight | None = None,
    ) -> Tensor:
        """Where each query looks in the memory, (batch, queries, source), averaged over heads."""
        x = self.attend_to_self(x, mask, cache, relation)
        return self.cross_attention.weights(self.cross_attention_residual.enter(x), keys, memory_mask)

    def _inner(self, x: Tensor) -> Tensor:
        inner: Tensor = self.gate(x) * self.gated(x) if self.is_gated else self.inner(x)
        return inner


class SegmentLayer(Layer):
    """A layer whose self-attention sees what the layer read before, too."""

    attention = SegmentAttention

    def attend_to_self(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        cache: KeyValues | PastStates | None,
        relation: Relation | Sight | None = None,
    ) -> Tensor:
        around = self.self_attention_residual
        seen = cache.extend(x) if isinstance(cache, PastStates) else x
        return around.leave(x, self.self_attention(around.enter(seen), mask, cache, relation))


class Embedding(nn.Module):
    """Token vectors plus positions and types, scaled, normed and projected as the stack's config says."""

    def __init__(self, config: StackConfig, vocabulary: int, pad: int, dropout: Dropout) -> None:
        """``pad`` is below 0 where the vocabulary has no symbol for padding."""
        super().__init__()
        width = config.embedding_width
        self.weight = nn.Parameter(torch.empty(vocabulary, width))
        nn.init.normal_(self.weight, std=width**-0.5)
        if pad >= 0:
            nn.init.zeros_(self.weight[pad])
        self.pad = pad if pad >= 0 and not config.train_padding else None
        self.has_padding = pad >= 0
        self.scale = math.sqrt(config.dim) if config.scale_embedding else 1.0
        self.positions = build_positions(config.positions, width)
        self.types = nn.Parameter(torch.empty(config.token_types, width)) if config.token_types else None
        if self.types is not None:
            nn.init.normal_(self.types, std=width**-0.5)
        self.norm = build_norm(config, width) if config.embedding_norm else None
        self.dropout = dropout
        self.projection = None if config.embedding_dim is None else Linear(width, config.dim)

    def forward(self, tokens: Tensor, numbers: Tensor, types: Tensor | None = None) -> Tensor:
        """Token ids (batch, queries) and broadcastable position numbers to (batch, queries, dim).

        ``types`` are (batch, queries) kinds of tokens; all are of the first kind if None.
        """
        if not self.has_padding:  # what fills the batch then has no vector, and nothing sees which it gets
            tokens = tokens.clamp_min(0)
        x = F.embedding(tokens, self.weight, self.pad) * self.scale
        if self.types is not None:
            x = x + (self.types[0] if types is None else F.embedding(types, self.types))
        if self.positions is not None:
            x = x + self.positions(numbers)
        if self.norm is not None:
            x = self.norm(x)
        x = self.dropout(x)
        return x if self.projection is None else self.projection(x).float()

    @property
    def plain_table(self) -> Tensor | None:
        """(numbers, dim) position vectors, where what is embedded is a token's vector times ``scale`` plus one of them,
        and nothing else."""
        plain = self.types is None and self.norm is None and self.projection is None and self.has_padding
        return getattr(self.positions, "table", None) if plain else None

    def step(self, tokens: Tensor, numbers: Tensor) -> Tensor:
        """The same in decoding, with numbers (1,), (batch, 1) or (batch, queries)."""
        table = self.plain_table
        if table is None or self.training or not native.serves(self.weight, table):
            embedded: Tensor = self(tokens, numbers)
            return embedded
        return ops.embed(tokens, self.weight, numbers, table, self.scale)


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
        self._compiled: FusedStack | None = None
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
        if self._compiled is None or relation is not None or not native.serves(x):
            x = self._layer_by_layer(x, mask, caches, memory, relation)
        elif isinstance(mask, BeamSlots) and memory is not None and readable(memory):
            assert isinstance(caches, list)
            x = self._compiled.step(x, caches, mask, memory)
        elif memory is None and not caches and _hides_tokens(mask, x):
            x = self._compiled.encode(x, mask)
        else:
            x = self._layer_by_layer(x, mask, caches, memory, relation)
        x = self.dropout(x if self.final_norm is None else self._normalised(x))
        x = x if self.scale is None else x * self.scale
        return x if self.transform is None else self.transform(x)

    def _normalised(self, x: Tensor) -> Tensor:
        norm: Any = self.final_norm
        if self._compiled is None or not isinstance(norm, LayerNorm) or not native.serves(x):
            normalised: Tensor = norm(x)
            return normalised
        return ops.add_norm(x, None, norm.weight, norm.bias, norm.epsilon)

    def compile_(self) -> None:
        """Run all layers in one call from now on, where that can be; they are packed for inference."""
        layers = self.in_order()
        self._compiled = FusedStack(layers) if all(map(compilable, layers)) else None

    @property
    def compiled(self) -> FusedStack | None:
        """All layers as they run in one call, with nothing but a norm behind them; None where they do not."""
        plain = self.scale is None and self.transform is None and isinstance(self.final_norm, LayerNorm | None)
        return self._compiled if plain else None

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
