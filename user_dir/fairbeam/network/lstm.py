"""The recurrent encoder-decoder: LSTMs, global attention, input feeding (Luong et al., 2015, sections 3.1 and 3.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fairbeam.errors import ConfigError
from fairbeam.network.config_io import Described
from fairbeam.network.decoder_state import DecoderState
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.enums import Activation
from fairbeam.network.inference.heads import DecodingNetwork
from fairbeam.network.linear import Linear


@dataclass(frozen=True, kw_only=True)
class LSTMDropout:
    """Dropout probabilities in training."""

    encoder_input: float = 0.1
    """On source embeddings."""
    encoder_output: float = 0.1
    """On the states of every layer of the encoder."""
    decoder_input: float = 0.1
    """On target embeddings."""
    decoder_output: float = 0.1
    """On the states of every layer of the decoder, and on what attention makes of the last."""


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(Described):
    """A whole recurrent network."""

    source_vocabulary: int
    target_vocabulary: int
    layers: int = 1
    """Of the encoder and of the decoder, whose layers start from the encoder's."""
    encoder_embedding: int = 512
    """Width of source embeddings."""
    encoder_hidden: int = 512
    """Width of the encoder's states, in each direction."""
    bidirectional: bool = False
    """The encoder reads from either end; states of both directions stand side by side."""
    decoder_embedding: int = 512
    """Width of target embeddings."""
    decoder_hidden: int = 512
    """Width of the decoder's states."""
    output_dim: int = 512
    """Width of what the output projection reads; a projection leads to it where the states have another."""
    attention: bool = True
    """The decoder looks at the encoder's states; otherwise only at the last, from which it starts."""
    share_embeddings: bool = False
    """One matrix embeds source and target tokens."""
    tie_output: bool = False
    """The output projection is the target embedding, and has no bias then."""
    dropout: LSTMDropout = LSTMDropout()
    max_source_positions: int = 100000
    max_target_positions: int = 100000
    bos: int = 0
    pad: int = 1
    eos: int = 2
    unk: int = 3

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
        """What fills batches of sources."""
        return self.pad

    @property
    def encoder_units(self) -> int:
        """Numbers in a state of the encoder."""
        return self.encoder_hidden * (2 if self.bidirectional else 1)


@dataclass
class Encoding:
    """The encoded source."""

    states: Tensor
    """(batch, source, units), real tokens first."""
    closed: Tensor
    """(batch, 1, source), 0 at tokens and -inf at padding."""
    order: Tensor
    """(batch, source): the column of the batch that each state is of."""


class LSTMState(DecoderState):
    """What the decoder remembers between steps: states and cells of its layers, and what attention made last."""

    def __init__(self, encoding: Encoding, hidden: Tensor, cells: Tensor, feed: Tensor, beams: int) -> None:
        """A state before the first token.

        Args:
            encoding: the source.
            hidden: (layers, batch, 1, dim) states; ``cells`` alike. Beams are equal until the first choice.
            feed: (batch, 1, dim), an input beside the next token's embedding.
            beams: hypotheses a sentence.
        """
        super().__init__(None, [], len(feed), beams, feed)
        self.encoding = encoding
        self.hidden, self.cells, self.feed = hidden, cells, feed

    def reorder(self, parents: Tensor) -> None:
        index = parents.unsqueeze(2).expand(-1, -1, self.feed.size(2))

        def chosen(x: Tensor) -> Tensor:
            """Of (..., batch, beams or 1, dim)."""
            every = x.expand(*x.shape[:-2], self.beams, -1)
            return every.gather(-2, index.expand(*x.shape[:-3], *index.shape))

        self.hidden, self.cells, self.feed = chosen(self.hidden), chosen(self.cells), chosen(self.feed)

    def select(self, sentences: Tensor) -> None:
        source = self.encoding
        self.encoding = Encoding(source.states[sentences], source.closed[sentences], source.order[sentences])
        self.hidden, self.cells, self.feed = self.hidden[:, sentences], self.cells[:, sentences], self.feed[sentences]


class LSTM(DecodingNetwork):
    """LSTMs described by a ``LSTMConfig``; decodes as ``EncoderDecoder`` does. The LSTMs compute in float32."""

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
        # Where the widths differ, the decoder starts from projections of the encoder's last states.
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
        """Predict each next target token; arguments and result as ``EncoderDecoder.forward``'s."""
        if self.training:
            self._masks.restart()
        features = self._project(self._decode_forced(source, target)[0])
        return features if features_only else self.head(features)

    def prefill(self, source: Tensor, beams: int) -> LSTMState:
        """Encode a batch and make a decoder state for ``beams`` hypotheses a sentence."""
        encoding, hidden, cells = self._encode(source)
        feed = hidden.new_zeros(len(source), 1, self.config.decoder_hidden)
        return LSTMState(encoding, hidden, cells, feed, beams)

    def step(self, state: LSTMState, tokens: Tensor) -> Tensor:
        """Scores of the next token of every beam; arguments and result as ``EncoderDecoder.step``'s."""
        return self._scores(state, self.features_of_step(state, tokens))

    def features_of_step(self, state: LSTMState, tokens: Tensor) -> Tensor:
        if state.steps == 0:  # all beams are one
            tokens = tokens[:, :1]
        state.steps += 1
        self._advance(state, tokens)
        return self._project(state.feed)

    @torch.no_grad()
    def alignments(self, source: Tensor, target: Tensor) -> Tensor:
        """Attention under teacher forcing, (batch, target, source); arguments as ``EncoderDecoder.alignments``'s.

        Raises:
            ConfigError: there is no attention.
        """
        encoding, weights = self._decode_forced(source, target)[1:]
        if not weights:
            raise ConfigError("attention is False: the network has no alignments")
        columns = encoding.order[:, None].expand(-1, len(weights), -1)
        together = torch.cat(weights, dim=1)
        return torch.zeros_like(together).scatter(2, columns, together)

    @property
    def decoder_start(self) -> int:
        """The symbol that a target begins with on the decoder's input."""
        return self.config.eos

    @property
    def first_token(self) -> None:
        """None: decoding begins with ``</s>``."""
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
        """Longest target in tokens, ``</s>`` included, for a source of this length."""
        return self.max_target_positions

    def _output_embedding(self) -> Tensor:
        return self.target_embedding.weight

    def _encode(self, source: Tensor) -> tuple[Encoding, Tensor, Tensor]:
        """The source, and the states and cells (layers, batch, 1, dim) that the decoder starts from."""
        real = source.ne(self.config.pad)
        order = real.logical_not().byte().argsort(dim=1, stable=True)
        x = self.drop["encoder_input"](self.source_embedding(source.gather(1, order)))
        packed = pack_padded_sequence(x, real.sum(1).clamp_min(1).cpu(), batch_first=True, enforce_sorted=False)
        out, (hidden, cells) = self.encoder(packed)
        states, _ = pad_packed_sequence(out, batch_first=True, total_length=source.size(1))
        closed = torch.zeros_like(states[:, :, 0]).masked_fill_(~real.gather(1, order), float("-inf"))
        encoding = Encoding(self.drop["encoder_output"](states), closed.unsqueeze(1), order)
        return encoding, self._first(hidden, self.first_hidden), self._first(cells, self.first_cell)

    def _first(self, last: Tensor, bridge: Linear | None) -> Tensor:
        """(layers * directions, batch, hidden) to what the decoder's layers start from, (layers, batch, 1, dim)."""
        both = last.unflatten(0, (self.config.layers, -1)).transpose(1, 2).flatten(2).unsqueeze(2)
        return both if bridge is None else bridge(both).float()

    def _decode_forced(self, source: Tensor, target: Tensor) -> tuple[Tensor, Encoding, list[Tensor]]:
        """Features (batch, target, dim), the source, and attention (batch, 1, source) of each step."""
        state = self.prefill(source, 1)
        steps = [(self._advance(state, target[:, place : place + 1]), state.feed) for place in range(target.size(1))]
        return torch.cat([feed for _, feed in steps], dim=1), state.encoding, [w for w, _ in steps if w is not None]

    def _advance(self, state: LSTMState, tokens: Tensor) -> Tensor | None:
        """Read (batch, beams) tokens; the next features are ``state.feed``. Returns the attention, if there is any."""
        embedded = self.drop["decoder_input"](self.target_embedding(tokens))
        beams = tokens.size(1)
        x = torch.cat([embedded, state.feed.expand(-1, beams, -1)], dim=2).flatten(0, 1)
        # Until beams differ there is one state for all.
        before = (kept.expand(-1, -1, beams, -1).flatten(1, 2) for kept in (state.hidden, state.cells))
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
        """What the source makes of states (batch, beams, dim), and where they looked."""
        if self.attention_query is None or self.attention_output is None:
            return hidden, None
        query = self.attention_query(hidden).float()
        weights = torch.baddbmm(encoding.closed, query, encoding.states.mT).softmax(-1)
        context = torch.bmm(weights, encoding.states)
        return self.attention_output(torch.cat([context, hidden], dim=2)).float(), weights

    def _project(self, features: Tensor) -> Tensor:
        if self.projection is None:
            return features
        projected: Tensor = self.drop["decoder_output"](self.projection(features).float())
        return projected
