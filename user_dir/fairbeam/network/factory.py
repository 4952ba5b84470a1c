"""Construction of any network from its configuration."""

import torch

from fairbeam.network.config import DecoderOnlyConfig, EncoderDecoderConfig, EncoderOnlyConfig
from fairbeam.network.decoder_only import DecoderOnly
from fairbeam.network.encoder_decoder import EncoderDecoder
from fairbeam.network.encoder_only import EncoderOnly
from fairbeam.network.lstm import LSTM, LSTMConfig

Generator = EncoderDecoder | DecoderOnly | LSTM
"""Networks that generate text."""
Seq2Seq = EncoderDecoder | LSTM
"""Networks with separate encoder and decoder."""
AnyNetwork = EncoderDecoder | EncoderOnly | DecoderOnly | LSTM
AnyConfig = EncoderDecoderConfig | EncoderOnlyConfig | DecoderOnlyConfig | LSTMConfig


def build(config: AnyConfig, compute_dtype: torch.dtype = torch.float32) -> AnyNetwork:
    """Build the network that ``config`` describes; linear layers compute in ``compute_dtype``."""
    match config:
        case EncoderDecoderConfig():
            return EncoderDecoder(config, compute_dtype)
        case EncoderOnlyConfig():
            return EncoderOnly(config, compute_dtype)
        case DecoderOnlyConfig():
            return DecoderOnly(config, compute_dtype)
        case LSTMConfig():
            return LSTM(config, compute_dtype)
