"""Multi-head scaled dot-product attention (Vaswani et al., 2017, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.cache import AbsorbedKeyValues, BeamSlots, CrossKeyValues, KeyValues
from fairbeam.network.dropout import Dropout
from fairbeam.network.inference import ops
from fairbeam.network.linear import Linear
from fairbeam.network.positions import Distances, DistanceVectors, Relation, Rotation
from fairbeam.network.stack_config import StackConfig


def heads_apart(x: Tensor, heads: int, parts: int = 1) -> Tensor:
    """(batch, length, parts * heads * head_dim) seen as (parts, batch, heads, length, head_dim)."""
    return x.view(*x.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4)


def packed(apart: Tensor, dtype: torch.dtype) -> Tensor:
    """(parts, batch, heads, length, head_dim) laid out as (parts, batch * heads, length, head_dim) in ``dtype``."""
    layout = torch.empty(apart.shape, dtype=dtype, device=apart.device)
    return layout.copy_(apart).flatten(1, 2)  # layout and dtype in one pass


def heads_together(x: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """(batch * heads, length, head_dim) to (batch, length, heads * head_dim) in ``dtype``."""
    together = x.view(-1, heads, *x.shape[1:]).transpose(1, 2)
    return torch.empty(together.shape, dtype=dtype, device=x.device).copy_(together).flatten(2)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, *, scale: float, dropout: Dropout
) -> Tensor:
    """Weighted means of ``values``; ``rows`` are the heads of all sentences.

    Args:
        query: (rows, queries, head_dim).
        keys: (rows, keys, head_dim); ``values`` alike.
        mask: added to the scores: (rows, queries or 1, keys), or (queries, keys) for all alike.
        scale: multiplies the scores; ``head_dim ** -0.5`` in most models.

    Returns:
        (rows, queries, head_dim)
    """
    if query.is_cuda:
        p = dropout.p if dropout.training else 0.0
        return F.scaled_dot_product_attention(query, keys, values, mask, dropout_p=p, scale=scale)
    # On a CPU the fused kernel loses to three plain ones, in training by a factor of two:
    # docs/performance.md.
    return torch.bmm(dropout(attention_weights(query, keys, mask, scale=scale)), values)


def attention_weights(query: Tensor, keys: Tensor, mask: Tensor | None, *, scale: float) -> Tensor:
    """Softmax of the scaled scores, (rows, queries, keys); arguments as for ``attend``."""
    if mask is None:
        scores = torch.baddbmm(query.new_empty(()), query, keys.mT, beta=0.0, alpha=scale)
    else:
        scores = torch.baddbmm(mask, query, keys.mT, alpha=scale)
    return F.softmax(scores, dim=-1)


def scale_of(config: StackConfig) -> float:
    """What multiplies attention scores."""
    return config.head_width**-0.5 if config.attention_scale is None else config.attention_scale


def for_group(mask: Tensor, group: int) -> Tensor:
    """The mask of queries, written out for a group of heads: (..., queries or 1, keys)."""
    return mask if mask.dim() == 3 and mask.size(1) == 1 else mask.repeat(*[1] * (mask.dim() - 2), group, 1)


class SelfAttention(nn.Module):
    """Attention of a sequence (or of the beams at one step) over itself and its cached past."""

    def __init__(self, config: StackConfig, dropout: Dropout) -> None:
        super().__init__()
        self.heads, self.kept_heads = config.heads, config.kept_heads
        self.group = config.heads // config.kept_heads
        self.scale = scale_of(config)
        width = config.head_width
        self.qkv = Linear(config.dim, (self.heads + 2 * self.kept_heads) * width, bias=config.projects_with_bias)
        self.output = Linear(self.heads * width, config.dim, bias=config.gathers_with_bias)
        told_apart = config.positions.kind.has_distance_vectors
        self.distances = DistanceVectors(config.positions, width) if told_apart else None
        self.dropout = dropout
        self.attention_dtype = torch.float32
        nn.init.xavier_uniform_(self.qkv.weight, gain=1.0)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | BeamSlots | None,
        cache: KeyValues | None = None,
        relation: Relation | None = None,
    ) -> Tensor:
        """(batch, queries, dim) to the same; ``mask`` as in ``attend``, with rows for the heads of keys and values
        and written out for their groups (``for_group``), or the slots that each beam sees."""
        if isinstance(mask, BeamSlots):
            assert cache is not None
            context = ops.attend_to_slots(self.qkv(x), cache, mask, heads=self.heads, scale=self.scale)
            return self.output(context)
        seen: Tensor | None = mask
        rotation = relation if isinstance(relation, Rotation) else None
        if self.group == 1 and rotation is None:
            apart = heads_apart(self.qkv(x), self.heads, parts=3)
            if cache is None:
                query, keys, values = packed(apart, self.attention_dtype)
            else:
                query = packed(apart[:1], self.attention_dtype)[0]
                keys, values = cache.append(apart[1:])
        else:
            asking, kept = self._turned(self.qkv(x), rotation)
            query = packed(asking.unsqueeze(0), self.attention_dtype)[0]
            keys, values = packed(kept, self.attention_dtype) if cache is None else cache.append(kept)
        if self.distances is not None:
            assert isinstance(relation, Distances)
            bias = self.distances(query, keys, relation, self.scale)
            seen = bias if seen is None else bias + seen
        if self.group == 1:
            context = attend(query, keys, values, seen, scale=self.scale, dropout=self.dropout)
        else:  # the queries of a group's heads stand one behind the other
            grouped = query.view(len(keys), -1, query.size(2))
            context = attend(grouped, keys, values, seen, scale=self.scale, dropout=self.dropout).view_as(query)
        return self.output(heads_together(context, self.heads, self.output.compute_dtype))

    def _turned(self, projected: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        """Queries (batch, heads, length, head_dim), and keys and values (2, batch, kept heads, length, head_dim)."""
        every = heads_apart(projected, self.heads + 2 * self.kept_heads)[0]
        query, keys, values = every.split([self.heads, self.kept_heads, self.kept_heads], dim=1)
        if rotation is not None:
            query, keys = rotation.turn(query), rotation.turn(keys)
        return query, torch.stack([keys, values.to(keys.dtype)])


class CrossAttention(nn.Module):
    """Attention over the encoded source, whose keys and values are projected once."""

    def __init__(self, config: StackConfig, memory_dim: int, dropout: Dropout) -> None:
        super().__init__()
        self.heads = config.heads
        self.scale = scale_of(config)
        inner = config.heads * config.head_width
        self.query = Linear(config.dim, inner, bias=config.projects_with_bias)
        self.key_value = Linear(memory_dim, 2 * inner, bias=config.projects_with_bias)
        self.output = Linear(inner, config.dim, bias=config.gathers_with_bias)
        self.dropout = dropout
        self.attention_dtype = torch.float32
        self._exact: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def project(self, memory: Tensor) -> CrossKeyValues:
        """Keys and values of (batch, source, memory_dim)."""
        return CrossKeyValues(*packed(heads_apart(self.key_value(memory), self.heads, parts=2), self.attention_dtype))

    @torch.no_grad()
    def keep_exact_(self) -> None:
        """Keep the float32 weights that ``fold`` needs, before they are packed."""
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
    def foldable(self) -> bool:
        """Whether ``fold`` has its weights."""
        return self._exact is not None

    def fold(self, memory: CrossKeyValues, mask: Tensor | None) -> AbsorbedKeyValues:
        """Multiply the projections of queries and outputs into keys and values.

        Where a batch's ``heads * source`` is no wider than the model, attention then costs two small products where
        it cost four, which is what counts for one sentence: a product of few rows is all overhead.
        """
        assert self._exact is not None
        query, query_bias, output, _ = self._exact
        keys, values = (rows.unflatten(0, (-1, self.heads)) for rows in memory[:2])  # (batch, heads, source, head_dim)
        bias = (keys @ query_bias).view(len(keys), 1, -1)
        if mask is not None:
            bias = bias + mask.view_as(bias)
        return AbsorbedKeyValues((keys @ query).flatten(1, 2).mT.contiguous(), bias, (values @ output).flatten(1, 2))

    def forward(self, x: Tensor, memory: CrossKeyValues | AbsorbedKeyValues, mask: Tensor | None) -> Tensor:
        """(batch, queries, dim) to the same; a folded memory brings its own mask."""
        if isinstance(memory, AbsorbedKeyValues):
            assert self._exact is not None
            scores = torch.baddbmm(memory.bias, x, memory.keys)
            weights = scores.view(*x.shape[:2], self.heads, -1).softmax(-1).view_as(scores)
            return torch.baddbmm(self._exact[-1], weights, memory.values)
        if memory.rows is not None:
            context = ops.attend_to_source(self.query(x), memory, mask, heads=self.heads, scale=self.scale)
            return self.output(context)
        context = attend(self._queries(x), memory.keys, memory.values, mask, scale=self.scale, dropout=self.dropout)
        return self.output(heads_together(context, self.heads, self.output.compute_dtype))

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Attention probabilities averaged over heads, (batch, queries, source)."""
        weights = attention_weights(self._queries(x), keys, mask, scale=self.scale)
        return weights.unflatten(0, (-1, self.heads)).mean(1)

    def _queries(self, x: Tensor) -> Tensor:
        return packed(heads_apart(self.query(x), self.heads), self.attention_dtype)[0]
