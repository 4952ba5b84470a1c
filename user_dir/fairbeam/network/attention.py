"""Multi-head scaled dot-product attention (Vaswani et al., 2017, section 3.2)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.cache import KeyValues
from fairbeam.network.dropout import Dropout
from fairbeam.network.linear import Linear


def split_heads(x: Tensor, heads: int, dtype: torch.dtype, parts: int = 1) -> Tensor:
    """(batch, length, parts * heads * head_dim) to (parts, batch, heads, length, head_dim), contiguous in ``dtype``."""
    apart = x.unflatten(2, (parts, heads, -1)).permute(2, 0, 3, 1, 4)
    return torch.empty(apart.shape, dtype=dtype, device=x.device).copy_(apart)  # layout and dtype in one pass


def merge_heads(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(batch, heads, length, head_dim) to (batch, length, heads * head_dim) in ``dtype``."""
    together = x.transpose(1, 2)
    return torch.empty(together.shape, dtype=dtype, device=x.device).copy_(together).flatten(2)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, *, scale: float, dropout: Dropout
) -> Tensor:
    """Weighted means of ``values``.

    Args:
        query: (batch, heads, queries, head_dim).
        keys: (batch, heads, keys, head_dim); ``values`` alike.
        mask: added to the scores: (batch, heads, queries or 1, keys), or (queries, keys) for all alike.
        scale: multiplies the scores; ``head_dim ** -0.5`` in most models.

    Returns:
        (batch, heads, queries, head_dim)
    """
    if query.is_cuda:
        return F.scaled_dot_product_attention(
            query, keys, values, mask, dropout_p=dropout.p if dropout.training else 0.0, scale=scale
        )
    # On a CPU the fused kernel loses to three plain ones, in training by a factor of two:
    # docs/performance.md.
    weights = dropout(attention_weights(query, keys, mask, scale=scale))
    return torch.bmm(weights.flatten(0, 1), values.flatten(0, 1)).unflatten(0, query.shape[:2])


def attention_weights(query: Tensor, keys: Tensor, mask: Tensor | None, *, scale: float) -> Tensor:
    """Softmax of the scaled scores, (batch, heads, queries, keys); arguments as for ``attend``."""
    rows, columns = query.flatten(0, 1), keys.flatten(0, 1).mT
    if mask is None:
        scores = torch.baddbmm(query.new_empty(()), rows, columns, beta=0.0, alpha=scale)
    else:
        scores = torch.baddbmm(mask.flatten(0, 1) if mask.dim() == 4 else mask, rows, columns, alpha=scale)
    return F.softmax(scores, dim=-1).unflatten(0, query.shape[:2])


class SelfAttention(nn.Module):
    """Attention of a sequence (or of the beams at one step) over itself and its cached past."""

    def __init__(self, dim: int, heads: int, dropout: Dropout) -> None:
        super().__init__()
        self.heads = heads
        self.scale = math.sqrt(dim // heads) ** -1
        self.qkv = Linear(dim, 3 * dim)
        self.output = Linear(dim, dim)
        self.dropout = dropout
        self.attention_dtype = torch.float32
        nn.init.xavier_uniform_(self.qkv.weight, gain=1.0)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KeyValues | None = None) -> Tensor:
        """(batch, queries, dim) to the same; ``mask`` as in ``attend``."""
        parts = split_heads(self.qkv(x), self.heads, self.attention_dtype, parts=3)
        keys, values = parts[1:] if cache is None else cache.append(parts[1:])
        context = attend(parts[0], keys, values, mask, scale=self.scale, dropout=self.dropout)
        return self.output(merge_heads(context, self.output.compute_dtype))


class CrossAttention(nn.Module):
    """Attention over the encoded source, whose keys and values are projected once."""

    def __init__(self, dim: int, memory_dim: int, heads: int, dropout: Dropout) -> None:
        super().__init__()
        self.heads = heads
        self.scale = math.sqrt(dim // heads) ** -1
        self.query = Linear(dim, dim)
        self.key_value = Linear(memory_dim, 2 * dim)
        self.output = Linear(dim, dim)
        self.dropout = dropout
        self.attention_dtype = torch.float32

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of (batch, source, memory_dim): (batch, heads, source, head_dim) each."""
        keys, values = split_heads(self.key_value(memory), self.heads, self.attention_dtype, parts=2)
        return keys, values

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, queries, dim) to the same."""
        context = attend(self._queries(x), keys, values, mask, scale=self.scale, dropout=self.dropout)
        return self.output(merge_heads(context, self.output.compute_dtype))

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Attention probabilities averaged over heads, (batch, queries, source)."""
        return attention_weights(self._queries(x), keys, mask, scale=self.scale).mean(1)

    def _queries(self, x: Tensor) -> Tensor:
        return split_heads(self.query(x), self.heads, self.attention_dtype)[0]
