"""Binding of the native library: the C++ kernels of ``csrc``, built when fairbeam is installed with a C++ compiler.

Every exported function takes one pointer to a struct of named arguments, which is declared in C++ and here, as a
subclass of ``Arguments``. At load the library is compared with what is expected: the hash of its sources and the layout
of every struct. Without a library that fits, the network computes the same with torch's operations, only slower.

Environment variables:
    FAIRBEAM_NATIVE_LIBRARY: path of a library to load instead of the installed one; empty for none.
    FAIRBEAM_CPU_ISA: highest instruction set to use: baseline, avx2, avx512 or vnni.
"""

import ctypes
import functools
import logging
import os
import re
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import unpack_from
from typing import ClassVar

import torch
from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.network.inference.source_hash import source_hash

logger = logging.getLogger(__name__)

_INSTRUCTION_SETS = ("baseline", "avx2", "avx512", "vnni")
_DTYPES = {torch.float32, torch.int64, torch.int32, torch.bool}
_REBUILD = "rebuild it: `python setup.py build_ext --inplace` in the folder of setup.py"

Layout = tuple[int, dict[str, tuple[int, int]]]
"""A struct's size, and each field's offset and size, in bytes."""


class Struct(ctypes.Structure):
    """A C++ struct of the same name and fields; the fields of tensors are addresses."""

    declared: ClassVar[list[type["Struct"]]] = []

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "_fields_" in vars(cls):
            Struct.declared.append(cls)

    @property
    def address(self) -> int:
        """Address of the struct, which must outlive its use."""
        return ctypes.addressof(self)

    @classmethod
    def layout(cls) -> Layout:
        """Return where this declaration has its fields."""
        places = {name: getattr(cls, name) for name, _ in cls._fields_}  # type: ignore[misc]
        return ctypes.sizeof(cls), {name: (place.offset, place.size) for name, place in places.items()}


class Arguments(Struct):
    """Arguments of an exported function, whose name is the struct's: ``AddNorm`` are those of ``fairbeam_add_norm``."""

    def call(self) -> None:
        """Call the function."""
        _function(type(self))(self)


def pointers(names: str) -> list[tuple[str, type]]:
    """Return fields that hold addresses."""
    return [(name, ctypes.c_void_p) for name in names.split()]


def counts(names: str) -> list[tuple[str, type]]:
    """Return fields of 64-bit integers."""
    return [(name, ctypes.c_int64) for name in names.split()]


def floats(names: str) -> list[tuple[str, type]]:
    """Return fields of 32-bit floats."""
    return [(name, ctypes.c_float) for name in names.split()]


def address_array(*addresses: int) -> ctypes.Array[ctypes.c_void_p]:
    """Return an array of addresses, which must outlive its use."""
    return (ctypes.c_void_p * len(addresses))(*addresses)


def address_of(array: ctypes.Array) -> int:
    """Return the address of an array."""
    return ctypes.addressof(array)


def library_path() -> Path | None:
    """Return the path of the library to load; None if there is none."""
    if (given := os.environ.get("FAIRBEAM_NATIVE_LIBRARY")) is not None:
        return Path(given) if given else None
    path = Path(__file__).with_name(f"_native{sysconfig.get_config_var('EXT_SUFFIX')}")
    return path if path.exists() else None


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the library, or None if it was not built, cannot be loaded or does not fit this code.

    Raises:
        ConfigError: FAIRBEAM_CPU_ISA names no instruction set.
    """
    if (isa := os.environ.get("FAIRBEAM_CPU_ISA", "vnni")) not in _INSTRUCTION_SETS:
        raise ConfigError(f"FAIRBEAM_CPU_ISA={isa}: expected one of {', '.join(_INSTRUCTION_SETS)}")
    path = library_path()
    if path is None:
        logger.info("fairbeam has no native library: it was installed without a C++ compiler; decoding is slower")
        return None
    try:
        if _is_truncated(path):
            raise OSError("the file is not whole")
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        logger.warning("%s cannot be loaded, so decoding is slower: %s", path, error)
        return None
    if misfit := _misfit(loaded):
        logger.warning("%s %s, so decoding is slower; %s", path, misfit, _REBUILD)
        return None
    return loaded


def _is_truncated(path: Path) -> bool:
    """Return whether an ELF library ends before its section table does; reading one that is cut kills the process."""
    with path.open("rb") as stream:
        header = stream.read(64)
    if len(header) < 64 or header[:5] != b"\x7fELF\x02":  # the loader names what is no 64-bit library
        return False
    table, size, count = unpack_from("<40xQ10xHH", header)
    return path.stat().st_size < table + size * count


def available() -> bool:
    """Return whether there is a native library."""
    return library() is not None


@functools.cache
def multiplies_integers() -> bool:
    """Return whether linear layers in integers run natively: there is a library, and the CPU has AVX-512 VNNI."""
    loaded = library()
    return loaded is not None and bool(loaded.fairbeam_multiplies_integers())


def can_run(*tensors: Tensor) -> bool:
    """Return whether native functions can take these tensors: packed, on a CPU, of a dtype they know, without
    gradients. Which argument needs which dtype is the caller's business."""
    if library() is None or torch.is_grad_enabled():
        return False
    for tensor in tensors:  # noqa: SIM110 - steps ask this many times, and all() is slower
        if not (tensor.is_cpu and tensor.is_contiguous() and tensor.dtype in _DTYPES):
            return False
    return True


@functools.cache
def _function(arguments: type[Arguments]) -> Callable[[Arguments], None]:
    loaded = library()
    assert loaded is not None
    if _layouts(loaded).get(arguments.__name__) != arguments.layout():  # declared after the library was loaded
        raise RuntimeError(f"{arguments.__name__} has another layout in the native library; {_REBUILD}")
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", arguments.__name__).lower()
    function: Callable[[Arguments], None] = getattr(loaded, f"fairbeam_{name}")
    function.argtypes, function.restype = [ctypes.POINTER(arguments)], None  # type: ignore[attr-defined]
    return function


def _misfit(loaded: ctypes.CDLL) -> str | None:
    """Say in what the library does not fit this code; None if it does."""
    try:
        loaded.fairbeam_source_hash.restype = ctypes.c_char_p
        built_from = loaded.fairbeam_source_hash().decode()
        layouts = _layouts(loaded)
    except AttributeError:
        return "was built from older sources"
    sources = Path(__file__).with_name("csrc")
    if sources.is_dir() and source_hash(sources) != built_from:
        return "was built from other sources"
    for struct in Struct.declared:
        if layouts.get(struct.__name__) != struct.layout():
            return f"lays {struct.__name__} out in another way"
    return None


class _Field(ctypes.Structure):
    _fields_ = (
        ("struct", ctypes.c_char_p), ("name", ctypes.c_char_p),
        ("struct_size", ctypes.c_int64), ("offset", ctypes.c_int64), ("size", ctypes.c_int64),
    )  # fmt: skip


def _fields(loaded: ctypes.CDLL) -> Iterator[_Field]:
    field = loaded.fairbeam_field
    field.argtypes, field.restype = [ctypes.c_int64], ctypes.POINTER(_Field)
    number = 0
    while found := field(number):
        yield found.contents
        number += 1


def _layouts(loaded: ctypes.CDLL) -> dict[str, Layout]:
    """Return the layouts of the library's structs, by name."""
    layouts: dict[str, Layout] = {}
    for field in _fields(loaded):
        _, fields = layouts.setdefault(field.struct.decode(), (field.struct_size, {}))
        fields[field.name.decode()] = (field.offset, field.size)
    return layouts
