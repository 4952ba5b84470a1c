"""Token embeddings with absolute positions and token types."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.dropout import Dropout
from fairbeam.network.inference import ops
from fairbeam.network.linear import Linear
from fairbeam.network.norm import build_norm
from fairbeam.network.positions import build_positions
from fairbeam.network.stack_config import StackConfig


class Embedding(nn.Module):
    """Token embeddings plus absolute positions and token types; scaled, normalized and projected as configured."""

    def __init__(self, config: StackConfig, vocabulary: int, pad: int, dropout: Dropout) -> None:
        """Make the embedding of a stack.

        Args:
            config: the stack's.
            vocabulary: number of tokens.
            pad: padding id; negative if the vocabulary has none.
            dropout: applied to the sum of the embeddings.
        """
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

    def forward(self, tokens: Tensor, position_ids: Tensor, types: Tensor | None = None) -> Tensor:
        """Embed tokens.

        Args:
            tokens: (batch, queries) token ids.
            position_ids: broadcastable to ``tokens``.
            types: (batch, queries) token type ids; all 0 if None.

        Returns:
            (batch, queries, dim) float32
        """
        if not self.has_padding:  # padding's negative id has no vector; it is masked, so any vector will do
            tokens = tokens.clamp_min(0)
        x = F.embedding(tokens, self.weight, self.pad) * self.scale
        if self.types is not None:
            x = x + (self.types[0] if types is None else F.embedding(types, self.types))
        if self.positions is not None:
            x = x + self.positions(position_ids)
        if self.norm is not None:
            x = self.norm(x)
        x = self.dropout(x)
        return x if self.projection is None else self.projection(x).float()

    @property
    def plain_table(self) -> Tensor | None:
        """Position vectors, (positions, dim), if embeddings are just token vectors times ``scale`` plus these, else
        None."""
        plain = self.types is None and self.norm is None and self.projection is None and self.has_padding
        return getattr(self.positions, "table", None) if plain else None

    def step(self, tokens: Tensor, position_ids: Tensor) -> Tensor:
        """Embed tokens in decoding, natively if possible; ``position_ids`` are (1,), (batch, 1) or (batch, queries)."""
        table = self.plain_table
        if table is None or self.training:
            embedded: Tensor = self(tokens, position_ids)
            return embedded
        return ops.embed(tokens, self.weight, position_ids, table, self.scale)
