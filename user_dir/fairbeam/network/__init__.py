"""The configurable Transformer, and a recurrent network: tensors only, knows nothing of files, text or search."""

import torch

from fairbeam.network.config import (
    Activation,
    AdaptiveConfig,
    DropoutConfig,
    EncoderConfig,
    HeadConfig,
    LanguageModelConfig,
    NetworkConfig,
    NormKind,
    NormPlacement,
    PositionConfig,
    PositionKind,
    RotaryScaling,
    StackConfig,
)
from fairbeam.network.encoder import Encoded, EncoderNetwork
from fairbeam.network.language_model import LanguageModel
from fairbeam.network.network import Network, pad_batch
from fairbeam.network.recurrence import SegmentMemory
from fairbeam.network.recurrent import RecurrentConfig, RecurrentDropout, RecurrentNetwork
from fairbeam.network.runtime import Precision, has_fast_bfloat16, tune_memory

Generator = Network | LanguageModel | RecurrentNetwork
"""Networks that decode."""
EncoderDecoder = Network | RecurrentNetwork
"""Networks that read a source and a target apart."""
AnyNetwork = Network | EncoderNetwork | LanguageModel | RecurrentNetwork
AnyConfig = NetworkConfig | EncoderConfig | LanguageModelConfig | RecurrentConfig


def build(config: AnyConfig, compute_dtype: torch.dtype = torch.float32) -> AnyNetwork:
    """The network that ``config`` describes, of whichever shape."""
    match config:
        case NetworkConfig():
            return Network(config, compute_dtype)
        case EncoderConfig():
            return EncoderNetwork(config, compute_dtype)
        case LanguageModelConfig():
            return LanguageModel(config, compute_dtype)
        case RecurrentConfig():
            return RecurrentNetwork(config, compute_dtype)


__all__ = [
    "Activation",
    "AdaptiveConfig",
    "AnyConfig",
    "AnyNetwork",
    "DropoutConfig",
    "Encoded",
    "EncoderConfig",
    "EncoderDecoder",
    "EncoderNetwork",
    "Generator",
    "HeadConfig",
    "LanguageModel",
    "LanguageModelConfig",
    "Network",
    "NetworkConfig",
    "NormKind",
    "NormPlacement",
    "PositionConfig",
    "PositionKind",
    "Precision",
    "RecurrentConfig",
    "RecurrentDropout",
    "RecurrentNetwork",
    "RotaryScaling",
    "SegmentMemory",
    "StackConfig",
    "build",
    "has_fast_bfloat16",
    "pad_batch",
    "tune_memory",
]
