"""Any network from its config."""

import torch

from fairbeam.network.config import DecoderOnlyConfig, EncoderDecoderConfig, EncoderOnlyConfig
from fairbeam.network.decoder_only import DecoderOnly
from fairbeam.network.encoder_decoder import EncoderDecoder
from fairbeam.network.encoder_only import EncoderOnly
from fairbeam.network.lstm import LSTM, LSTMConfig

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
