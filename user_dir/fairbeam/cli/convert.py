"""``fairbeam convert``: bundles, Hugging Face folders and fairseq checkpoints, one into another."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fairbeam.conversion import Parity, convert, pairs
from fairbeam.translator import ModelFiles

_OUTPUTS = {True: "agrees", False: "DIFFERS", None: "none: the model writes no text"}


def command(
    places: Annotated[
        list[str], typer.Argument(metavar="SRC DST [SRC DST ...]", help="Paths, each with hf:, bundle: or fairseq:.")
    ],
    data: Annotated[Path | None, typer.Option(help="Folder of a checkpoint's dictionaries and subword model.")] = None,
    source_lang: Annotated[str | None, typer.Option("--source-lang", "-s", help="Source language.")] = None,
    target_lang: Annotated[str | None, typer.Option("--target-lang", "-t", help="Target language.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at DST, if it is of the same kind.")] = False,
) -> None:
    """Write each SRC as DST, read it again from the disk and compare the two.

    A path without prefix is what is found there; a new one ending in .pt is a checkpoint, any other a bundle. Exits
    with status 1 where the result does not compute what the source does.
    """
    files = ModelFiles(data=data, source_lang=source_lang, target_lang=target_lang, direction_matters=True)
    passed = True
    for source, result in pairs(places):
        parity = convert(source, result, files=files, overwrite=overwrite)
        Console(soft_wrap=True).print(_table(parity))
        passed = passed and parity.passed
    if not passed:
        raise typer.Exit(1)


def _table(parity: Parity) -> Table:
    table = Table(title=f"{parity.source} → {parity.result}", show_header=False, title_justify="left")
    differing = f"{len(parity.differing)} differ: {', '.join(parity.differing)[:200]}" if parity.differing else "equal"
    text = "no tokenizer" if parity.text_difference is None else f"{parity.text_difference:.3g}"
    rows = {
        "parameters mapped": f"all {parity.parameters:,}, in {parity.tensors} tensors",
        "weights, to the bit": differing,
        "logits, random ids: largest difference": f"{parity.random_difference:.3g}",
        "logits, real text: largest difference": text,
        "greedy output": _OUTPUTS[parity.greedy_agrees],
        "beam-5 output": _OUTPUTS[parity.beam_agrees],
        "result": "passed" if parity.passed else "FAILED",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
