"""Bounds of a tokenizer's files, which somebody hostile may have written, and reading within them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairbeam.errors import FairbeamError, InputError
from fairbeam.files import read_object

MAX_TABLE_BYTES = 128 * 2**20
"""Bound of a vocabulary, a list of merges or a ``tokenizer.json``: with a quarter million tokens they take a third."""
MAX_OPTIONS_BYTES = 16 * 2**20
"""Bound of a ``tokenizer_config.json``, which may list every added token."""
MAX_TOKENS = 10_000_000


def read_vocabulary(path: Path) -> dict[str, int]:
    """Return token to id of a ``vocab.json``.

    Raises:
        InputError: the file is not an object of distinct ids between 0 and ten million.
    """
    return checked_vocabulary(read_object(path, MAX_TABLE_BYTES), path)


def checked_vocabulary(values: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Return ``values`` if it gives every token an id of its own; errors as ``read_vocabulary``."""
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
