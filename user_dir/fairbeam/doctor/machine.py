"""Processor, memory and GPUs of this machine, and what torch and fairbeam's native library can do on them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fairbeam.doctor.environment import processor
from fairbeam.network import Precision, has_fast_bfloat16, tune_memory
from fairbeam.network.inference import native

_CPU_FEATURES = ("avx2", "avx512", "avx512_bf16", "vnni", "amx_tile", "amx_fp16", "arm_sve")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A CUDA device."""

    name: str
    memory: int
    """Total memory in bytes."""
    fast_bfloat16: bool


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Processor, memory and GPUs of this machine, and what fairbeam can do on them."""

    processor: str
    cores: int
    """CPU cores that this process may use: a container's share."""
    threads: int
    """Threads of one torch operation."""
    features: tuple[str, ...]
    """Instruction sets for matrix products that torch detects."""
    fast_bfloat16: bool
    """Whether the CPU multiplies bfloat16 natively."""
    native_library: bool
    """Whether fairbeam's native library is installed."""
    integer_kernels: bool
    """Whether the native library has integer kernels for this CPU."""
    memory: int
    """Main memory in bytes that this process may use; 0 if the system does not say."""
    tunable_allocator: bool
    """Whether ``tune_memory`` has an effect: glibc's allocator, not replaced through ``LD_PRELOAD``."""
    gpus: tuple[Gpu, ...]

    def automatic_dtype(self, device: str = "cpu") -> torch.dtype:
        """Return the dtype that ``--precision auto`` means on ``device``."""
        return Precision.AUTO.resolve(torch.device(device))


def describe_machine() -> Machine:
    """Return the description of this machine."""
    return Machine(
        processor=processor(),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        features=tuple(name for name in _CPU_FEATURES if _has_feature(name)),
        fast_bfloat16=has_fast_bfloat16(torch.device("cpu")),
        native_library=native.available(),
        integer_kernels=native.multiplies_integers(),
        memory=_main_memory(),
        tunable_allocator=tune_memory(),
        gpus=tuple(_gpu(number) for number in range(torch.cuda.device_count())),
    )


def _has_feature(name: str) -> bool:
    # These functions are private to torch and differ between its versions.
    asked: Callable[[], bool] | None = getattr(torch.cpu, f"_is_{name}_supported", None)
    return asked is not None and bool(asked())


def _main_memory() -> int:
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's share; "max" where there is no limit
    try:
        return min(installed, int(limit.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return installed


def _gpu(number: int) -> Gpu:
    properties = torch.cuda.get_device_properties(number)
    return Gpu(name=properties.name, memory=properties.total_memory,
               fast_bfloat16=has_fast_bfloat16(torch.device("cuda", number)))  # fmt: skip
