"""Precision of inference: which formats there are, and which a device computes well in."""

from enum import StrEnum

import torch

from fairbeam.errors import ConfigError
from fairbeam.network.inference import native


class Precision(StrEnum):
    """Number format of weights and activations at inference."""

    AUTO = "auto"
    """The fastest format that the device computes well in; see ``resolve``."""
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT16 = "int16"
    """Linear layers multiply integers of up to 16 bits; everything else is float32."""
    INT8 = "int8"
    """Like ``INT16``, with 8 bits in the layers that run for every token: faster and less exact."""

    @classmethod
    def parse(cls, name: str) -> "Precision":
        """Return the precision of that name.

        Raises:
            ConfigError: there is no such precision.
        """
        try:
            return cls(name)
        except ValueError:
            raise ConfigError(f"--precision {name}: choose one of {', '.join(cls)}") from None

    def resolve(self, device: torch.device) -> torch.dtype:
        """Return the dtype to compute in.

        ``AUTO`` is int8 on a CPU for which the native library has integer kernels, else bfloat16 if ``device``
        multiplies it fast, else float32.

        Raises:
            ConfigError: ``device`` does not support the precision.
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
    """Return whether ``device`` multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
