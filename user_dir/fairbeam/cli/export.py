"""``fairbeam export``: package a fairseq checkpoint as a bundle."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from fairbeam.files import read_parallel
from fairbeam.formats import bundle
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.formats.registry import read_model
from fairbeam.scoring import bleu, chrf
from fairbeam.translator import Translator


def command(
    checkpoint: Annotated[Path, typer.Argument(help="A fairseq checkpoint (.pt).")],
    out: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the dictionaries and the subword model.")] = None,
    source_lang: Annotated[str | None, typer.Option("--source-lang", "-s", help="Source language.")] = None,
    target_lang: Annotated[str | None, typer.Option("--target-lang", "-t", help="Target language.")] = None,
    beam: Annotated[int, typer.Option(help="Default beam size of the bundle.")] = 5,
    lenpen: Annotated[float, typer.Option(help="Default length penalty of the bundle.")] = 1.0,
    test: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Source and reference text to score for the model card.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing bundle.")] = False,
) -> None:
    """Package CHECKPOINT with its dictionaries and subword model as the bundle OUT."""
    files = ModelFiles(data=data, source_lang=source_lang, target_lang=target_lang, direction_matters=True)
    model = read_model(checkpoint, files)
    model = dataclasses.replace(model, generation=dataclasses.replace(model.generation, beam=beam, lenpen=lenpen))
    if test:
        sources, references = read_parallel(*test)
        hypotheses = Translator([model]).translate(sources)
        scores = "\n".join(f"    {metric(hypotheses, references).text}" for metric in (bleu, chrf))
        model = dataclasses.replace(model, card=f"Scores on {test[0].name} ({len(sources)} lines):\n\n{scores}")
    typer.echo(bundle.save(out, model, overwrite=overwrite))
