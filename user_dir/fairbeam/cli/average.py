"""``fairbeam average``: checkpoint averaging."""

import logging
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from fairbeam.errors import ConfigError, InputError
from fairbeam.formats import fairseq_checkpoint as checkpoint

logger = logging.getLogger(__name__)


class Series(StrEnum):
    """Series of numbered checkpoints in a training folder: by epoch or by update."""

    EPOCH = "epoch"
    UPDATE = "update"


# checkpoint12.pt ends epoch 12; checkpoint_3_5000.pt was written in epoch 3, after update 5,000.
_NAMES = {
    Series.EPOCH: re.compile(r"checkpoint(\d+)\.pt"),
    Series.UPDATE: re.compile(r"checkpoint_\d+_(\d+)\.pt"),
}


def last_checkpoints(folder: Path, count: int, by: Series, upper_bound: int | None = None) -> list[Path]:
    """Return the ``count`` latest checkpoints in ``folder``, latest first.

    Args:
        folder: training folder.
        count: number of checkpoints.
        by: series to count, checkpoints at the end of epochs or after numbers of updates.
        upper_bound: highest epoch or update number to include.

    Raises:
        InputError: the folder does not exist, or holds fewer checkpoints; names their number.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    matches = [(match, path) for path in folder.iterdir() if (match := _NAMES[by].fullmatch(path.name))]
    numbered = {int(match[1]): path for match, path in matches}
    found = sorted((n for n in numbered if upper_bound is None or n <= upper_bound), reverse=True)
    if not 0 < count <= len(found):
        limit = "" if upper_bound is None else f" up to {by} {upper_bound}"
        raise InputError(f"{folder}: holds {len(found)} {by} checkpoints{limit}; asked for the last {count}")
    return [numbered[number] for number in found[:count]]


def command(
    files: Annotated[
        list[Path] | None, Argument(metavar="OUT CHECKPOINT", help="File to write, and checkpoints to average.")
    ] = None,
    folder: Annotated[Path | None, Option("--dir", help="With --last: folder of checkpoints.")] = None,
    last: Annotated[int | None, Option(help="With --dir: number of latest checkpoints to average.")] = None,
    by: Annotated[Series, Option(help="Series of checkpoints that --last counts.")] = Series.EPOCH,
    upper_bound: Annotated[
        int | None,
        Option("--upper-bound", "--checkpoint-upper-bound", help="With --last: highest epoch or update to include."),
    ] = None,
    # Names of the options in fairseq's own script.
    output: Annotated[Path | None, Option(hidden=True)] = None,
    inputs: Annotated[list[Path] | None, Option(hidden=True)] = None,
    num_epoch_checkpoints: Annotated[int | None, Option(hidden=True)] = None,
    num_update_checkpoints: Annotated[int | None, Option(hidden=True)] = None,
) -> None:
    """Average the parameters of several checkpoints into one, which fairseq-generate loads like any other."""
    named = [*(inputs or []), *(files or [])]  # of `--inputs a b` the parser gives only a to the option
    if output is None:
        if not files:
            raise ConfigError("the file to write is missing: fairbeam average OUT CHECKPOINT...")
        output = named.pop(len(inputs or []))
    if num_update_checkpoints is not None:
        by = Series.UPDATE
    count = next((n for n in (last, num_epoch_checkpoints, num_update_checkpoints) if n is not None), None)
    if folder is None and count is not None and len(named) == 1:
        folder = named.pop()
    checkpoints = _choose(named, folder, count, by, upper_bound)
    checkpoint.write(output, checkpoint.average(checkpoints))
    logger.info("%s: the mean of %s", output, ", ".join(map(str, checkpoints)))


def _choose(
    named: list[Path], folder: Path | None, count: int | None, by: Series, upper_bound: int | None
) -> list[Path]:
    """Return the checkpoints named one by one, or the latest ones of a folder."""
    if (folder is None) != (count is None):
        raise ConfigError("--dir and --last go together: --dir FOLDER --last N")
    if folder is None or count is None:
        if not named:
            raise ConfigError("nothing to average: name checkpoints, or give --dir FOLDER --last N")
        return named
    if named:
        raise ConfigError(f"--dir {folder} and {named[0]}: name checkpoints or a folder of them, not both")
    return last_checkpoints(folder, count, by, upper_bound)
