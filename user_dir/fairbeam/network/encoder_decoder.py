"""The encoder-decoder network: teacher forcing in training, one step at a time in decoding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network.cache import CrossAttentionCache, KeyValues, per_head
from fairbeam.network.config import EncoderDecoderConfig
from fairbeam.network.decoder_state import DecoderState
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.embedding import Embedding
from fairbeam.network.enums import PositionKind
from fairbeam.network.inference import native
from fairbeam.network.inference.fused_decoder import FusedDecoder
from fairbeam.network.inference.heads import DecodingNetwork, RoundedHead
from fairbeam.network.layer import Layer
from fairbeam.network.linear import Linear
from fairbeam.network.norm import LayerNorm
from fairbeam.network.positions import PositionIds, position_ids
from fairbeam.network.stack import Stack
from fairbeam.network.stack_config import StackConfig
from fairbeam.network.verification_state import Scored, VerificationState


class EncoderDecoder(DecodingNetwork):
    """A Transformer described by a ``EncoderDecoderConfig``.

    ``forward`` teaches with the whole target at once. Decoding calls ``prefill`` once a batch and ``step``
    once a token. Linear layers and attention compute in ``compute_dtype``; the residual stream, the norms and
    the weights are float32 (the weights until ``for_inference``).
    """

    head: Linear
    rewinds = True
    fused_decoder: FusedDecoder | None = None
    """The decoder for native calls of several steps, in a network for inference that the library supports."""

    def __init__(self, config: EncoderDecoderConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        masks = MaskSource()
        dropout = config.dropout

        def embedding(stack: StackConfig, vocabulary: int, pad: int) -> Embedding:
            return Embedding(stack, vocabulary, pad, Dropout(dropout.residual, masks))

        self.source_embedding = embedding(config.encoder, config.source_vocabulary, config.padding_of_sources)
        self.target_embedding = embedding(config.decoder, config.target_vocabulary, config.pad)
        self.encoder = Stack(config.encoder, None, dropout, masks)
        self.decoder = Stack(config.decoder, config.encoder.dim, dropout, masks)
        width = config.decoder.features_width
        self.head = Linear(width, config.target_vocabulary, bias=config.output_bias)
        nn.init.normal_(self.head.weight, std=width**-0.5)
        if config.share_embeddings:
            self.target_embedding.weight = self.source_embedding.weight
        if config.share_layers:
            self.decoder.share_(self.encoder)
        if config.tie_output:
            self.head.weight = self.target_embedding.weight
        self._masks = masks
        self._set_compute_dtype(compute_dtype, compute_dtype)

    def forward(self, source: Tensor, target: Tensor, *, features_only: bool = False) -> Tensor:
        """Predict each next target token, given the source and the target before it.

        Args:
            source: (batch, source) token ids, padded on either side.
            target: (batch, target) ids of the previous tokens (begins with ``decoder_start``), padded on the right.
            features_only: return what the output projection would read.

        Returns:
            Logits (batch, target, vocabulary) in ``compute_dtype``, or float32 features (batch, target, dim).
        """
        if self.training:
            self._masks.restart()
        memory = self.remember(*self.encode(source))
        features = self._decode_forced(target, memory)
        return features if features_only else self.head(features)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Token ids (batch, source) to hidden states (batch, source, dim) and their padding mask.

        The mask is (batch * decoder heads, 1, source), 0 at tokens and -inf at padding, None where nothing is padded.
        """
        real = source.ne(self.config.padding_of_sources)
        numbers = position_ids(real, self.config.encoder.positions)
        x = self.source_embedding(source, numbers)
        if bool(real.all()):
            return self.encoder(x, None), None
        closed = torch.zeros_like(real, dtype=self.attention_dtype).masked_fill_(~real, float("-inf"))[:, None]
        states = self.encoder(x, per_head(closed, self.config.encoder.kept_heads))
        return states, per_head(closed, self.config.decoder.heads)

    def remember(
        self, states: Tensor, mask: Tensor | None, *, may_fold: bool = False, by_row: bool = False
    ) -> CrossAttentionCache:
        """Project encoder states to every decoder layer's cross-attention keys and values.

        Args:
            states, mask: what ``encode`` returns.
            may_fold: for decoding: fold them where that makes the smaller matrices, for one sentence or a few on a
                CPU.
            by_row: for decoding through ``ops``, which read the rows that are left where they are.
        """
        attentions = [layer.cross_attention for layer in self._decoder_layers()]
        projected = [attention.project(states) for attention in attentions]
        narrow = len(states) * states.size(1) * self.config.decoder.heads <= self.config.decoder.dim
        if may_fold and narrow and all(attention.foldable for attention in attentions):
            folded = [attention.fold(layer, mask) for attention, layer in zip(attentions, projected, strict=True)]
            return CrossAttentionCache(len(states), folded, None)
        if by_row:
            rows = torch.arange(len(states), device=states.device)
            projected = [layer._replace(rows=rows) for layer in projected]
        return CrossAttentionCache(len(states), projected, mask)

    def prefill(self, source: Tensor, beams: int, *, joins: bool = False) -> DecoderState:
        """Encode a batch and make an empty decoder state for ``beams`` hypotheses a sentence.

        ``joins``: other sentences will join, or these join others.
        """
        states, mask = self.encode(source)
        memory = self.remember(states, mask, may_fold=not joins, by_row=self.attends_natively)
        heads, like = self.config.decoder.kept_heads, memory.layers[0].keys
        head_dim = self.config.decoder.head_width
        caches = [KeyValues.empty(len(source), heads, head_dim, like, 32 * beams) for _ in self._decoder_layers()]
        return DecoderState(memory, caches, len(source), beams, like, by_number=self._attends_by_number)

    def step(self, state: DecoderState, tokens: Tensor) -> Tensor:
        """Scores of the next token of every beam.

        Args:
            state: changed in place.
            tokens: (batch, beams) ids of the latest tokens; at the first step those of a sentence are equal.

        Returns:
            Float32 logits (batch, beams, vocabulary), exact to ``compute_dtype``'s rounding.
        """
        return self._scores(state, self.features_of_step(state, tokens))

    def features_of_step(self, state: DecoderState, tokens: Tensor) -> Tensor:
        """What ``step`` scores, (batch, beams, dim), of one beam where all are one; arguments as for ``step``."""
        if state.steps == 0:  # all beams are one
            tokens = tokens[:, :1]
        features: Tensor = self.decoder(self._embed_step(state, tokens), state.advance(), state.layers, state.memory)
        return features

    @property
    def weights_of_step(self) -> int:
        """How many weights every token meets in decoding."""
        met = {module for module in self.decoder.modules() if isinstance(module, Linear)} - self._read_once()
        return sum(linear.inputs * linear.outputs for linear in {*met, self._output})

    def read(self, state: VerificationState, tokens: Tensor, starts: Tensor, scored: Scored) -> Tensor:
        """Scores of the next token behind each of several tokens.

        Args:
            state: changed in place.
            tokens: (batch, new) ids.
            starts: (batch,) the number of each row's first among the tokens of its target; the start symbol is
                number 0. All before it were read; those that were read from there on are forgotten.
            scored: rows and columns of ``tokens``, each (scored,) long, behind which scores are wanted.

        Returns:
            Float32 logits (scored, vocabulary), as of ``step``; ``rounding`` takes them for sentences of one beam.
        """
        numbers = starts.unsqueeze(1) + torch.arange(tokens.size(1), device=tokens.device)
        last = self.max_target_positions - 1
        mask, queries, keys = state.place(numbers, last, by_number=self._attends_by_number)
        places = (queries + self.config.decoder.positions.offset).expand(tokens.shape)
        x = self.target_embedding.step(tokens, places)
        features = self.decoder(x, mask, state.layers, state.memory, PositionIds(queries, keys))
        return self._scores(state, features[scored].unsqueeze(1))[:, 0]

    @torch.no_grad()
    def alignments(self, source: Tensor, target: Tensor) -> Tensor:
        """Cross-attention of the last decoder layer under teacher forcing, averaged over heads.

        Args:
            source: (batch, source) ids.
            target: (batch, target) ids of the previous tokens, as in ``forward``.

        Returns:
            (batch, target, source), rows sum to one.
        """
        memory = self.remember(*self.encode(source))
        x, causal = self._embed_forced(target)
        mask, relation = self.decoder.place(x, causal, None)
        *below, last = self._decoder_layers()
        for layer, key_values in zip(below, memory.layers, strict=False):
            x = layer(x, mask, None, key_values, memory.mask, relation)
        return last.alignment(x, mask, None, memory.layers[-1].keys, memory.mask, relation)

    def _packed_dtype(self, linear: Linear, dtype: torch.dtype) -> torch.dtype:
        # The source is read once a sentence, the decoder once a token: there 16 bits cost next to nothing.
        packed = super()._packed_dtype(linear, dtype)
        exact = packed is torch.int8 and native.multiplies_integers() and linear in self._read_once()
        return torch.int16 if exact else packed

    def _read_once(self) -> set[Linear]:
        """The layers that a sentence passes once."""
        encoder = {module for module in self.encoder.modules() if isinstance(module, Linear)}
        return encoder | {layer.cross_attention.key_value for layer in self._decoder_layers()}

    @property
    def decoder_start(self) -> int:
        """The symbol that a target begins with on the decoder's input."""
        return self.config.eos if self.config.decoder_start is None else self.config.decoder_start

    @property
    def first_token(self) -> int | None:
        """The configuration's symbol that decoding begins with; ``</s>`` if None."""
        return self.config.decoder_start

    @property
    def max_source_positions(self) -> int:
        """Longest source in tokens, ``</s>`` included."""
        return self.config.encoder.positions.max_positions

    @property
    def max_target_positions(self) -> int:
        """Longest target in tokens, ``</s>`` included."""
        return self.config.decoder.positions.max_positions

    def longest_target(self, source_length: int) -> int:
        """Longest target in tokens, ``</s>`` included, for a source of this length."""
        return self.max_target_positions

    @property
    def supports_joining(self) -> bool:
        """Whether sentences may join a batch: where a token stands in a batch must not matter, only distances."""
        return self.config.decoder.positions.kind is not PositionKind.ROTARY

    @property
    def _attends_by_number(self) -> bool:
        stack = self.config.decoder
        return self.attends_natively and stack.kept_heads == stack.heads and not stack.positions.kind.acts_in_attention

    def _set_rounded_head(self, rounded: RoundedHead) -> None:
        super()._set_rounded_head(rounded)
        self.fused_decoder = self._build_fused_decoder()

    def _build_fused_decoder(self) -> FusedDecoder | None:
        embedding, stack, norm = self.target_embedding, self.decoder.fused, self.decoder.final_norm
        if embedding.plain_table is None or stack is None or self.native_head is None:
            return None
        assert isinstance(norm, LayerNorm | None)
        if not (embedding.weight.is_contiguous() and embedding.plain_table.is_contiguous()):
            return None
        offset, positions = self.config.decoder.positions.offset, self.max_target_positions
        return FusedDecoder(embedding, stack, norm, self.native_head, offset=offset, max_positions=positions)

    def _output_embedding(self) -> Tensor:
        return self.target_embedding.weight

    def _decoder_layers(self) -> list[Layer]:
        return self.decoder.in_order()

    def _embed_forced(self, target: Tensor) -> tuple[Tensor, Tensor]:
        length = target.size(1)
        numbers = torch.arange(length, device=target.device) + self.config.decoder.positions.offset
        x = self.target_embedding(target, numbers)
        causal = x.new_full((length, length), float("-inf"), dtype=self.attention_dtype).triu(1)
        return x, causal

    def _decode_forced(self, target: Tensor, memory: CrossAttentionCache) -> Tensor:
        x, causal = self._embed_forced(target)
        return self.decoder(x, causal, None, memory)

    def _embed_step(self, state: DecoderState, tokens: Tensor) -> Tensor:
        # A sentence that is done may still be in the batch when its positions have come to an end.
        numbers = state.positions().clamp_max(self.max_target_positions - 1) + self.config.decoder.positions.offset
        return self.target_embedding.step(tokens, numbers)


def pad_batch(rows: list[list[int]], pad: int) -> Tensor:
    """Token ids of several lengths as one (batch, longest) tensor, padded on the right."""
    longest = max(map(len, rows))
    return torch.stack([F.pad(torch.tensor(row), (0, longest - len(row)), value=pad) for row in rows])
