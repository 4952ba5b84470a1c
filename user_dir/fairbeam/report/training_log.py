"""Training curves from the logs of ``fairseq-train``."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fairbeam.errors import InputError
from fairbeam.files import read_lines
from fairbeam.report.content import CurvePoint


class _Record(NamedTuple):
    """Statistics of one line: ``train_inner`` (since the last line), ``train`` (an epoch) or a subset."""

    tag: str
    values: Mapping[str, Any]


_EPOCH_LINE = re.compile(r"epoch \d+ \| (?:valid on '(?P<subset>[^']*)' subset \| )?(?P<stats>.*)")
_INNER_LINE = re.compile(r"epoch \d+:\s+\d+ / \d+ (?P<stats>.*)")


def read_training_log(path: str | Path, *, valid_subset: str = "valid") -> list[CurvePoint]:
    """Read the training curve of a run from its ``--log-file`` or a copy of the terminal.

    It parses ``--log-format json``, ``simple`` and ``tqdm`` and skips other lines. Losses logged between validations
    take precedence over averages of whole epochs. Where a resumed run logs an update twice, the later line counts.

    Args:
        path: path of the log.
        valid_subset: validation subset to read.

    Returns:
        Points in order of updates.

    Raises:
        InputError: the file is missing, not UTF-8, or holds no statistics.
    """
    points = curve(_records(read_lines(path)), valid_subset)
    if not points:
        raise InputError(f"{path}: no training statistics found; expected the log of fairseq-train")
    return points


def curve(records: Iterable[_Record], valid_subset: str) -> list[CurvePoint]:
    """Merge records into one point per update, in order of updates."""
    columns: dict[str, dict[int, float]] = defaultdict(dict)
    for tag, values in records:
        update = _number(values.get("num_updates"))
        if update is None:
            continue
        for statistic in ("loss", "bleu"):
            number = _number(values.get(statistic))
            if number is not None:
                columns[f"{tag} {statistic}"][int(update)] = number
    train = columns["train_inner loss"] or columns["train loss"]
    valid, bleu = columns[f"{valid_subset} loss"], columns[f"{valid_subset} bleu"]
    return [
        CurvePoint(
            update=update,
            train_loss=train.get(update),
            valid_loss=valid.get(update),
            valid_bleu=bleu.get(update),
        )
        for update in sorted(train.keys() | valid.keys() | bleu.keys())
    ]


def _records(lines: Iterable[str]) -> Iterator[_Record]:
    for line in lines:
        line = line.rpartition("\r")[2]  # the progress bar, which rewrites its line, precedes each message
        record = _json_record(line) or _simple_record(line)
        if record:
            yield record


def _json_record(line: str) -> _Record | None:
    start = line.find('{"epoch"')
    if start < 0:
        return None
    try:
        values = json.loads(line[start:])
    except ValueError:  # the last line of a run that was killed
        return None
    for key in values:
        # Keys at the end of an epoch begin with their subset, which the log states nowhere else.
        subset, separator, name = key.partition("_num_updates")
        if separator and not name:
            prefix = f"{subset}_"
            return _Record(subset, {key.removeprefix(prefix): value for key, value in values.items()})
    return _Record("train_inner", values)


def _simple_record(line: str) -> _Record | None:
    if match := _INNER_LINE.search(line):
        pairs = (pair.partition("=") for pair in match["stats"].split(", "))
        return _Record("train_inner", {key: value for key, _, value in pairs})
    if match := _EPOCH_LINE.search(line):
        pairs = (pair.partition(" ") for pair in match["stats"].split(" | "))
        return _Record(match["subset"] or "train", {key: value for key, _, value in pairs})
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
