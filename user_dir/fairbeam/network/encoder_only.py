"""The encoder-only Transformer: hidden states of tokens, and prediction heads on them."""

from typing import NamedTuple

import torch
from torch import Tensor

from fairbeam.network.cache import per_head
from fairbeam.network.config import EncoderOnlyConfig, HeadConfig
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.embedding import Embedding
from fairbeam.network.enums import Activation
from fairbeam.network.heads import Head
from fairbeam.network.inference.prepare import BaseNetwork
from fairbeam.network.linear import Linear
from fairbeam.network.positions import position_ids
from fairbeam.network.stack import Stack


class Encoded(NamedTuple):
    """Outputs of an ``EncoderOnly`` network, all float32; those of heads that it lacks are None."""

    states: Tensor
    """Hidden states, (batch, length, dim)."""
    pooled: Tensor | None
    """Pooled first token, (batch, dim)."""
    symbols: Tensor | None
    """Logits of masked language modelling, (batch, length, vocabulary)."""
    tokens: Tensor | None
    """Logits of token classification, (batch, length, labels)."""
    sequence: Tensor | None
    """Logits of sequence classification, (batch, labels)."""


class EncoderOnly(BaseNetwork):
    """The encoder-only Transformer of an ``EncoderOnlyConfig``."""

    def __init__(self, config: EncoderOnlyConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        stack, masks = config.encoder, MaskSource()

        def head(head_config: HeadConfig | None) -> Head | None:
            return None if head_config is None else Head(head_config, stack.dim, stack.norm_epsilon, masks)

        self.embedding = Embedding(stack, config.vocabulary, config.pad, Dropout(config.dropout.residual, masks))
        self.encoder = Stack(stack, None, config.dropout, masks)
        self.pooler = Linear(stack.dim, stack.dim, activation=Activation.TANH) if config.pooler else None
        self.symbol_head = head(config.symbol_head)
        self.token_head = head(config.token_head)
        self.sequence_head = head(config.sequence_head)
        if config.tie_output and self.symbol_head is not None:
            self.symbol_head.output.weight = self.embedding.weight
        self._masks = masks
        self._set_compute_dtype(compute_dtype, compute_dtype)

    def forward(self, tokens: Tensor, types: Tensor | None = None) -> Encoded:
        """Encode a batch and apply every head.

        Args:
            tokens: (batch, length) ids, padded on either side; on the right only if the network has a pooler or a
                sequence head, which read the first column.
            types: (batch, length) token type ids; all 0 if None.
        """
        if self.training:
            self._masks.restart()
        states = self.encode(tokens, types)
        first = states[:, 0]
        pooled = None if self.pooler is None else self.pooler(first).float()
        return Encoded(
            states=states,
            pooled=pooled,
            symbols=None if self.symbol_head is None else self.symbol_head(states),
            tokens=None if self.token_head is None else self.token_head(states),
            sequence=None if self.sequence_head is None else self.sequence_head(first if pooled is None else pooled),
        )

    def encode(self, tokens: Tensor, types: Tensor | None = None) -> Tensor:
        """Return hidden states (batch, length, dim); arguments as for ``forward``."""
        real = tokens.ne(self.config.pad)
        x = self.embedding(tokens, position_ids(real, self.config.encoder.positions), types)
        if bool(real.all()):
            return self.encoder(x, None)
        mask = torch.zeros_like(real, dtype=self.attention_dtype).masked_fill_(~real, float("-inf"))[:, None]
        return self.encoder(x, per_head(mask, self.config.encoder.heads))

    @property
    def max_source_positions(self) -> int:
        """Longest sequence in tokens."""
        return self.config.encoder.positions.max_positions
