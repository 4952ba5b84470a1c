"""``fairbeam prepare``: subword training and binarisation of raw text."""

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
        Path,
        typer.Argument(
            metavar="DATA", help="Folder with train.SRC and train.TGT, and optionally valid*.* and test*.*."
        ),
    ],
    source: Annotated[str, typer.Argument(metavar="SRC", help="Source language, the extension of its files.")],
    target: Annotated[str, typer.Argument(metavar="TGT", help="Target language, the extension of its files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Data folder to write.")],
    vocab_size: Annotated[int, typer.Option(help="Vocabulary size of the SentencePiece model, in pieces.")] = 8000,
    model_type: Annotated[ModelType, typer.Option(help="Type of the SentencePiece model.")] = ModelType.BPE,
    character_coverage: Annotated[
        float,
        typer.Option(
            help="Fraction of characters that the model covers; 0.9995 for scripts with thousands of characters."
        ),
    ] = 1.0,
    separate: Annotated[
        bool, typer.Option("--separate", help="Train one model and dictionary per language instead of joint ones.")
    ] = False,
    spm_model: Annotated[
        Path | None, typer.Option(help="Existing SentencePiece model to use instead of training one.")
    ] = None,
    dictionary: Annotated[
        Path | None, typer.Option("--dict", help="Existing dictionary to use with --spm-model.")
    ] = None,
    references: Annotated[
        References,
        typer.Option(
            help="Format of target lines; tab: several references, separated by tabs, the first is binarised."
        ),
    ] = References.NONE,
    max_length: Annotated[
        int | None, typer.Option(help="Leave out training pairs with more pieces than this on either side.")
    ] = None,
    shortlist_size: Annotated[
        int, typer.Option(help="Most target tokens per source token in the lexical shortlist; 0 makes no shortlist.")
    ] = ShortlistOptions.size,
    shortlist_common: Annotated[
        int, typer.Option(help="Number of most frequent target tokens in every sentence's shortlist.")
    ] = ShortlistOptions.common,
    workers: Annotated[int | None, typer.Option(help="Encoding threads; one per CPU by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Train a subword model on raw parallel text and binarise the text as a fairseq data-bin folder.

    OUT also holds the subword model, the raw text, a manifest and a lexical shortlist. No pair is left out without
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
