"""An encoder and a decoder of two families, joined by cross-attention (Rothe et al., 2020), as Hugging Face's
``EncoderDecoderModel`` keeps them: the configurations and the weights of both, under ``encoder`` and ``decoder``.

The rows are those of the two families under other names, and cross-attention's own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.families import albert, bert, distilbert, electra, gpt2, roberta, xlm_roberta
from fairbeam.families.parts import DECODER_NAMES, ENCODER_NAMES, decoder_stack, renamed
from fairbeam.families.seq2seq import LoadPlan, Options
from fairbeam.families.shapes import DecoderOnlyFamily, EncoderOnlyFamily
from fairbeam.families.weight_map import Row, affine, transposed, under
from fairbeam.network import AnyConfig, DecoderOnlyConfig, EncoderDecoderConfig, EncoderOnlyConfig

_CROSS = "decoder.layers.{i}.cross_attention"
_THEIRS = "encoder.layer.{i}.crossattention"
BERT_CROSS_ROWS = (
    *affine(f"{_CROSS}.query", f"{_THEIRS}.self.query"),
    *affine(f"{_CROSS}.key_value", f"{_THEIRS}.self.key", f"{_THEIRS}.self.value"),
    *affine(f"{_CROSS}.output", f"{_THEIRS}.output.dense"),
    *affine(f"{_CROSS}_residual.norm", f"{_THEIRS}.output.LayerNorm"),
)
GPT2_CROSS_ROWS = (
    *transposed(f"{_CROSS}.query", "h.{i}.crossattention.q_attn"),
    *transposed(f"{_CROSS}.key_value", "h.{i}.crossattention.c_attn"),
    *transposed(f"{_CROSS}.output", "h.{i}.crossattention.c_proj"),
    *affine(f"{_CROSS}_residual.norm", "h.{i}.ln_cross_attn"),
)

_ENCODERS: Mapping[str, EncoderOnlyFamily] = {
    page.FAMILY.model_type: page.FAMILY for page in (bert, roberta, xlm_roberta, distilbert, electra, albert)
}
_DECODERS: Mapping[str, tuple[EncoderOnlyFamily | DecoderOnlyFamily, tuple[Row, ...]]] = {
    **{page.FAMILY.model_type: (page.FAMILY, BERT_CROSS_ROWS) for page in (bert, roberta, xlm_roberta, electra)},
    gpt2.FAMILY.model_type: (gpt2.FAMILY, GPT2_CROSS_ROWS),
}
"""Those whose class there has cross-attention, and its rows."""


@dataclass(frozen=True)
class EncoderDecoderPage:
    """The page of all pairs; see ``Page``."""

    model_type: str = "encoder-decoder"
    tables: tuple[Row, ...] = ()
    prefix: str = ""
    outside: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    not_weights: str = (
        r"(encoder|decoder\.\w+)\.(embeddings\.position_ids|h\.\d+\.(attn|crossattention)\.(bias|masked_bias))"
    )

    def rows_for(self, config: AnyConfig, options: Mapping[str, Any]) -> tuple[Row, ...]:
        """Our tensors and theirs; see ``Page``."""
        encoder, decoder, cross = _pages(options)
        return (*_encoder_rows(encoder)[0], *_decoder_rows(decoder)[0], *under(f"decoder.{decoder.prefix}", cross))

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> LoadPlan:
        """The network of a folder; see ``Page``."""
        encoder, decoder, cross = _pages(config)
        if any(name.startswith("enc_to_dec_proj.") for name in theirs):
            raise ConfigError(
                "the weights have enc_to_dec_proj, a projection of the encoder's states to the decoder's width, which "
                "has no conversion; expected an encoder and a decoder of one width"
            )
        (read, useless), (written, useless_too) = _encoder_rows(encoder), _decoder_rows(decoder)
        twins = _twins(encoder, decoder, theirs) if config.get("tie_encoder_decoder") is True else {}
        there = {**{name: theirs[twin] for name, twin in twins.items() if twin in theirs}, **theirs}
        reading, writing = _plans(config, encoder, decoder, there)

        def one(parameters: str) -> bool:
            rows = [row for row in written if row.ours.startswith(parameters)]
            names = [name for row in rows for name in _of_layers(row, writing) if name in twins]
            return bool(names) and all(_equal(name, twins[name], there) for name in names)

        network = EncoderDecoderConfig(
            source_vocabulary=reading.vocabulary,
            target_vocabulary=writing.vocabulary,
            encoder=reading.encoder,
            # GPT-2's embedding treats no symbol apart.
            decoder=replace(decoder_stack(writing), train_padding=isinstance(writing, DecoderOnlyConfig)),
            share_embeddings=one("target_embedding.weight"),
            share_layers=one("decoder.layers."),
            tie_output=writing.tie_output,
            output_bias=isinstance(writing, EncoderOnlyConfig) or writing.output_bias,
            dropout=writing.dropout,
            source_pad=reading.pad,
            **_symbols(config, writing),
        )
        # What the network holds once for each side, a file of tied weights may hold once for both.
        rows = [
            replace(row, theirs=tuple(name if name in theirs else twins.get(name, name) for name in row.theirs))
            if row.ours.startswith("target_embedding.")
            else row
            for row in written
        ]
        return LoadPlan(network, (*read, *rows, *under(f"decoder.{decoder.prefix}", cross)), useless | useless_too)

    def untrained(self, config: Mapping[str, Any]) -> AnyConfig:
        """Refused: there are no published sizes of pairs."""
        raise ConfigError("a pair of two families is made of trained ones; fairbeam compose joins them")


FAMILY = EncoderDecoderPage()


def _pages(
    config: Mapping[str, Any],
) -> tuple[EncoderOnlyFamily, EncoderOnlyFamily | DecoderOnlyFamily, tuple[Row, ...]]:
    """Encoder, decoder and the rows of cross-attention."""
    for side, known in (("encoder", _ENCODERS), ("decoder", _DECODERS)):
        options = config.get(side)
        if not isinstance(options, dict):
            raise ConfigError(f"{side} is {options!r:.80}; expected an object")
        kind = options.get("model_type")
        if not isinstance(kind, str) or kind not in known:
            raise ConfigError(f"{side}.model_type is {kind!r:.80}; expected one of {', '.join(known)}")
    return _ENCODERS[config["encoder"]["model_type"]], *_DECODERS[config["decoder"]["model_type"]]


def _encoder_rows(page: EncoderOnlyFamily) -> tuple[tuple[Row, ...], frozenset[str]]:
    return _moved(under("encoder.", _bare(page, page.rows)), ENCODER_NAMES)


def _decoder_rows(page: EncoderOnlyFamily | DecoderOnlyFamily) -> tuple[tuple[Row, ...], frozenset[str]]:
    shape: type[AnyConfig] = EncoderOnlyConfig if isinstance(page, EncoderOnlyFamily) else DecoderOnlyConfig
    return _moved(under("decoder.", page.rows), DECODER_NAMES[shape])


def _bare(page: EncoderOnlyFamily, rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows as a model without a head names its tensors."""
    return tuple(replace(row, theirs=tuple(name.removeprefix(page.prefix) for name in row.theirs)) for row in rows)


def _moved(rows: Iterable[Row], names: Mapping[str, str]) -> tuple[tuple[Row, ...], frozenset[str]]:
    """The rows of a part, under its names in an encoder-decoder, and what their other rows name."""
    places = [(row, renamed(row.ours, names)) for row in rows]
    moved = tuple(replace(row, ours=ours) for row, ours in places if ours is not None)
    return moved, frozenset(name for row, ours in places if ours is None for name in row.theirs)


def _plans(
    config: Mapping[str, Any],
    encoder: EncoderOnlyFamily,
    decoder: EncoderOnlyFamily | DecoderOnlyFamily,
    theirs: Mapping[str, Tensor],
) -> tuple[EncoderOnlyConfig, EncoderOnlyConfig | DecoderOnlyConfig]:
    """The networks that the two parts are of."""
    prefixes = {"encoder": encoder.prefix, "decoder": ""}  # whose own names lack it
    planned = []
    for side, page in (("encoder", encoder), ("decoder", decoder)):
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
            Options(options).require("position_embedding_type", "absolute")
            planned.append(page.plan(options, own).network)
        except ConfigError as error:
            raise ConfigError(f"{side}: {error}") from None
    reading, writing = planned
    assert isinstance(reading, EncoderOnlyConfig)
    assert isinstance(writing, EncoderOnlyConfig | DecoderOnlyConfig)
    if isinstance(writing, EncoderOnlyConfig) and writing.symbol_head is None:
        raise ConfigError("decoder: the weights have no output projection; expected a masked language model's head")
    return reading, writing


def _symbols(config: Mapping[str, Any], writing: EncoderOnlyConfig | DecoderOnlyConfig) -> dict[str, int]:
    """The symbols of targets: as the whole model says, or else its decoder."""
    vocabulary = writing.vocabulary

    def symbol(*names: str, default: int | None = None) -> int:
        for options in (config, config["decoder"]):
            for name in names:
                if options.get(name) is not None:
                    return Options(options).symbol(name, vocabulary)
        if default is None:
            raise ConfigError(f"{names[0]} is None; expected an integer from 0 to {vocabulary - 1}")
        return default

    eos, start = symbol("eos_token_id"), symbol("decoder_start_token_id", "bos_token_id")
    pad = symbol("pad_token_id", default=-1)
    pad = -1 if pad == eos else pad  # it must be possible to write it
    positions = decoder_stack(writing).positions
    if start == writing.pad and not positions.count_padding:
        raise ConfigError(f"decoder_start_token_id is {start}, which is padding and takes no position in this decoder")
    bos = symbol("bos_token_id", default=start)
    return {"bos": bos, "pad": pad, "eos": eos, "unk": eos if pad < 0 else pad, "decoder_start": start}


def _twins(
    encoder: EncoderOnlyFamily, decoder: EncoderOnlyFamily | DecoderOnlyFamily, theirs: Mapping[str, Tensor]
) -> dict[str, str]:
    """What encoder and decoder both have, each name to the other's, where they are of one family."""
    if encoder is not decoder:
        return {}
    prefix = f"decoder.{decoder.prefix}"
    both = {f"encoder.{name.removeprefix(prefix)}": name for name in theirs if name.startswith(prefix)}
    both |= {name: prefix + name.removeprefix("encoder.") for name in theirs if name.startswith("encoder.")}
    return both | {twin: name for name, twin in both.items()}


def _of_layers(row: Row, config: AnyConfig) -> tuple[str, ...]:
    """The row's names for every layer."""
    return tuple(name for layer in range(decoder_stack(config).layers) for name in row.at(layer).theirs)


def _equal(name: str, twin: str, theirs: Mapping[str, Tensor]) -> bool:
    return name in theirs and twin in theirs and torch.equal(theirs[name], theirs[twin])
