"""The machine underneath: allocator, threads, and the precisions it computes well in."""

import ctypes
import logging
import os
import sys
from enum import StrEnum

import torch

from fairbeam.errors import ConfigError
from fairbeam.network.inference import native

logger = logging.getLogger(__name__)

# mallopt parameter numbers of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


class Precision(StrEnum):
    """The number format of weights and activations at inference."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT16 = "int16"
    """Products of integers of up to 16 bits; everything between them is float32."""
    INT8 = "int8"
    """The same of 8 bits where a layer is run for every token; faster and less exact."""

    @classmethod
    def parse(cls, name: str) -> "Precision":
        """The precision called ``name``.

        Raises:
            ConfigError: there is no such precision.
        """
        try:
            return cls(name)
        except ValueError:
            raise ConfigError(f"--precision {name}: choose one of {', '.join(cls)}") from None

    def resolve(self, device: torch.device) -> torch.dtype:
        """The dtype to compute in.

        ``AUTO`` is int8 where compiled loops multiply integers, else bfloat16 where ``device`` multiplies it.

        Raises:
            ConfigError: ``device`` cannot compute in it.
        """
        if self is Precision.AUTO:
            if device.type == "cpu" and native.multiplies_integers():
                return torch.int8
            return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
        if self in (Precision.INT8, Precision.INT16) and device.type != "cpu":
            raise ConfigError(f"--precision {self}: is for CPUs, and the device is {device}")
        if self is Precision.INT16 and not native.multiplies_integers():
            raise ConfigError(
                "--precision int16: needs a processor with AVX-512 VNNI, and fairbeam installed with a C++ compiler"
            )
        dtype: torch.dtype = getattr(torch, self.value)
        return dtype


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def tune_memory() -> bool:
    """Settings of libraries underneath that bound memory and save time; call it before the first tensor operation.

    - oneDNN keeps a compiled kernel for each of the last 1,024 shapes that a matrix product had. Batches of text have
      new shapes all the time, and the kernels, over half a mebibyte each, grew a small model's training by gigabytes.
      128 hold those of decoding.
    - glibc returns every large buffer to the system, which zeroes it page by page when it is asked for again. Freed
      buffers stay in the process instead. Only Linux with glibc has this, and only where ``LD_PRELOAD`` brings no
      other allocator.

    Returns:
        Whether the allocator could be tuned.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "128")  # the cache that torch itself keeps of them
    if not sys.platform.startswith("linux") or os.environ.get("LD_PRELOAD"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most glibc accepts
    mallopt(_M_TRIM_THRESHOLD, 512 << 20)
    mallopt(_M_TOP_PAD, 64 << 20)
    return True
