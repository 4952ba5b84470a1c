"""Bounded, strict reading of files; writing of files and folders that a crash or a full disk never leaves half done."""

import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fairbeam.errors import ConfigError, FairbeamError, InputError

MAX_TEXT_BYTES = 1 << 20
"""Default bound of a text file that is read whole: a configuration, a model card."""


@contextmanager
def atomic_write(
    path: str | Path, mode: str = "w", *, parents: bool = True, keep_partial: bool = False
) -> Iterator[IO]:
    """Open a stream whose content becomes the file ``path`` when the block ends without an error.

    A regular or missing file is written under a temporary name beside it, flushed to the disk (``fsync``) and renamed,
    so a reader sees the old file or the whole new one; permissions of an old file are kept. A symbolic link is
    followed: the file it leads to is written that way, and the link stays. A device, pipe or terminal is written to
    directly, and never replaced.

    Args:
        path: the final name.
        mode: ``"w"`` for UTF-8 text (newlines are written as they are) or ``"wb"`` for bytes.
        parents: make missing parent folders.
        keep_partial: use ``partial_path(path)`` as the temporary name, and leave the file there on an error.

    Raises:
        InputError: ``path`` is a folder or cannot be written (read-only folder, full disk); a regular file is as it
            was before.
    """
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        status = None
    except OSError as error:
        raise _cannot_write(path, error) from None
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: is a folder; expected a file to write")
    descriptor = _own_descriptor(path)
    if descriptor is not None or (status is not None and not stat.S_ISREG(status.st_mode)):
        with _reported(path), _opened(path, descriptor, mode) as stream:
            yield stream
        return
    target = Path(os.path.realpath(path))
    temporary = partial_path(path) if keep_partial else target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    with _reported(path, temporary):
        try:
            if parents:
                target.parent.mkdir(parents=True, exist_ok=True)
            with _created(temporary, mode) as stream:
                yield stream
                stream.flush()
                if status is not None:
                    os.fchmod(stream.fileno(), stat.S_IMODE(status.st_mode))
                os.fsync(stream.fileno())
            temporary.replace(target)
        except BaseException:
            if not keep_partial:
                temporary.unlink(missing_ok=True)
            raise


def partial_path(path: str | Path) -> Path:
    """Return the name under which ``atomic_write(path, keep_partial=True)`` writes: the target's with ``.partial``."""
    target = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    return target.with_name(f"{target.name}.partial")


@contextmanager
def atomic_folder(folder: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder that takes the name ``folder`` when the block ends without an error.

    It is built under a temporary name beside ``folder``, and its files are flushed to the disk before it is renamed.
    On an error nothing is left behind, and an old folder is as it was. If ``folder`` is a symbolic link, the folder
    that it leads to is replaced and the link stays.

    Args:
        folder: the final name; missing parent folders are made.
        replace: replace an old folder, whatever it holds; `check_replaceable` decides that before.

    Raises:
        InputError: ``folder`` cannot be written (read-only folder, full disk), or something is there that is no
            folder or that must not be replaced.
    """
    folder = Path(folder)
    if os.path.lexists(folder) and not (replace and folder.is_dir()):
        raise InputError(f"{folder}: exists already; expected a new folder")
    target = Path(os.path.realpath(folder))
    unique = f".{target.name}.{secrets.token_hex(4)}"
    new, old = target.with_name(f"{unique}.new"), target.with_name(f"{unique}.old")
    try:
        with _reported(folder, new):
            new.mkdir(parents=True)
            yield new
            _flush(new)
            _swap(target, new, old)
    except FairbeamError as error:
        if str(new) not in str(error):
            raise
        # The user knows the final name.
        raise type(error)(str(error).replace(str(new), str(folder))) from error.__cause__
    finally:
        shutil.rmtree(new, ignore_errors=True)


def check_replaceable(folder: Path, *, overwrite: bool, kind: str, is_kind: Callable[[Path], bool]) -> None:
    """Refuse to write to an existing ``folder`` that is not to be replaced or is of another kind.

    Args:
        overwrite: whether the user asked for it.
        kind: name of what may be replaced, for the error: "a bundle".
        is_kind: whether an existing folder is one of them.

    Raises:
        ConfigError: says what ``--overwrite`` replaces.
    """
    if os.path.lexists(folder) and not (overwrite and folder.is_dir() and is_kind(folder)):
        raise ConfigError(f"{folder}: exists already; --overwrite replaces {kind}, and nothing else")


def _own_descriptor(path: Path) -> int | None:
    """Return the number of the open file that ``/dev/stdout``, ``/dev/fd/N`` and their like stand for, if it is one."""
    own = f"/proc/{os.getpid()}/fd"
    for _ in range(40):  # the kernel follows no more links
        if os.path.realpath(path.parent) == own and path.name.isdecimal():
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _opened(path: Path, descriptor: int | None, mode: str) -> IO:
    """Open what must not be replaced; an open file of ours goes on where it is, as the shell's ``>>`` asks for."""
    handle = os.open(path, os.O_WRONLY | os.O_NOCTTY) if descriptor is None else os.dup(descriptor)
    return _stream(handle, mode)


def _created(path: Path, mode: str) -> IO:
    """Create a regular file, in the place of an older regular one; a link, pipe or device of the name is an error."""
    if path.is_file() and not path.is_symlink():
        path.unlink()
    return _stream(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), mode)


def _stream(handle: int, mode: str) -> IO:
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    return os.fdopen(handle, mode, **text)  # type: ignore[call-overload]


@contextmanager
def _reported(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turn an OSError into an InputError that names ``path``; an error that names another file is not ours to name."""
    try:
        yield
    except OSError as error:
        culprit = Path(error.filename) if isinstance(error.filename, str | os.PathLike) else None
        ours = culprit is None or path.is_relative_to(culprit) or (temporary and _is_within(culprit, temporary))
        if not ours:
            raise
        raise _cannot_write(path, error) from error


def _is_within(culprit: Path, temporary: Path) -> bool:
    """Whether ``culprit`` is the temporary file, is in the temporary folder, or holds either."""
    return culprit.is_relative_to(temporary) or temporary.is_relative_to(culprit)


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror or error})")


def _flush(folder: Path) -> None:
    """Wait until all files of a folder are on the disk."""
    for place in (*folder.rglob("*"), folder):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _swap(target: Path, new: Path, old: Path) -> None:
    """Rename ``new`` to ``target``; what was there is removed, or has its name again if that fails."""
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


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


def inside(folder: Path, name: str) -> Path | None:
    """Return the path of the regular file ``name`` of ``folder``; None if there is none.

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
        raise InputError(f"{path}: leads out of its folder; expected a file of the model's own folder")
    return path


def read_bytes(path: Path, limit: int = MAX_TEXT_BYTES, error: type[FairbeamError] = InputError) -> bytes:
    """Return the content of a file of at most ``limit`` bytes.

    Raises:
        FairbeamError: of the class ``error``; the file is missing, cannot be read, or is larger.
    """
    if not path.is_file():
        raise error(f"{path}: no such file")
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as found:
        raise error(f"{path}: cannot be read ({found.strerror or found})") from None
    if len(data) > limit:
        raise error(f"{path}: larger than {limit} bytes; expected a smaller file")
    return data


def read_text(path: Path, limit: int = MAX_TEXT_BYTES, error: type[FairbeamError] = InputError) -> str:
    """Return the text of a UTF-8 file of at most ``limit`` bytes; errors as for ``read_bytes``, or it is not UTF-8."""
    data = read_bytes(path, limit, error)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as found:
        raise error(f"{path}: not UTF-8 (byte {found.start}); expected text") from None


def read_object(path: Path, limit: int = MAX_TEXT_BYTES, error: type[FairbeamError] = InputError) -> dict[str, Any]:
    """Return the JSON object of a file of at most ``limit`` bytes; errors as for ``read_text`` and ``parse_object``."""
    return parse_object(read_text(path, limit, error), path, error)


def parse_object(text: str, where: str | Path, error: type[FairbeamError] = InputError) -> dict[str, Any]:
    """Return the JSON object that ``text`` is.

    Raises:
        FairbeamError: of the class ``error``; the text is not JSON, is nested too deeply, or is no object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as found:
        raise error(f"{where}: not JSON ({found})") from None
    if not isinstance(value, dict):
        raise error(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value
