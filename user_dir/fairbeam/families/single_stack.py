"""What families of a single stack have in common: encoders and decoders alone that Hugging Face keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fairbeam.errors import ConfigError
from fairbeam.families.config_reader import ConfigReader
from fairbeam.families.spec import MAX_LAYERS, MAX_POSITIONS, MAX_SIZE
from fairbeam.families.weight_map import Row
from fairbeam.network import (
    Activation,
    AnyConfig,
    DropoutConfig,
    PositionConfig,
    PositionKind,
    RotaryScaling,
    StackConfig,
)

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
"""Our option name → the ``config.json`` key of BERT and its descendants."""

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
"""Our option name → the ``config.json`` key of GPT and its descendants."""

_FLAGS = ("bias", "qkv_bias", "attention_output_bias")
"""Boolean fields of ``StackConfig`` that a family's options may set."""

_MUST_BE: Mapping[str, Any] = {
    "is_encoder_decoder": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "quantization_config": None,
    "pruned_heads": {},
}


@dataclass(frozen=True, kw_only=True)
class SingleStackFamily:
    """Fields and methods that `EncoderOnlyFamily` and `DecoderOnlyFamily` share."""

    model_type: str
    """Hugging Face's name of the family."""
    prefix: str
    """Prefix of the base model's tensor names within a model with a head."""
    stack: StackConfig
    """Layers; options of ``config.json`` replace the sizes."""
    rows: tuple[Row, ...]
    """Weight map. Of two names of one tensor either may be missing in a file."""
    names: Mapping[str, str]
    """Our option name → the family's ``config.json`` key; an option without an entry stays as ``stack`` has it.
    ``window``: the model's sliding attention window. Longer sequences are refused, because within the window sliding
    and full attention agree."""
    defaults: Mapping[str, Any]
    """Values of options that ``config.json`` may leave out."""
    must_be: Mapping[str, Any] = field(default_factory=dict)
    """Options of computations that the network cannot express, with the value that turns them off."""
    activations: Mapping[str, str] = field(default_factory=dict)
    """Activation names that mean another activation in this family, and its usual name."""
    position_kinds: Mapping[str, PositionKind] = field(default_factory=dict)
    """Values of ``position_embedding_type`` other than ``absolute``, which means the kind that ``stack`` has."""
    computed_tables: tuple[Row, ...] = ()
    """Rows of tables that we compute and some of their files store."""
    unprefixed: frozenset[str] = frozenset()
    """Names without the prefix that may occur in a file of the base model's bare names."""
    not_weights: str = ""
    """Regular expression of names of tensors that hold no weights."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of each published size, by its name."""

    def rows_for(self, config: AnyConfig, options: Mapping[str, Any]) -> tuple[Row, ...]:
        """Return the weight map of a network; see `FamilySpec`."""
        return self.rows

    def options(self, config: Mapping[str, Any]) -> ConfigReader:
        """Return the options of a ``config.json``, defaults filled in.

        Raises:
            ConfigError: an option of ``must_be`` has another value.
        """
        options = ConfigReader({**self.defaults, **config})
        for name, neutral in {**_MUST_BE, **self.must_be}.items():
            options.require(name, neutral)
        return options

    def stack_config(self, options: ConfigReader, pad: int) -> StackConfig:
        """Return the layers that a ``config.json`` describes."""
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

    def dropout_config(self, options: ConfigReader) -> DropoutConfig:
        """Return dropout in training; embeddings get the residual blocks' probability."""
        residual, attention = (self.names.get(f"{place}_dropout") for place in ("residual", "attention"))
        return DropoutConfig(
            residual=0.0 if residual is None else options.probability(residual),
            attention=0.0 if attention is None else options.probability(attention),
        )

    def _sizes(self, options: ConfigReader) -> dict[str, int | None]:
        sizes: dict[str, int | None] = {
            name: options.size(self.names[name], MAX_LAYERS if name.endswith("layers") else MAX_SIZE)
            for name in ("layers", "dim", "heads", "distinct_layers", "embedding_dim", "token_types")
            if name in self.names and not (name == "token_types" and options.values[self.names[name]] == 0)
        }
        dim, heads = options.size(self.names["dim"], MAX_SIZE), options.size(self.names["heads"], MAX_SIZE)
        # A file may spell out the value that None implies; the network is the same.
        for name, implied in (("head_dim", dim // heads), ("key_value_heads", heads)):
            theirs = self.names.get(name)
            if theirs is not None and options.values[theirs] not in (None, implied):
                sizes[name] = options.size(theirs, MAX_SIZE)
        ffn = self.names.get("ffn_dim")
        sizes["ffn_dim"] = 4 * dim if ffn is None or options.values[ffn] is None else options.size(ffn, MAX_SIZE)
        return sizes

    def _positions(self, options: ConfigReader, pad: int) -> PositionConfig:
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

    def _position_kind(self, options: ConfigReader) -> PositionKind:
        value = options.get("position_embedding_type")
        if value in (None, "absolute"):
            return self.stack.positions.kind
        if not isinstance(value, str) or value not in self.position_kinds:
            expected = ", ".join(("absolute", *self.position_kinds))
            raise ConfigError(f"position_embedding_type is {value!r}, which has no conversion; expected {expected}")
        return self.position_kinds[value]

    def _activation(self, options: ConfigReader) -> Activation:
        name = self.names.get("activation")
        if name is None:
            return self.stack.activation
        value = options.values[name]
        meant = self.activations.get(value, value) if isinstance(value, str) else value
        return ConfigReader({name: meant}).activation(name)


def rotary_options(options: ConfigReader, max_positions: int) -> dict[str, Any]:
    """Return the fields of ``PositionConfig`` about rotary position embeddings (RoPE).

    Files of transformers 5 have one object, ``rope_parameters``; older ones have ``rope_theta`` beside
    ``rope_scaling``, which takes precedence, and call ``rope_type`` ``type``.

    Raises:
        ConfigError: a scaling without a conversion.
    """
    given = options.get("rope_scaling") or options.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"rope_parameters is {given!r}; expected an object")
    length = "original_max_position_embeddings"
    options.require(length, None)  # it would take precedence over the object's own
    outer = {name: options.get(name) for name in ("rope_theta", "partial_rotary_factor") if name in options.values}
    rope = ConfigReader({"rope_theta": 10000.0, length: max_positions, **outer, **given})
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


def architecture_name(config: Mapping[str, Any]) -> str:
    """Return the name of the model's class, or an empty string where the file does not give it."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""
