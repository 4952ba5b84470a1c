"""The configurable Transformer: tensors only, knows nothing of files, text or search."""

from fairbeam.network.config import (
    Activation,
    DropoutConfig,
    NetworkConfig,
    NormKind,
    NormPlacement,
    PositionConfig,
    PositionKind,
    StackConfig,
)
from fairbeam.network.network import Network, pad_batch
from fairbeam.network.runtime import Precision, has_fast_bfloat16, tune_memory

__all__ = [
    "Activation",
    "DropoutConfig",
    "Network",
    "NetworkConfig",
    "NormKind",
    "NormPlacement",
    "PositionConfig",
    "PositionKind",
    "Precision",
    "StackConfig",
    "has_fast_bfloat16",
    "pad_batch",
    "tune_memory",
]
