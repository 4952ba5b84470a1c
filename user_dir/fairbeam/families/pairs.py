"""Pairs: an encoder and a decoder of two families, joined by cross-attention (Rothe et al., 2020).

Hugging Face's ``EncoderDecoderModel`` stores the configurations and weights of both, under ``encoder`` and ``decoder``.
The weight map of a pair is that of the two families under other names, and cross-attention's own rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.families import albert, bert, distilbert, electra, gpt2, roberta, xlm_roberta
from fairbeam.families.config_reader import ConfigReader
from fairbeam.families.decoder_only import DecoderOnlyFamily
from fairbeam.families.encoder_only import EncoderOnlyFamily
from fairbeam.families.spec import LoadPlan
from fairbeam.families.weight_map import Row, linear, transposed, with_prefix
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
"""Prefix of a tensor's name in any network → its prefix as part of an encoder-decoder's encoder."""
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
"""The same for its decoder, by the kind of network that the decoder comes from."""

_CROSS = "decoder.layers.{i}.cross_attention"
_THEIRS = "encoder.layer.{i}.crossattention"
BERT_CROSS_ROWS = (
    *linear(f"{_CROSS}.query", f"{_THEIRS}.self.query"),
    *linear(f"{_CROSS}.key_value", f"{_THEIRS}.self.key", f"{_THEIRS}.self.value"),
    *linear(f"{_CROSS}.output", f"{_THEIRS}.output.dense"),
    *linear(f"{_CROSS}_residual.norm", f"{_THEIRS}.output.LayerNorm"),
)
GPT2_CROSS_ROWS = (
    *transposed(f"{_CROSS}.query", "h.{i}.crossattention.q_attn"),
    *transposed(f"{_CROSS}.key_value", "h.{i}.crossattention.c_attn"),
    *transposed(f"{_CROSS}.output", "h.{i}.crossattention.c_proj"),
    *linear(f"{_CROSS}_residual.norm", "h.{i}.ln_cross_attn"),
)

_ENCODERS: Mapping[str, EncoderOnlyFamily] = {
    family.FAMILY.model_type: family.FAMILY for family in (bert, roberta, xlm_roberta, distilbert, electra, albert)
}
_DECODERS: Mapping[str, tuple[EncoderOnlyFamily | DecoderOnlyFamily, tuple[Row, ...]]] = {
    **{family.FAMILY.model_type: (family.FAMILY, BERT_CROSS_ROWS) for family in (bert, roberta, xlm_roberta, electra)},
    gpt2.FAMILY.model_type: (gpt2.FAMILY, GPT2_CROSS_ROWS),
}
"""Families whose Hugging Face class has cross-attention, and its rows."""


@dataclass(frozen=True)
class PairFamily:
    """The family of all pairs (a `FamilySpec`)."""

    model_type: str = "encoder-decoder"
    computed_tables: tuple[Row, ...] = ()
    prefix: str = ""
    unprefixed: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    not_weights: str = (
        r"(encoder|decoder\.\w+)\.(embeddings\.position_ids|h\.\d+\.(attn|crossattention)\.(bias|masked_bias))"
    )

    def rows_for(self, config: AnyConfig, options: Mapping[str, Any]) -> tuple[Row, ...]:
        """Return the weight map of a pair; see `FamilySpec`."""
        encoder, decoder, cross = _families(options)
        return (*_encoder_rows(encoder)[0], *_decoder_rows(decoder)[0], *_cross_rows(decoder, cross))

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> LoadPlan:
        """Return the network of a model's files; see `FamilySpec`."""
        encoder, decoder, cross = _families(config)
        if any(name.startswith("enc_to_dec_proj.") for name in theirs):
            raise ConfigError(
                "the weights have enc_to_dec_proj, a projection of the encoder's states to the decoder's width, which "
                "has no conversion; expected an encoder and a decoder of one width"
            )
        (read, unread), (written, unread_too) = _encoder_rows(encoder), _decoder_rows(decoder)
        twins = _twins(encoder, decoder, theirs) if config.get("tie_encoder_decoder") is True else {}
        there = {**{name: theirs[twin] for name, twin in twins.items() if twin in theirs}, **theirs}
        reading, writing = _plans(config, encoder, decoder, there)

        def are_shared(parameters: str) -> bool:
            """Return whether encoder and decoder hold equal weights whose names begin so."""
            rows = [row for row in written if row.ours.startswith(parameters)]
            names = [name for row in rows for name in _of_layers(row, writing) if name in twins]
            return bool(names) and all(_equal(name, twins[name], there) for name in names)

        network = EncoderDecoderConfig(
            source_vocabulary=reading.vocabulary,
            target_vocabulary=writing.vocabulary,
            encoder=reading.encoder,
            # GPT-2's embedding has no padding row of zeros.
            decoder=replace(decoder_stack(writing), train_padding=isinstance(writing, DecoderOnlyConfig)),
            share_embeddings=are_shared("target_embedding.weight"),
            share_layers=are_shared("decoder.layers."),
            tie_output=writing.tie_output,
            output_bias=isinstance(writing, EncoderOnlyConfig) or writing.output_bias,
            dropout=writing.dropout,
            source_pad=reading.pad,
            **_special_ids(config, writing),
        )
        # A file of tied weights may hold an embedding once that the network holds once for each side.
        rows = [
            replace(row, theirs=tuple(name if name in theirs else twins.get(name, name) for name in row.theirs))
            if row.ours.startswith("target_embedding.")
            else row
            for row in written
        ]
        return LoadPlan(network, (*read, *rows, *_cross_rows(decoder, cross)), unread | unread_too)

    def config_for_training(self, config: Mapping[str, Any]) -> AnyConfig:
        """Refuse: pairs have no published sizes."""
        raise ConfigError("a pair of two families is made of trained ones; fairbeam compose joins them")


FAMILY = PairFamily()


def _families(
    config: Mapping[str, Any],
) -> tuple[EncoderOnlyFamily, EncoderOnlyFamily | DecoderOnlyFamily, tuple[Row, ...]]:
    """Return the families of encoder and decoder, and the rows of cross-attention."""
    for side, known in (("encoder", _ENCODERS), ("decoder", _DECODERS)):
        options = config.get(side)
        if not isinstance(options, dict):
            raise ConfigError(f"{side} is {options!r:.80}; expected an object")
        kind = options.get("model_type")
        if not isinstance(kind, str) or kind not in known:
            raise ConfigError(f"{side}.model_type is {kind!r:.80}; expected one of {', '.join(known)}")
    return _ENCODERS[config["encoder"]["model_type"]], *_DECODERS[config["decoder"]["model_type"]]


def _encoder_rows(family: EncoderOnlyFamily) -> tuple[tuple[Row, ...], frozenset[str]]:
    return _moved(with_prefix("encoder.", _without_prefix(family)), ENCODER_NAMES)


def _decoder_rows(family: EncoderOnlyFamily | DecoderOnlyFamily) -> tuple[tuple[Row, ...], frozenset[str]]:
    kind: type[AnyConfig] = EncoderOnlyConfig if isinstance(family, EncoderOnlyFamily) else DecoderOnlyConfig
    return _moved(with_prefix("decoder.", family.rows), DECODER_NAMES[kind])


def _cross_rows(family: EncoderOnlyFamily | DecoderOnlyFamily, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return with_prefix(f"decoder.{family.prefix}", rows)


def _without_prefix(family: EncoderOnlyFamily) -> tuple[Row, ...]:
    """Return a family's rows with the tensor names of the base model."""
    return tuple(
        replace(row, theirs=tuple(name.removeprefix(family.prefix) for name in row.theirs)) for row in family.rows
    )


def _moved(rows: Iterable[Row], names: Mapping[str, str]) -> tuple[tuple[Row, ...], frozenset[str]]:
    """Return the rows of a part under its names in an encoder-decoder, and their tensor names that it does not use."""
    renamed = [(row, renamed_part(row.ours, names)) for row in rows]
    moved = tuple(replace(row, ours=ours) for row, ours in renamed if ours is not None)
    return moved, frozenset(name for row, ours in renamed if ours is None for name in row.theirs)


def renamed_part(name: str, names: Mapping[str, str]) -> str | None:
    """Return a tensor's name in the encoder-decoder, or None if it is not of the part that ``names`` describes."""
    return next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), None)


def decoder_stack(config: AnyConfig) -> StackConfig:
    """Return the layers of a network as a decoder: an encoder's with the transform of its masked language model head.

    Raises:
        ConfigError: an LSTM has no layers that attend.
    """
    if isinstance(config, LSTMConfig):
        raise ConfigError("an LSTM has no layers that can attend to another encoder; expected a Transformer")
    if not isinstance(config, EncoderOnlyConfig):
        return config.decoder
    head = config.symbol_head
    return replace(config.encoder, transform=None if head is None or head.hidden is None else head.activation)


def _plans(
    config: Mapping[str, Any],
    encoder: EncoderOnlyFamily,
    decoder: EncoderOnlyFamily | DecoderOnlyFamily,
    theirs: Mapping[str, Tensor],
) -> tuple[EncoderOnlyConfig, EncoderOnlyConfig | DecoderOnlyConfig]:
    """Return the configurations of the two parts."""
    prefixes = {"encoder": encoder.prefix, "decoder": ""}  # an encoder's names lack the family's prefix
    planned = []
    for side, family in (("encoder", encoder), ("decoder", decoder)):
        options = dict(config[side])
        for name in ("is_decoder", "add_cross_attention") if side == "decoder" else ():
            if options.pop(name, None) is not True:
                raise ConfigError(f"decoder.{name} is {config[side].get(name)!r:.80}; expected True")
        own = {
            prefixes[side] + name.removeprefix(f"{side}."): tensor
            for name, tensor in theirs.items()
            if name.startswith(f"{side}.")
        }
        try:
            ConfigReader(options).require("position_embedding_type", "absolute")
            planned.append(family.plan(options, own).network)
        except ConfigError as error:
            raise ConfigError(f"{side}: {error}") from None
    reading, writing = planned
    assert isinstance(reading, EncoderOnlyConfig)
    assert isinstance(writing, EncoderOnlyConfig | DecoderOnlyConfig)
    if isinstance(writing, EncoderOnlyConfig) and writing.symbol_head is None:
        raise ConfigError("decoder: the weights have no output projection; expected a masked language model's head")
    return reading, writing


def _special_ids(config: Mapping[str, Any], writing: EncoderOnlyConfig | DecoderOnlyConfig) -> dict[str, int]:
    """Return the special-token ids of targets: those of the pair's options, or else of its decoder's."""
    vocabulary = writing.vocabulary

    def token_id(*names: str, default: int | None = None) -> int:
        for options in (config, config["decoder"]):
            for name in names:
                if options.get(name) is not None:
                    return ConfigReader(options).token_id(name, vocabulary)
        if default is None:
            raise ConfigError(f"{names[0]} is None; expected an integer from 0 to {vocabulary - 1}")
        return default

    eos, start = token_id("eos_token_id"), token_id("decoder_start_token_id", "bos_token_id")
    pad = token_id("pad_token_id", default=-1)
    pad = -1 if pad == eos else pad  # padding is never generated, the end token must be
    positions = decoder_stack(writing).positions
    if start == writing.pad and not positions.count_padding:
        raise ConfigError(f"decoder_start_token_id is {start}, which is padding and takes no position in this decoder")
    bos = token_id("bos_token_id", default=start)
    return {"bos": bos, "pad": pad, "eos": eos, "unk": eos if pad < 0 else pad, "decoder_start": start}


def _twins(
    encoder: EncoderOnlyFamily, decoder: EncoderOnlyFamily | DecoderOnlyFamily, theirs: Mapping[str, Tensor]
) -> dict[str, str]:
    """Map each tensor name to its counterpart on the other side, if encoder and decoder are of one family."""
    if encoder is not decoder:
        return {}
    prefix = f"decoder.{decoder.prefix}"
    both = {f"encoder.{name.removeprefix(prefix)}": name for name in theirs if name.startswith(prefix)}
    both |= {name: prefix + name.removeprefix("encoder.") for name in theirs if name.startswith("encoder.")}
    return both | {twin: name for name, twin in both.items()}


def _of_layers(row: Row, config: AnyConfig) -> tuple[str, ...]:
    """Return a row's names for all layers."""
    return tuple(name for layer in range(decoder_stack(config).layers) for name in row.for_layer(layer).theirs)


def _equal(name: str, twin: str, theirs: Mapping[str, Tensor]) -> bool:
    return name in theirs and twin in theirs and torch.equal(theirs[name], theirs[twin])
