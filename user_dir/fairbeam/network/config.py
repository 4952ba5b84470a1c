"""Configuration of a whole network, as frozen values."""

from dataclasses import dataclass
from itertools import pairwise

from fairbeam.errors import ConfigError
from fairbeam.network.config_io import SerializableConfig
from fairbeam.network.enums import Activation, PositionKind
from fairbeam.network.stack_config import DropoutConfig, StackConfig, check_heads, check_tied, layer_fields

_MAX_CLUSTERS = 64
"""Most clusters of an adaptive softmax; real models have three or four."""


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(SerializableConfig):
    """Configuration of an encoder-decoder network."""

    source_vocabulary: int
    """Number of source tokens."""
    target_vocabulary: int
    """Number of target tokens."""
    encoder: StackConfig = StackConfig()
    decoder: StackConfig = StackConfig()
    share_embeddings: bool = False
    """Source and target tokens share one embedding."""
    share_layers: bool = False
    """Encoder and decoder share all layers but cross-attention (Rothe et al., 2020, section 3)."""
    tie_output: bool = False
    """The output projection is tied to the target embedding."""
    output_bias: bool = False
    """The output projection has a bias."""
    dropout: DropoutConfig = DropoutConfig()
    bos: int = 0
    """Id of the beginning-of-sequence token."""
    pad: int = 1
    """Padding id; negative if the vocabulary has no padding token."""
    eos: int = 2
    """Id of the end-of-sequence token."""
    unk: int = 3
    """Id of the unknown token."""
    decoder_start: int | None = None
    """Id of the token that begins the decoder's input, Hugging Face's ``decoder_start_token_id``; ``eos`` if None."""
    source_pad: int | None = None
    """Padding id of sources; ``pad`` if None."""

    def __post_init__(self) -> None:
        if self.share_layers and layer_fields(self.encoder) != layer_fields(self.decoder):
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
            check_tied(self.decoder)
        for name, stack in (("encoder", self.encoder), ("decoder", self.decoder)):
            check_heads(name, stack)
        kind = self.decoder.positions.kind
        if kind is PositionKind.RELATIVE_SINUSOIDAL:  # targets do not come in segments
            raise ConfigError(f"decoder.positions.kind is {kind}, which a decoder behind an encoder cannot have")

    @property
    def padding_of_sources(self) -> int:
        """Padding id of sources."""
        return self.pad if self.source_pad is None else self.source_pad


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Configuration of a prediction head: one linear layer, or two."""

    outputs: int
    """Number of labels; 1 for regression or a yes-or-no decision."""
    hidden: int | None = None
    """Width of a first linear layer; None for a single layer."""
    activation: Activation = Activation.GELU
    """Activation after the first layer."""
    norm: bool = False
    """Layer norm after the activation."""
    input_dropout: float = 0.0
    """Dropout before the first layer."""
    dropout: float = 0.0
    """Dropout before the last layer."""


class SharedVocabularyConfig(SerializableConfig):
    """Configuration of a network with a single vocabulary, which counts as source and target vocabulary."""

    vocabulary: int
    pad: int

    @property
    def source_vocabulary(self) -> int:
        """Size of the vocabulary."""
        return self.vocabulary

    @property
    def target_vocabulary(self) -> int:
        """Size of the vocabulary."""
        return self.vocabulary

    @property
    def padding_of_sources(self) -> int:
        """Padding id."""
        return self.pad


@dataclass(frozen=True, kw_only=True)
class EncoderOnlyConfig(SharedVocabularyConfig):
    """Configuration of an encoder-only network and its prediction heads."""

    vocabulary: int
    """Number of tokens."""
    encoder: StackConfig = StackConfig()
    pooler: bool = False
    """BERT's pooler: a linear layer and tanh on the first token's state (Devlin et al., 2019)."""
    symbol_head: HeadConfig | None = None
    """Masked language modelling head: logits of the vocabulary for each token."""
    token_head: HeadConfig | None = None
    """Token classification head: tagging, answer spans, replaced token detection."""
    sequence_head: HeadConfig | None = None
    """Sequence classification head on the pooled state, or on the first token's if there is no pooler."""
    tie_output: bool = False
    """The last matrix of ``symbol_head`` is tied to the embedding."""
    dropout: DropoutConfig = DropoutConfig()
    pad: int = 0
    """Padding id."""

    def __post_init__(self) -> None:
        check_heads("encoder", self.encoder)
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
    """Configuration of adaptive softmax (Grave et al., 2017) and adaptive input embeddings (Baevski and Auli, 2019).

    Tokens are sorted by frequency and cut into clusters; rare clusters may have narrower vectors.
    """

    cutoffs: tuple[int, ...] = ()
    """Id of the first token of each cluster but the first."""
    factor: int = 1
    """Ratio of one cluster's vector width to the next one's. At 1 all clusters share one table."""
    tied_projections: tuple[bool, ...] = ()
    """For each cluster, whether the output's projection is tied to the embedding's; no projection is tied if empty."""

    def widths(self, first: int) -> tuple[int, ...]:
        """Return the width of each cluster's vectors, where ``first`` is that of the first cluster."""
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
class DecoderOnlyConfig(SharedVocabularyConfig):
    """Configuration of a decoder-only network."""

    vocabulary: int
    """Number of tokens."""
    decoder: StackConfig = StackConfig()
    adaptive: AdaptiveConfig | None = None
    """Adaptive input embeddings and adaptive softmax; None for a plain embedding and output projection."""
    output: bool = True
    """The network has an output projection; otherwise it computes features only."""
    tie_output: bool = True
    """The output projection is tied to the embedding."""
    output_bias: bool = False
    """The output projection has a bias."""
    dropout: DropoutConfig = DropoutConfig()
    bos: int | None = None
    """Id of the beginning-of-sequence token; None if the vocabulary has none."""
    pad: int = -1
    """Padding id; negative if the vocabulary has no padding token."""
    eos: int | None = None
    """Id of the end-of-sequence token; None if the vocabulary has none."""
    separator: int | None = None
    """Id of the token between source and target; None for language models that continue a text directly."""
    prefix_attention: bool = False
    """Prefix language model: source tokens attend to the whole source, not only to the left (Dong et al., 2019, section
    2.4)."""

    def __post_init__(self) -> None:
        if self.prefix_attention and self.separator is None:
            raise ConfigError("prefix_attention is true, but separator is None: nothing says where a source ends")
        check_heads("decoder", self.decoder)
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
            check_tied(self.decoder)


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
