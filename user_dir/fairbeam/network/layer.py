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
from fairbeam.network.positions import RelativePositions
from fairbeam.network.segment_memory import PastStates, SegmentAttention, SegmentDistances
from fairbeam.network.stack_config import DropoutConfig, StackConfig


class Residual(nn.Module):
    """Residual connection around a block with its norm, before the block (pre-norm) or after the sum (post-norm).

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

    def block_input(self, x: Tensor) -> Tensor:
        """Return the input of the block, (batch, length, dim): the residual stream, normalized in pre-norm."""
        return self.norm(x) if self.before else x

    def add(self, x: Tensor, block: Tensor) -> Tensor:
        """Return the sum of residual stream and block output, each (batch, length, dim); normalized in post-norm."""
        if not self.before and self.normalises_layers and not self.training:
            norm: Any = self.norm
            return ops.add_norm(x, block, norm.weight, norm.bias, norm.epsilon)
        x = x + self.dropout(block)
        return x if self.before else self.norm(x)


class Layer(nn.Module):
    """One Transformer layer: self-attention, cross-attention if ``memory_dim`` is given, and feed-forward block.

    The weights are named as in stored models: ``inner`` and ``outer`` are fairseq's fc1 and fc2. In gated layers
    ``gate``, ``gated`` and ``outer`` are Llama's gate_proj, up_proj and down_proj.
    """

    attention: ClassVar[type[SelfAttention]] = SelfAttention
    """Class of the self-attention."""

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
        relative: RelativePositions | SegmentDistances | None = None,
    ) -> Tensor:
        """Run the layer.

        Args:
            x: (batch, queries, dim).
            mask: added to self-attention scores, or the slot table of the beams' histories; see ``SelfAttention``.
            cache: self-attention's keys and values of earlier tokens.
            memory: cross-attention's keys and values.
            memory_mask: padding mask of the source, added to cross-attention scores.
            relative: relative positions for self-attention.

        Returns:
            (batch, queries, dim)
        """
        x = self.self_attention_block(x, mask, cache, relative)
        if memory is not None:
            around = self.cross_attention_residual
            x = around.add(x, self.cross_attention(around.block_input(x), memory, memory_mask))
        around = self.feed_forward_residual
        return around.add(x, self.outer(self.activation_dropout(self._up(around.block_input(x)))))

    def self_attention_block(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        cache: KeyValues | PastStates | None,
        relative: RelativePositions | SegmentDistances | None = None,
    ) -> Tensor:
        """Run self-attention with its residual connection; arguments and result as for ``forward``."""
        around = self.self_attention_residual
        return around.add(x, self.self_attention(around.block_input(x), mask, cache, relative))

    def alignment(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        cache: KeyValues | None,
        keys: Tensor,
        memory_mask: Tensor | None,
        relative: RelativePositions | SegmentDistances | None = None,
    ) -> Tensor:
        """Return cross-attention probabilities averaged over heads, (batch, queries, source).

        ``keys`` are cross-attention's, (batch * heads, source, head_dim); the others are as for ``forward``.
        """
        x = self.self_attention_block(x, mask, cache, relative)
        return self.cross_attention.weights(self.cross_attention_residual.block_input(x), keys, memory_mask)

    def _up(self, x: Tensor) -> Tensor:
        """Project (batch, queries, dim) to the activated hidden units of the feed-forward block, (…, ffn_dim)."""
        up: Tensor = self.gate(x) * self.gated(x) if self.is_gated else self.inner(x)
        return up


class SegmentLayer(Layer):
    """Transformer-XL layer: self-attention also sees the layer's inputs of earlier segments (Dai et al., 2019)."""

    attention = SegmentAttention

    def self_attention_block(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        cache: KeyValues | PastStates | None,
        relative: RelativePositions | SegmentDistances | None = None,
    ) -> Tensor:
        around = self.self_attention_residual
        states = cache.extend(x) if isinstance(cache, PastStates) else x
        return around.add(x, self.self_attention(around.block_input(states), mask, cache, relative))
