"""Files of tensors: safetensors, and the pickles of Hugging Face folders, read without running what is in them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairbeam.errors import CheckpointError, InputError
from fairbeam.files import read_object

WEIGHTS = "model.safetensors"
_WEIGHT_FILES = (WEIGHTS, "pytorch_model.bin")
_MAX_INDEX_BYTES = 1 << 25


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


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a Hugging Face folder: one file, or the shards that an index lists.

    Raises:
        CheckpointError: there are none, or a file is missing, malformed, or contradicts the index.
    """
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return _read_file(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder / f"{name}.index.json")
    raise CheckpointError(f"{folder}: no weights; expected one of {', '.join(_WEIGHT_FILES)}, or its .index.json")


def _read_shards(index: Path) -> dict[str, Tensor]:
    places = read_object(index, _MAX_INDEX_BYTES, CheckpointError).get("weight_map")
    if not isinstance(places, dict):
        raise CheckpointError(f"{index}: weight_map is {places!r}, expected an object")
    tensors: dict[str, Tensor] = {}
    for shard in dict.fromkeys(_plain_names(places, index)):
        for name, tensor in _read_file(index.parent / shard).items():
            if places.get(name) != shard:
                raise CheckpointError(f"{index}: {shard} holds {name}, which is expected in {places.get(name)!r}")
            tensors[name] = tensor
    missing = sorted(places.keys() - tensors.keys())
    if missing:
        raise CheckpointError(f"{index}: the files lack {', '.join(missing)}")
    return tensors


def _plain_names(places: Mapping[str, Any], index: Path) -> Iterator[str]:
    for shard in places.values():
        if not isinstance(shard, str) or shard in ("", ".", "..") or set(shard) & set("/\\\0"):
            raise CheckpointError(f"{index}: {shard!r} is not a plain file name in the folder")
        if Path(shard).suffix != Path(index.name.removesuffix(".index.json")).suffix:
            raise CheckpointError(f"{index}: {shard!r} is not of the index's own kind")
        yield shard


def _read_file(path: Path) -> dict[str, Tensor]:
    # A link may lead anywhere: in the hub's own cache every file is one, and only tensors come out of it.
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a malformed pickle raises whatever its opcodes lead to
        raise CheckpointError(f"{path}: not a file of weights, or truncated ({error})") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise CheckpointError(f"{path}: expected tensors and their names alone")
    return dict(tensors)
