"""What distinguishes one Transformer from another, as frozen values.

A value says *what* differs (where the norms stand, how positions are told apart), never *which model* it is.
"""

import dataclasses
import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from fairbeam.errors import ConfigError

_MAX_CLUSTERS = 64
"""Of symbols: models have three or four."""


class Activation(StrEnum):
    """The function between the two feed-forward layers."""

    RELU = "relu"
    RELU_SQUARED = "relu_squared"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    TANH = "tanh"
    SILU = "silu"
    LINEAR = "linear"


class NormPlacement(StrEnum):
    """Layer norm after each residual sum (Vaswani et al., 2017) or before each block (pre-norm)."""

    POST = "post"
    PRE = "pre"


class NormKind(StrEnum):
    """What a norm does to a vector."""

    LAYER = "layer"
    """Takes the mean away and divides by the standard deviation (Ba et al., 2016)."""
    RMS = "rms"
    """Divides by the root of the mean square (Zhang and Sennrich, 2019)."""


class PositionKind(StrEnum):
    """How a token's place in the sequence reaches the network."""

    SINUSOIDAL = "sinusoidal"
    """Wavelengths spaced so that the last one of ``dim / 2`` is 10000 times the first, as in fairseq."""
    SINUSOIDAL_OPEN = "sinusoidal_open"
    """Wavelengths spaced as in Vaswani et al. (2017), section 3.5: one more step would reach 10000."""
    LEARNED = "learned"
    RELATIVE_BUCKETS = "relative_buckets"
    """A trained number a head and a bucket of distances, added to attention scores (Raffel et al., 2020, 2.1)."""
    ROTARY = "rotary"
    """Queries and keys are turned by angles that grow with the position (Su et al., 2021, section 3.2)."""
    RELATIVE_SINUSOIDAL = "relative_sinusoidal"
    """Attention, whose projections have no biases, scores keys by what they hold and by projected sinusoids of their
    distance, each with a trained bias of queries; layers remember what they read before (Dai et al., 2019, 3)."""
    RELATIVE_KEY = "relative_key"
    """A layer's trained vector of the distance is added to the key that a query looks at (Shaw et al., 2018, 3.2)."""
    RELATIVE_KEY_QUERY = "relative_key_query"
    """It is added to the query that looks at the key as well (Huang et al., 2020, method 4), where the two vectors'
    own product counts for nothing."""
    NONE = "none"

    @property
    def has_distance_vectors(self) -> bool:
        """Whether each layer has a vector for each distance."""
        return self in (PositionKind.RELATIVE_KEY, PositionKind.RELATIVE_KEY_QUERY)

    @property
    def acts_in_attention(self) -> bool:
        """Whether self-attention has to be told where queries and keys stand."""
        return self.has_distance_vectors or self in (PositionKind.RELATIVE_BUCKETS, PositionKind.ROTARY)


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
    def head_width(self) -> int:
        """Numbers a head reads of a query."""
        return self.dim // self.heads if self.head_dim is None else self.head_dim

    @property
    def projects_with_bias(self) -> bool:
        """Whether the projections of queries, keys and values add a trained vector."""
        return self.bias if self.qkv_bias is None else self.qkv_bias

    @property
    def gathers_with_bias(self) -> bool:
        """Whether the projection of what attention has gathered adds a trained vector."""
        return self.bias if self.attention_output_bias is None else self.attention_output_bias

    @property
    def kept_heads(self) -> int:
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


class Described:
    """A configuration that goes to JSON and back."""

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, ready for JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of ``to_dict``.

        Raises:
            ConfigError: an unknown or missing field, or a value of the wrong type; names the field.
        """
        return _build(cls, values, "network")


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(Described):
    """A whole encoder-decoder network."""

    source_vocabulary: int
    target_vocabulary: int
    encoder: StackConfig = StackConfig()
    decoder: StackConfig = StackConfig()
    share_embeddings: bool = False
    """One matrix embeds source and target tokens."""
    share_layers: bool = False
    """The encoder's layers are the decoder's, which adds cross-attention (Rothe et al., 2020, section 3)."""
    tie_output: bool = False
    """The output projection is the target embedding."""
    output_bias: bool = False
    """The output projection adds one number a symbol to the logits."""
    dropout: DropoutConfig = DropoutConfig()
    bos: int = 0
    pad: int = 1
    """Fills batches; below 0 where the vocabulary has no symbol for it."""
    eos: int = 2
    unk: int = 3
    decoder_start: int | None = None
    """The symbol a target begins with on the decoder's input; ``eos`` if None."""
    source_pad: int | None = None
    """Fills batches of sources, where the vocabularies differ in it; ``pad`` if None."""

    def __post_init__(self) -> None:
        if self.share_layers and _alike(self.encoder) != _alike(self.decoder):
            raise ConfigError("share_layers needs layers of one kind, but the encoder's differ from the decoder's")
        if self.share_embeddings and self.source_vocabulary != self.target_vocabulary:
            raise ConfigError(
                f"share_embeddings needs equal vocabularies, but source_vocabulary is "
                f"{self.source_vocabulary} and target_vocabulary is {self.target_vocabulary}"
            )
        if self.share_embeddings and self.encoder.embedding_width != self.decoder.embedding_width:
            raise ConfigError(
                f"share_embeddings needs equal widths, but the encoder embeds in {self.encoder.embedding_width} "
                f"dimensions and the decoder in {self.decoder.embedding_width}"
            )
        if self.tie_output:
            _check_tied(self.decoder)
        for name, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            _check_heads(name, stack)
        kind = self.decoder.positions.kind
        if kind is PositionKind.RELATIVE_SINUSOIDAL:  # targets are whole, without segments to remember
            raise ConfigError(f"decoder.positions.kind is {kind}, which a decoder behind an encoder cannot have")

    @property
    def padding_of_sources(self) -> int:
        """The symbol that fills batches of sources."""
        return self.pad if self.source_pad is None else self.source_pad


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What reads hidden states and scores labels: one linear layer, or two."""

    outputs: int
    """How many labels are scored; 1 for a regression or a yes-or-no question."""
    hidden: int | None = None
    """Width of a first linear layer; None for none."""
    activation: Activation = Activation.GELU
    """Behind the first layer."""
    norm: bool = False
    """Layer norm behind the activation."""
    input_dropout: float = 0.0
    """Before the first layer."""
    dropout: float = 0.0
    """Before the last."""


class OneVocabulary(Described):
    """A configuration of a network with one embedding, which serves either side."""

    vocabulary: int
    pad: int

    @property
    def source_vocabulary(self) -> int:
        """Rows of the one embedding."""
        return self.vocabulary

    @property
    def target_vocabulary(self) -> int:
        """Rows of the one embedding."""
        return self.vocabulary

    @property
    def padding_of_sources(self) -> int:
        """The symbol that fills batches."""
        return self.pad


@dataclass(frozen=True, kw_only=True)
class EncoderOnlyConfig(OneVocabulary):
    """An encoder without a decoder, and what is read from its states."""

    vocabulary: int
    encoder: StackConfig = StackConfig()
    pooler: bool = False
    """A linear layer and tanh on the first token's state stand for the sequence (Devlin et al., 2019)."""
    symbol_head: HeadConfig | None = None
    """Scores every symbol for each token: masked language modelling."""
    token_head: HeadConfig | None = None
    """Scores labels for each token: tagging, start and end of an answer, replaced or not."""
    sequence_head: HeadConfig | None = None
    """Scores labels for the pooled state, or the first token's where there is no pooler."""
    tie_output: bool = False
    """The last matrix of ``symbol_head`` is the embedding."""
    dropout: DropoutConfig = DropoutConfig()
    pad: int = 0

    def __post_init__(self) -> None:
        _check_heads("encoder", self.encoder)
        if not self.tie_output:
            return
        head, width = self.symbol_head, self.encoder.embedding_width
        if head is None:
            raise ConfigError("tie_output is true, but symbol_head is None: there is nothing to tie")
        inputs = self.encoder.dim if head.hidden is None else head.hidden
        if (head.outputs, inputs) != (self.vocabulary, width):
            raise ConfigError(
                f"tie_output needs equal shapes, but the embedding is {self.vocabulary} x {width} and symbol_head "
                f"ends with {head.outputs} x {inputs}"
            )


@dataclass(frozen=True, kw_only=True)
class AdaptiveConfig:
    """Symbols, sorted by frequency, in clusters: a choice of cluster and one within it score the rare ones (Grave et
    al., 2017), and their vectors may be narrower (Baevski and Auli, 2019)."""

    cutoffs: tuple[int, ...] = ()
    """The first symbol of each cluster but the first."""
    factor: int = 1
    """Each cluster's vectors are as many times narrower than those of the one before it. At 1 all are in one table."""
    tied_projections: tuple[bool, ...] = ()
    """For each cluster, whether the output's projection is the embedding's; none is if empty."""

    def widths(self, first: int) -> tuple[int, ...]:
        """Of each cluster's vectors, where the first one's are ``first`` wide."""
        return tuple(first // self.factor**number for number in range(len(self.cutoffs) + 1))

    def __post_init__(self) -> None:
        bounds = (0, *self.cutoffs)
        if any(one >= other for one, other in pairwise(bounds)):
            raise ConfigError(f"adaptive.cutoffs are {list(self.cutoffs)}; expected numbers that grow, above 0")
        if len(bounds) > _MAX_CLUSTERS:
            raise ConfigError(f"adaptive.cutoffs are {len(self.cutoffs)} numbers; expected at most {_MAX_CLUSTERS - 1}")
        if self.factor < 1:
            raise ConfigError(f"adaptive.factor is {self.factor}; expected at least 1")
        if len(self.tied_projections) not in (0, len(bounds)):
            raise ConfigError(
                f"adaptive.tied_projections has {len(self.tied_projections)} values, but adaptive.cutoffs makes "
                f"{len(bounds)} clusters"
            )


@dataclass(frozen=True, kw_only=True)
class DecoderOnlyConfig(OneVocabulary):
    """A decoder without an encoder."""

    vocabulary: int
    decoder: StackConfig = StackConfig()
    adaptive: AdaptiveConfig | None = None
    """Embeddings and output in clusters, both projected."""
    output: bool = True
    """There is an output projection; without one, features are all that the network gives."""
    tie_output: bool = True
    """The output projection is the embedding."""
    output_bias: bool = False
    """The output projection adds one number a symbol to the logits."""
    dropout: DropoutConfig = DropoutConfig()
    bos: int | None = None
    pad: int = -1
    """Fills batches; below 0 where the vocabulary has no symbol for it."""
    eos: int | None = None
    separator: int | None = None
    """The symbol between a source and the target that is made of it; None where texts are continued as they are."""
    prefix_attention: bool = False
    """The tokens of a source see one another, not only those before (Dong et al., 2019, section 2.4)."""

    def __post_init__(self) -> None:
        if self.prefix_attention and self.separator is None:
            raise ConfigError("prefix_attention is true, but separator is None: nothing says where a source ends")
        _check_heads("decoder", self.decoder)
        if self.prefix_attention and self.decoder.positions.memory_length:
            raise ConfigError(
                f"prefix_attention is true, but decoder.positions.kind is {self.decoder.positions.kind}, "
                "whose queries see what is before them"
            )
        if not self.output and (self.tie_output or self.output_bias):
            raise ConfigError(
                f"output is false, but tie_output is {self.tie_output} and output_bias is {self.output_bias}; "
                "expected both to be false"
            )
        if self.adaptive is not None:
            _check_adaptive(self.adaptive, self.vocabulary, self.decoder)
        elif self.tie_output:
            _check_tied(self.decoder)


def _check_adaptive(adaptive: AdaptiveConfig, vocabulary: int, decoder: StackConfig) -> None:
    if adaptive.cutoffs and adaptive.cutoffs[-1] >= vocabulary:
        raise ConfigError(
            f"adaptive.cutoffs are {list(adaptive.cutoffs)}, but vocabulary is {vocabulary}; expected less"
        )
    if not adaptive.widths(decoder.embedding_width)[-1]:
        raise ConfigError(
            f"adaptive.factor is {adaptive.factor}, which leaves nothing of {decoder.embedding_width} dimensions for "
            f"the last of {len(adaptive.cutoffs) + 1} clusters"
        )
    if decoder.embedding_norm or decoder.token_types:
        raise ConfigError("adaptive embeddings have no types of tokens and no norm; expected neither")


def _check_tied(decoder: StackConfig) -> None:
    if decoder.embedding_width != decoder.features_width:
        raise ConfigError(
            f"tie_output needs equal widths, but decoder.embedding_dim is {decoder.embedding_dim} "
            f"and decoder.dim is {decoder.dim}"
        )


_OF_LAYERS = (
    "layers", "dim", "heads", "ffn_dim", "activation", "gated", "bias", "head_dim", "key_value_heads",
    "attention_scale", "norm", "norm_epsilon", "norm_bias", "norm_placement", "distinct_layers",
)  # fmt: skip


def _alike(stack: StackConfig) -> list[Any]:
    """What two stacks that share layers have in common."""
    return [getattr(stack, name) for name in _OF_LAYERS]


def _check_heads(name: str, stack: StackConfig) -> None:
    if stack.head_dim is None and stack.dim % stack.heads:
        raise ConfigError(f"{name}.dim is {stack.dim}, which {name}.heads ({stack.heads}) does not divide")
    if stack.kept_heads < 1 or stack.heads % stack.kept_heads:
        raise ConfigError(
            f"{name}.heads is {stack.heads}, which {name}.key_value_heads ({stack.kept_heads}) does not divide"
        )
    kind = stack.positions.kind
    biased = kind is PositionKind.RELATIVE_BUCKETS or kind.has_distance_vectors
    if biased and stack.kept_heads != stack.heads:
        raise ConfigError(
            f"{name}.positions.kind is {kind}, which scores distances for each head, and {name}.key_value_heads is "
            f"{stack.kept_heads}; expected {stack.heads}"
        )
    if kind is PositionKind.RELATIVE_SINUSOIDAL:
        _check_recurrence(name, stack)
    if kind is PositionKind.ROTARY and stack.head_width % 2:
        raise ConfigError(f"{name}.positions.kind is {kind}, but a head is {stack.head_width} wide; expected pairs")


def _check_recurrence(name: str, stack: StackConfig) -> None:
    kind = stack.positions.kind
    if name != "decoder":
        raise ConfigError(f"{name}.positions.kind is {kind}, which only a decoder can have")
    if stack.kept_heads != stack.heads:
        raise ConfigError(
            f"{name}.positions.kind is {kind}, which wants a key for each head, and {name}.key_value_heads is "
            f"{stack.kept_heads}; expected {stack.heads}"
        )
    if stack.dim % 2:
        raise ConfigError(f"{name}.positions.kind is {kind}, but {name}.dim is {stack.dim}; expected an even number")
    if stack.layer_drop:
        raise ConfigError(f"{name}.positions.kind is {kind}, but {name}.layer_drop is {stack.layer_drop}; expected 0")


def _build(kind: type, values: Any, where: str) -> Any:
    """Make the dataclass ``kind`` from a dictionary, checking names and types on the way down."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected an object, found {values!r}")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(hints)}")
    required = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    missing = sorted(required - set(values))
    if missing:
        raise ConfigError(f"{where}: field {missing[0]!r} is missing")
    return kind(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, UnionType):
        if value is None and NoneType in get_args(hint):
            return None
        hint = next(option for option in get_args(hint) if option is not NoneType)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, value, where)
    if get_origin(hint) is tuple:  # of any length, all of one kind; JSON has lists alone
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, found {value!r}")
        return tuple(_convert(get_args(hint)[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError:
            raise ConfigError(f"{where}: {value!r} is not one of {', '.join(hint)}") from None
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value
