"""Configurable Transformers and an LSTM: tensors in, tensors out; no files, text or search."""

from fairbeam.network.config import (
    AdaptiveConfig,
    DecoderOnlyConfig,
    EncoderDecoderConfig,
    EncoderOnlyConfig,
    HeadConfig,
)
from fairbeam.network.decoder_only import DecoderOnly
from fairbeam.network.encoder_decoder import EncoderDecoder, pad_batch
from fairbeam.network.encoder_only import Encoded, EncoderOnly
from fairbeam.network.enums import Activation, NormKind, NormPlacement, PositionKind
from fairbeam.network.factory import AnyConfig, AnyNetwork, Generator, Seq2Seq, build
from fairbeam.network.lstm import LSTM, LSTMConfig, LSTMDropout
from fairbeam.network.memory import tune_memory
from fairbeam.network.precision import Precision, has_fast_bfloat16
from fairbeam.network.segment_memory import SegmentMemory
from fairbeam.network.stack_config import DropoutConfig, PositionConfig, RotaryScaling, StackConfig

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
