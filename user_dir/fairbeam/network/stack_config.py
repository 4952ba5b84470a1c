"""What distinguishes one stack of layers from another, as frozen values.

A value says *what* differs (where the norms stand, how positions are told apart), never *which model* it is.
"""

import math
from dataclasses import dataclass
from typing import Any

from fairbeam.errors import ConfigError
from fairbeam.network.enums import Activation, NormKind, NormPlacement, PositionKind


@dataclass(frozen=True, kw_only=True)
class RotaryScaling:
    """Pairs of numbers that turn more slowly, for sequences longer than those a network was first trained on."""

    factor: float
    """By so much more slowly (Chen et al., 2023)."""
    trained_positions: int | None = None
    """Length of those first sequences: pairs that made several turns within it keep their rates (Dubey et al., 2024,
    as Llama 3.1's configuration states it). All are slowed if None."""
    slowed_turns: float = 1.0
    """Pairs that made no more turns than this are slowed by all of ``factor``."""
    kept_turns: float = 4.0
    """Those that made no fewer than this are not slowed; between the two, the rate is interpolated."""

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
    """Absolute positions added to the embeddings, or relative ones that self-attention sees."""

    kind: PositionKind = PositionKind.SINUSOIDAL
    max_positions: int = 1024
    """Longest sequence, in tokens, that decoding and training feed to the stack. Tables hold no more; relative buckets
    and rotary positions have no table that ends, and compute longer sequences too."""
    offset: int = 2
    """Number of the first real position; fairseq keeps the numbers up to the padding symbol's for padding."""
    count_padding: bool = False
    """Positions are columns of the batch, padding or not; otherwise only real tokens are counted. Between relative
    and rotary positions it is distances that count: ``offset`` and this make no difference to them."""
    buckets: int = 32
    """Of relative distances: one for each of the near ones, wider and wider ones for the far."""
    max_distance: int = 128
    """From here on all distances share the last bucket."""
    bidirectional: bool = True
    """Half the buckets are for keys that stand behind the query; otherwise those count as distance 0."""
    rotary_base: float = 10000.0
    """Pairs of numbers turn at rates from one radian a position down to almost its inverse."""
    memory_length: int = 0
    """Tokens before a segment, or before the latest token in decoding, that relative sinusoidal positions look back
    on; the memory of nothing is vectors of zeros."""
    clamp_length: int | None = None
    """Distances beyond share this one's sinusoids."""
    same_length: bool = False
    """Each token sees as many as the memory holds, itself among them; otherwise a segment's later ones see more."""
    share_biases: bool = False
    """All layers have the same two trained biases of queries."""
    rotary_scaling: RotaryScaling | None = None

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
    dim: int = 512
    """Width of the residual stream."""
    heads: int = 8
    ffn_dim: int = 2048
    activation: Activation = Activation.RELU
    gated: bool = False
    """The activation of one projection is multiplied by a second, linear one (Shazeer, 2020)."""
    bias: bool = True
    """Linear layers add a trained vector."""
    qkv_bias: bool | None = None
    """The projections of queries, keys and values do; as ``bias`` says if None."""
    attention_output_bias: bool | None = None
    """The projection of what attention has gathered does; as ``bias`` says if None."""
    head_dim: int | None = None
    """Width of an attention head; ``dim / heads`` if None."""
    key_value_heads: int | None = None
    """Heads of self-attention's keys and values, each shared by equally many of queries (Ainslie et al., 2023);
    ``heads`` if None."""
    attention_scale: float | None = None
    """Multiplies attention scores; ``head_dim ** -0.5`` if None."""
    norm: NormKind = NormKind.LAYER
    norm_epsilon: float = 1e-5
    """Added to the variance, or the mean square."""
    norm_bias: bool = True
    """Layer norms add a trained vector; RMS norms never do."""
    norm_placement: NormPlacement = NormPlacement.POST
    positions: PositionConfig = PositionConfig()
    scale_embedding: bool = True
    """Multiply token embeddings by the square root of ``dim`` (Vaswani et al., 2017, section 3.4)."""
    train_padding: bool = False
    """The padding symbol's vector is trained like any other: targets begin with it in some models."""
    embedding_norm: bool = False
    """Layer norm on the sum of token and position embeddings."""
    final_norm: bool = False
    """Layer norm after the last layer; pre-norm stacks need one."""
    layer_drop: float = 0.0
    """Probability of skipping a whole layer in training (Fan et al., 2020)."""
    token_types: int = 0
    """Kinds of tokens that have a vector of their own, as BERT's two segments (Devlin et al., 2019, section 3)."""
    embedding_dim: int | None = None
    """Width of the embeddings where it is another: they are projected to ``dim`` (Lan et al., 2020, section 3.1)."""
    distinct_layers: int | None = None
    """Layers that have weights of their own; neighbours share them (Lan et al., 2020, section 3.1). All if None."""
    scale_features: bool = False
    """Multiply what comes out by ``dim ** -0.5``: an embedding that is not scaled makes large logits where it is the
    output projection too."""
    transform: Activation | None = None
    """What comes out passes a linear layer to the embeddings' width, this activation and a norm, as before the output
    projection of masked language models (Devlin et al., 2019); None for none of it."""

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
        """Width of the embeddings, projected or not."""
        return self.dim if self.embedding_dim is None else self.embedding_dim

    @property
    def features_width(self) -> int:
        """Width of what comes out."""
        return self.dim if self.transform is None else self.embedding_width

    @property
    def head_dim_resolved(self) -> int:
        """Numbers a head reads of a query."""
        return self.dim // self.heads if self.head_dim is None else self.head_dim

    @property
    def has_qkv_bias(self) -> bool:
        """Whether the projections of queries, keys and values add a trained vector."""
        return self.bias if self.qkv_bias is None else self.qkv_bias

    @property
    def has_output_bias(self) -> bool:
        """Whether the projection of what attention has gathered adds a trained vector."""
        return self.bias if self.attention_output_bias is None else self.attention_output_bias

    @property
    def num_kv_heads(self) -> int:
        """Heads whose keys and values self-attention computes, and decoding remembers."""
        return self.heads if self.key_value_heads is None else self.key_value_heads


@dataclass(frozen=True, kw_only=True)
class DropoutConfig:
    """Dropout probabilities in training."""

    residual: float = 0.1
    """On embeddings and on each block's output before the residual sum."""
    attention: float = 0.0
    """On attention probabilities."""
    activation: float = 0.0
    """After the feed-forward activation."""
    features: float = 0.0
    """On what comes out of a stack."""


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
    """What two stacks that share layers have in common."""
    return [getattr(stack, name) for name in _LAYER_FIELDS]
