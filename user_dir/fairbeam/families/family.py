"""What a page says of an encoder-decoder family that Hugging Face keeps, and how its ``config.json`` is read.

``shapes.py`` has the same for families of other shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.families.weights import Row, same
from fairbeam.network import (
    Activation,
    AnyConfig,
    DropoutConfig,
    NetworkConfig,
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
}

# Options that change the computation in ways NetworkConfig does not express, with the value that leaves it alone.
_MUST_BE: dict[str, Any] = {
    "is_encoder_decoder": True,
    "is_decoder": False,
    "quantization_config": None,
    "pruned_heads": {},
    "do_blenderbot_90_layernorm": False,
}


_SHARED = same("source_embedding.weight", "model.shared.weight")


class Plan(NamedTuple):
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

    def rows_for(self, config: AnyConfig) -> tuple[Row, ...]:
        """Our tensors and theirs."""

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> Plan:
        """The network of a ``config.json`` and the weights beside it.

        Raises:
            ConfigError: an option has the wrong type, is out of range, or asks for what the network cannot do;
                names it, its value and what was expected.
        """


@dataclass(frozen=True, kw_only=True)
class Family:
    """A page: what its members have in common. Everything else is in each member's ``config.json``."""

    model_type: str
    """Hugging Face's name of the family."""
    stack: StackConfig
    """Encoder and decoder as far as no option changes them; sizes are overwritten."""
    rows: tuple[Row, ...]
    """Our tensors and theirs."""
    tables: tuple[Row, ...] = ()
    """Computed tables of ours that some of their files store; they must agree."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Options that ``config.json`` may leave out, where the family's differ from the others'."""
    prefix: str = "model."
    outside: frozenset[str] = frozenset({"lm_head.weight", "final_logits_bias"})
    not_weights: str = r"model\.(encoder|decoder)\.version"

    def rows_for(self, config: AnyConfig) -> tuple[Row, ...]:
        """Our tensors and theirs; see ``Page``."""
        shared = isinstance(config, NetworkConfig) and config.share_embeddings
        return (*self.rows, _SHARED) if shared else self.rows

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> Plan:
        """The network of a folder; see ``Page``."""
        names = [name for row in self.rows if row.ours == "head.bias" for name in row.theirs]
        biases = [theirs[name] for name in names if name in theirs]
        # Most models carry a bias of zeros that is never trained: a network without one computes the same, faster.
        used_bias = any(bool(bias.any()) or tuple(bias.shape[:-1]) != (1,) for bias in biases)
        network = self.network_config(config, output_bias=used_bias)
        unread = set() if used_bias else set(names)
        if not network.share_embeddings:
            unread |= {_SHARED.theirs[0]}  # there, but nothing looks anything up in it
        return Plan(network, self.rows_for(network), frozenset(unread))

    def network_config(self, config: Mapping[str, Any], *, output_bias: bool) -> NetworkConfig:
        """The network that a ``config.json`` describes.

        Raises:
            ConfigError: an option has the wrong type, is out of range, or asks for what the network cannot do;
                names it, its value and what was expected.
        """
        options = Options({**_DEFAULTS, **self.defaults, **config})
        for name, neutral in (_MUST_BE | self._implied()).items():
            options.require(name, neutral)
        tied, one_vocabulary = options.flag("tie_word_embeddings"), options.flag("share_encoder_decoder_embeddings")
        source = options.size("vocab_size", MAX_SIZE)
        other = not one_vocabulary and options.values["decoder_vocab_size"] is not None
        target = options.size("decoder_vocab_size", MAX_SIZE) if other else source
        pad, eos = options.symbol("pad_token_id", target), options.symbol("eos_token_id", target)
        start, bos = options.values["decoder_start_token_id"], options.values["bos_token_id"]
        return NetworkConfig(
            source_vocabulary=source,
            target_vocabulary=target,
            encoder=self._stack(options, "encoder", pad),
            decoder=self._stack(options, "decoder", pad),
            share_embeddings=tied and one_vocabulary,
            tie_output=tied,
            output_bias=output_bias,
            dropout=DropoutConfig(
                residual=options.probability("dropout"),
                attention=options.probability("attention_dropout"),
                activation=options.probability("activation_dropout"),
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

    def _stack(self, options: "Options", stack: str, pad: int) -> StackConfig:
        positions = self.stack.positions
        return replace(
            self.stack,
            layers=options.size(f"{stack}_layers", MAX_SIZE),
            dim=options.size("d_model", MAX_SIZE),
            heads=options.size(f"{stack}_attention_heads", MAX_SIZE),
            ffn_dim=options.size(f"{stack}_ffn_dim", MAX_SIZE),
            activation=options.activation("activation_function"),
            scale_embedding=options.flag("scale_embedding"),
            layer_drop=options.probability(f"{stack}_layerdrop"),
            positions=replace(
                positions,
                max_positions=options.size("max_position_embeddings", MAX_POSITIONS),
                # Who counts real tokens starts behind padding's own number, as fairseq does.
                offset=positions.offset if positions.count_padding else pad + 1,
            ),
        )


@dataclass(frozen=True)
class Options:
    """The values of a ``config.json``, each checked as it is read."""

    values: Mapping[str, Any]

    def require(self, name: str, expected: Any) -> None:
        value = self.values.get(name)
        if value is not None and value != expected:
            raise ConfigError(f"{name} is {value!r}, which has no conversion; expected {expected!r}")

    def size(self, name: str, most: int) -> int:
        return self._integer(name, 1, most)

    def symbol(self, name: str, vocabulary: int) -> int:
        return self._integer(name, 0, vocabulary - 1)

    def flag(self, name: str) -> bool:
        value = self.values[name]
        if not isinstance(value, bool):
            raise ConfigError(f"{name} is {value!r}; expected true or false")
        return value

    def probability(self, name: str) -> float:
        value = self.values[name]
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value!r}; expected a number from 0 to 1")
        return float(value)

    def activation(self, name: str) -> Activation:
        value = self.values[name]
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[value]

    def _integer(self, name: str, least: int, most: int) -> int:
        value = self.values[name]
        if type(value) is not int or not least <= value <= most:
            raise ConfigError(f"{name} is {value!r}; expected an integer from {least} to {most}")
        return value
