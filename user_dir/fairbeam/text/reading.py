"""Reading a tokenizer's files, assuming that somebody hostile wrote them."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairbeam.errors import FairbeamError, InputError

MAX_TABLE_BYTES = 128 * 2**20
"""Of a vocabulary, a list of merges or a ``tokenizer.json``: those of a quarter million tokens take a third."""
MAX_OPTIONS_BYTES = 16 * 2**20
MAX_TOKENS = 10_000_000


def inside(folder: Path, name: str) -> Path | None:
    """The regular file ``name`` of ``folder``, or None where there is none.

    Raises:
        InputError: it is a link that leads out of the folder. Links of a download cache, whose folder
            ``snapshots/REVISION`` holds links to ``blobs`` beside it, are followed.
    """
    path = folder / name
    if not path.is_file():
        return None
    root = folder.resolve()
    allowed = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(place) for place in allowed):
        raise InputError(f"{path}: leads out of its folder; expected a file of the tokenizer's own folder")
    return path


def read_bytes(path: Path, limit: int = MAX_TABLE_BYTES) -> bytes:
    """Return the content of a file of at most ``limit`` bytes.

    Raises:
        InputError: it is larger.
    """
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{path}: larger than {limit} bytes; not a tokenizer's file")
    return data


def read_text(path: Path, limit: int = MAX_TABLE_BYTES) -> str:
    """Return the text of a UTF-8 file of at most ``limit`` bytes.

    Raises:
        InputError: it is larger, or not UTF-8.
    """
    data = read_bytes(path, limit)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); expected a tokenizer's text file") from None


def parse_object(text: str, path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: the text is not JSON, is nested too deeply, or is no object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_object(path: Path, limit: int = MAX_OPTIONS_BYTES) -> dict[str, Any]:
    """The JSON object in a file; errors as ``read_text`` and ``parse_object``."""
    return parse_object(read_text(path, limit), path)


def read_vocabulary(path: Path) -> dict[str, int]:
    """A ``vocab.json``: tokens and their ids.

    Raises:
        InputError: the file is not an object of distinct ids between 0 and ten million.
    """
    return checked_vocabulary(read_object(path, MAX_TABLE_BYTES), path)


def checked_vocabulary(values: Mapping[str, Any], path: Path) -> dict[str, int]:
    """``values`` where it gives every token an id of its own; errors as ``read_vocabulary``."""
    for token, index in values.items():
        if type(index) is not int or not 0 <= index < MAX_TOKENS:
            raise InputError(f"{path}: token {token[:80]!r} has id {index!r:.80}; expected 0 to {MAX_TOKENS - 1}")
    if len(set(values.values())) != len(values):
        raise InputError(f"{path}: two tokens have the same id; expected one id for each")
    return dict(values)


@contextmanager
def explained(where: str, expected: str) -> Iterator[None]:
    """Turn whatever a library raises within the block into one InputError.

    The Rust library's panics derive from BaseException and are of no type that can be imported.
    """
    try:
        yield
    except FairbeamError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = str(error).split("\n", maxsplit=1)[0][:200]
        raise InputError(f"{where}: expected {expected} ({reason})") from None
