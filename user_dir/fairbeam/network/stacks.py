"""Layers and the stacks built of them. One ``forward`` serves encoder and decoder, training and decoding:
in training the query dimension is the sequence, at a decoding step it is the beams."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.attention import CrossAttention, SelfAttention
from fairbeam.network.cache import Folded, KeyValues, Memory, Projected
from fairbeam.network.config import DropoutConfig, NormPlacement, StackConfig
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.linear import Linear
from fairbeam.network.positions import build_positions


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al., 2016), in float32 whatever the blocks compute in."""

    def __init__(self, dim: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


class Residual(nn.Module):
    """The norm and the residual sum around a block, on whichever side the norm stands.

    The residual stream is float32 in every precision: bfloat16 has too few digits to sum many blocks in.
    """

    def __init__(self, dim: int, placement: NormPlacement, epsilon: float, dropout: Dropout) -> None:
        super().__init__()
        self.norm = LayerNorm(dim, epsilon)
        self.dropout = dropout
        self.before = placement is NormPlacement.PRE

    def enter(self, x: Tensor) -> Tensor:
        """What the block sees of the residual stream."""
        return self.norm(x) if self.before else x

    def leave(self, x: Tensor, block: Tensor) -> Tensor:
        """The residual stream after the block's output is added."""
        x = x + self.dropout(block)
        return x if self.before else self.norm(x)


class Layer(nn.Module):
    """Self-attention, cross-attention where there is a memory, and a feed-forward block."""

    def __init__(self, config: StackConfig, memory_dim: int | None, dropouts: DropoutConfig, masks: MaskSource) -> None:
        super().__init__()
        dim = config.dim

        def residual() -> Residual:
            return Residual(dim, config.norm_placement, config.norm_epsilon, Dropout(dropouts.residual, masks))

        self.self_attention = SelfAttention(dim, config.heads, Dropout(dropouts.attention, masks))
        self.self_attention_residual = residual()
        if memory_dim is not None:
            self.cross_attention = CrossAttention(dim, memory_dim, config.heads, Dropout(dropouts.attention, masks))
            self.cross_attention_residual = residual()
        self.inner = Linear(dim, config.ffn_dim, activation=config.activation)
        self.outer = Linear(config.ffn_dim, dim)
        self.activation_dropout = Dropout(dropouts.activation, masks)
        self.feed_forward_residual = residual()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: KeyValues | None = None,
        memory: Projected | Folded | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        """(batch, queries, dim) to the same; masks are added to attention scores."""
        x = self.attend_to_self(x, mask, cache)
        if memory is not None:
            around = self.cross_attention_residual
            x = around.leave(x, self.cross_attention(around.enter(x), memory, memory_mask))
        around = self.feed_forward_residual
        return around.leave(x, self.outer(self.activation_dropout(self.inner(around.enter(x)))))

    def attend_to_self(self, x: Tensor, mask: Tensor | None, cache: KeyValues | None) -> Tensor:
        """The first block, (batch, queries, dim) to the same."""
        around = self.self_attention_residual
        return around.leave(x, self.self_attention(around.enter(x), mask, cache))

    def alignment(
        self,
        x: Tensor,
        mask: Tensor | None,
        cache: KeyValues | None,
        keys: Tensor,
        memory_mask: Tensor | None,
    ) -> Tensor:
        """Where each query looks in the memory, (batch, queries, source), averaged over heads."""
        x = self.attend_to_self(x, mask, cache)
        return self.cross_attention.weights(self.cross_attention_residual.enter(x), keys, memory_mask)


class Embedding(nn.Module):
    """Token vectors plus positions and types, scaled, normed and projected as the stack's config says."""

    def __init__(self, config: StackConfig, vocabulary: int, pad: int, dropout: Dropout) -> None:
        """``pad`` is below 0 where the vocabulary has no symbol for padding."""
        super().__init__()
        width = config.embedding_width
        self.weight = nn.Parameter(torch.empty(vocabulary, width))
        nn.init.normal_(self.weight, std=width**-0.5)
        self.pad = pad if pad >= 0 else None
        if self.pad is not None:
            nn.init.zeros_(self.weight[self.pad])
        self.scale = math.sqrt(config.dim) if config.scale_embedding else 1.0
        self.positions = build_positions(config.positions, width)
        self.types = nn.Parameter(torch.empty(config.token_types, width)) if config.token_types else None
        if self.types is not None:
            nn.init.normal_(self.types, std=width**-0.5)
        self.norm = LayerNorm(width, config.norm_epsilon) if config.embedding_norm else None
        self.dropout = dropout
        self.projection = None if config.embedding_dim is None else Linear(width, config.dim)

    def forward(self, tokens: Tensor, numbers: Tensor, types: Tensor | None = None) -> Tensor:
        """Token ids (batch, queries) and broadcastable position numbers to (batch, queries, dim).

        ``types`` are (batch, queries) kinds of tokens; all are of the first kind if None.
        """
        x = F.embedding(tokens, self.weight, self.pad) * self.scale
        if self.types is not None:
            x = x + (self.types[0] if types is None else F.embedding(types, self.types))
        if self.positions is not None:
            x = x + self.positions(numbers)
        if self.norm is not None:
            x = self.norm(x)
        x = self.dropout(x)
        return x if self.projection is None else self.projection(x).float()


class Stack(nn.Module):
    """Layers with an optional final norm; layers may be dropped whole in training."""

    def __init__(self, config: StackConfig, memory_dim: int | None, dropouts: DropoutConfig, masks: MaskSource) -> None:
        super().__init__()
        self.config = config
        distinct = config.layers if config.distinct_layers is None else config.distinct_layers
        self.layers = nn.ModuleList(Layer(config, memory_dim, dropouts, masks) for _ in range(distinct))
        self.final_norm = LayerNorm(config.dim, config.norm_epsilon) if config.final_norm else None

    def in_order(self) -> list[Layer]:
        """The layers as they are applied; where weights are shared, a layer comes several times in a row."""
        layers: list[Layer] = list(self.layers)  # type: ignore[arg-type]
        repeats = self.config.layers // len(layers)
        return [layer for layer in layers for _ in range(repeats)]

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        caches: list[KeyValues] | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Run all layers on (batch, queries, dim)."""
        for number, layer in enumerate(self.in_order()):
            if self.training and self.config.layer_drop and float(torch.rand(())) < self.config.layer_drop:
                continue
            x = layer(
                x,
                mask,
                caches[number] if caches else None,
                memory.layers[number] if memory else None,
                memory.mask if memory else None,
            )
        return x if self.final_norm is None else self.final_norm(x)
