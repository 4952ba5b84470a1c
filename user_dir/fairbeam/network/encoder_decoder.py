"""The encoder-decoder Transformer: teacher forcing in training, one step at a time in decoding."""

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
from fairbeam.network.verification_state import ScoredPositions, VerificationState


class EncoderDecoder(DecodingNetwork):
    """The encoder-decoder Transformer of an ``EncoderDecoderConfig``.

    ``forward`` runs the whole target at once under teacher forcing. Decoding calls ``prefill`` once per batch and
    ``step`` once per token. Linear layers and attention compute in ``compute_dtype``; the residual stream, the norms
    and the weights are float32 (the weights until ``for_inference``).
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
            self.decoder.share_layers_(self.encoder)
        if config.tie_output:
            self.head.weight = self.target_embedding.weight
        self._masks = masks
        self._set_compute_dtype(compute_dtype, compute_dtype)

    def forward(self, source: Tensor, target: Tensor, *, features_only: bool = False) -> Tensor:
        """Predict each target token from the source and the target before it (teacher forcing).

        Args:
            source: (batch, source) token ids, padded on either side.
            target: (batch, target) ids of the previous tokens (begins with ``decoder_start``), padded on the right.
            features_only: return the input of the output projection instead of logits.

        Returns:
            Logits (batch, target, vocabulary) in ``compute_dtype``, or float32 features (batch, target, dim).
        """
        if self.training:
            self._masks.restart()
        memory = self.cross_attention_cache(*self.encode(source))
        x, causal = self._embed_target(target)
        features = self.decoder(x, causal, None, memory)
        return features if features_only else self.head(features)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode token ids, (batch, source).

        Returns:
            Hidden states, (batch, source, dim), and the padding mask for cross-attention, (batch * decoder heads, 1,
            source), 0 at tokens and -inf at padding; None where nothing is padded.
        """
        real = source.ne(self.config.padding_of_sources)
        x = self.source_embedding(source, position_ids(real, self.config.encoder.positions))
        if bool(real.all()):
            return self.encoder(x, None), None
        mask = torch.zeros_like(real, dtype=self.attention_dtype).masked_fill_(~real, float("-inf"))[:, None]
        states = self.encoder(x, per_head(mask, self.config.encoder.num_kv_heads))
        return states, per_head(mask, self.config.decoder.heads)

    def cross_attention_cache(
        self, states: Tensor, mask: Tensor | None, *, may_absorb: bool = False, by_row: bool = False
    ) -> CrossAttentionCache:
        """Project encoder states to every decoder layer's cross-attention keys and values.

        Args:
            states: (batch, source, dim), from ``encode``.
            mask: padding mask, from ``encode``.
            may_absorb: for decoding: multiply projections in (``AbsorbedKeyValues``) if that makes matrices smaller,
                as for a few short sentences on a CPU.
            by_row: for decoding by native kernels, which read the rows of unfinished sentences in place.
        """
        attentions = [layer.cross_attention for layer in self._decoder_layers()]
        projected = [attention.project(states) for attention in attentions]
        narrow = len(states) * states.size(1) * self.config.decoder.heads <= self.config.decoder.dim
        if may_absorb and narrow and all(attention.can_absorb for attention in attentions):
            absorbed = [attention.absorb(layer, mask) for attention, layer in zip(attentions, projected, strict=True)]
            return CrossAttentionCache(len(states), absorbed, None)
        if by_row:
            rows = torch.arange(len(states), device=states.device)
            projected = [layer._replace(rows=rows) for layer in projected]
        return CrossAttentionCache(len(states), projected, mask)

    def prefill(self, source: Tensor, beams: int, *, joins: bool = False) -> DecoderState:
        """Encode a batch and make an empty decoder state.

        Args:
            source: (batch, source) token ids, padded on either side.
            beams: hypotheses per sentence.
            joins: prepare the state for ``DecoderState.join``, on either side of it.
        """
        states, mask = self.encode(source)
        memory = self.cross_attention_cache(states, mask, may_absorb=not joins, by_row=self.attends_natively)
        heads, like = self.config.decoder.num_kv_heads, memory.layers[0].keys
        head_dim = self.config.decoder.head_dim_resolved
        caches = [KeyValues.empty(len(source), heads, head_dim, like, 32 * beams) for _ in self._decoder_layers()]
        return DecoderState(memory, caches, len(source), beams, like, by_slot=self._attends_by_slot)

    def step(self, state: DecoderState, tokens: Tensor) -> Tensor:
        """Run one decoding step and return the logits of every beam's next token.

        Args:
            state: updated in place.
            tokens: (batch, beams) ids of the latest tokens; at the first step those of a sentence are equal.

        Returns:
            Float32 logits (batch, beams, vocabulary), exact to ``compute_dtype``'s rounding.
        """
        return self._scores(state, self.features_of_step(state, tokens))

    def features_of_step(self, state: DecoderState, tokens: Tensor) -> Tensor:
        """Run one decoding step up to the output projection; arguments as for ``step``.

        Returns:
            Features (batch, beams, dim), or (batch, 1, dim) at the first step, where all beams are equal.
        """
        if state.steps == 0:  # all beams are equal
            tokens = tokens[:, :1]
        features: Tensor = self.decoder(self._embed_step(state, tokens), state.advance(), state.layers, state.memory)
        return features

    @property
    def weights_of_step(self) -> int:
        """Number of weights that a decoding step multiplies each token's vectors with."""
        linears = {module for module in self.decoder.modules() if isinstance(module, Linear)} - self._source_linears()
        return sum(linear.inputs * linear.outputs for linear in {*linears, self._output})

    def forward_block(
        self, state: VerificationState, tokens: Tensor, starts: Tensor, scored: ScoredPositions
    ) -> Tensor:
        """Run a block of several tokens per hypothesis and return the logits of the token after each scored one.

        Args:
            state: updated in place; cache entries at or after ``starts`` are overwritten.
            tokens: (batch, new) ids.
            starts: (batch,) index of each row's first token in its target, where the start symbol is 0. All tokens
                before it have been run.
            scored: row and column indices into ``tokens``, each (scored,) long.

        Returns:
            Float32 logits (scored, vocabulary), as of ``step``; the state's features are those of the scored positions,
            each as a sentence with one beam.
        """
        indices = starts.unsqueeze(1) + torch.arange(tokens.size(1), device=tokens.device)
        last = self.max_target_positions - 1
        mask, queries, keys = state.reserve_block(indices, last, by_slot=self._attends_by_slot)
        ids = (queries + self.config.decoder.positions.offset).expand(tokens.shape)
        x = self.target_embedding.step(tokens, ids)
        features = self.decoder(x, mask, state.layers, state.memory, PositionIds(queries, keys))
        return self._scores(state, features[scored].unsqueeze(1))[:, 0]

    @torch.no_grad()
    def alignments(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the last decoder layer's cross-attention under teacher forcing, averaged over heads.

        Args:
            source: (batch, source) ids.
            target: (batch, target) ids of the previous tokens, as in ``forward``.

        Returns:
            (batch, target, source); rows sum to one.
        """
        memory = self.cross_attention_cache(*self.encode(source))
        x, causal = self._embed_target(target)
        mask, relative = self.decoder.attention_inputs(x, causal, None)
        *below, last = self._decoder_layers()
        for layer, key_values in zip(below, memory.layers, strict=False):
            x = layer(x, mask, None, key_values, memory.mask, relative)
        return last.alignment(x, mask, None, memory.layers[-1].keys, memory.mask, relative)

    def _packed_dtype(self, linear: Linear, dtype: torch.dtype) -> torch.dtype:
        # These layers run once per sentence, not once per token, so 16 bits cost next to nothing.
        packed = super()._packed_dtype(linear, dtype)
        exact = packed is torch.int8 and native.multiplies_integers() and linear in self._source_linears()
        return torch.int16 if exact else packed

    def _source_linears(self) -> set[Linear]:
        """Return the linear layers that run once per source: the encoder's and those of cross-attention's keys."""
        encoder = {module for module in self.encoder.modules() if isinstance(module, Linear)}
        return encoder | {layer.cross_attention.key_value for layer in self._decoder_layers()}

    @property
    def decoder_start(self) -> int:
        """Id of the token that begins the decoder's input."""
        return self.config.eos if self.config.decoder_start is None else self.config.decoder_start

    @property
    def first_token(self) -> int | None:
        """Id of the configured token that begins the decoder's input; None for ``</s>``."""
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
        """Return the longest target in tokens, ``</s>`` included, for a source of this length."""
        return self.max_target_positions

    @property
    def supports_joining(self) -> bool:
        """Whether sentences may join a running batch; rotary position ids are the same for the whole batch."""
        return self.config.decoder.positions.kind is not PositionKind.ROTARY

    @property
    def _attends_by_slot(self) -> bool:
        stack = self.config.decoder
        return (
            self.attends_natively and stack.num_kv_heads == stack.heads and not stack.positions.kind.acts_in_attention
        )

    def _set_rounded_head(self, rounded: RoundedHead) -> None:
        super()._set_rounded_head(rounded)
        self.fused_decoder = self._build_fused_decoder()

    def _build_fused_decoder(self) -> FusedDecoder | None:
        """Collect embedding, layers, final norm and output projection for native calls; None if unsupported."""
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

    def _embed_target(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (batch, target, dim) and the causal mask (target, target)."""
        length = target.size(1)
        ids = torch.arange(length, device=target.device) + self.config.decoder.positions.offset
        x = self.target_embedding(target, ids)
        causal = x.new_full((length, length), float("-inf"), dtype=self.attention_dtype).triu(1)
        return x, causal

    def _embed_step(self, state: DecoderState, tokens: Tensor) -> Tensor:
        # A finished sentence may stay in the batch beyond the last position.
        ids = state.positions().clamp_max(self.max_target_positions - 1) + self.config.decoder.positions.offset
        return self.target_embedding.step(tokens, ids)


def pad_batch(rows: list[list[int]], pad: int) -> Tensor:
    """Pad lists of token ids on the right with ``pad`` and stack them: (batch, longest) long."""
    longest = max(map(len, rows))
    return torch.stack([F.pad(torch.tensor(row), (0, longest - len(row)), value=pad) for row in rows])
