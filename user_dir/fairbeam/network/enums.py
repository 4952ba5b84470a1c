"""Choices that tell one Transformer from another; their values are stored in bundles."""

from enum import StrEnum


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
