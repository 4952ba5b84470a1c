"""Reading text strictly and writing files so that a crash or a full disk never leaves half of one."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fairbeam.errors import InputError


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside ``path``; rename it to ``path`` when the block ends without an error.

    The data is on the disk (``fsync``) before the name changes, so a reader sees the old file or the whole
    new one. On an error the temporary file is removed and ``path`` is untouched.

    Args:
        path: the final name; missing parent folders are made.
        mode: ``"w"`` for UTF-8 text (newlines are written as they are) or ``"wb"`` for bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with os.fdopen(handle, mode, **text) as stream:  # type: ignore[call-overload]
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def decode_line(line: bytes, where: str, number: int) -> str:
    """One line of UTF-8 without its line end.

    Raises:
        InputError: the bytes are not UTF-8; names ``where``, the line number (from 1) and the byte.
    """
    try:
        return line.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}, line {number}: not valid UTF-8 (byte 0x{line[error.start]:02x} at column "
            f"{error.start + 1}); convert the file to UTF-8 first"
        ) from None


def stream_lines(stream: Iterable[bytes], where: str) -> Iterator[str]:
    """The lines of a binary stream as text, decoded one at a time; only ``\\n`` ends a line."""
    for number, line in enumerate(stream, start=1):
        yield decode_line(line, where, number)


def read_lines(path: str | Path) -> list[str]:
    """All lines of a UTF-8 text file.

    Only ``\\n`` (or ``\\r\\n``) ends a line: U+2028, form feeds and their like stay inside it, so that line
    counts agree with ``wc -l``.

    Raises:
        InputError: the file is missing, is a folder, or is not UTF-8.
    """
    path = Path(path)
    if not path.exists() or path.is_dir():  # a pipe such as <(zcat FILE) is neither a regular file nor refused
        raise InputError(f"{path}: no such file")
    with path.open("rb") as stream:
        return list(stream_lines(stream, str(path)))


def read_parallel(*paths: str | Path) -> list[list[str]]:
    """The lines of several files that must have equally many, and at least one.

    Raises:
        InputError: a file is missing, empty or not UTF-8, or the line counts differ (both are named).
    """
    columns = [read_lines(path) for path in paths]
    for path, lines in zip(paths, columns, strict=True):
        if not lines:
            raise InputError(f"{path}: the file is empty; expected one sentence a line")
        if len(lines) != len(columns[0]):
            raise InputError(
                f"{paths[0]} has {len(columns[0])} lines but {path} has {len(lines)}; "
                "line n of one must belong to line n of the other"
            )
    return columns
