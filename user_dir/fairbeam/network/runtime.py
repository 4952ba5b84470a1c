"""The machine underneath: allocator, threads, and the precisions it computes well in."""

import ctypes
import logging
import os
import sys
from enum import StrEnum

import torch

from fairbeam.errors import ConfigError

logger = logging.getLogger(__name__)

# mallopt parameter numbers of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


class Precision(StrEnum):
    """The number format of weights and activations at inference."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"

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
        """The dtype to compute in on ``device``; ``AUTO`` is bfloat16 where the hardware multiplies it natively."""
        if self is Precision.AUTO:
            return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
        return torch.bfloat16 if self is Precision.BFLOAT16 else torch.float32


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def tune_allocator() -> None:
    """Keep freed buffers in the process instead of returning each to the system.

    glibc maps every large buffer afresh and the kernel zeroes it page by page; a training step that allocates
    the same activations again and again spends a third of its time there. Only Linux with glibc is affected;
    anywhere else, or where ``LD_PRELOAD`` brings another allocator, this does nothing.
    """
    if not sys.platform.startswith("linux") or os.environ.get("LD_PRELOAD"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most glibc accepts
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    mallopt(_M_TOP_PAD, 64 << 20)
