"""Parts that the scoring commands share: flags with several values, the choice of metrics, reading files."""

from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from typing import Any

from typer.core import TyperCommand

from fairbeam.errors import ConfigError
from fairbeam.files import read_parallel
from fairbeam.scoring import from_streams, from_tabs


class Metric(StrEnum):
    """Values of ``--metrics``."""

    bleu = "bleu"
    chrf = "chrf"
    rouge = "rouge"
    ter = "ter"


def repeat_flags(arguments: Sequence[str], flags: Collection[str]) -> Iterator[str]:
    """Write ``-i a b``, which argparse programs understand, as ``-i a -i b``, for each flag named.

    >>> list(repeat_flags(["ref", "-i", "a", "b", "-w", "2"], {"-i"}))
    ['ref', '-i', 'a', '-i', 'b', '-w', '2']
    """
    open_flag = ""
    flag_is_written = False
    for argument in arguments:
        if argument.startswith("-") and argument != "-":
            open_flag = argument if argument in flags else ""
            flag_is_written = True
        elif open_flag:
            if not flag_is_written:
                yield open_flag
            flag_is_written = False
        yield argument


class MultiValueCommand(TyperCommand):
    """A command whose list options take any number of values after one flag."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        flags = {flag for option in self.params if getattr(option, "multiple", False) for flag in option.opts}
        return super().parse_args(ctx, list(repeat_flags(args, flags)))


def read_scored(
    references: Sequence[str], systems: Sequence[str], *, tabs: bool
) -> tuple[list[tuple[str, ...]], dict[str, list[str]]]:
    """Return references by sentence and each system's hypotheses, without trailing blanks, as sacreBLEU reads them.

    Raises:
        InputError: a file is missing, empty or not UTF-8, or line counts differ.
        ConfigError: with ``tabs``, when there is more than one reference file.
    """
    if tabs and len(references) > 1:
        raise ConfigError(f"--references-tab with {len(references)} reference files; expected one file")
    columns = [[line.rstrip() for line in lines] for lines in read_parallel(*references, *systems)]
    streams, outputs = columns[: len(references)], columns[len(references) :]
    return from_tabs(streams[0]) if tabs else from_streams(*streams), dict(zip(systems, outputs, strict=True))
