"""What distinguishes one network from another, as frozen values."""

from dataclasses import dataclass
from itertools import pairwise

from fairbeam.errors import ConfigError
from fairbeam.network.config_io import SerializableConfig
from fairbeam.network.enums import Activation, PositionKind
from fairbeam.network.stack_config import DropoutConfig, StackConfig, check_heads, check_tied, layer_fields

_MAX_CLUSTERS = 64
"""Of symbols: models have three or four."""


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(SerializableConfig):
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


class SharedVocabularyConfig(SerializableConfig):
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
class EncoderOnlyConfig(SharedVocabularyConfig):
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
class DecoderOnlyConfig(SharedVocabularyConfig):
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
