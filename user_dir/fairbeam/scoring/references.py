"""References of the metrics: one entry per sentence, each with one text or several."""

from collections.abc import Sequence
from typing import cast

from fairbeam.errors import InputError

References = Sequence[str | Sequence[str]]
"""Entry ``i`` holds the references of sentence ``i``: a string, or a sequence of one or more strings."""


def from_streams(*streams: Sequence[str]) -> list[tuple[str, ...]]:
    """Combine parallel files: line ``i`` of every stream is a reference of sentence ``i``.

    Raises:
        InputError: the streams have different lengths.
    """
    if len({len(stream) for stream in streams}) > 1:
        counts = ", ".join(str(len(stream)) for stream in streams)
        raise InputError(f"reference streams have different lengths: {counts} lines")
    return list(zip(*streams, strict=True))


def from_tabs(lines: Sequence[str]) -> list[tuple[str, ...]]:
    """Split lines at tabs into references; lines may have different numbers of them.

    Empty fields are skipped, but a line of only empty fields is one empty reference.
    """
    return [tuple(field for field in line.split("\t") if field.strip()) or ("",) for line in lines]


def aligned(hypotheses: Sequence[str], references: References) -> list[tuple[str, ...]]:
    """Return the references of each hypothesis as a tuple.

    Raises:
        InputError: the lengths differ, or a sentence has no reference.
    """
    if len(hypotheses) != len(references):
        raise InputError(
            f"{len(hypotheses)} hypotheses but references for {len(references)} sentences; expected one "
            "entry per sentence (fairbeam.scoring.from_streams builds them from parallel reference files)"
        )
    entries = [(entry,) if isinstance(entry, str) else tuple(entry) for entry in references]
    for number, entry in enumerate(entries, start=1):
        if not entry:
            raise InputError(f"sentence {number} has no reference; expected at least one")
    return entries


def padded_streams(entries: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """Convert references to sacreBLEU's parallel streams, padded with None where a sentence has fewer references."""
    # sacreBLEU documents None as a placeholder, but its annotations say str.
    width = max(len(entry) for entry in entries)
    padded = [entry + (None,) * (width - len(entry)) for entry in entries]
    return cast(list[list[str]], [list(stream) for stream in zip(*padded, strict=True)])
