"""``fairbeam compose``: join a pretrained encoder and a pretrained decoder into one model, ready to be trained."""

from pathlib import Path
from typing import Annotated

import typer

from fairbeam.errors import ConfigError
from fairbeam.formats import bundle
from fairbeam.formats.compose import (
    CompositionOptions,
    CrossAttentionStart,
    SequenceOptions,
    compose,
    sequence_to_sequence,
)
from fairbeam.formats.registry import read_model


def command(
    out: Annotated[Path, typer.Argument(help="The new bundle's folder.")],
    decoder: Annotated[
        Path, typer.Option(help="Model of the decoder: a decoder, an encoder-decoder or a BERT-type encoder.")
    ],
    encoder: Annotated[
        Path | None,
        typer.Option(
            help="Model of the encoder: an encoder or an encoder-decoder. Without it the decoder reads the source too."
        ),
    ] = None,
    cross_attention: Annotated[
        CrossAttentionStart | None, typer.Option(help="Initial weights of cross-attention; fresh by default.")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Share the encoder's layers and embedding with the decoder.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Random seed for fresh weights; 1 by default.")] = None,
    separator: Annotated[str | None, typer.Option(help="Without --encoder: token between source and target.")] = None,
    prefix_attention: Annotated[
        bool,
        typer.Option(
            "--prefix-attention", help="Without --encoder: source tokens attend to one another in both directions."
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
) -> None:
    """Join the encoder of one model and the decoder of another; each keeps its vocabulary and tokenizer.

    Models are bundles, Hugging Face folders or fairseq checkpoints. Without --encoder the decoder alone learns to
    continue a source and a separator with the target. Train the result with
    fairseq-train --task fairbeam_translation --arch fairbeam_from_bundle --bundle OUT.
    """
    _refuse_strays(encoder, cross_attention, share, seed, separator, prefix_attention)
    writes = read_model(decoder)
    if encoder is None:
        model = sequence_to_sequence(writes, SequenceOptions(separator=separator, prefix_attention=prefix_attention))
    else:
        options = CompositionOptions(
            cross_attention=cross_attention or CrossAttentionStart.FRESH, share=share, seed=1 if seed is None else seed
        )
        model = compose(read_model(encoder), writes, options)
    typer.echo(bundle.save(out, model, overwrite=overwrite))


def _refuse_strays(
    encoder: Path | None,
    cross_attention: CrossAttentionStart | None,
    share: bool,
    seed: int | None,
    separator: str | None,
    prefix_attention: bool,
) -> None:
    with_encoder = {"--cross-attention": cross_attention is not None, "--share": share, "--seed": seed is not None}
    without = {"--separator": separator is not None, "--prefix-attention": prefix_attention}
    for option in (name for name, given in (without if encoder else with_encoder).items() if given):
        raise ConfigError(f"{option} makes sense only {'without' if encoder else 'with'} --encoder")
