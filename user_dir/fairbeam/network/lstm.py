"""The LSTM encoder-decoder with global attention and input feeding (Luong et al., 2015, sections 3.1 and 3.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fairbeam.errors import ConfigError
from fairbeam.network.config_io import SerializableConfig
from fairbeam.network.decoder_state import DecoderState
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.enums import Activation
from fairbeam.network.inference.heads import DecodingNetwork
from fairbeam.network.linear import Linear


@dataclass(frozen=True, kw_only=True)
class LSTMDropout:
    """Dropout probabilities in training."""

    encoder_input: float = 0.1
    """Dropout of source embeddings."""
    encoder_output: float = 0.1
    """Dropout of the hidden states of every encoder layer."""
    decoder_input: float = 0.1
    """Dropout of target embeddings."""
    decoder_output: float = 0.1
    """Dropout of the hidden states of every decoder layer and of the attention's output."""


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(SerializableConfig):
    """Configuration of an LSTM encoder-decoder."""

    source_vocabulary: int
    """Number of source tokens."""
    target_vocabulary: int
    """Number of target tokens."""
    layers: int = 1
    """Number of layers of the encoder and of the decoder; each decoder layer starts from the encoder layer's last
    state."""
    encoder_embedding: int = 512
    """Width of source embeddings."""
    encoder_hidden: int = 512
    """Width of the encoder's hidden states, per direction."""
    bidirectional: bool = False
    """The encoder is bidirectional; the states of both directions are concatenated."""
    decoder_embedding: int = 512
    """Width of target embeddings."""
    decoder_hidden: int = 512
    """Width of the decoder's hidden states."""
    output_dim: int = 512
    """Width of the output projection's input; decoder states of another width are projected to it."""
    attention: bool = True
    """The decoder attends to the encoder's states; otherwise only its initial state depends on the source."""
    share_embeddings: bool = False
    """Source and target tokens share one embedding."""
    tie_output: bool = False
    """The output projection is tied to the target embedding and has no bias."""
    dropout: LSTMDropout = LSTMDropout()
    max_source_positions: int = 100000
    """Longest source in tokens, ``</s>`` included."""
    max_target_positions: int = 100000
    """Longest target in tokens, ``</s>`` included."""
    bos: int = 0
    """Id of the beginning-of-sequence token."""
    pad: int = 1
    """Padding id."""
    eos: int = 2
    """Id of the end-of-sequence token."""
    unk: int = 3
    """Id of the unknown token."""

    def __post_init__(self) -> None:
        sides = (self.source_vocabulary, self.encoder_embedding), (self.target_vocabulary, self.decoder_embedding)
        if self.share_embeddings and sides[0] != sides[1]:
            raise ConfigError(f"share_embeddings needs equal shapes, but the embeddings are {sides[0]} and {sides[1]}")
        if self.tie_output and self.output_dim != self.decoder_embedding:
            raise ConfigError(
                f"tie_output needs equal widths, but output_dim is {self.output_dim} and decoder_embedding is "
                f"{self.decoder_embedding}"
            )

    @property
    def padding_of_sources(self) -> int:
        """Padding id of sources."""
        return self.pad

    @property
    def encoder_units(self) -> int:
        """Width of the encoder's hidden states, both directions together."""
        return self.encoder_hidden * (2 if self.bidirectional else 1)


@dataclass
class Encoding:
    """The encoded source, with tokens before padding."""

    states: Tensor
    """Hidden states, (batch, source, units)."""
    padding_mask: Tensor
    """(batch, 1, source), 0 at tokens and -inf at padding."""
    order: Tensor
    """(batch, source): column of the original batch that each state belongs to."""


class LSTMState(DecoderState):
    """The state between decoding steps: the encoded source, hidden and cell states, and the latest attention output."""

    def __init__(self, encoding: Encoding, hidden: Tensor, cells: Tensor, feed: Tensor, beams: int) -> None:
        """Make the state before the first token, where all beams are equal.

        Args:
            encoding: the source.
            hidden: (layers, batch, 1, dim) hidden states.
            cells: (layers, batch, 1, dim) cell states.
            feed: (batch, 1, dim) input feeding: the attention output, concatenated to the next token's embedding.
            beams: hypotheses per sentence.
        """
        super().__init__(None, [], len(feed), beams, feed)
        self.encoding = encoding
        self.hidden, self.cells, self.feed = hidden, cells, feed

    def reorder(self, parents: Tensor) -> None:
        index = parents.unsqueeze(2).expand(-1, -1, self.feed.size(2))

        def reordered(x: Tensor) -> Tensor:
            """Gather the parents' vectors of (..., batch, beams or 1, dim)."""
            every = x.expand(*x.shape[:-2], self.beams, -1)
            return every.gather(-2, index.expand(*x.shape[:-3], *index.shape))

        self.hidden, self.cells, self.feed = reordered(self.hidden), reordered(self.cells), reordered(self.feed)

    def select(self, sentences: Tensor) -> None:
        source = self.encoding
        self.encoding = Encoding(source.states[sentences], source.padding_mask[sentences], source.order[sentences])
        self.hidden, self.cells, self.feed = self.hidden[:, sentences], self.cells[:, sentences], self.feed[sentences]


class LSTM(DecodingNetwork):
    """The LSTM encoder-decoder of an ``LSTMConfig``, with the methods of ``EncoderDecoder``. LSTMs compute in
    float32."""

    def __init__(self, config: LSTMConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        masks, drop, units, width = MaskSource(), config.dropout, config.encoder_units, config.decoder_hidden
        self.source_embedding = nn.Embedding(config.source_vocabulary, config.encoder_embedding, config.pad)
        self.target_embedding = nn.Embedding(config.target_vocabulary, config.decoder_embedding, config.pad)
        self.encoder = nn.LSTM(
            config.encoder_embedding, config.encoder_hidden, config.layers, batch_first=True,
            bidirectional=config.bidirectional, dropout=drop.encoder_output if config.layers > 1 else 0.0,
        )  # fmt: skip
        # If the widths differ, the decoder starts from projections of the encoder's last states.
        self.first_hidden = Linear(units, width) if units != width else None
        self.first_cell = Linear(units, width) if units != width else None
        inputs = [config.decoder_embedding + width, *[width] * (config.layers - 1)]
        self.decoder = nn.ModuleList(nn.LSTMCell(size, width) for size in inputs)
        self.attention_query = Linear(width, units, bias=False) if config.attention else None
        self.attention_output = (
            Linear(units + width, width, bias=False, activation=Activation.TANH) if config.attention else None
        )
        self.projection = Linear(width, config.output_dim) if width != config.output_dim else None
        self.head = Linear(config.output_dim, config.target_vocabulary, bias=not config.tie_output)
        self.drop = nn.ModuleDict({name: Dropout(p, masks) for name, p in vars(drop).items()})
        self._masks = masks
        if config.share_embeddings:
            self.target_embedding.weight = self.source_embedding.weight
        if config.tie_output:
            self.head.weight = self.target_embedding.weight  # type: ignore[assignment]
        self._set_compute_dtype(compute_dtype, compute_dtype)

    def forward(self, source: Tensor, target: Tensor, *, features_only: bool = False) -> Tensor:
        """Predict each next target token; arguments and result as for ``EncoderDecoder.forward``."""
        if self.training:
            self._masks.restart()
        features = self._project(self._decode_forced(source, target)[0])
        return features if features_only else self.head(features)

    def prefill(self, source: Tensor, beams: int) -> LSTMState:
        """Encode a batch, (batch, source) ids, and make a decoder state for ``beams`` hypotheses per sentence."""
        encoding, hidden, cells = self._encode(source)
        feed = hidden.new_zeros(len(source), 1, self.config.decoder_hidden)
        return LSTMState(encoding, hidden, cells, feed, beams)

    def step(self, state: LSTMState, tokens: Tensor) -> Tensor:
        """Run one decoding step; arguments and result as for ``EncoderDecoder.step``."""
        return self._scores(state, self.features_of_step(state, tokens))

    def features_of_step(self, state: LSTMState, tokens: Tensor) -> Tensor:
        if state.steps == 0:  # all beams are equal
            tokens = tokens[:, :1]
        state.steps += 1
        self._advance(state, tokens)
        return self._project(state.feed)

    @torch.no_grad()
    def alignments(self, source: Tensor, target: Tensor) -> Tensor:
        """Return attention under teacher forcing, (batch, target, source); see ``EncoderDecoder.alignments``.

        Raises:
            ConfigError: the network has no attention.
        """
        encoding, weights = self._decode_forced(source, target)[1:]
        if not weights:
            raise ConfigError("attention is False: the network has no alignments")
        columns = encoding.order[:, None].expand(-1, len(weights), -1)
        attention = torch.cat(weights, dim=1)
        return torch.zeros_like(attention).scatter(2, columns, attention)

    @property
    def decoder_start(self) -> int:
        """Id of the token that begins the decoder's input."""
        return self.config.eos

    @property
    def first_token(self) -> None:
        """None: the decoder's input begins with ``</s>``."""
        return None

    @property
    def max_source_positions(self) -> int:
        """Longest source in tokens, ``</s>`` included."""
        return self.config.max_source_positions

    @property
    def max_target_positions(self) -> int:
        """Longest target in tokens, ``</s>`` included."""
        return self.config.max_target_positions

    def longest_target(self, source_length: int) -> int:
        """Return the longest target in tokens, ``</s>`` included, for a source of this length."""
        return self.max_target_positions

    def _output_embedding(self) -> Tensor:
        return self.target_embedding.weight

    def _encode(self, source: Tensor) -> tuple[Encoding, Tensor, Tensor]:
        """Encode (batch, source) ids; also return the decoder's initial hidden and cell states, (layers, batch, 1,
        dim)."""
        real = source.ne(self.config.pad)
        order = real.logical_not().byte().argsort(dim=1, stable=True)
        x = self.drop["encoder_input"](self.source_embedding(source.gather(1, order)))
        packed = pack_padded_sequence(x, real.sum(1).clamp_min(1).cpu(), batch_first=True, enforce_sorted=False)
        out, (hidden, cells) = self.encoder(packed)
        states, _ = pad_packed_sequence(out, batch_first=True, total_length=source.size(1))
        mask = torch.zeros_like(states[:, :, 0]).masked_fill_(~real.gather(1, order), float("-inf"))
        encoding = Encoding(self.drop["encoder_output"](states), mask.unsqueeze(1), order)
        return encoding, self._initial(hidden, self.first_hidden), self._initial(cells, self.first_cell)

    def _initial(self, last: Tensor, bridge: Linear | None) -> Tensor:
        """Map the encoder's last states (layers * directions, batch, hidden) to the decoder's initial ones, (layers,
        batch, 1, dim)."""
        both = last.unflatten(0, (self.config.layers, -1)).transpose(1, 2).flatten(2).unsqueeze(2)
        return both if bridge is None else bridge(both).float()

    def _decode_forced(self, source: Tensor, target: Tensor) -> tuple[Tensor, Encoding, list[Tensor]]:
        """Decode with teacher forcing: return features (batch, target, dim), the encoded source, and each step's
        attention (batch, 1, source)."""
        state = self.prefill(source, 1)
        steps = [(self._advance(state, target[:, t : t + 1]), state.feed) for t in range(target.size(1))]
        return torch.cat([feed for _, feed in steps], dim=1), state.encoding, [w for w, _ in steps if w is not None]

    def _advance(self, state: LSTMState, tokens: Tensor) -> Tensor | None:
        """Run the decoder on (batch, beams) tokens, update ``state`` (its ``feed`` is the features), return
        attention."""
        embedded = self.drop["decoder_input"](self.target_embedding(tokens))
        beams = tokens.size(1)
        x = torch.cat([embedded, state.feed.expand(-1, beams, -1)], dim=2).flatten(0, 1)
        # As long as all beams are equal they share one state.
        before = (each.expand(-1, -1, beams, -1).flatten(1, 2) for each in (state.hidden, state.cells))
        hidden, cells = [], []
        for cell, *last in zip(self.decoder, *before, strict=True):
            states = cell(x, tuple(last))
            x = self.drop["decoder_output"](states[0])
            hidden.append(states[0].view(*tokens.shape, -1))
            cells.append(states[1].view(*tokens.shape, -1))
        state.hidden, state.cells = torch.stack(hidden), torch.stack(cells)
        out, weights = self._attend(hidden[-1], state.encoding)
        state.feed = self.drop["decoder_output"](out)
        return weights

    def _attend(self, hidden: Tensor, encoding: Encoding) -> tuple[Tensor, Tensor | None]:
        """Attend from hidden states (batch, beams, dim) to the source.

        Returns:
            Attentional states (batch, beams, dim), and attention (batch, beams, source); without attention the hidden
            states and None.
        """
        if self.attention_query is None or self.attention_output is None:
            return hidden, None
        query = self.attention_query(hidden).float()
        weights = torch.baddbmm(encoding.padding_mask, query, encoding.states.mT).softmax(-1)
        context = torch.bmm(weights, encoding.states)
        return self.attention_output(torch.cat([context, hidden], dim=2)).float(), weights

    def _project(self, features: Tensor) -> Tensor:
        """Project features (..., dim) to the output projection's width."""
        if self.projection is None:
            return features
        projected: Tensor = self.drop["decoder_output"](self.projection(features).float())
        return projected
