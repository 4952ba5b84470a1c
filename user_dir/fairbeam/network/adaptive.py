"""Adaptive input embeddings and adaptive softmax over clusters of tokens, from frequent to rare.

Frequent tokens get wide vectors and are always scored. Rare ones get narrow vectors, and in training a cluster is
scored only where a target belongs to it (Grave et al., 2017, section 4; Baevski and Auli, 2019, section 3).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.config import AdaptiveConfig
from fairbeam.network.dropout import Dropout
from fairbeam.network.positions import build_positions
from fairbeam.network.stack_config import StackConfig


def _tables(adaptive: AdaptiveConfig, vocabulary: int, stack: StackConfig) -> nn.ParameterList:
    """Make the tables of token vectors: one per cluster if their widths differ, else a single one."""
    width = stack.embedding_width
    bounds = (0, vocabulary) if adaptive.factor == 1 else (0, *adaptive.cutoffs, vocabulary)
    widths = adaptive.widths(width)[: len(bounds) - 1]
    sizes = zip(bounds[:-1], bounds[1:], widths, strict=True)
    return nn.ParameterList(nn.init.normal_(torch.empty(end - first, w), std=width**-0.5) for first, end, w in sizes)


def _projections(widths: tuple[int, ...], adaptive: AdaptiveConfig, stack: StackConfig) -> nn.ParameterList:
    """Make a projection (dim, width) per table between token vectors and residual stream; none if widths are equal."""
    if adaptive.factor == 1 and stack.embedding_dim is None:
        return nn.ParameterList()
    return nn.ParameterList(nn.init.xavier_uniform_(torch.empty(stack.dim, width)) for width in widths)


class AdaptiveEmbedding(nn.Module):
    """Adaptive input embeddings: token vectors, projected and scaled, plus absolute positions."""

    def __init__(self, adaptive: AdaptiveConfig, vocabulary: int, stack: StackConfig, dropout: Dropout) -> None:
        super().__init__()
        self.weights = _tables(adaptive, vocabulary, stack)
        widths = tuple(table.size(1) for table in self.weights)
        self.projections = _projections(widths, adaptive, stack)
        self.dim = stack.dim
        self.scale = math.sqrt(stack.dim) if stack.scale_embedding else 1.0
        self.positions = build_positions(stack.positions, stack.dim)
        self.dropout = dropout

    def forward(self, tokens: Tensor, position_ids: Tensor) -> Tensor:
        """Embed token ids (batch, queries), at broadcastable position ids, as (batch, queries, dim)."""
        x = self._look_up(tokens) * self.scale
        return self.dropout(x if self.positions is None else x + self.positions(position_ids))

    def _look_up(self, tokens: Tensor) -> Tensor:
        """Return projected token vectors, (batch, queries, dim)."""
        if len(self.weights) == 1:
            x = F.embedding(tokens.clamp_min(0), self.weights[0])  # the padding id may be negative
            return F.linear(x, self.projections[0]) if len(self.projections) else x
        flat, first = tokens.flatten(), 0
        x = self.weights[0].new_zeros(len(flat), self.dim)
        for table, projection in zip(self.weights, self.projections, strict=True):
            end = first + len(table)
            rows = ((flat >= first) & (flat < end)).nonzero().squeeze(1)
            x = x.index_copy(0, rows, F.linear(F.embedding(flat[rows] - first, table), projection))
            first = end
        return x.view(*tokens.shape, self.dim)


class AdaptiveSoftmax(nn.Module):
    """Adaptive softmax: a rare token's log probability is its cluster's plus its own within the cluster.

    It computes in float32 in every precision.
    """

    def __init__(self, adaptive: AdaptiveConfig, vocabulary: int, stack: StackConfig, *, bias: bool) -> None:
        super().__init__()
        self.bounds = (0, *adaptive.cutoffs, vocabulary)
        self.weights = _tables(adaptive, vocabulary, stack)
        self.biases = nn.ParameterList(torch.zeros(len(table)) for table in self.weights) if bias else None
        widths = adaptive.widths(stack.embedding_width)
        self.projections = _projections(widths, adaptive, stack)
        rare = len(adaptive.cutoffs)
        # Each rare cluster is scored among the frequent tokens, like one more token.
        self.cluster_weight = nn.Parameter(torch.zeros(rare, widths[0])) if rare else None
        self.cluster_bias = nn.Parameter(torch.zeros(rare)) if rare and bias else None

    def tie(self, embedding: AdaptiveEmbedding, *, tables: bool, projections: tuple[bool, ...]) -> None:
        """Tie to the embedding's tables, if ``tables``, and to its projections, where ``projections`` is true."""
        if tables:
            self.weights = embedding.weights
        for number, tied in enumerate(projections if len(self.projections) else ()):
            if tied:
                self.projections[number] = embedding.projections[min(number, len(embedding.projections) - 1)]

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., dim) to log probabilities (..., vocabulary)."""
        head = self._log_softmax(features, 0)
        frequent = self.bounds[1]
        parts = [head[..., :frequent]]
        for cluster in range(1, len(self.bounds) - 1):
            of_cluster = head[..., frequent + cluster - 1, None]
            parts.append(of_cluster + self._log_softmax(features, cluster))
        return torch.cat(parts, dim=-1)

    def negative_log_likelihood(self, features: Tensor, target: Tensor) -> Tensor:
        """Return each target's negative log-likelihood in nats, (tokens,).

        Args:
            features: (tokens, dim).
            target: (tokens,) token ids.
        """
        head = self._log_softmax(features, 0)
        frequent = self.bounds[1]
        log_probs = head.gather(1, target.clamp_max(frequent - 1).unsqueeze(1)).squeeze(1)
        for cluster in range(1, len(self.bounds) - 1):
            first, end = self.bounds[cluster : cluster + 2]
            rows = ((target >= first) & (target < end)).nonzero().squeeze(1)
            inside = self._log_softmax(features[rows], cluster).gather(1, (target[rows] - first).unsqueeze(1))
            log_probs = log_probs.index_copy(0, rows, head[rows, frequent + cluster - 1] + inside.squeeze(1))
        return -log_probs

    def _log_softmax(self, features: Tensor, cluster: int) -> Tensor:
        """Return log probabilities within a cluster; the first one's end with those of the other clusters."""
        x = features.float()
        x = x @ self.projections[cluster] if len(self.projections) else x
        weight, bias = self._part(self.weights, cluster), None
        if self.biases is not None:
            bias = self._part(self.biases, cluster)
        if cluster == 0 and self.cluster_weight is not None:
            weight = torch.cat([weight, self.cluster_weight])
            bias = bias if bias is None or self.cluster_bias is None else torch.cat([bias, self.cluster_bias])
        return F.log_softmax(F.linear(x, weight, bias), dim=-1)

    def _part(self, tables: nn.ParameterList, cluster: int) -> Tensor:
        """Return a cluster's part of a table that is shared or per cluster."""
        part: Tensor = tables[0][slice(*self.bounds[cluster : cluster + 2])] if len(tables) == 1 else tables[cluster]
        return part
