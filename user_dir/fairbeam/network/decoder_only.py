"""The decoder-only Transformer: language modelling, and continuation of prompts."""

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
from fairbeam.network.positions import PositionIds, cumulative_position_ids
from fairbeam.network.segment_memory import Segment, SegmentMemory
from fairbeam.network.stack import Stack
from fairbeam.network.verification_state import ScoredPositions, VerificationState


class DecoderOnly(DecodingNetwork):
    """The decoder-only Transformer of a ``DecoderOnlyConfig``.

    Position ids count tokens only, whether padding is on the left or the right.
    """

    def __init__(self, config: DecoderOnlyConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        stack, masks = config.decoder, MaskSource()
        self.embedding, head = _build_embedding_and_head(config, Dropout(config.dropout.residual, masks))
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
            target: (batch, target) ids of the previous target tokens where ``tokens`` are a source, padded on the
                right; begins with the separator. Only the target is predicted then.
            features_only: return the input of the output projection instead of logits.
            memory: memory of earlier segments, for networks with segment memory; updated in place. Empty if None.

        Returns:
            Logits (batch, length or target, vocabulary) in ``compute_dtype``, or float32 features (batch, length or
            target, dim). An adaptive softmax gives float32 log probabilities.

        Raises:
            ConfigError: the network has no segment memory, or ``memory`` has another number of sequences; or logits
                are wanted from a network without an output projection.
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
        features = self._run(tokens, real, self._position_ids(real), memory, source)[:, source:]
        return features if features_only else self.head(features)

    def start_memory(self, batch: int) -> SegmentMemory:
        """Make the empty memory before the first segment of ``batch`` sequences.

        Raises:
            ConfigError: the network has no segment memory.
        """
        if self.decoder.recurrence is None:
            raise self._no_memory()
        return SegmentMemory.empty(batch, self.config.decoder, next(self.parameters()))

    def prefill(self, source: Tensor, beams: int) -> PromptState:
        """Run a batch of prompts and make the decoder state after them.

        A separator, if the network has one, is appended to every prompt.

        Args:
            source: (batch, length) token ids, padded on either side.
            beams: hypotheses per prompt.

        Raises:
            ConfigError: a prompt is empty or has more tokens than there are positions, or there is no output
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
        ids = self._position_ids(real)
        if self.decoder.recurrence is not None:  # decoding continues from the memory that the prompt leaves
            memory = self.start_memory(len(source))
            features = self._run(source, real, ids, memory, columns)
            caches = self.decoder.cache_memory(memory, 16 * beams)
            mask = features.new_zeros(len(source), caches[0].length, dtype=self.attention_dtype)
        else:
            heads, head_dim = self.config.decoder.num_kv_heads, self.config.decoder.head_dim_resolved
            like = next(self.parameters()).new_empty(0, dtype=self.attention_dtype)
            capacity = source.size(1) + 16 * beams
            caches = [KeyValues.empty(len(source), heads, head_dim, like, capacity) for _ in self.decoder.in_order()]
            features = self._run(source, real, ids, caches, columns)
            mask = torch.zeros_like(real, dtype=self.attention_dtype).masked_fill_(~real, float("-inf"))
        last = (real * torch.arange(1, real.size(1) + 1, device=real.device)).argmax(1)
        rows = torch.arange(len(source), device=source.device)
        prompt = features * real.unsqueeze(2)
        return PromptState(caches, mask, ids, beams, features[rows, last].unsqueeze(1), prompt)

    def step(self, state: PromptState, tokens: Tensor) -> Tensor:
        """Run one decoding step and return the logits of every beam's next token.

        Args:
            state: updated in place.
            tokens: (batch, beams) ids of the latest tokens; ignored at the first step, which continues from the
                prompt's last token.

        Returns:
            Float32 logits (batch, beams, vocabulary), exact to ``compute_dtype``'s rounding.
        """
        return self._scores(state, self.features_of_step(state, tokens))

    def features_of_step(self, state: PromptState, tokens: Tensor) -> Tensor:
        """Run one decoding step up to the output projection; arguments as for ``step``.

        Returns:
            Features (batch, beams, dim), or (batch, 1, dim) at the first step, where all beams are equal.
        """
        features = state.take_features()
        if features is None:
            ids = state.next_position_ids
            x, mask = self.embedding(tokens, ids), state.advance()
            features = self.decoder(x, mask, state.layers, position_ids=PositionIds(ids, state.position_ids))
        return features

    def forward_block(
        self, state: VerificationState, tokens: Tensor, starts: Tensor, scored: ScoredPositions
    ) -> Tensor:
        """Run a block of several tokens per hypothesis and return the logits of the token after each scored one.

        Args:
            state: updated in place; cache entries at or after ``starts`` are overwritten.
            tokens: (batch, new) ids; a start symbol is ignored, since the prompt's last token plays its part.
            starts: (batch,) index of each row's first token in its target, where the start symbol is 0. All tokens
                before it have been run.
            scored: row and column indices into ``tokens``, each (scored,) long.

        Returns:
            Float32 logits (scored, vocabulary), as of ``step``; the state's features are those of the scored positions,
            each as a sentence with one beam.
        """
        first, features = state.take_features(), None
        if first is not None:  # the first block begins with the start symbol in every row
            tokens, starts = tokens[:, 1:], starts + 1
        if tokens.size(1):
            indices = starts.unsqueeze(1) + torch.arange(tokens.size(1), device=tokens.device)
            last = self.max_target_positions - 1 + self.config.decoder.positions.offset
            mask, queries, keys = state.reserve_block(indices, last)
            x = self.embedding(tokens, queries)
            features = self.decoder(x, mask, state.layers, position_ids=PositionIds(queries, keys))
        block = [part for part in (first, features) if part is not None]
        return self._scores(state, torch.cat(block, dim=1)[scored].unsqueeze(1))[:, 0]

    @property
    def first_token(self) -> int | None:
        """Id of the separator, which begins the target; None if prompts are continued directly."""
        return self.config.separator

    @property
    def max_source_positions(self) -> int:
        """Longest prompt in tokens: leaves room for a separator and one new token."""
        return self.max_target_positions - 2

    @property
    def max_target_positions(self) -> int:
        """Longest sequence in tokens, the prompt included."""
        return self.config.decoder.positions.max_positions

    def longest_target(self, source_length: int) -> int:
        """Return the longest continuation in tokens for a prompt of ``source_length`` tokens.

        The end-of-sequence token is included, which itself takes no position.
        """
        return self.max_target_positions - source_length + (1 if self.config.separator is None else 0)

    def _require_head(self) -> None:
        if not self.has_head:
            raise ConfigError("output is false: the network has no output projection, only features")

    def _position_ids(self, real: Tensor) -> Tensor:
        """Return position ids, (batch, length), for ``real``: bool, true at tokens."""
        return cumulative_position_ids(real, self.config.decoder.positions.offset).clamp_min(0)

    def _run(
        self,
        tokens: Tensor,
        real: Tensor,
        ids: Tensor,
        caches: list[KeyValues] | SegmentMemory | None,
        source: int,
    ) -> Tensor:
        """Run whole sequences with causal attention and return features, (batch, length, dim).

        Args:
            tokens: (batch, length) ids.
            real: (batch, length) bool, true at tokens.
            ids: (batch, length) position ids.
            caches: filled with the sequences' keys and values, or updated as memory.
            source: number of leading columns that hold the source, which ``prefix_attention`` lets see one another.
        """
        length = tokens.size(1)
        x = self.embedding(tokens, ids)
        if isinstance(caches, SegmentMemory):
            return self.decoder(x, None, Segment(caches, real))
        causal = x.new_full((length, length), float("-inf"), dtype=self.attention_dtype).triu(1)
        if self.config.prefix_attention:
            causal[:source, :source] = 0.0
        if bool(real.all()):
            return self.decoder(x, causal, caches, position_ids=PositionIds(ids[0], ids[0]))
        # Padding sees itself, since the softmax of a row without keys is nan; nothing else sees padding.
        itself = torch.eye(length, dtype=torch.bool, device=real.device)
        mask = causal.masked_fill(~(real[:, None] | itself), float("-inf"))
        mask = per_head(mask, self.config.decoder.num_kv_heads)
        return self.decoder(x, mask, caches, position_ids=PositionIds(ids, ids))

    def _no_memory(self) -> ConfigError:
        kind = self.config.decoder.positions.kind
        return ConfigError(f"decoder.positions.kind is {kind}, which has no memory of segments")

    def _output_embedding(self) -> Tensor:
        assert isinstance(self.embedding, Embedding)
        return self.embedding.weight


def _build_embedding_and_head(
    config: DecoderOnlyConfig, dropout: Dropout
) -> tuple[Embedding | AdaptiveEmbedding, Linear | AdaptiveSoftmax | None]:
    """Build the embedding and the output projection, or None for the latter, and tie their weights."""
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
