"""``fairbeam convert``: convert between bundles, Hugging Face folders and fairseq checkpoints, or to CTranslate2."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fairbeam.formats.convert import Parity, convert, pairs
from fairbeam.formats.fairseq import ModelFiles

_OUTPUTS = {True: "agrees", False: "DIFFERS", None: "none: the model writes no text"}


def command(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC DST [SRC DST ...]",
            help="Paths, each with hf:, bundle: or fairseq: before it; DST may have ct2:.",
        ),
    ],
    data: Annotated[Path | None, typer.Option(help="Folder of a checkpoint's dictionaries and subword model.")] = None,
    source_lang: Annotated[str | None, typer.Option("--source-lang", "-s", help="Source language.")] = None,
    target_lang: Annotated[str | None, typer.Option("--target-lang", "-t", help="Target language.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at DST, if it is of the same kind.")] = False,
) -> None:
    """Convert each SRC to DST, read the result again from the disk and compare the two.

    A path without prefix is what is found there; a new one ending in .pt is a checkpoint, any other a bundle. ct2:
    writes a folder for CTranslate2, whose beams may end with other outputs than ours if they score as well. Exits
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
    differing, numbers = parity.differing, "logits" if parity.differing is not None else "log probabilities"
    weights = "not to be read again" if differing is None else "equal"
    if differing:
        weights = f"{len(differing)} differ: {', '.join(differing)[:200]}"
    beams = _OUTPUTS[parity.beam_agrees]
    if differing is None:
        beams += f"; {parity.beam_equal:.0%} equal, scored {parity.beam_loss:.2g} nats a token lower on average"
    rows = {
        "parameters mapped": f"all {parity.parameters:,}, in {parity.tensors} tensors",
        "weights, to the bit": weights,
        f"{numbers}, random ids: largest difference": f"{parity.random_difference:.3g}",
        f"{numbers}, real text: largest difference": (
            "no tokenizer" if parity.text_difference is None else f"{parity.text_difference:.3g}"
        ),
        "greedy output": _OUTPUTS[parity.greedy_agrees],
        "beam-5 output": beams,
        "result": "passed" if parity.passed else "FAILED",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
