"""Multi-head scaled dot-product attention (Vaswani et al., 2017, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.cache import AbsorbedKeyValues, BeamSlots, CrossKeyValues, KeyValues
from fairbeam.network.dropout import Dropout
from fairbeam.network.inference import ops
from fairbeam.network.linear import Linear
from fairbeam.network.positions import Distances, DistanceVectors, RelativePositions, Rotation
from fairbeam.network.stack_config import StackConfig


def split_heads(x: Tensor, heads: int, parts: int = 1) -> Tensor:
    """View (batch, length, parts * heads * head_dim) as (parts, batch, heads, length, head_dim)."""
    return x.view(*x.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4)


def contiguous_heads(heads: Tensor, dtype: torch.dtype) -> Tensor:
    """Copy (parts, batch, heads, length, head_dim) to (parts, batch * heads, length, head_dim), contiguous."""
    copy = torch.empty(heads.shape, dtype=dtype, device=heads.device)
    return copy.copy_(heads).flatten(1, 2)  # layout and dtype in one pass


def merge_heads(x: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """Copy (batch * heads, length, head_dim) to (batch, length, heads * head_dim) in ``dtype``."""
    merged = x.view(-1, heads, *x.shape[1:]).transpose(1, 2)
    return torch.empty(merged.shape, dtype=dtype, device=x.device).copy_(merged).flatten(2)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, *, scale: float, dropout: Dropout
) -> Tensor:
    """Compute scaled dot-product attention; ``rows`` below are the heads of all sentences.

    Args:
        query: (rows, queries, head_dim).
        keys: (rows, keys, head_dim).
        values: (rows, keys, head_dim).
        mask: added to the scores: (rows, queries or 1, keys), or (queries, keys) shared by all rows; or None.
        scale: factor of the scores; ``head_dim ** -0.5`` in most models.
        dropout: applied to the attention probabilities.

    Returns:
        (rows, queries, head_dim)
    """
    if query.is_cuda:
        p = dropout.p if dropout.training else 0.0
        return F.scaled_dot_product_attention(query, keys, values, mask, dropout_p=p, scale=scale)
    # On a CPU the fused kernel is slower than three plain ones, in training by a factor of two:
    # docs/performance.md.
    return torch.bmm(dropout(attention_weights(query, keys, mask, scale=scale)), values)


def attention_weights(query: Tensor, keys: Tensor, mask: Tensor | None, *, scale: float) -> Tensor:
    """Return attention probabilities, (rows, queries, keys); arguments as for ``attend``."""
    if mask is None:
        scores = torch.baddbmm(query.new_empty(()), query, keys.mT, beta=0.0, alpha=scale)
    else:
        scores = torch.baddbmm(mask, query, keys.mT, alpha=scale)
    return F.softmax(scores, dim=-1)


def attention_scale_of(config: StackConfig) -> float:
    """Return the factor of the attention scores."""
    return config.head_dim_resolved**-0.5 if config.attention_scale is None else config.attention_scale


def expand_for_group(mask: Tensor, group: int) -> Tensor:
    """Repeat a mask (..., queries, keys) for the query heads that share a key head: (..., group * queries, keys).

    A mask (rows, 1, keys) broadcasts over queries and is returned as it is.
    """
    return mask if mask.dim() == 3 and mask.size(1) == 1 else mask.repeat(*[1] * (mask.dim() - 2), group, 1)


class SelfAttention(nn.Module):
    """Multi-head self-attention over a sequence, or of the beams at one decoding step over their cached history."""

    def __init__(self, config: StackConfig, dropout: Dropout) -> None:
        super().__init__()
        self.heads, self.num_kv_heads = config.heads, config.num_kv_heads
        self.group = config.heads // config.num_kv_heads
        self.scale = attention_scale_of(config)
        width = config.head_dim_resolved
        self.qkv = Linear(config.dim, (self.heads + 2 * self.num_kv_heads) * width, bias=config.has_qkv_bias)
        self.output = Linear(self.heads * width, config.dim, bias=config.has_output_bias)
        has_vectors = config.positions.kind.has_distance_vectors
        self.distances = DistanceVectors(config.positions, width) if has_vectors else None
        self.dropout = dropout
        self.attention_dtype = torch.float32
        nn.init.xavier_uniform_(self.qkv.weight, gain=1.0)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        cache: KeyValues | None = None,
        relative: RelativePositions | None = None,
    ) -> Tensor:
        """Attend from every position of ``x`` to ``x`` and the cache.

        Args:
            x: (batch, queries, dim).
            mask: as in ``attend``, with one row per key head, expanded by ``expand_for_group``; or the slot table of
                the beams' histories.
            cache: keys and values of earlier tokens; those of ``x`` are appended.
            relative: relative positions of the scheme, if self-attention needs them.

        Returns:
            (batch, queries, dim)
        """
        if isinstance(mask, BeamSlots):
            assert cache is not None
            context = ops.attend_to_slots(self.qkv(x), cache, mask, heads=self.heads, scale=self.scale)
            return self.output(context)
        query, keys, values = self._project(x, cache, relative if isinstance(relative, Rotation) else None)
        bias: Tensor | None = mask
        if self.distances is not None:
            assert isinstance(relative, Distances)
            bias = self.distances(query, keys, relative, self.scale)
            bias = bias if mask is None else bias + mask
        if self.group == 1:
            context = attend(query, keys, values, bias, scale=self.scale, dropout=self.dropout)
        else:  # the queries of a group's heads become consecutive queries of their shared key head
            grouped = query.view(len(keys), -1, query.size(2))
            context = attend(grouped, keys, values, bias, scale=self.scale, dropout=self.dropout).view_as(query)
        return self.output(merge_heads(context, self.heads, self.output.compute_dtype))

    def _project(self, x: Tensor, cache: KeyValues | None, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (batch * heads, queries, head_dim), and keys and values, each (batch * key heads, keys,
        head_dim), the cached ones included."""
        if self.group == 1 and rotation is None:
            projected = split_heads(self.qkv(x), self.heads, parts=3)
            if cache is None:
                query, keys, values = contiguous_heads(projected, self.attention_dtype)
                return query, keys, values
            query = contiguous_heads(projected[:1], self.attention_dtype)[0]
            keys, values = cache.append(projected[1:])
            return query, keys, values
        asking, kept = self._split_and_rotate(self.qkv(x), rotation)
        query = contiguous_heads(asking.unsqueeze(0), self.attention_dtype)[0]
        keys, values = contiguous_heads(kept, self.attention_dtype) if cache is None else cache.append(kept)
        return query, keys, values

    def _split_and_rotate(self, projected: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        """Return queries (batch, heads, length, head_dim), and keys and values (2, batch, key heads, length,
        head_dim); queries and keys are rotated where there is a rotation."""
        every = split_heads(projected, self.heads + 2 * self.num_kv_heads)[0]
        query, keys, values = every.split([self.heads, self.num_kv_heads, self.num_kv_heads], dim=1)
        if rotation is not None:
            query, keys = rotation.rotate(query), rotation.rotate(keys)
        return query, torch.stack([keys, values.to(keys.dtype)])


class CrossAttention(nn.Module):
    """Multi-head attention of the decoder over the encoded source, whose keys and values are projected only once."""

    def __init__(self, config: StackConfig, memory_dim: int, dropout: Dropout) -> None:
        super().__init__()
        self.heads = config.heads
        self.scale = attention_scale_of(config)
        inner = config.heads * config.head_dim_resolved
        self.query = Linear(config.dim, inner, bias=config.has_qkv_bias)
        self.key_value = Linear(memory_dim, 2 * inner, bias=config.has_qkv_bias)
        self.output = Linear(inner, config.dim, bias=config.has_output_bias)
        self.dropout = dropout
        self.attention_dtype = torch.float32
        self._exact: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def project(self, memory: Tensor) -> CrossKeyValues:
        """Project encoder states (batch, source, memory_dim) to keys and values."""
        heads = split_heads(self.key_value(memory), self.heads, parts=2)
        return CrossKeyValues(*contiguous_heads(heads, self.attention_dtype))

    @torch.no_grad()
    def keep_exact_(self) -> None:
        """Keep the float32 weights that ``absorb`` needs; call it before the linear layers are packed."""
        dim = self.output.outputs
        query_bias, output_bias = (
            linear.weight.new_zeros(linear.outputs) if linear.bias is None else linear.bias.detach()
            for linear in (self.query, self.output)
        )
        self._exact = (
            self.query.weight.detach().view(self.heads, -1, dim) * self.scale,
            query_bias.view(self.heads, -1, 1) * self.scale,
            self.output.weight.detach().view(dim, self.heads, -1).permute(1, 2, 0),
            output_bias,
        )

    @property
    def can_absorb(self) -> bool:
        """Whether ``absorb`` may be called: ``keep_exact_`` has kept its weights."""
        return self._exact is not None

    def absorb(self, memory: CrossKeyValues, mask: Tensor | None) -> AbsorbedKeyValues:
        """Multiply the query and output projections into keys and values.

        Attention then takes two matrix products instead of four. This pays where a batch's ``heads * source`` is at
        most the model's width, as for a single sentence, where call overhead dominates.

        Args:
            memory: keys and values of the whole batch.
            mask: padding mask, (batch * heads, 1, source).
        """
        assert self._exact is not None
        query, query_bias, output, _ = self._exact
        keys, values = (rows.unflatten(0, (-1, self.heads)) for rows in memory[:2])  # (batch, heads, source, head_dim)
        bias = (keys @ query_bias).view(len(keys), 1, -1)
        if mask is not None:
            bias = bias + mask.view_as(bias)
        return AbsorbedKeyValues((keys @ query).flatten(1, 2).mT.contiguous(), bias, (values @ output).flatten(1, 2))

    def forward(self, x: Tensor, memory: CrossKeyValues | AbsorbedKeyValues, mask: Tensor | None) -> Tensor:
        """Attend from ``x`` to the encoded source.

        Args:
            x: (batch, queries, dim).
            memory: keys and values that ``project`` or ``absorb`` returned.
            mask: padding mask (rows * heads, 1, source); ``AbsorbedKeyValues`` already contain it.

        Returns:
            (batch, queries, dim)
        """
        if isinstance(memory, AbsorbedKeyValues):
            assert self._exact is not None
            scores = torch.baddbmm(memory.bias, x, memory.keys)
            weights = scores.view(*x.shape[:2], self.heads, -1).softmax(-1).view_as(scores)
            return torch.baddbmm(self._exact[-1], weights, memory.values)
        if memory.rows is not None:
            context = ops.attend_to_source(self.query(x), memory, mask, heads=self.heads, scale=self.scale)
            return self.output(context)
        context = attend(self._queries(x), memory.keys, memory.values, mask, scale=self.scale, dropout=self.dropout)
        return self.output(merge_heads(context, self.heads, self.output.compute_dtype))

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Return attention probabilities averaged over heads, (batch, queries, source); ``x`` as for ``forward``."""
        weights = attention_weights(self._queries(x), keys, mask, scale=self.scale)
        return weights.unflatten(0, (-1, self.heads)).mean(1)

    def _queries(self, x: Tensor) -> Tensor:
        return contiguous_heads(split_heads(self.query(x), self.heads), self.attention_dtype)[0]
