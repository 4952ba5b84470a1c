"""One model of two: any encoder and any decoder, joined by cross-attention (Rothe et al., 2020).

Or a decoder alone, which reads source, separator and target as one sequence.
The parts keep their weights, vocabularies and tokenizers. What neither has starts fresh and wants training.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.families.pairs import DECODER_NAMES, ENCODER_NAMES, decoder_stack, renamed_part
from fairbeam.model import Bundle
from fairbeam.network import (
    LSTM,
    AnyConfig,
    AnyNetwork,
    DecoderOnly,
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderOnly,
    LSTMConfig,
    StackConfig,
)
from fairbeam.network.layer import Layer
from fairbeam.text import Marks, PretrainedTokenizer, Side, TextSide, Tokenizer
from fairbeam.text.tokenizer_config import FIRST, SECOND, Template

FAMILY = "composed"


class CrossAttentionStart(StrEnum):
    """Initial weights of cross-attention, for a decoder that has none."""

    FRESH = "fresh"
    COPIED = "copied"
    """Copy of the layer's self-attention, whose spaces are the same if the two parts are of one kind."""


@dataclass(frozen=True, kw_only=True)
class CompositionOptions:
    """Options of composing an encoder and a decoder."""

    cross_attention: CrossAttentionStart = CrossAttentionStart.FRESH
    """Initial weights of cross-attention."""
    share: bool = False
    """Share one stack of layers and one embedding, as in RoBERTa2RoBERTa with shared weights (Rothe et al., 2020)."""
    seed: int = 1
    """Random seed for fresh weights."""


@dataclass(frozen=True, kw_only=True)
class SequenceOptions:
    """Options of making a decoder alone translate."""

    separator: str | None = None
    """Token between source and target; the BOS token, or else the EOS token, if None."""
    prefix_attention: bool = False
    """Let source tokens attend to one another in both directions (a prefix language model)."""


@dataclass(frozen=True)
class _Part:
    """Encoder or decoder of a trained network."""

    stack: StackConfig
    vocabulary: int
    weights: dict[str, Tensor]
    """Weights by their names in an encoder-decoder."""


def compose(encoder: Bundle, decoder: Bundle, options: CompositionOptions | None = None) -> Bundle:
    """Return an encoder-decoder of one model's encoder and another's decoder, ready to be trained.

    Args:
        encoder: an encoder, or an encoder-decoder, of which the encoder is used.
        decoder: a decoder, an encoder-decoder, of which the decoder is used, or an encoder, which becomes causal: its
            masked language model's head then predicts the next token.

    Raises:
        ConfigError: a part is missing or cannot be what it is asked to be; or weights cannot be shared or copied,
            because the parts differ.
    """
    options = options or CompositionOptions()
    reading, writing = _encoder_part(encoder), _decoder_part(decoder)
    source, target = _reader(encoder), _writer(decoder)
    config = _joined(encoder, decoder, reading, writing, target, share=options.share)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = EncoderDecoder(config)
    fresh = network.state_dict()
    # Load the encoder last: shared weights are the encoder's.
    for part in (writing, reading):
        if homeless := [name for name in part.weights if name not in fresh]:
            raise ConfigError(
                f"{homeless[0]} has no place in an encoder-decoder; expected parts with one embedding each"
            )
        fitting = {name: tensor for name, tensor in part.weights.items() if _fits(name, tensor, fresh)}
        network.load_state_dict(fitting, strict=False)
    if options.cross_attention is CrossAttentionStart.COPIED:
        _copy_self_attention(network)
    return Bundle(
        network=network.eval(),
        source=source,
        target=target,
        family=FAMILY,
        generation=decoder.generation,
        start=decoder.start,
        forced_bos=decoder.forced_bos,
        separate_tokenizers=True,
    )


def sequence_to_sequence(decoder: Bundle, options: SequenceOptions | None = None) -> Bundle:
    """Return a decoder alone that continues a source and a separator with the target.

    Raises:
        ConfigError: it is no decoder, it has no tokenizer or no token that ends a text, or the separator is no token.
    """
    options = options or SequenceOptions()
    network = decoder.network
    if not isinstance(network, DecoderOnly):
        raise ConfigError(f"a model of family {decoder.family!r} is no decoder alone; expected one such as gpt2")
    if not network.config.output:
        raise ConfigError(f"a model of family {decoder.family!r} has no output projection; expected one with it")
    target = _writer(decoder)
    _, ending = _marks(target)
    separator = _separator(target, options.separator)
    config = replace(network.config, separator=separator, prefix_attention=options.prefix_attention, eos=ending)
    separated = DecoderOnly(config)
    separated.load_state_dict(network.state_dict())
    source = _with_template(target, Side.SOURCE, ()) if isinstance(target, PretrainedTokenizer) else target
    return Bundle(
        network=separated.eval(),
        source=source,
        target=target,
        family=FAMILY,
        generation=decoder.generation,
        separate_tokenizers=True,
    )


# --- parts ---


def _encoder_part(model: Bundle) -> _Part:
    network = model.network
    if isinstance(network, DecoderOnly):
        raise ConfigError(f"--encoder: a model of family {model.family!r} is a decoder; expected one with an encoder")
    if isinstance(network, LSTM):
        raise ConfigError(f"--encoder: a model of family {model.family!r} is recurrent; expected a Transformer")
    weights = _weights_of_part(network, ENCODER_NAMES)
    return _Part(network.config.encoder, network.config.source_vocabulary, weights)


def _decoder_part(model: Bundle) -> _Part:
    network = model.network
    if isinstance(network, LSTM):
        raise ConfigError(f"--decoder: a model of family {model.family!r} is recurrent; expected a Transformer")
    weights = _weights_of_part(network, DECODER_NAMES[type(network.config)])
    stack = decoder_stack(network.config)
    if stack.positions.memory_length:
        raise ConfigError(
            f"--decoder: a model of family {model.family!r} remembers the segments before, which an encoder-decoder "
            "cannot; expected one without a memory"
        )
    if isinstance(network, EncoderOnly) and stack.features_width != stack.embedding_width:
        raise ConfigError(
            f"--decoder: a model of family {model.family!r} without a masked language model's head has nothing that "
            "leads from its states to its embeddings"
        )
    return _Part(stack, network.config.target_vocabulary, weights)


def _weights_of_part(network: AnyNetwork, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the weights of a part, by their names in an encoder-decoder."""
    renamed = ((renamed_part(name, names), tensor) for name, tensor in network.state_dict().items())
    return {name: tensor for name, tensor in renamed if name is not None}


def _joined(
    encoder: Bundle, decoder: Bundle, reading: _Part, writing: _Part, target: TextSide, *, share: bool
) -> EncoderDecoderConfig:
    config = decoder.network.config
    assert not isinstance(config, LSTMConfig)  # which is refused as a part
    # A bare encoder has no output projection: its embedding then serves, as it would in a masked language model.
    tied = getattr(config, "tie_output", False) or "head.weight" not in writing.weights
    if share and reading.vocabulary != writing.vocabulary:
        raise ConfigError(
            f"--share: the encoder has {reading.vocabulary} symbols and the decoder {writing.vocabulary}; "
            "expected one vocabulary"
        )
    return EncoderDecoderConfig(
        source_vocabulary=reading.vocabulary,
        target_vocabulary=writing.vocabulary,
        encoder=reading.stack,
        decoder=writing.stack,
        share_embeddings=share,
        share_layers=share,
        tie_output=tied,
        output_bias="head.bias" in writing.weights,
        dropout=config.dropout,
        pad=config.pad,
        source_pad=encoder.network.config.padding_of_sources,
        **_special_ids(config, target),
    )


def _special_ids(config: AnyConfig, target: TextSide) -> dict[str, Any]:
    """Return the special-token ids of targets: an encoder-decoder's own, or its tokenizer's."""
    if isinstance(config, EncoderDecoderConfig):
        return {name: getattr(config, name) for name in ("bos", "eos", "unk", "decoder_start")}
    beginning, ending = _marks(target)
    unknown = ending if target.unk is None else target.unk
    return {"bos": beginning, "eos": ending, "unk": unknown, "decoder_start": beginning}


def _fits(name: str, tensor: Tensor, fresh: Mapping[str, Tensor]) -> bool:
    """Return whether a weight can be used; cross-attention to an encoder of another width starts fresh."""
    if fresh[name].shape == tensor.shape:
        return True
    if ".cross_attention." in name:
        return False
    raise ConfigError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(fresh[name].shape)}")


@torch.no_grad()
def _copy_self_attention(network: EncoderDecoder) -> None:
    stack, memory = network.config.decoder, network.config.encoder.dim
    if stack.dim != memory or stack.num_kv_heads != stack.heads:
        raise ConfigError(
            f"--cross-attention copied: needs states of the decoder's width, {stack.dim}, and keys for every head; the "
            f"encoder's width is {memory}, and there are keys for {stack.num_kv_heads} of {stack.heads} heads"
        )
    for layer in network.decoder.layers:
        assert isinstance(layer, Layer)
        own, cross = layer.self_attention, layer.cross_attention
        width = cross.query.outputs
        for name, parameter in own.qkv.named_parameters():
            cross.query.get_parameter(name).copy_(parameter[:width])
            cross.key_value.get_parameter(name).copy_(parameter[width:])
        cross.output.load_state_dict(own.output.state_dict())
        layer.cross_attention_residual.load_state_dict(layer.self_attention_residual.state_dict())


# --- tokenizers ---


def _reader(model: Bundle) -> TextSide:
    if model.source is None:
        raise ConfigError(f"--encoder: a model of family {model.family!r} without a tokenizer; expected one with it")
    return model.source


def _writer(model: Bundle) -> TextSide:
    """Return the tokenizer of targets: that of an encoder-decoder as it is, any other with an EOS token alone.

    The decoder start token stands for the tokens that such a tokenizer puts before a text.
    """
    side = model.target or model.source
    if side is None:
        raise ConfigError(f"--decoder: a model of family {model.family!r} without a tokenizer; expected one with it")
    if isinstance(side, Tokenizer):
        return replace(side, language=side.language or Side.TARGET.value, marks=Marks.ENDED)
    if isinstance(model.network, EncoderDecoder) or not isinstance(side, PretrainedTokenizer):
        return side
    _, ending = _marks(side)
    return _with_template(side, Side.TARGET, (str(side.token(ending)),))


def _with_template(side: PretrainedTokenizer, place: Side, behind: tuple[str, ...]) -> PretrainedTokenizer:
    """Return the tokenizer with a template that adds nothing but the tokens ``behind`` a text."""
    template = Template(single=(FIRST, *behind), pair=(FIRST, SECOND, *behind))
    return dataclasses.replace(side, config=replace(side.config, template=template), side=place)


def _marks(side: TextSide) -> tuple[int, int]:
    """Return the tokens that begin and end a text: those of its template, or those with the role.

    Raises:
        ConfigError: there is none that ends a text.
    """
    opening, closing = side.bos, side.eos
    if isinstance(side, PretrainedTokenizer):
        special = side.config.special
        opening = _first_of(side, special.cls, special.bos, special.eos)
        closing = _first_of(side, special.sep if special.cls else None, special.eos, special.sep)
    if closing is None:
        raise ConfigError("--decoder: its tokenizer has no token that ends a text (eos_token or sep_token)")
    return closing if opening is None else opening, closing


def _first_of(side: PretrainedTokenizer, *tokens: str | None) -> int | None:
    found = (side.index(token) for token in tokens if token is not None)
    return next((index for index in found if index is not None), None)


def _separator(side: TextSide, token: str | None) -> int:
    if token is None:
        return _marks(side)[0]
    index = side.index(token) if isinstance(side, PretrainedTokenizer) else None
    if index is None:
        raise ConfigError(f"--separator {token}: no token of the model's vocabulary")
    return index
