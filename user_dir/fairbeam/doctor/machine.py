"""Facts about the machine that need neither torch nor a dependency."""

import platform
from pathlib import Path


def processor() -> str:
    """The processor's name, as ``/proc/cpuinfo`` has it, or its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.machine()
