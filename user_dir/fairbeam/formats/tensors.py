"""Files of tensors in the safetensors format."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairbeam.errors import CheckpointError, InputError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU.

    Raises:
        CheckpointError: there is no such file, or it is truncated or of another format.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or truncated ({error})") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write contiguous tensors that share no memory; inverse of ``read_tensors``.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    try:
        save_file(dict(tensors), path, metadata=metadata)
        path.chmod(0o644)  # the library makes files that nobody else can read
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be written ({error})") from error
