"""``fairbeam shortlist``: the vocabulary shortlist of a binarised data folder."""

from pathlib import Path
from typing import Annotated

import typer

from fairbeam.data.lexical_shortlist import SHORTLIST, ShortlistOptions, build_shortlist


def command(
    data_bin: Annotated[Path, typer.Argument(help="A data folder of fairbeam prepare or fairseq-preprocess.")],
    out: Annotated[
        Path | None, typer.Argument(help=f"The file to write. [default: DATA_BIN/{SHORTLIST}]", show_default=False)
    ] = None,
    size: Annotated[int, typer.Option(help="Target symbols for each source symbol.")] = ShortlistOptions.size,
    common: Annotated[
        int, typer.Option(help="Most frequent target symbols in every sentence's list.")
    ] = ShortlistOptions.common,
) -> None:
    """Find for each source symbol the target symbols that may translate it, for ``fairbeam translate --shortlist``.

    The file belongs beside the dictionaries: there, and in a bundle, it is found.
    """
    path = data_bin / SHORTLIST if out is None else out
    found = build_shortlist(data_bin, ShortlistOptions(size=size, common=common))
    found.save(path)
    kept = len(found.common) / found.target_vocabulary
    typer.echo(
        f"{path}: {found.source_vocabulary} lists, {kept:.0%} of {found.target_vocabulary} symbols in all of them"
    )
