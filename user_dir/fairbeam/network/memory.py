"""Settings of the allocator and of libraries underneath that bound memory."""

import ctypes
import os
import sys

# mallopt parameter numbers of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


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
