"""The decoder without an encoder: every token predicted from those before it, and prompts continued."""

import torch
from torch import Tensor, nn

from fairbeam.errors import ConfigError
from fairbeam.network.base import DecodingNetwork
from fairbeam.network.cache import KeyValues, PromptState, per_head
from fairbeam.network.config import LanguageModelConfig
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.linear import Linear
from fairbeam.network.positions import number_tokens
from fairbeam.network.stacks import Embedding, Stack


class LanguageModel(DecodingNetwork):
    """A Transformer described by a ``LanguageModelConfig``.

    Position numbers count real tokens, on whichever side the padding stands.
    """

    def __init__(self, config: LanguageModelConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        stack, masks = config.decoder, MaskSource()
        self.embedding = Embedding(stack, config.vocabulary, config.pad, Dropout(config.dropout.residual, masks))
        self.decoder = Stack(stack, None, config.dropout, masks)
        self.head = Linear(stack.dim, config.vocabulary, bias=config.output_bias)
        nn.init.normal_(self.head.weight, std=stack.dim**-0.5)
        if config.tie_output:
            self.head.weight = self.embedding.weight
        self._masks = masks
        self._set_compute_dtype(compute_dtype, compute_dtype)

    def forward(self, tokens: Tensor, *, features_only: bool = False) -> Tensor:
        """Predict each next token from those before it.

        Args:
            tokens: (batch, length) ids, padded on either side.
            features_only: return what the output projection would read.

        Returns:
            Logits (batch, length, vocabulary) in ``compute_dtype``, or float32 features (batch, length, dim).
        """
        if self.training:
            self._masks.restart()
        features = self._read(tokens, tokens.ne(self.config.pad), None)
        return features if features_only else self.head(features)

    def prefill(self, source: Tensor, beams: int) -> PromptState:
        """Read a batch of prompts, (batch, length) ids padded on either side, for ``beams`` continuations of each.

        Raises:
            ConfigError: a prompt is empty, or has more tokens than there are positions.
        """
        real = source.ne(self.config.pad)
        lengths = real.sum(1)
        if not 1 <= int(lengths.min()) <= int(lengths.max()) <= self.max_target_positions:
            raise ConfigError(
                f"prompts have {int(lengths.min())} to {int(lengths.max())} tokens; "
                f"expected 1 to {self.max_target_positions}"
            )
        heads, head_dim = self.config.decoder.kept_heads, self.config.decoder.head_width
        like = self.embedding.weight.new_empty(0, dtype=self.attention_dtype)
        capacity = source.size(1) + 16 * beams
        caches = [KeyValues.empty(len(source), heads, head_dim, like, capacity) for _ in self.decoder.in_order()]
        features = self._read(source, real, caches)
        last = (real * torch.arange(1, real.size(1) + 1, device=real.device)).argmax(1)
        closed = torch.zeros_like(real, dtype=self.attention_dtype).masked_fill_(~real, float("-inf"))
        rows = torch.arange(len(source), device=source.device)
        prompt = features * real.unsqueeze(2)
        return PromptState(caches, closed, lengths, beams, features[rows, last].unsqueeze(1), prompt)

    def step(self, state: PromptState, tokens: Tensor) -> Tensor:
        """Scores of the next token of every beam.

        Args:
            state: changed in place.
            tokens: (batch, beams) ids of the latest tokens; not looked at in the first step, which the prompt's last
                token decides.

        Returns:
            Float32 logits (batch, beams, vocabulary), exact to ``compute_dtype``'s rounding.
        """
        features = state.take_features()
        if features is None:
            numbers = (state.lengths + (state.steps - 1 + self.config.decoder.positions.offset)).unsqueeze(1)
            x = self.embedding(tokens, numbers)
            features = self.decoder(x, state.advance(), state.layers)
        return self._scores(state, features)

    @property
    def first_token(self) -> None:
        """None: a prompt's continuation begins with no symbol."""
        return None

    @property
    def max_target_positions(self) -> int:
        """Longest sequence in tokens, the prompt included."""
        return self.config.decoder.positions.max_positions

    def longest_target(self, source_length: int) -> int:
        """Longest continuation of a prompt, the symbol that ends it included, which itself takes no position."""
        return self.max_target_positions - source_length + 1

    def _read(self, tokens: Tensor, real: Tensor, caches: list[KeyValues] | None) -> Tensor:
        """Features (batch, length, dim) of whole sequences, which look back only."""
        length = tokens.size(1)
        numbers = number_tokens(real, self.config.decoder.positions.offset).clamp_min(0)
        x = self.embedding(tokens if self.config.pad >= 0 else tokens.clamp_min(0), numbers)
        causal = x.new_full((length, length), float("-inf"), dtype=self.attention_dtype).triu(1)
        if bool(real.all()):
            return self.decoder(x, causal, caches)
        # Padding sees itself, since a row without any key has no softmax; nothing else sees padding.
        itself = torch.eye(length, dtype=torch.bool, device=real.device)
        mask = causal.masked_fill(~(real[:, None] | itself), float("-inf"))
        return self.decoder(x, per_head(mask, self.config.decoder.heads), caches)

    def _output_embedding(self) -> Tensor:
        return self.embedding.weight
