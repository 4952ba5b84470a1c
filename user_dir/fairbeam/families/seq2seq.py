"""What a page says of an encoder-decoder family that Hugging Face keeps, and how its ``config.json`` is read.

``shapes.py`` has the same for families of other shapes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.families.weight_map import Row, same
from fairbeam.network import (
    Activation,
    AnyConfig,
    DropoutConfig,
    EncoderDecoderConfig,
    NormPlacement,
    PositionKind,
    StackConfig,
)

MAX_SIZE = 1 << 24
"""Of any one dimension; what the weights do not bear out is refused before memory is taken."""
MAX_POSITIONS = 1 << 17
"""Sinusoids are computed, not stored: the size of the weights does not bound them."""

_ACTIVATIONS = {
    "relu": Activation.RELU,
    "relu2": Activation.RELU_SQUARED,
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "tanh": Activation.TANH,
    "linear": Activation.LINEAR,
}

# config.json may leave out what equals the default of its class; these are the defaults that most classes share.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50265,
    "decoder_vocab_size": None,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "d_model": 1024,
    "max_position_embeddings": 1024,
    **{f"{stack}_layers": 12 for stack in ("encoder", "decoder")},
    **{f"{stack}_attention_heads": 16 for stack in ("encoder", "decoder")},
    **{f"{stack}_ffn_dim": 4096 for stack in ("encoder", "decoder")},
    **{f"{stack}_layerdrop": 0.0 for stack in ("encoder", "decoder")},
    "activation_function": "gelu",
    "scale_embedding": False,
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "unk_token_id": 3,
    "decoder_start_token_id": None,
    "scale_decoder_outputs": False,
    "head_dim": None,
    "norm_epsilon": 1e-5,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}

# Options that change the computation in ways NetworkConfig does not express, with the value that leaves it alone.
_MUST_BE: dict[str, Any] = {
    "is_encoder_decoder": True,
    "is_decoder": False,
    "quantization_config": None,
    "pruned_heads": {},
    "do_blenderbot_90_layernorm": False,
}


class LoadPlan(NamedTuple):
    """What a folder's configuration and weights amount to."""

    network: AnyConfig
    rows: tuple[Row, ...]
    unread: frozenset[str]
    """Names of theirs that the rows know and this network has no use for."""


class Page(Protocol):
    """What reading and writing folders asks of a family of any shape."""

    @property
    def model_type(self) -> str:
        """Hugging Face's name of the family."""

    @property
    def tables(self) -> tuple[Row, ...]:
        """Computed tables of ours that some of their files store; they must agree."""

    @property
    def prefix(self) -> str:
        """What the bare model's names begin with where there is something around it."""

    @property
    def outside(self) -> frozenset[str]:
        """Names around the bare model that may stand beside its bare names."""

    @property
    def not_weights(self) -> str:
        """Regular expression of names that carry no weights."""

    def rows_for(self, config: AnyConfig, options: Mapping[str, Any]) -> tuple[Row, ...]:
        """Our tensors and theirs, for the network of a ``config.json``."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Options that ``config.json`` may leave out."""

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Options of the sizes that were published, by their names."""

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> LoadPlan:
        """The network of a ``config.json`` and the weights beside it.

        Raises:
            ConfigError: an option has the wrong type, is out of range, or asks for what the network cannot do;
                names it, its value and what was expected.
        """

    def untrained(self, config: Mapping[str, Any]) -> AnyConfig:
        """The network of a ``config.json`` that is to be trained from scratch; errors as for ``plan``."""


@dataclass(frozen=True, kw_only=True)
class Seq2SeqFamily:
    """A page: what its members have in common. Everything else is in each member's ``config.json``."""

    model_type: str
    """Hugging Face's name of the family."""
    stack: StackConfig
    """Encoder and decoder as far as no option changes them; sizes are overwritten."""
    decoder: StackConfig | None = None
    """The decoder, where it differs from the encoder in more than sizes."""
    rows: tuple[Row, ...]
    """Our tensors and theirs."""
    tables: tuple[Row, ...] = ()
    """Computed tables of ours that some of their files store; they must agree."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Options, under the family's own names, that ``config.json`` may leave out, where they differ from the others'."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The family's own names of options, by the usual ones; several of ours may be one of theirs."""
    gated_activations: Mapping[str, Activation] = field(default_factory=dict)
    """Values of the activation's option that stand for a gated feed-forward block."""
    features_dropout: bool = False
    """Training drops out of what leaves a stack as it does of what leaves a block."""
    prefix: str = "model."
    outside: frozenset[str] = frozenset({"lm_head.weight", "final_logits_bias"})
    not_weights: str = r"model\.(encoder|decoder)\.version"
    unused: frozenset[str] = frozenset()
    """Tensors that some of their files hold and nothing reads."""
    always_shared: bool = False
    """One matrix embeds source and target, whatever is said of the output projection."""
    tied_by_weights: bool = False
    """The output projection is the embedding unless the weights hold another, whatever ``config.json`` says."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of the sizes that were published, by their names."""

    def rows_for(self, config: AnyConfig, options: Mapping[str, Any]) -> tuple[Row, ...]:
        """Our tensors and theirs; see ``Page``."""
        shared = isinstance(config, EncoderDecoderConfig) and config.share_embeddings
        return (*self.rows, self._shared()) if shared else self.rows

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> LoadPlan:
        """The network of a folder; see ``Page``."""
        names = [name for row in self.rows if row.ours == "head.bias" for name in row.theirs]
        biases = [theirs[name] for name in names if name in theirs]
        # Most models carry a bias of zeros that is never trained: a network without one computes the same, faster.
        used_bias = any(bool(bias.any()) or tuple(bias.shape[:-1]) != (1,) for bias in biases)
        network = self.network_config(config, output_bias=used_bias, own_output=self._has_own_output(theirs))
        unread = set(self.unused) if used_bias else {*self.unused, *names}
        if not network.share_embeddings:
            unread |= set(self._shared().theirs)  # there, but nothing looks anything up in it
        return LoadPlan(network, self.rows_for(network, config), frozenset(unread))

    def untrained(self, config: Mapping[str, Any]) -> EncoderDecoderConfig:
        """The network before training; see ``Page``."""
        return self.network_config(config, output_bias=False)

    def _shared(self) -> Row:
        return same("source_embedding.weight", f"{self.prefix}shared.weight")

    def _has_own_output(self, theirs: Mapping[str, Tensor]) -> bool:
        """Whether there is an output projection and it is not the embedding."""

        def stored(ours: str) -> list[Tensor]:
            rows = (*self.rows, self._shared())
            return [theirs[name] for row in rows if row.ours == ours for name in row.theirs if name in theirs]

        heads, embeddings = stored("head.weight"), stored("source_embedding.weight")
        return any(not torch.equal(head, embedding) for head in heads for embedding in embeddings)

    def network_config(
        self, config: Mapping[str, Any], *, output_bias: bool, own_output: bool = False
    ) -> EncoderDecoderConfig:
        """The network that a ``config.json`` describes.

        Args:
            config: its options.
            output_bias: whether the weights have a bias of the output projection that is not zero.
            own_output: whether they have an output projection that is not the embedding.

        Raises:
            ConfigError: an option has the wrong type, is out of range, or asks for what the network cannot do;
                names it, its value and what was expected.
        """
        usual = {self.names.get(name, name): value for name, value in _DEFAULTS.items()}
        options = Options({**usual, **self.defaults, **config}, self.names)
        for name, neutral in (_MUST_BE | self._implied()).items():
            options.require(name, neutral)
        tied, one_vocabulary = options.flag("tie_word_embeddings"), options.flag("share_encoder_decoder_embeddings")
        source = options.size("vocab_size", MAX_SIZE)
        scaled = tied if options.get("scale_decoder_outputs") is None else options.flag("scale_decoder_outputs")
        if self.tied_by_weights:
            tied = not own_output
        other = not one_vocabulary and options.get("decoder_vocab_size") is not None
        target = options.size("decoder_vocab_size", MAX_SIZE) if other else source
        pad, eos = options.symbol("pad_token_id", target), options.symbol("eos_token_id", target)
        start, bos = options.get("decoder_start_token_id"), options.get("bos_token_id")
        decoder = self._stack(options, "decoder", self.decoder or self.stack, pad)
        return EncoderDecoderConfig(
            source_vocabulary=source,
            target_vocabulary=target,
            encoder=self._stack(options, "encoder", self.stack, pad),
            decoder=replace(decoder, scale_features=scaled),
            share_embeddings=self.always_shared or (tied and one_vocabulary),
            tie_output=tied,
            output_bias=output_bias,
            dropout=DropoutConfig(
                residual=options.probability("dropout"),
                attention=options.probability("attention_dropout"),
                activation=options.probability("activation_dropout"),
                features=options.probability("dropout") if self.features_dropout else 0.0,
            ),
            bos=eos if bos is None else options.symbol("bos_token_id", target),
            pad=pad,
            eos=eos,
            unk=options.symbol("unk_token_id", MAX_SIZE),
            decoder_start=None if start is None else options.symbol("decoder_start_token_id", target),
        )

    def _implied(self) -> dict[str, Any]:
        """Options of old files that the class has long since settled; they may repeat that, not contradict it."""
        return {
            "normalize_before": self.stack.norm_placement is NormPlacement.PRE,
            "normalize_embedding": self.stack.embedding_norm,
            "add_final_layer_norm": self.stack.final_norm,
            "static_position_embeddings": self.stack.positions.kind is not PositionKind.LEARNED,
        }

    def _stack(self, options: "Options", stack: str, base: StackConfig, pad: int) -> StackConfig:
        positions = base.positions
        # Where only one number of layers is told, it is that of both stacks.
        layers = "encoder_layers" if options.get(f"{stack}_layers") is None else f"{stack}_layers"
        gated = self.gated_activations.get(str(options.get("activation_function")))
        return replace(
            base,
            layers=options.size(layers, MAX_SIZE),
            dim=options.size("d_model", MAX_SIZE),
            heads=options.size(f"{stack}_attention_heads", MAX_SIZE),
            ffn_dim=options.size(f"{stack}_ffn_dim", MAX_SIZE),
            activation=options.activation("activation_function") if gated is None else gated,
            gated=gated is not None,
            head_dim=None if options.get("head_dim") is None else options.size("head_dim", MAX_SIZE),
            norm_epsilon=options.probability("norm_epsilon"),
            scale_embedding=options.flag("scale_embedding"),
            layer_drop=options.probability(f"{stack}_layerdrop"),
            positions=replace(
                positions,
                max_positions=options.size("max_position_embeddings", MAX_POSITIONS),
                # Who counts real tokens starts behind padding's own number, as fairseq does.
                offset=positions.offset if positions.count_padding else pad + 1,
                buckets=options.size("relative_attention_num_buckets", MAX_SIZE),
                max_distance=options.size("relative_attention_max_distance", MAX_POSITIONS),
            ),
        )


@dataclass(frozen=True)
class Options:
    """The values of a ``config.json``, each asked for by its usual name and checked as it is read."""

    values: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    """The file's names of options, by the usual ones, where they differ."""

    def get(self, name: str) -> Any:
        return self.values.get(self._theirs(name))

    def require(self, name: str, expected: Any) -> None:
        value = self.get(name)
        if value is not None and value != expected:
            raise ConfigError(f"{self._theirs(name)} is {value!r}, which has no conversion; expected {expected!r}")

    def size(self, name: str, most: int) -> int:
        return self._integer(name, 1, most)

    def symbol(self, name: str, vocabulary: int) -> int:
        return self._integer(name, 0, vocabulary - 1)

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if not isinstance(value, bool):
            raise ConfigError(f"{self._theirs(name)} is {value!r}; expected true or false")
        return value

    def probability(self, name: str) -> float:
        value = self.get(name)
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise ConfigError(f"{self._theirs(name)} is {value!r}; expected a number from 0 to 1")
        return float(value)

    def positive(self, name: str) -> float:
        value = self.get(name)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ConfigError(f"{self._theirs(name)} is {value!r}; expected a number above 0")
        return float(value)

    def activation(self, name: str) -> Activation:
        value = self.get(name)
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            raise ConfigError(f"{self._theirs(name)} is {value!r}; expected one of {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[value]

    def _integer(self, name: str, least: int, most: int) -> int:
        value = self.get(name)
        if type(value) is not int or not least <= value <= most:
            raise ConfigError(f"{self._theirs(name)} is {value!r}; expected an integer from {least} to {most}")
        return value

    def _theirs(self, name: str) -> str:
        return self.names.get(name, name)
