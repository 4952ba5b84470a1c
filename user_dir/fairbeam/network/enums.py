"""Choices of a network's configuration; the values are stored in bundles."""

from enum import StrEnum


class Activation(StrEnum):
    """Activation function, as between the two feed-forward layers."""

    RELU = "relu"
    RELU_SQUARED = "relu_squared"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    TANH = "tanh"
    SILU = "silu"
    LINEAR = "linear"


class NormPlacement(StrEnum):
    """Post-norm, after each residual sum (Vaswani et al., 2017), or pre-norm, before each block (Xiong et al.,
    2020)."""

    POST = "post"
    PRE = "pre"


class NormKind(StrEnum):
    """Kind of normalization."""

    LAYER = "layer"
    """Layer normalization: subtract the mean, divide by the standard deviation (Ba et al., 2016)."""
    RMS = "rms"
    """RMS normalization: divide by the root mean square (Zhang and Sennrich, 2019)."""


class PositionKind(StrEnum):
    """Position scheme of a stack."""

    SINUSOIDAL = "sinusoidal"
    """Sinusoidal embeddings as in fairseq: the last of ``dim / 2`` wavelengths is 10000 times the first."""
    SINUSOIDAL_OPEN = "sinusoidal_open"
    """Sinusoidal embeddings as in Vaswani et al. (2017), section 3.5: one step beyond the last wavelength would be
    10000 times the first."""
    LEARNED = "learned"
    """Learned absolute embeddings."""
    RELATIVE_BUCKETS = "relative_buckets"
    """T5's relative position bias: a learned scalar per head and distance bucket (Raffel et al., 2020, section 2.1)."""
    ROTARY = "rotary"
    """Rotary position embedding, RoPE: queries and keys are rotated by their positions (Su et al., 2021, section
    3.2)."""
    RELATIVE_SINUSOIDAL = "relative_sinusoidal"
    """Transformer-XL's relative positions and segment memory: scores add a content term and a term of projected
    distance sinusoids, each with a learned query bias; other projections have no bias (Dai et al., 2019, section 3)."""
    RELATIVE_KEY = "relative_key"
    """Hugging Face's ``relative_key``: a learned vector per distance is added to keys (Shaw et al., 2018, section
    3.2)."""
    RELATIVE_KEY_QUERY = "relative_key_query"
    """Hugging Face's ``relative_key_query``: the distance vector is added to queries as well, without the product of
    the two added vectors (Huang et al., 2020, method 4)."""
    NONE = "none"
    """No positions."""

    @property
    def has_distance_vectors(self) -> bool:
        """Whether each layer has learned distance vectors."""
        return self in (PositionKind.RELATIVE_KEY, PositionKind.RELATIVE_KEY_QUERY)

    @property
    def acts_in_attention(self) -> bool:
        """Whether self-attention needs the position ids of queries and keys."""
        return self.has_distance_vectors or self in (PositionKind.RELATIVE_BUCKETS, PositionKind.ROTARY)
