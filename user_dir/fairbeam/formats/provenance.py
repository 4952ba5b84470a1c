"""Provenance of a model on disk: contents of its original files beyond the network.

Within a bundle it is ``origin.json`` (options, the dtype of every tensor), ``origin.safetensors`` (tensors that the
network does not hold) and the folder ``original`` (tokenizer and generation files, byte for byte).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairbeam.errors import CheckpointError
from fairbeam.files import inside, read_object
from fairbeam.formats.tensors import read_tensors, write_tensors
from fairbeam.model import Provenance
from fairbeam.schema import parse

DESCRIPTION, TENSORS, FILES = "origin.json", "origin.safetensors", "original"
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool,
    )
}  # fmt: skip
_MAX_DESCRIPTION_BYTES = 1 << 25
_MAX_FILE_BYTES = 256 * 2**20

KEPT_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "target_vocab.json",
    "vocab.txt",
    "merges.txt",
    "source.spm",
    "target.spm",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "tokenizer.model",
)
"""Files that are kept of a folder beside its configuration and its weights."""


@dataclass(frozen=True)
class _Description:
    """Contents of ``origin.json``."""

    config: dict[str, Any]
    dtypes: dict[str, str]

    def __post_init__(self) -> None:
        for name, dtype in self.dtypes.items():
            if dtype not in _DTYPES:
                raise CheckpointError(f"{name} has dtype {dtype!r:.80}; expected one of {', '.join(_DTYPES)}")


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the contents of those ``KEPT_FILES`` that a folder has.

    Raises:
        CheckpointError: one is too large.
        InputError: one leads out of the folder.
    """
    found: dict[str, bytes] = {}
    for name in KEPT_FILES:
        path = inside(folder, name)
        if path is not None:
            with path.open("rb") as stream:
                found[name] = stream.read(_MAX_FILE_BYTES + 1)
            if len(found[name]) > _MAX_FILE_BYTES:
                raise CheckpointError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
    return found


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder; inverse of ``read_files``."""
    for name, content in files.items():
        (folder / name).write_bytes(content)


def save(folder: Path, origin: Provenance) -> None:
    """Write the provenance of a model into its bundle's folder."""
    dtypes = {name: str(dtype).removeprefix("torch.") for name, dtype in origin.dtypes.items()}
    text = json.dumps({"config": origin.config, "dtypes": dtypes}, indent=2) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    write_tensors(folder / TENSORS, {name: tensor.clone().contiguous() for name, tensor in origin.kept.items()})
    if origin.files:
        (folder / FILES).mkdir()
        write_files(folder / FILES, origin.files)


def load(folder: Path) -> Provenance | None:
    """Return what ``save`` wrote into a bundle's folder; None if it wrote nothing.

    Raises:
        CheckpointError: a file is malformed, too large, or contradicts another; names what is wrong.
        InputError: a file leads out of the folder, is too large or no JSON.
    """
    path = inside(folder, DESCRIPTION)
    if path is None:
        return None
    values = read_object(path, _MAX_DESCRIPTION_BYTES, CheckpointError)
    described = parse(_Description, values, file=path, error=CheckpointError)
    dtypes = {name: _DTYPES[dtype] for name, dtype in described.dtypes.items()}
    kept = _load_tensors(folder)
    for name, tensor in kept.items():
        if dtypes.get(name) is not tensor.dtype:
            raise CheckpointError(f"{folder / TENSORS}: {name} is {tensor.dtype}, which {DESCRIPTION} does not say")
    return Provenance(described.config, dtypes, kept, read_files(folder / FILES))


def _load_tensors(folder: Path) -> dict[str, Tensor]:
    path = inside(folder, TENSORS)
    if path is None:
        raise CheckpointError(f"{folder / TENSORS}: no such file; {DESCRIPTION} needs it")
    return read_tensors(path)
