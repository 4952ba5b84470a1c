"""The decoder without an encoder: every token predicted from those before it, and prompts continued."""

import torch
from torch import Tensor, nn

from fairbeam.errors import ConfigError
from fairbeam.network.adaptive import AdaptiveEmbedding, AdaptiveSoftmax
from fairbeam.network.cache import KeyValues, per_head
from fairbeam.network.config import DecoderOnlyConfig
from fairbeam.network.decoder_state import PromptState
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.embedding import Embedding
from fairbeam.network.inference.heads import DecodingNetwork
from fairbeam.network.linear import Linear
from fairbeam.network.positions import PositionIds, number_tokens
from fairbeam.network.segment_memory import Segment, SegmentMemory
from fairbeam.network.stack import Stack
from fairbeam.network.verification_state import Scored, VerificationState


class DecoderOnly(DecodingNetwork):
    """A Transformer described by a ``DecoderOnlyConfig``.

    Position numbers count real tokens, on whichever side the padding stands.
    """

    def __init__(self, config: DecoderOnlyConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        stack, masks = config.decoder, MaskSource()
        self.embedding, head = _ends(config, Dropout(config.dropout.residual, masks))
        if head is not None:
            self.head = head
        self.decoder = Stack(stack, None, config.dropout, masks)
        self.has_head = config.output
        self.rewinds = self.decoder.recurrence is None
        self._masks = masks
        self._set_compute_dtype(compute_dtype, compute_dtype)

    def forward(
        self,
        tokens: Tensor,
        target: Tensor | None = None,
        *,
        features_only: bool = False,
        memory: SegmentMemory | None = None,
    ) -> Tensor:
        """Predict each next token from those before it.

        Args:
            tokens: (batch, length) ids, padded on either side.
            target: (batch, target) previous tokens of what is made of ``tokens``, padded on the right; begins with
                the separator. Only these are predicted.
            features_only: return what the output projection would read.
            memory: what earlier segments left, for networks that have one; this segment is added in place. That of
                nothing if None.

        Returns:
            Logits (batch, length or target, vocabulary) in ``compute_dtype``, or float32 features of the same length.
            An adaptive output gives log probabilities, in float32.

        Raises:
            ConfigError: the network has no memory, or this one is of another number of sequences; or there is no
                output projection for logits.
        """
        if not features_only:
            self._require_head()
        if self.training:
            self._masks.restart()
        source = 0 if target is None else tokens.size(1)
        if target is not None:
            tokens = torch.cat([tokens, target], dim=1)
        if self.decoder.recurrence is not None:
            memory = self.start_memory(len(tokens)) if memory is None else memory
        elif memory is not None:
            raise self._no_memory()
        real = tokens.ne(self.config.pad)
        features = self._read(tokens, real, self._numbers(real), memory, source)[:, source:]
        return features if features_only else self.head(features)

    def start_memory(self, batch: int) -> SegmentMemory:
        """What a first segment of ``batch`` sequences remembers: nothing.

        Raises:
            ConfigError: the network has no memory.
        """
        if self.decoder.recurrence is None:
            raise self._no_memory()
        return SegmentMemory.empty(batch, self.config.decoder, next(self.parameters()))

    def prefill(self, source: Tensor, beams: int) -> PromptState:
        """Read a batch of prompts, (batch, length) ids padded on either side, for ``beams`` continuations of each.

        Where a separator tells targets from sources, it ends every prompt.

        Raises:
            ConfigError: a prompt is empty, or has more tokens than there are positions, or there is no output
                projection.
        """
        self._require_head()
        columns = source.size(1)
        if self.config.separator is not None:
            source = torch.cat([source, source.new_full((len(source), 1), self.config.separator)], dim=1)
        real = source.ne(self.config.pad)
        lengths = real.sum(1)
        if not 1 <= int(lengths.min()) <= int(lengths.max()) <= self.max_target_positions:
            raise ConfigError(
                f"prompts have {int(lengths.min())} to {int(lengths.max())} tokens; "
                f"expected 1 to {self.max_target_positions}"
            )
        numbers = self._numbers(real)
        if self.decoder.recurrence is not None:  # steps begin at what the prompt left in memory
            memory = self.start_memory(len(source))
            features = self._read(source, real, numbers, memory, columns)
            caches = self.decoder.recall(memory, 16 * beams)
            closed = features.new_zeros(len(source), caches[0].length, dtype=self.attention_dtype)
        else:
            heads, head_dim = self.config.decoder.kept_heads, self.config.decoder.head_width
            like = next(self.parameters()).new_empty(0, dtype=self.attention_dtype)
            capacity = source.size(1) + 16 * beams
            caches = [KeyValues.empty(len(source), heads, head_dim, like, capacity) for _ in self.decoder.in_order()]
            features = self._read(source, real, numbers, caches, columns)
            closed = torch.zeros_like(real, dtype=self.attention_dtype).masked_fill_(~real, float("-inf"))
        last = (real * torch.arange(1, real.size(1) + 1, device=real.device)).argmax(1)
        rows = torch.arange(len(source), device=source.device)
        prompt = features * real.unsqueeze(2)
        return PromptState(caches, closed, numbers, beams, features[rows, last].unsqueeze(1), prompt)

    def step(self, state: PromptState, tokens: Tensor) -> Tensor:
        """Scores of the next token of every beam.

        Args:
            state: changed in place.
            tokens: (batch, beams) ids of the latest tokens; not looked at in the first step, which the prompt's last
                token decides.

        Returns:
            Float32 logits (batch, beams, vocabulary), exact to ``compute_dtype``'s rounding.
        """
        return self._scores(state, self.features_of_step(state, tokens))

    def features_of_step(self, state: PromptState, tokens: Tensor) -> Tensor:
        """What ``step`` scores, (batch, beams, dim), of one beam where all are one; arguments as for ``step``."""
        features = state.take_features()
        if features is None:
            numbers = state.next_numbers
            x, mask = self.embedding(tokens, numbers), state.advance()
            features = self.decoder(x, mask, state.layers, places=PositionIds(numbers, state.numbers))
        return features

    def read(self, state: VerificationState, tokens: Tensor, starts: Tensor, scored: Scored) -> Tensor:
        """Scores of the next token behind each of several tokens.

        Args:
            state: changed in place.
            tokens: (batch, new) ids; the start symbol is not looked at, since the prompt's last token stands for it.
            starts: (batch,) the number of each row's first among the tokens of its target; the start symbol is
                number 0. All before it were read; those that were read from there on are forgotten.
            scored: rows and columns of ``tokens``, each (scored,) long, behind which scores are wanted.

        Returns:
            Float32 logits (scored, vocabulary), as of ``step``; ``rounding`` takes them for sentences of one beam.
        """
        first, features = state.take_features(), None
        if first is not None:  # no row has more than the start symbol
            tokens, starts = tokens[:, 1:], starts + 1
        if tokens.size(1):
            numbers = starts.unsqueeze(1) + torch.arange(tokens.size(1), device=tokens.device)
            last = self.max_target_positions - 1 + self.config.decoder.positions.offset
            mask, queries, keys = state.place(numbers, last)
            x = self.embedding(tokens, queries)
            features = self.decoder(x, mask, state.layers, places=PositionIds(queries, keys))
        read = [part for part in (first, features) if part is not None]
        return self._scores(state, torch.cat(read, dim=1)[scored].unsqueeze(1))[:, 0]

    @property
    def first_token(self) -> int | None:
        """The separator; None where a prompt's continuation begins with no symbol."""
        return self.config.separator

    @property
    def max_source_positions(self) -> int:
        """Longest prompt in tokens that leaves room for a separator and a first token."""
        return self.max_target_positions - 2

    @property
    def max_target_positions(self) -> int:
        """Longest sequence in tokens, the prompt included."""
        return self.config.decoder.positions.max_positions

    def longest_target(self, source_length: int) -> int:
        """Longest continuation of a prompt, the symbol that ends it included, which itself takes no position."""
        return self.max_target_positions - source_length + (1 if self.config.separator is None else 0)

    def _require_head(self) -> None:
        if not self.has_head:
            raise ConfigError("output is false: the network has no output projection, only features")

    def _numbers(self, real: Tensor) -> Tensor:
        """Position numbers, (batch, length) like ``real``."""
        return number_tokens(real, self.config.decoder.positions.offset).clamp_min(0)

    def _read(
        self,
        tokens: Tensor,
        real: Tensor,
        numbers: Tensor,
        caches: list[KeyValues] | SegmentMemory | None,
        source: int,
    ) -> Tensor:
        """Features (batch, length, dim) of whole sequences, which look back only, but for the first ``source`` columns
        where the network sees sources as a whole."""
        length = tokens.size(1)
        x = self.embedding(tokens, numbers)
        if isinstance(caches, SegmentMemory):
            return self.decoder(x, None, Segment(caches, real))
        causal = x.new_full((length, length), float("-inf"), dtype=self.attention_dtype).triu(1)
        if self.config.prefix_attention:
            causal[:source, :source] = 0.0
        if bool(real.all()):
            alike = numbers[0]
            return self.decoder(x, causal, caches, places=PositionIds(alike, alike))
        # Padding sees itself, since a row without any key has no softmax; nothing else sees padding.
        itself = torch.eye(length, dtype=torch.bool, device=real.device)
        mask = causal.masked_fill(~(real[:, None] | itself), float("-inf"))
        places = PositionIds(numbers, numbers)
        return self.decoder(x, per_head(mask, self.config.decoder.kept_heads), caches, places=places)

    def _no_memory(self) -> ConfigError:
        kind = self.config.decoder.positions.kind
        return ConfigError(f"decoder.positions.kind is {kind}, which has no memory of segments")

    def _output_embedding(self) -> Tensor:
        assert isinstance(self.embedding, Embedding)
        return self.embedding.weight


def _ends(
    config: DecoderOnlyConfig, dropout: Dropout
) -> tuple[Embedding | AdaptiveEmbedding, Linear | AdaptiveSoftmax | None]:
    """The embedding and the output, with the weights they share."""
    stack, vocabulary, adaptive = config.decoder, config.vocabulary, config.adaptive
    if adaptive is not None:
        clusters = AdaptiveEmbedding(adaptive, vocabulary, stack, dropout)
        softmax = AdaptiveSoftmax(adaptive, vocabulary, stack, bias=config.output_bias)
        softmax.tie(clusters, tables=config.tie_output, projections=adaptive.tied_projections)
        return clusters, softmax
    embedding = Embedding(stack, vocabulary, config.pad, dropout)
    if not config.output:
        return embedding, None
    head = Linear(stack.features_width, vocabulary, bias=config.output_bias)
    nn.init.normal_(head.weight, std=stack.features_width**-0.5)
    if config.tie_output:
        head.weight = embedding.weight
    return embedding, head
