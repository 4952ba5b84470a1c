"""``fairbeam demo-corpus``: an artificial parallel corpus, generated from a seed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from fairbeam.demo.grammar import split_corpus
from fairbeam.files import atomic_write


def command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; created if absent.")],
    train: Annotated[int, typer.Option(min=1, help="Number of training pairs.")] = 24000,
    valid: Annotated[int, typer.Option(min=1, help="Number of validation pairs.")] = 500,
    test: Annotated[int, typer.Option(min=1, help="Number of test pairs.")] = 500,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same text on every machine.")] = 1,
    target: Annotated[str, typer.Option(help="Target language: de (German) or ko (Korean).")] = "de",
) -> None:
    """Generate an English-German or English-Korean corpus: train, valid and test, one sentence per line.

    A grammar generates the sentences; no sentence of valid or test occurs in train, on either side.
    """
    split = split_corpus(train, valid, test, seed=seed, target=target)
    for name, pairs in split._asdict().items():
        sources, targets = zip(*pairs, strict=True)
        _write(out / f"{name}.en", sources)
        _write(out / f"{name}.{target}", targets)
    typer.echo(f"{out}: {train} training, {valid} validation and {test} test pairs, en-{target}, seed {seed}")


def _write(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path) as stream:
        stream.writelines(f"{line}\n" for line in lines)
