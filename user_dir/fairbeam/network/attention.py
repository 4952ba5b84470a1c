"""Multi-head scaled dot-product attention (Vaswani et al., 2017, section 3.2)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.cache import KeyValues
from fairbeam.network.dropout import Dropout
from fairbeam.network.linear import Linear


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, length, heads * head_dim) to (batch, heads, length, head_dim)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """Inverse of ``split_heads``."""
    return x.transpose(1, 2).flatten(2)


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, dropout: Dropout) -> Tensor:
    """Weighted means of ``values``.

    Args:
        query: (batch, heads, queries, head_dim), already scaled by ``head_dim ** -0.5``.
        keys: (batch, heads, keys, head_dim); ``values`` alike.
        mask: added to the scores, broadcastable to (batch, heads, queries, keys).

    Returns:
        (batch, heads, queries, head_dim)
    """
    if query.is_cuda:
        return F.scaled_dot_product_attention(
            query, keys, values, mask, dropout_p=dropout.p if dropout.training else 0.0, scale=1.0
        )
    # On a CPU the fused kernel loses to three plain ones, in training by a factor of two:
    # docs/performance.md.
    return torch.matmul(dropout(attention_weights(query, keys, mask)), values)


def attention_weights(query: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of the scaled scores, (batch, heads, queries, keys)."""
    scores = torch.matmul(query, keys.transpose(2, 3))
    if mask is not None:
        scores = scores + mask
    return F.softmax(scores, dim=-1)


class SelfAttention(nn.Module):
    """Attention of a sequence (or of the beams at one step) over itself and its cached past."""

    def __init__(self, dim: int, heads: int, dropout: Dropout) -> None:
        super().__init__()
        self.heads = heads
        self.scale = math.sqrt(dim // heads) ** -1
        self.qkv = Linear(dim, 3 * dim)
        self.output = Linear(dim, dim)
        self.dropout = dropout
        nn.init.xavier_uniform_(self.qkv.weight, gain=1.0)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KeyValues | None = None) -> Tensor:
        """(batch, queries, dim) to the same; ``mask`` as in ``attend``."""
        query, keys, values = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=2))
        if cache is not None:
            keys, values = cache.append(keys, values)
        return self.output(merge_heads(attend(query * self.scale, keys, values, mask, self.dropout)))


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

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of (batch, source, memory_dim): (batch, heads, source, head_dim) each."""
        keys, values = self.key_value(memory).chunk(2, dim=2)
        return split_heads(keys, self.heads), split_heads(values, self.heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, queries, dim) to the same."""
        query = split_heads(self.query(x), self.heads) * self.scale
        return self.output(merge_heads(attend(query, keys, values, mask, self.dropout)))

    def weights(self, x: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Attention probabilities averaged over heads, (batch, queries, source)."""
        query = split_heads(self.query(x), self.heads) * self.scale
        return attention_weights(query, keys, mask).mean(1)
