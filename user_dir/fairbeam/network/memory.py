"""Memory settings of the C library's allocator and of oneDNN."""

import ctypes
import os
import sys

# mallopt parameter numbers of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def tune_memory() -> bool:
    """Bound the kernel caches of oneDNN and torch, and let glibc keep freed buffers; call it before any tensor
    operation.

    - oneDNN caches a compiled kernel for each of the last 1,024 matrix product shapes. Batches of text have new shapes
      all the time, and the kernels, over half a mebibyte each, grew a small model's training by gigabytes. 128 are
      enough for decoding.
    - glibc returns every large buffer to the system, which zeroes it page by page when it is requested again. With
      these settings freed buffers stay in the process. This is for Linux with glibc, and only if ``LD_PRELOAD`` does
      not replace the allocator.

    Returns:
        Whether the allocator was tuned.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
    os.environ.setdefault("LRU_CACHE_CAPACITY", "128")  # torch's own cache of these kernels
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
