"""Embeddings and output in clusters of symbols, from frequent to rare.

Most tokens are of few symbols: these get wide vectors and are scored at once, the rest narrow ones and, in training,
scores only where a target is of their cluster (Grave et al., 2017, section 4; Baevski and Auli, 2019, section 3).
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
    """Vectors of the symbols: a matrix a cluster where their widths differ, else one."""
    width = stack.embedding_width
    bounds = (0, vocabulary) if adaptive.factor == 1 else (0, *adaptive.cutoffs, vocabulary)
    widths = adaptive.widths(width)[: len(bounds) - 1]
    sizes = zip(bounds[:-1], bounds[1:], widths, strict=True)
    return nn.ParameterList(nn.init.normal_(torch.empty(end - first, w), std=width**-0.5) for first, end, w in sizes)


def _projections(widths: tuple[int, ...], adaptive: AdaptiveConfig, stack: StackConfig) -> nn.ParameterList:
    """Matrices (dim, width) between vectors and the residual stream; none where the width is the stream's own."""
    if adaptive.factor == 1 and stack.embedding_dim is None:
        return nn.ParameterList()
    return nn.ParameterList(nn.init.xavier_uniform_(torch.empty(stack.dim, width)) for width in widths)


class AdaptiveEmbedding(nn.Module):
    """Token vectors, projected and scaled, plus positions."""

    def __init__(self, adaptive: AdaptiveConfig, vocabulary: int, stack: StackConfig, dropout: Dropout) -> None:
        super().__init__()
        self.weights = _tables(adaptive, vocabulary, stack)
        widths = tuple(table.size(1) for table in self.weights)
        self.projections = _projections(widths, adaptive, stack)
        self.dim = stack.dim
        self.scale = math.sqrt(stack.dim) if stack.scale_embedding else 1.0
        self.positions = build_positions(stack.positions, stack.dim)
        self.dropout = dropout

    def forward(self, tokens: Tensor, numbers: Tensor) -> Tensor:
        """Token ids (batch, queries) and broadcastable position numbers to (batch, queries, dim)."""
        x = self._look_up(tokens) * self.scale
        return self.dropout(x if self.positions is None else x + self.positions(numbers))

    def _look_up(self, tokens: Tensor) -> Tensor:
        if len(self.weights) == 1:
            x = F.embedding(tokens.clamp_min(0), self.weights[0])  # padding may have no symbol
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
    """Log probabilities of symbols, or of a cluster plus those of its symbols; float32 in every precision."""

    def __init__(self, adaptive: AdaptiveConfig, vocabulary: int, stack: StackConfig, *, bias: bool) -> None:
        super().__init__()
        self.bounds = (0, *adaptive.cutoffs, vocabulary)
        self.weights = _tables(adaptive, vocabulary, stack)
        self.biases = nn.ParameterList(torch.zeros(len(table)) for table in self.weights) if bias else None
        widths = adaptive.widths(stack.embedding_width)
        self.projections = _projections(widths, adaptive, stack)
        rare = len(adaptive.cutoffs)
        # Rows behind the frequent symbols', as if the other clusters were symbols.
        self.cluster_weight = nn.Parameter(torch.zeros(rare, widths[0])) if rare else None
        self.cluster_bias = nn.Parameter(torch.zeros(rare)) if rare and bias else None

    def tie(self, embedding: AdaptiveEmbedding, *, tables: bool, projections: tuple[bool, ...]) -> None:
        """Let the embedding's matrices be the output's: its tables, and its projections where it is said."""
        if tables:
            self.weights = embedding.weights
        for number, tied in enumerate(projections if len(self.projections) else ()):
            if tied:
                self.projections[number] = embedding.projections[min(number, len(embedding.projections) - 1)]

    def forward(self, features: Tensor) -> Tensor:
        """(..., dim) to log probabilities (..., vocabulary)."""
        head = self._log_softmax(features, 0)
        frequent = self.bounds[1]
        parts = [head[..., :frequent]]
        for cluster in range(1, len(self.bounds) - 1):
            chosen = head[..., frequent + cluster - 1, None]
            parts.append(chosen + self._log_softmax(features, cluster))
        return torch.cat(parts, dim=-1)

    def negative_log_likelihood(self, features: Tensor, target: Tensor) -> Tensor:
        """Of each target, (tokens,), in nats; features are (tokens, dim). A rare cluster is scored where it is met."""
        head = self._log_softmax(features, 0)
        frequent = self.bounds[1]
        found = head.gather(1, target.clamp_max(frequent - 1).unsqueeze(1)).squeeze(1)
        for cluster in range(1, len(self.bounds) - 1):
            first, end = self.bounds[cluster : cluster + 2]
            rows = ((target >= first) & (target < end)).nonzero().squeeze(1)
            inside = self._log_softmax(features[rows], cluster).gather(1, (target[rows] - first).unsqueeze(1))
            found = found.index_copy(0, rows, head[rows, frequent + cluster - 1] + inside.squeeze(1))
        return -found

    def _log_softmax(self, features: Tensor, cluster: int) -> Tensor:
        """Log probabilities within a cluster; the first has the other clusters behind its symbols."""
        x = features.float()
        x = x @ self.projections[cluster] if len(self.projections) else x
        weight, bias = self._part(self.weights, cluster), None
        if self.biases is not None:
            bias = self._part(self.biases, cluster)
        if cluster == 0 and self.cluster_weight is not None:
            weight = torch.cat([weight, self.cluster_weight])
            bias = bias if bias is None or self.cluster_bias is None else torch.cat([bias, self.cluster_bias])
        return F.log_softmax(F.linear(x, weight, bias), dim=-1)

    def _part(self, whole: nn.ParameterList, cluster: int) -> Tensor:
        part: Tensor = whole[0][slice(*self.bounds[cluster : cluster + 2])] if len(whole) == 1 else whole[cluster]
        return part
