"""The compiled loops of ``native.cpp``, which are built when fairbeam is installed where there is a C++ compiler.

Without them the network computes the same with torch's operations, only slower.
"""

import ctypes
import functools
import logging
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# Of each function: how many tensors, whole numbers and fractions it takes, in this order.
_SIGNATURES = {
    "attend_to_slots": (6, 8, 1),
    "attend": (6, 10, 1),
    "add_norm": (5, 2, 1),
    "renormalise": (5, 4, 0),
    "log_softmax": (1, 2, 0),
    "topk_of_sums": (4, 4, 0),
    "embed": (5, 3, 1),
    "append_slots": (2, 4, 0),
    "ended": (4, 4, 0),
    "survivors": (4, 3, 0),
    "extend": (5, 5, 0),
}
_OF_INTEGERS = {
    "integer_product": (3, 1, 0),
    "decoder_layers": (3, 0, 0),
    "encoder_layers": (4, 3, 0),
    "int8_rounding": (7, 4, 0),
    "best_continuations": (9, 4, 0),
    "search": (3, 0, 0),
}
_COUNTING = {"search"}
"""Those that return a whole number."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library, if it was built and can be loaded."""
    path = Path(__file__).with_name(f"_native{sysconfig.get_config_var('EXT_SUFFIX')}")
    if not path.exists():
        logger.info("fairbeam was installed without a C++ compiler; decoding is slower")
        return None
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        logger.warning("%s cannot be used, so decoding is slower: %s", path, error)
        return None
    for name, (tensors, counts, numbers) in (_SIGNATURES | _OF_INTEGERS).items():
        if function := getattr(loaded, f"fairbeam_{name}", None):
            function.argtypes = [ctypes.c_void_p] * tensors + [ctypes.c_int64] * counts + [ctypes.c_float] * numbers
            function.restype = ctypes.c_int64 if name in _COUNTING else None
    return loaded


def available() -> bool:
    """Whether there are compiled loops."""
    return library() is not None


class Linear(ctypes.Structure):
    """A layer of ``integer_product``, as ``native.cpp`` declares it."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("values", "scales", "sums", "bias")),
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "most", "activation")),
    ]


class Norm(ctypes.Structure):
    """A layer norm."""

    _fields_ = [("gain", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("epsilon", ctypes.c_float)]


class Layer(ctypes.Structure):
    """A layer of a Transformer."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("qkv", "output", "query", "cross_output", "inner", "outer")),
        *((name, Norm) for name in ("self_norm", "cross_norm", "feed_forward_norm")),
        *((name, ctypes.c_int64) for name in ("heads", "width", "norm_before")),
        *((name, ctypes.c_float) for name in ("self_scale", "cross_scale")),
    ]


class Step(ctypes.Structure):
    """What the layers of a decoding step read and add to."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("storages", "keys", "values", "slots")),
        *((name, ctypes.c_void_p) for name in ("rows", "source_rows", "starts", "mask")),
        *(
            (name, ctypes.c_int64)
            for name in ("layers", "batch", "beams", "sentences", "capacity", "steps", "start", "length")
        ),
    ]


class Narrowed(ctypes.Structure):
    """Columns of scores that are a part of all symbols."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("symbols", "added", "moments")]


class Search(ctypes.Structure):
    """Hypotheses that are continued, and what scores them."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("vectors", "positions", "exact", "final_norm", "head", "narrowed")),
        *((name, ctypes.c_void_p) for name in ("tokens", "totals", "history", "ignored", "slots", "closed")),
        *((name, ctypes.c_void_p) for name in ("sums", "parents", "chosen")),
        *((name, ctypes.c_int64) for name in ("room", "filled", "closed_count", "eos", "most")),
        *((name, ctypes.c_int64) for name in ("position", "last_position")),
        ("scale", ctypes.c_float),
    ]


def pointers(*places: int) -> ctypes.Array[ctypes.c_void_p]:
    """Addresses as an array."""
    return (ctypes.c_void_p * len(places))(*places)


@functools.cache
def multiplies_integers() -> bool:
    """Whether there are products of integers that this processor computes natively."""
    loaded = library()
    return loaded is not None and bool(loaded.fairbeam_has_vnni())


@functools.cache
def function(name: str) -> Callable[..., Any]:
    """One of the loops; tensors are passed to it by ``data_ptr``."""
    loaded = library()
    assert loaded is not None
    found: Callable[..., Any] = getattr(loaded, f"fairbeam_{name}")
    return found


def address(structure: ctypes.Structure | ctypes.Array) -> int:
    """Where it is; it must outlive the use."""
    return ctypes.addressof(structure)


def reads(*tensors: Tensor) -> bool:
    """Whether the loops can read these: packed, on a CPU; their dtypes are the caller's care."""
    return available() and all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in tensors)


def serves(*tensors: Tensor) -> bool:
    """Whether the loops can read these: float32 on a CPU, packed, and no gradient is asked for."""
    return (
        available()
        and not torch.is_grad_enabled()
        and all(
            tensor.dtype is torch.float32 and tensor.is_contiguous() and tensor.device.type == "cpu"
            for tensor in tensors
        )
    )
