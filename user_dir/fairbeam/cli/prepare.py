"""``fairbeam prepare``: raw text to a binarised data folder."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fairbeam.cli._console import STDERR
from fairbeam.data.databin import References
from fairbeam.data.lexical_shortlist import ShortlistOptions
from fairbeam.data.prepare import PrepareOptions, available_workers, prepare
from fairbeam.text import ModelType, SentencePieceOptions


def command(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Folder with train.SRC and train.TGT; valid.* and test*.*.")
    ],
    source: Annotated[str, typer.Argument(metavar="SRC", help="Source language: the ending of its files.")],
    target: Annotated[str, typer.Argument(metavar="TGT", help="Target language.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The data folder to write.")],
    vocab_size: Annotated[int, typer.Option(help="Pieces in the SentencePiece model.")] = 8000,
    model_type: Annotated[ModelType, typer.Option(help="How the pieces are learned.")] = ModelType.BPE,
    character_coverage: Annotated[
        float, typer.Option(help="Share of characters that get a piece; for thousands of characters, 0.9995.")
    ] = 1.0,
    separate: Annotated[
        bool, typer.Option("--separate", help="A model and a dictionary for each language, not joint ones.")
    ] = False,
    spm_model: Annotated[Path | None, typer.Option(help="Use this SentencePiece model; learn none.")] = None,
    dictionary: Annotated[
        Path | None, typer.Option("--dict", help="Use this dictionary too, with --spm-model.")
    ] = None,
    references: Annotated[
        References,
        typer.Option(help="tab: target lines hold references separated by tabs; the first is binarised."),
    ] = References.NONE,
    max_length: Annotated[
        int | None, typer.Option(help="Leave out training pairs with more pieces than this on a side.")
    ] = None,
    shortlist_size: Annotated[
        int, typer.Option(help="Target symbols for each source symbol in the shortlist; 0 makes none.")
    ] = ShortlistOptions.size,
    shortlist_common: Annotated[
        int, typer.Option(help="Most frequent target symbols in every sentence's shortlist.")
    ] = ShortlistOptions.common,
    workers: Annotated[int | None, typer.Option(help="Threads that encode; by default one a CPU.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it exists.")] = False,
) -> None:
    """Learn subwords from raw parallel text and binarise it into a fairseq data-bin folder.

    OUT also holds the subword model, the raw text, a manifest and a vocabulary shortlist. No pair is left out without
    --max-length.
    """
    options = PrepareOptions(
        data=data,
        source=source,
        target=target,
        out=out,
        subwords=SentencePieceOptions(
            vocab_size=vocab_size, model_type=model_type, character_coverage=character_coverage
        ),
        separate=separate,
        spm_model=spm_model,
        dictionary=dictionary,
        references=references,
        max_length=max_length,
        workers=workers if workers is not None else available_workers(),
        overwrite=overwrite,
        shortlist=ShortlistOptions(size=shortlist_size, common=shortlist_common) if shortlist_size else None,
    )
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step)
            bars.update(tasks[step], completed=done, total=total)

        prepare(options, show)


def _bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=STDERR, disable=not STDERR.is_terminal)
