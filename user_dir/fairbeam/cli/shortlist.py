"""``fairbeam shortlist``: the lexical shortlist of a binarised data folder."""

from pathlib import Path
from typing import Annotated

import typer

from fairbeam.data.lexical_shortlist import SHORTLIST, ShortlistOptions, build_shortlist


def command(
    data_bin: Annotated[Path, typer.Argument(help="Data folder from fairbeam prepare or fairseq-preprocess.")],
    out: Annotated[
        Path | None, typer.Argument(help=f"File to write. [default: DATA_BIN/{SHORTLIST}]", show_default=False)
    ] = None,
    size: Annotated[int, typer.Option(help="Most target tokens per source token.")] = ShortlistOptions.size,
    common: Annotated[
        int, typer.Option(help="Number of most frequent target tokens in every sentence's list.")
    ] = ShortlistOptions.common,
) -> None:
    """List the most probable translations of each source token (IBM Model 1), for ``fairbeam translate --shortlist``.

    ``fairbeam translate`` looks for the file beside the dictionaries, and in a bundle.
    """
    path = data_bin / SHORTLIST if out is None else out
    shortlist = build_shortlist(data_bin, ShortlistOptions(size=size, common=common))
    shortlist.save(path)
    kept = len(shortlist.common) / shortlist.target_vocabulary
    lists, symbols = shortlist.source_vocabulary, shortlist.target_vocabulary
    typer.echo(f"{path}: {lists} lists, {kept:.0%} of {symbols} symbols in all of them")
