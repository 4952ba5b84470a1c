"""Reading and writing of fairseq's memory-mapped datasets: ``PREFIX.bin`` and ``PREFIX.idx``.

The ``.bin`` file holds the ids of all sentences, concatenated. The little-endian ``.idx`` file holds the magic
``MMIDIDX\\0\\0``, the version (uint64, 1), a code for the ids' dtype (uint8), the number of sentences n (uint64), n
sizes in tokens (int32) and n offsets in bytes (int64).
"""

import struct
from array import array
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairbeam.errors import InputError
from fairbeam.files import atomic_write

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEADER = struct.Struct("<9sQBQ")
_DTYPES: dict[int, np.dtype] = {  # codes 6 and 7 are floating point
    1: np.dtype("u1"),
    2: np.dtype("i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    8: np.dtype("<u2"),
    9: np.dtype("<u4"),
    10: np.dtype("<u8"),
}
_SCAN = 2**22  # ids per block of max_id


class IndexedWriter:
    """Writer of one dataset, sentence by sentence; a context manager.

    Both files get their names when the ``with`` block ends without an error; otherwise neither exists.

    Args:
        prefix: path without ``.bin`` and ``.idx``.
        vocab_size: exclusive upper bound of ids; determines their dtype as in fairseq (uint16 below 65,500).
    """

    def __init__(self, prefix: str | Path, vocab_size: int) -> None:
        self._prefix = str(prefix)
        self._vocab_size = vocab_size
        self._code = 8 if vocab_size < 65_500 else 9
        self._sizes = array("i")
        self._files = ExitStack()

    def __enter__(self) -> Self:
        # Exited in reverse order: the index, which makes the dataset visible, gets its name last.
        self._idx = self._files.enter_context(atomic_write(f"{self._prefix}.idx", "wb"))
        self._bin = self._files.enter_context(atomic_write(f"{self._prefix}.bin", "wb"))
        return self

    def add(self, ids: ArrayLike) -> None:
        """Append a sentence.

        Raises:
            InputError: an id is negative or not below ``vocab_size``.
        """
        sentence = np.asarray(ids, dtype=np.int64)
        if sentence.size and not (sentence.min() >= 0 and sentence.max() < self._vocab_size):
            raise InputError(
                f"{self._prefix}: sentence {len(self._sizes) + 1} has ids from {sentence.min()} to "
                f"{sentence.max()}; expected 0 to {self._vocab_size - 1}"
            )
        self._bin.write(sentence.astype(_DTYPES[self._code]).tobytes())
        self._sizes.append(sentence.size)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._files.__exit__(kind, error, trace)
            return
        with self._files:
            self._write_index()

    def _write_index(self) -> None:
        sizes = np.asarray(self._sizes, dtype="<i4")
        lengths = sizes.astype("<i8") * _DTYPES[self._code].itemsize
        offsets = np.cumsum(lengths, dtype="<i8") - lengths
        self._idx.write(_HEADER.pack(_MAGIC, _VERSION, self._code, len(sizes)))
        self._idx.write(sizes.tobytes())
        self._idx.write(offsets.tobytes())


class IndexedReader:
    """Memory-mapped reader of one dataset; ``reader[i]`` is a copy of sentence ``i``, (tokens,) int64.

    It pickles as its path, so that worker processes map the files themselves.

    Args:
        prefix: path without ``.bin`` and ``.idx``.

    Attributes:
        sizes: number of tokens of each sentence, (sentences,) int32.

    Raises:
        InputError: a file is missing, is not of this format, or its parts are inconsistent.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.prefix = str(prefix)
        index, data = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
        for path in (index, data):
            if not path.is_file():
                raise InputError(f"{path}: no such file")
        dtype, self.sizes, self._offsets = _read_index(index)
        length = data.stat().st_size
        _check_offsets(index, self.sizes, self._offsets, dtype.itemsize, data, length)
        self._dtype = dtype
        # An empty file cannot be mapped.
        self._data: NDArray[np.uint8] = np.memmap(data, mode="r", dtype=np.uint8) if length else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> NDArray[np.int64]:
        start, size = int(self._offsets[index]), int(self.sizes[index])
        return np.frombuffer(self._data, self._dtype, count=size, offset=start).astype(np.int64)

    def max_id(self) -> int:
        """Return the largest id of the dataset, -1 if it has no tokens; the file is read in blocks."""
        step = _SCAN * self._dtype.itemsize
        end = len(self._data) - len(self._data) % self._dtype.itemsize
        blocks = (self._data[start : min(start + step, end)] for start in range(0, end, step))
        return max((int(block.view(self._dtype).max()) for block in blocks), default=-1)

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.prefix,)


def _read_index(path: Path) -> tuple[np.dtype, NDArray[np.int32], NDArray[np.int64]]:
    """Return dtype, sizes and offsets; the file's length is checked against the count before they are read."""
    with path.open("rb") as stream:
        header = stream.read(_HEADER.size)
        if not header.startswith(_MAGIC):
            raise InputError(f"{path}: not a fairseq mmap index (it starts with {header[:9]!r})")
        if len(header) < _HEADER.size:
            raise InputError(f"{path}: truncated: {len(header)} bytes, the header alone takes {_HEADER.size}")
        _, version, code, count = _HEADER.unpack(header)
        if version != _VERSION:
            raise InputError(f"{path}: version {version}; expected {_VERSION}")
        if code not in _DTYPES:
            raise InputError(f"{path}: type code {code}; expected one of {sorted(_DTYPES)} (integers)")
        length, expected = path.stat().st_size, _HEADER.size + 12 * count
        if length != expected:
            raise InputError(f"{path}: {length} bytes; expected {expected} for {count} sentences")
        sizes = np.frombuffer(stream.read(4 * count), "<i4").astype(np.int32)
        offsets = np.frombuffer(stream.read(8 * count), "<i8").astype(np.int64)
    return _DTYPES[code], sizes, offsets


def _check_offsets(
    index: Path, sizes: NDArray[np.int32], offsets: NDArray[np.int64], width: int, data: Path, length: int
) -> None:
    """Raise InputError if a sentence lies outside of the data file of ``length`` bytes."""
    # Subtracting from the length cannot overflow, whatever a hostile file holds; adding to an offset could.
    wrong = (sizes < 0) | (offsets < 0) | (offsets > length - sizes.astype(np.int64) * width)
    if wrong.any():
        first = int(wrong.argmax())
        raise InputError(
            f"{index}: sentence {first + 1} has {sizes[first]} tokens at byte {offsets[first]}, but {data} "
            f"has {length} bytes of {width}-byte ids; one of the two files is truncated or damaged"
        )
