"""Configuration of a stack of layers, as frozen values.

A value says *what* differs (norm placement, position scheme), never *which model* it is.
"""

import math
from dataclasses import dataclass
from typing import Any

from fairbeam.errors import ConfigError
from fairbeam.network.enums import Activation, NormKind, NormPlacement, PositionKind


@dataclass(frozen=True, kw_only=True)
class RotaryScaling:
    """RoPE scaling: lower frequencies of rotary pairs, for longer sequences than a network was first trained on."""

    factor: float
    """Divisor of the frequencies (position interpolation, Chen et al., 2023)."""
    trained_positions: int | None = None
    """Original context length in tokens, Llama 3.1's ``original_max_position_embeddings``: pairs that make several
    turns within it keep their frequencies (Dubey et al., 2024). All frequencies are divided if None."""
    slowed_turns: float = 1.0
    """Llama 3.1's ``low_freq_factor``: pairs with at most this many turns are divided by the whole ``factor``."""
    kept_turns: float = 4.0
    """Llama 3.1's ``high_freq_factor``: pairs with at least this many turns are kept; between the two thresholds the
    frequency is interpolated."""

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ConfigError(f"rotary_scaling.factor is {self.factor}; expected a number above 0")
        if not 0 <= self.slowed_turns < self.kept_turns < math.inf:
            raise ConfigError(
                f"rotary_scaling.slowed_turns is {self.slowed_turns} and rotary_scaling.kept_turns is "
                f"{self.kept_turns}; expected the first to be smaller"
            )


@dataclass(frozen=True, kw_only=True)
class PositionConfig:
    """Position scheme of a stack and its parameters."""

    kind: PositionKind = PositionKind.SINUSOIDAL
    max_positions: int = 1024
    """Longest sequence in tokens for training and decoding, and size of position tables. Relative buckets and rotary
    positions have no such table and can compute longer sequences."""
    offset: int = 2
    """Position id of the first token. fairseq reserves the ids up to the padding id, so its offset is padding id +
    1."""
    count_padding: bool = False
    """Position ids are the columns of the batch, padding included; otherwise only tokens are counted. Like ``offset``,
    this makes no difference to relative and rotary positions, where only distances count."""
    buckets: int = 32
    """Number of distance buckets of ``RELATIVE_BUCKETS``, T5's ``relative_attention_num_buckets``."""
    max_distance: int = 128
    """Distance from which on all share the last bucket, T5's ``relative_attention_max_distance``."""
    bidirectional: bool = True
    """Half the buckets are for keys after the query; otherwise these keys share the bucket of distance 0."""
    rotary_base: float = 10000.0
    """RoPE base (theta)."""
    memory_length: int = 0
    """Segment memory in tokens of ``RELATIVE_SINUSOIDAL``: how far a segment, or the latest token in decoding, looks
    back. It begins as vectors of zeros."""
    clamp_length: int | None = None
    """Relative distances are clamped to this value; None for no limit."""
    same_length: bool = False
    """Each token attends to ``memory_length`` tokens, itself included; otherwise a segment's later tokens see more."""
    share_biases: bool = False
    """All layers share the two learned query biases of ``RELATIVE_SINUSOIDAL``."""
    rotary_scaling: RotaryScaling | None = None
    """RoPE scaling; None for none."""

    def __post_init__(self) -> None:
        near = self.buckets // (4 if self.bidirectional else 2)
        if self.kind is PositionKind.RELATIVE_BUCKETS and not 1 <= near < self.max_distance:
            raise ConfigError(
                f"positions.buckets is {self.buckets} and positions.max_distance is {self.max_distance}, but {near} "
                f"distances have buckets of their own; expected 1 to {self.max_distance - 1}"
            )
        if self.kind is PositionKind.RELATIVE_SINUSOIDAL and self.memory_length < 1:
            raise ConfigError(
                f"positions.kind is {self.kind} and positions.memory_length is {self.memory_length}; "
                "expected at least 1"
            )
        if self.clamp_length is not None and self.clamp_length < 1:
            raise ConfigError(f"positions.clamp_length is {self.clamp_length}; expected at least 1")
        if self.rotary_base <= 0:
            raise ConfigError(f"positions.rotary_base is {self.rotary_base}; expected a number above 0")
        if self.offset < 1 and not self.count_padding:
            raise ConfigError(
                f"positions.offset is {self.offset} and positions.count_padding is false, but padding takes the "
                "number below the first; expected an offset of at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """An encoder or a decoder: equal layers between an embedding and an optional final norm."""

    layers: int = 6
    """Number of layers."""
    dim: int = 512
    """Width of the residual stream."""
    heads: int = 8
    """Number of attention heads."""
    ffn_dim: int = 2048
    """Width of the feed-forward block's hidden layer."""
    activation: Activation = Activation.RELU
    """Activation of the feed-forward block."""
    gated: bool = False
    """Gated linear unit: the activation of one projection multiplies a second, linear one (Shazeer, 2020)."""
    bias: bool = True
    """Linear layers have biases."""
    qkv_bias: bool | None = None
    """The query, key and value projections have biases; as ``bias`` if None."""
    attention_output_bias: bool | None = None
    """The output projection of attention has a bias; as ``bias`` if None."""
    head_dim: int | None = None
    """Width of an attention head; ``dim / heads`` if None."""
    key_value_heads: int | None = None
    """Number of KV heads of self-attention, for grouped-query attention (Ainslie et al., 2023); ``heads`` if None."""
    attention_scale: float | None = None
    """Factor of the attention scores; ``head_dim ** -0.5`` if None."""
    norm: NormKind = NormKind.LAYER
    """Kind of all norms of the stack."""
    norm_epsilon: float = 1e-5
    """Epsilon of norms, added to the variance or the mean square."""
    norm_bias: bool = True
    """Layer norms have biases; RMS norms never do."""
    norm_placement: NormPlacement = NormPlacement.POST
    """Post-norm or pre-norm."""
    positions: PositionConfig = PositionConfig()
    """Position scheme."""
    scale_embedding: bool = True
    """Token embeddings are multiplied by the square root of ``dim`` (Vaswani et al., 2017, section 3.4)."""
    train_padding: bool = False
    """The padding token's embedding is trained like any other: in some models targets begin with it."""
    embedding_norm: bool = False
    """Norm on the sum of token and position embeddings."""
    final_norm: bool = False
    """Norm after the last layer; pre-norm stacks need one."""
    layer_drop: float = 0.0
    """LayerDrop: probability of skipping a layer in training (Fan et al., 2020)."""
    token_types: int = 0
    """Number of token types with an embedding, such as BERT's two segments (Devlin et al., 2019, section 3)."""
    embedding_dim: int | None = None
    """Width of factorized embeddings, which are projected to ``dim`` (Lan et al., 2020, section 3.1); ``dim`` and no
    projection if None."""
    distinct_layers: int | None = None
    """Number of layers with weights of their own, each applied ``layers / distinct_layers`` times in a row (Lan et al.,
    2020, section 3.1); ``layers`` if None."""
    scale_features: bool = False
    """The stack's output is multiplied by ``dim ** -0.5``, as T5 does where the output projection is a tied embedding
    that is not scaled."""
    transform: Activation | None = None
    """Prediction head transform on the stack's output: a linear layer to the embeddings' width, this activation and a
    norm, as before the output projection of masked language models (Devlin et al., 2019). None for no transform."""

    def __post_init__(self) -> None:
        distinct = self.distinct_layers
        if distinct is not None and (distinct < 1 or self.layers % distinct):
            raise ConfigError(f"layers is {self.layers}, which distinct_layers ({distinct}) does not divide")
        if self.token_types < 0:
            raise ConfigError(f"token_types is {self.token_types}; expected at least 0")
        if self.embedding_dim is not None and self.embedding_dim < 1:
            raise ConfigError(f"embedding_dim is {self.embedding_dim}; expected at least 1")

    @property
    def embedding_width(self) -> int:
        """Width of the embeddings before any projection."""
        return self.dim if self.embedding_dim is None else self.embedding_dim

    @property
    def features_width(self) -> int:
        """Width of the stack's output."""
        return self.dim if self.transform is None else self.embedding_width

    @property
    def head_dim_resolved(self) -> int:
        """Width of an attention head."""
        return self.dim // self.heads if self.head_dim is None else self.head_dim

    @property
    def has_qkv_bias(self) -> bool:
        """Whether the query, key and value projections have biases."""
        return self.bias if self.qkv_bias is None else self.qkv_bias

    @property
    def has_output_bias(self) -> bool:
        """Whether the output projection of attention has a bias."""
        return self.bias if self.attention_output_bias is None else self.attention_output_bias

    @property
    def num_kv_heads(self) -> int:
        """Number of KV heads of self-attention."""
        return self.heads if self.key_value_heads is None else self.key_value_heads


@dataclass(frozen=True, kw_only=True)
class DropoutConfig:
    """Dropout probabilities in training."""

    residual: float = 0.1
    """Dropout of embeddings and of each block's output before the residual sum."""
    attention: float = 0.0
    """Dropout of attention probabilities."""
    activation: float = 0.0
    """Dropout after the feed-forward activation."""
    features: float = 0.0
    """Dropout of a stack's output."""


def check_heads(name: str, stack: StackConfig) -> None:
    if stack.head_dim is None and stack.dim % stack.heads:
        raise ConfigError(f"{name}.dim is {stack.dim}, which {name}.heads ({stack.heads}) does not divide")
    if stack.num_kv_heads < 1 or stack.heads % stack.num_kv_heads:
        raise ConfigError(
            f"{name}.heads is {stack.heads}, which {name}.key_value_heads ({stack.num_kv_heads}) does not divide"
        )
    kind = stack.positions.kind
    biased = kind is PositionKind.RELATIVE_BUCKETS or kind.has_distance_vectors
    if biased and stack.num_kv_heads != stack.heads:
        raise ConfigError(
            f"{name}.positions.kind is {kind}, which scores distances for each head, and {name}.key_value_heads is "
            f"{stack.num_kv_heads}; expected {stack.heads}"
        )
    if kind is PositionKind.RELATIVE_SINUSOIDAL:
        _check_recurrence(name, stack)
    if kind is PositionKind.ROTARY and stack.head_dim_resolved % 2:
        raise ConfigError(
            f"{name}.positions.kind is {kind}, but a head is {stack.head_dim_resolved} wide; expected pairs"
        )


def _check_recurrence(name: str, stack: StackConfig) -> None:
    kind = stack.positions.kind
    if name != "decoder":
        raise ConfigError(f"{name}.positions.kind is {kind}, which only a decoder can have")
    if stack.num_kv_heads != stack.heads:
        raise ConfigError(
            f"{name}.positions.kind is {kind}, which wants a key for each head, and {name}.key_value_heads is "
            f"{stack.num_kv_heads}; expected {stack.heads}"
        )
    if stack.dim % 2:
        raise ConfigError(f"{name}.positions.kind is {kind}, but {name}.dim is {stack.dim}; expected an even number")
    if stack.layer_drop:
        raise ConfigError(f"{name}.positions.kind is {kind}, but {name}.layer_drop is {stack.layer_drop}; expected 0")


def check_tied(decoder: StackConfig) -> None:
    if decoder.embedding_width != decoder.features_width:
        raise ConfigError(
            f"tie_output needs equal widths, but decoder.embedding_dim is {decoder.embedding_dim} "
            f"and decoder.dim is {decoder.dim}"
        )


_LAYER_FIELDS = (
    "layers", "dim", "heads", "ffn_dim", "activation", "gated", "bias", "head_dim", "key_value_heads",
    "attention_scale", "norm", "norm_epsilon", "norm_bias", "norm_placement", "distinct_layers",
)  # fmt: skip


def layer_fields(stack: StackConfig) -> list[Any]:
    """Return the values that must be equal in two stacks that share layers."""
    return [getattr(stack, name) for name in _LAYER_FIELDS]
