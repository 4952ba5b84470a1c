"""The configurable Transformer, and a recurrent network: tensors only, knows nothing of files, text or search."""

import torch

from fairbeam.network.config import (
    Activation,
    AdaptiveConfig,
    DecoderOnlyConfig,
    DropoutConfig,
    EncoderDecoderConfig,
    EncoderOnlyConfig,
    HeadConfig,
    NormKind,
    NormPlacement,
    PositionConfig,
    PositionKind,
    RotaryScaling,
    StackConfig,
)
from fairbeam.network.decoder_only import DecoderOnly
from fairbeam.network.encoder_decoder import EncoderDecoder, pad_batch
from fairbeam.network.encoder_only import Encoded, EncoderOnly
from fairbeam.network.lstm import LSTM, LSTMConfig, LSTMDropout
from fairbeam.network.precision import Precision, has_fast_bfloat16, tune_memory
from fairbeam.network.segment_memory import SegmentMemory

Generator = EncoderDecoder | DecoderOnly | LSTM
"""Networks that decode."""
Seq2Seq = EncoderDecoder | LSTM
"""Networks that read a source and a target apart."""
AnyNetwork = EncoderDecoder | EncoderOnly | DecoderOnly | LSTM
AnyConfig = EncoderDecoderConfig | EncoderOnlyConfig | DecoderOnlyConfig | LSTMConfig


def build(config: AnyConfig, compute_dtype: torch.dtype = torch.float32) -> AnyNetwork:
    """The network that ``config`` describes, of whichever shape."""
    match config:
        case EncoderDecoderConfig():
            return EncoderDecoder(config, compute_dtype)
        case EncoderOnlyConfig():
            return EncoderOnly(config, compute_dtype)
        case DecoderOnlyConfig():
            return DecoderOnly(config, compute_dtype)
        case LSTMConfig():
            return LSTM(config, compute_dtype)


__all__ = [
    "LSTM",
    "Activation",
    "AdaptiveConfig",
    "AnyConfig",
    "AnyNetwork",
    "DecoderOnly",
    "DecoderOnlyConfig",
    "DropoutConfig",
    "Encoded",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "EncoderOnly",
    "EncoderOnlyConfig",
    "Generator",
    "HeadConfig",
    "LSTMConfig",
    "LSTMDropout",
    "NormKind",
    "NormPlacement",
    "PositionConfig",
    "PositionKind",
    "Precision",
    "RotaryScaling",
    "SegmentMemory",
    "Seq2Seq",
    "StackConfig",
    "build",
    "has_fast_bfloat16",
    "pad_batch",
    "tune_memory",
]
