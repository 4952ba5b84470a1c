"""A Transformer layer: self-attention, cross-attention and feed-forward blocks, each in a residual connection."""

from typing import Any, ClassVar

from torch import Tensor, nn

from fairbeam.network.attention import CrossAttention, SelfAttention
from fairbeam.network.cache import AbsorbedKeyValues, BeamSlots, CrossKeyValues, KeyValues
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.enums import NormPlacement
from fairbeam.network.inference import ops
from fairbeam.network.linear import Linear
from fairbeam.network.norm import LayerNorm, build_norm
from fairbeam.network.positions import Relation
from fairbeam.network.segment_memory import PastStates, SegmentAttention, Sight
from fairbeam.network.stack_config import DropoutConfig, StackConfig


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
        if not self.before and self.normalises_layers and not self.training:
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
