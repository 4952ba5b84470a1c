"""Which tensors of a network of any shape are those of an encoder-decoder's encoder, and which its decoder's."""

from collections.abc import Mapping
from dataclasses import replace

from fairbeam.network import (
    AnyConfig,
    DecoderOnlyConfig,
    EncoderDecoderConfig,
    EncoderOnlyConfig,
    LSTMConfig,
    StackConfig,
)

ENCODER_NAMES: Mapping[str, str] = {
    "source_embedding.": "source_embedding.",
    "embedding.": "source_embedding.",
    "encoder.": "encoder.",
}
"""Beginnings of names, and what they are in an encoder-decoder that has the part for its encoder."""
DECODER_NAMES: Mapping[type[AnyConfig], Mapping[str, str]] = {
    EncoderDecoderConfig: {"target_embedding.": "target_embedding.", "decoder.": "decoder.", "head.": "head."},
    DecoderOnlyConfig: {"embedding.": "target_embedding.", "decoder.": "decoder.", "head.": "head."},
    EncoderOnlyConfig: {
        "embedding.": "target_embedding.",
        "encoder.": "decoder.",
        "symbol_head.hidden.": "decoder.transform.linear.",
        "symbol_head.norm.": "decoder.transform.norm.",
        "symbol_head.output.": "head.",
    },
}
"""The same for a decoder, by the shape of the network that it comes from."""


def renamed(name: str, names: Mapping[str, str]) -> str | None:
    """The tensor's name in the encoder-decoder; None if it is none of the part's."""
    return next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), None)


def decoder_stack(config: AnyConfig) -> StackConfig:
    """The layers of the network as a decoder; an encoder's, with its masked language model's transform if any."""
    assert not isinstance(config, LSTMConfig)  # which has no layers of this kind
    if not isinstance(config, EncoderOnlyConfig):
        return config.decoder
    head = config.symbol_head
    return replace(config.encoder, transform=None if head is None or head.hidden is None else head.activation)
