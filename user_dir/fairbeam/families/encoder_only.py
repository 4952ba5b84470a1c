"""Pages of encoders and of decoders alone that Hugging Face keeps, and how their ``config.json`` is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.families.seq2seq import MAX_POSITIONS, MAX_SIZE, LoadPlan, Options
from fairbeam.families.weight_map import Row
from fairbeam.network import (
    Activation,
    AdaptiveConfig,
    AnyConfig,
    DecoderOnlyConfig,
    DropoutConfig,
    EncoderOnlyConfig,
    HeadConfig,
    PositionConfig,
    PositionKind,
    RotaryScaling,
    StackConfig,
)

MAX_LAYERS = 1 << 12
"""Shared layers cost no weights: those do not bound their number."""

BERT_NAMES: Mapping[str, str] = {
    "vocabulary": "vocab_size",
    "layers": "num_hidden_layers",
    "dim": "hidden_size",
    "heads": "num_attention_heads",
    "ffn_dim": "intermediate_size",
    "activation": "hidden_act",
    "max_positions": "max_position_embeddings",
    "token_types": "type_vocab_size",
    "norm_epsilon": "layer_norm_eps",
    "residual_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "head_dropout": "classifier_dropout",
    "pad": "pad_token_id",
}
"""Our options, as BERT's configuration and those that descend from it call them."""

GPT_NAMES: Mapping[str, str] = {
    "vocabulary": "vocab_size",
    "layers": "n_layer",
    "dim": "n_embd",
    "heads": "n_head",
    "max_positions": "n_positions",
    "norm_epsilon": "layer_norm_epsilon",
    "residual_dropout": "resid_pdrop",
    "attention_dropout": "attn_pdrop",
    "pad": "pad_token_id",
    "bos": "bos_token_id",
    "eos": "eos_token_id",
}
"""Our options, as GPT's configuration and those that descend from it call them."""

_FLAGS = ("bias", "qkv_bias", "attention_output_bias")
"""Fields of ``StackConfig`` that options of theirs may be."""

_MUST_BE: Mapping[str, Any] = {
    "is_encoder_decoder": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "quantization_config": None,
    "pruned_heads": {},
}


@dataclass(frozen=True, kw_only=True)
class HeadPage:
    """A head that weights of theirs stand for."""

    place: str
    """Field of ``EncoderOnlyConfig``."""
    mark: str
    """A tensor of theirs with a row for each label; where it is, the head is."""
    hidden: str | None = None
    """A tensor of theirs with a row for each output of the first linear layer."""
    activation: Activation | None = None
    """Behind the first layer; the stack's if None."""
    norm: bool = False
    drops: bool = True
    """Whether there is dropout before the last layer."""
    drops_input: bool = False
    """Whether there is dropout before the first of two."""
    classes: tuple[str, ...] = ()
    """How the model's class is named where the same tensors serve two heads; any way if empty."""

    def there(self, theirs: Mapping[str, Tensor], architecture: str) -> bool:
        """Whether these weights have the head."""
        wanted = self.hidden is None or self.hidden in theirs
        return self.mark in theirs and wanted and (not self.classes or architecture.endswith(self.classes))

    def config(self, theirs: Mapping[str, Tensor], activation: Activation, dropout: float) -> HeadConfig:
        """The head, its sizes taken from the weights.

        Raises:
            ConfigError: a size is out of range.
        """
        return HeadConfig(
            outputs=_first_axis(self.mark, theirs),
            hidden=None if self.hidden is None else _first_axis(self.hidden, theirs),
            activation=activation if self.activation is None else self.activation,
            norm=self.norm,
            input_dropout=dropout if self.drops_input else 0.0,
            dropout=dropout if self.drops else 0.0,
        )


@dataclass(frozen=True, kw_only=True)
class _Page:
    """What pages of either shape say."""

    model_type: str
    """Hugging Face's name of the family."""
    prefix: str
    """What the bare model's names begin with where there is a head."""
    stack: StackConfig
    """The layers as far as no option changes them; sizes are overwritten."""
    rows: tuple[Row, ...]
    """Our tensors and theirs. Of two names for one tensor either may be missing."""
    names: Mapping[str, str]
    """Our options and theirs; those that are not there stay as ``stack`` has them. ``window`` is how far back theirs
    attends: within it, sequences are computed alike, and longer ones are not taken."""
    defaults: Mapping[str, Any]
    """Options that ``config.json`` may leave out."""
    must_be: Mapping[str, Any] = field(default_factory=dict)
    """Options that the network cannot follow, with the value that leaves it alone."""
    activations: Mapping[str, str] = field(default_factory=dict)
    """Names of activations that mean another one here."""
    position_kinds: Mapping[str, PositionKind] = field(default_factory=dict)
    """Values of ``position_embedding_type`` other than ``absolute``, which is the kind that ``stack`` has."""
    tables: tuple[Row, ...] = ()
    outside: frozenset[str] = frozenset()
    not_weights: str = ""
    """Regular expression of names that carry no weights."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of the sizes that were published, by their names."""

    def rows_for(self, config: AnyConfig, options: Mapping[str, Any]) -> tuple[Row, ...]:
        """Our tensors and theirs; see ``Page``."""
        return self.rows

    def options(self, config: Mapping[str, Any]) -> Options:
        """The options that are given or implied.

        Raises:
            ConfigError: one of ``must_be`` is another.
        """
        options = Options({**self.defaults, **config})
        for name, neutral in {**_MUST_BE, **self.must_be}.items():
            options.require(name, neutral)
        return options

    def stack_config(self, options: Options, pad: int) -> StackConfig:
        """The layers that a ``config.json`` describes."""
        epsilon = self.names.get("norm_epsilon")
        flags = {name: options.flag(self.names[name]) for name in _FLAGS if name in self.names}
        return replace(
            self.stack,
            **self._sizes(options),  # type: ignore[arg-type]
            **flags,  # type: ignore[arg-type]
            activation=self._activation(options),
            norm_epsilon=self.stack.norm_epsilon if epsilon is None else options.probability(epsilon),
            positions=self._positions(options, pad),
        )

    def dropout_config(self, options: Options) -> DropoutConfig:
        """Dropout in training; where embeddings have a probability of their own, the blocks' stands for both."""
        residual, attention = (self.names.get(f"{place}_dropout") for place in ("residual", "attention"))
        return DropoutConfig(
            residual=0.0 if residual is None else options.probability(residual),
            attention=0.0 if attention is None else options.probability(attention),
        )

    def _sizes(self, options: Options) -> dict[str, int | None]:
        sizes: dict[str, int | None] = {
            name: options.size(self.names[name], MAX_LAYERS if name.endswith("layers") else MAX_SIZE)
            for name in ("layers", "dim", "heads", "distinct_layers", "embedding_dim", "token_types")
            if name in self.names and not (name == "token_types" and options.values[self.names[name]] == 0)
        }
        dim, heads = options.size(self.names["dim"], MAX_SIZE), options.size(self.names["heads"], MAX_SIZE)
        # Files may spell out what None stands for, or leave it out: either way it is the same network.
        for name, implied in (("head_dim", dim // heads), ("key_value_heads", heads)):
            theirs = self.names.get(name)
            if theirs is not None and options.values[theirs] not in (None, implied):
                sizes[name] = options.size(theirs, MAX_SIZE)
        ffn = self.names.get("ffn_dim")
        sizes["ffn_dim"] = 4 * dim if ffn is None or options.values[ffn] is None else options.size(ffn, MAX_SIZE)
        return sizes

    def _positions(self, options: Options, pad: int) -> PositionConfig:
        positions, most = self.stack.positions, self.names["max_positions"]
        kind = self._position_kind(options)
        if kind.has_distance_vectors:  # distances between columns: theirs counts padding here, and reserves no row
            positions = replace(positions, kind=kind, offset=0, count_padding=True)
        offset = positions.offset if positions.count_padding else pad + 1
        rows, window = options.size(most, MAX_POSITIONS), self.names.get("window")
        if rows <= offset:
            raise ConfigError(f"{most} is {rows}; expected more than {offset}")
        if window is not None and options.values[window] is not None:
            rows = min(rows, offset + options.size(window, MAX_SIZE))
        rotary = rotary_options(options, rows) if positions.kind is PositionKind.ROTARY else {}
        return replace(positions, max_positions=rows - offset, offset=offset, **rotary)

    def _position_kind(self, options: Options) -> PositionKind:
        value = options.get("position_embedding_type")
        if value in (None, "absolute"):
            return self.stack.positions.kind
        if not isinstance(value, str) or value not in self.position_kinds:
            expected = ", ".join(("absolute", *self.position_kinds))
            raise ConfigError(f"position_embedding_type is {value!r}, which has no conversion; expected {expected}")
        return self.position_kinds[value]

    def _activation(self, options: Options) -> Activation:
        name = self.names.get("activation")
        if name is None:
            return self.stack.activation
        value = options.values[name]
        meant = self.activations.get(value, value) if isinstance(value, str) else value
        return Options({name: meant}).activation(name)


@dataclass(frozen=True, kw_only=True)
class EncoderOnlyFamily(_Page):
    """A page of an encoder without a decoder."""

    heads: tuple[HeadPage, ...]
    pooler: str | None = None
    """The tensor of theirs that is there where a pooler is."""
    projection: str | None = None
    """The tensor of theirs that is there where embeddings are projected; if None, all with a width of their own are."""

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> LoadPlan:
        """The network of a folder; see ``Page``."""
        options = self.options(config)
        network = self._bare(options)
        stack, dropout = network.encoder, network.dropout
        if self.projection is not None and self.projection not in theirs:
            stack = replace(stack, embedding_dim=None)
        special = self.names["head_dropout"]
        head_dropout = dropout.residual if options.values[special] is None else options.probability(special)
        architecture = _architecture(config)
        heads = {
            head.place: head.config(theirs, stack.activation, head_dropout)
            for head in self.heads
            if head.there(theirs, architecture)
        }
        network = replace(
            network,
            encoder=stack,
            pooler=self.pooler is not None and self.pooler in theirs,
            tie_output="symbol_head" in heads and options.flag("tie_word_embeddings"),
            symbol_head=heads.get("symbol_head"),
            token_head=heads.get("token_head"),
            sequence_head=heads.get("sequence_head"),
        )
        # Where layers tell distances apart, theirs stores a table of positions that nothing looks anything up in.
        table = {name for row in self.rows if row.ours == "embedding.positions.weight" for name in row.theirs}
        return LoadPlan(network, self.rows, frozenset(table if stack.positions.kind.has_distance_vectors else ()))

    def untrained(self, config: Mapping[str, Any]) -> EncoderOnlyConfig:
        """A masked language model before training; see ``Page``."""
        options = self.options(config)
        network = self._bare(options)
        stack = network.encoder
        if stack.embedding_dim == stack.dim:
            stack = replace(stack, embedding_dim=None)
        page = next(head for head in self.heads if head.place == "symbol_head")
        head = HeadConfig(
            outputs=network.vocabulary,
            hidden=stack.embedding_width,
            activation=stack.activation if page.activation is None else page.activation,
            norm=page.norm,
        )
        return replace(network, encoder=stack, symbol_head=head, tie_output=True)

    def _bare(self, options: Options) -> EncoderOnlyConfig:
        """The network without any head."""
        vocabulary = options.size(self.names["vocabulary"], MAX_SIZE)
        pad = options.symbol(self.names["pad"], vocabulary)
        stack, dropout = self.stack_config(options, pad), self.dropout_config(options)
        return EncoderOnlyConfig(vocabulary=vocabulary, encoder=stack, dropout=dropout, pad=pad)


@dataclass(frozen=True, kw_only=True)
class DecoderOnlyFamily(_Page):
    """A page of a decoder without an encoder."""

    bare: str = ""
    """Name of the class that has no output projection, where its weights do not imply one."""

    def rows_for(self, config: AnyConfig, options: Mapping[str, Any]) -> tuple[Row, ...]:
        """Our tensors and theirs; keys and values are shorter than queries where heads share them."""
        stack = config.decoder if isinstance(config, DecoderOnlyConfig) else self.stack
        shares = (stack.heads, stack.num_kv_heads, stack.num_kv_heads)
        return tuple(
            replace(row, shares=shares) if ".self_attention.qkv." in row.ours and len(row.theirs) == 3 else row
            for row in self.rows
        )

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> LoadPlan:
        """The network of a folder; see ``Page``."""
        options = self.options(config)
        vocabulary = options.size(self.names["vocabulary"], MAX_SIZE)
        bos, pad = (
            None if options.values[self.names[name]] is None else options.symbol(self.names[name], vocabulary)
            for name in ("bos", "pad")
        )
        ends = self._ends(options, vocabulary)
        tied = options.flag("tie_word_embeddings")
        biased = any(row.ours.startswith("head.bias") and row.at(0).theirs[0] in theirs for row in self.rows)
        network = DecoderOnlyConfig(
            vocabulary=vocabulary,
            decoder=self.stack_config(options, -1),
            adaptive=self.adaptive_config(options),
            output=tied or not self.bare or _architecture(config) != self.bare,
            tie_output=tied,
            output_bias=biased,
            dropout=self.dropout_config(options),
            bos=bos,
            # A symbol that prompts have as well cannot tell padding apart.
            pad=-1 if pad is None or pad in (bos, *ends) else pad,
            # Several symbols may end a text; which of them does is then for whoever decodes to say.
            eos=ends[0] if len(ends) == 1 else None,
        )
        return LoadPlan(network, self.rows_for(network, config), frozenset())

    def adaptive_config(self, options: Options) -> AdaptiveConfig | None:
        """The clusters of symbols that a ``config.json`` describes; None for a family without."""
        return None

    def untrained(self, config: Mapping[str, Any]) -> DecoderOnlyConfig:
        """The network before training; see ``Page``."""
        network = self.plan(config, {}).network
        assert isinstance(network, DecoderOnlyConfig)
        return network

    def _ends(self, options: Options, vocabulary: int) -> list[int]:
        """The symbols that end a text: none, one, or a list of them."""
        name = self.names["eos"]
        value = options.values[name]
        several = value if isinstance(value, list) else [] if value is None else [value]
        return [Options({name: one}).symbol(name, vocabulary) for one in several]


def rotary_options(options: Options, max_positions: int) -> dict[str, Any]:
    """Fields of ``PositionConfig`` that say how fast pairs turn.

    ``rope_parameters`` is one object; older files have ``rope_theta`` beside ``rope_scaling``, which wins where both
    are, and say ``type`` for ``rope_type``.

    Raises:
        ConfigError: pairs turn in a way that has no conversion.
    """
    given = options.get("rope_scaling") or options.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"rope_parameters is {given!r}; expected an object")
    length = "original_max_position_embeddings"
    options.require(length, None)  # beside the object, it would win
    outer = {name: options.get(name) for name in ("rope_theta", "partial_rotary_factor") if name in options.values}
    rope = Options({"rope_theta": 10000.0, length: max_positions, **outer, **given})
    rope.require("partial_rotary_factor", 1)
    base, kind = rope.positive("rope_theta"), given.get("rope_type", given.get("type", "default"))
    match kind:
        case "default":
            scaling = None
        case "linear":
            scaling = RotaryScaling(factor=rope.positive("factor"))
        case "llama3":
            scaling = RotaryScaling(
                factor=rope.positive("factor"),
                trained_positions=rope.size(length, MAX_POSITIONS),
                slowed_turns=rope.positive("low_freq_factor"),
                kept_turns=rope.positive("high_freq_factor"),
            )
        case _:
            raise ConfigError(f"rope_type is {kind!r}, which has no conversion; expected default, linear or llama3")
    return {"rotary_base": base, "rotary_scaling": scaling}


def _first_axis(name: str, theirs: Mapping[str, Tensor]) -> int:
    shape = tuple(theirs[name].shape)
    if not shape or not 1 <= shape[0] <= MAX_SIZE:
        raise ConfigError(f"{name} has shape {shape}, which no head can have")
    return int(shape[0])


def _architecture(config: Mapping[str, Any]) -> str:
    """Name of the model's class, empty where it is not given."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
