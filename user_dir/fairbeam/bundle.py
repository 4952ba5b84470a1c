"""A bundle: a folder that is a whole model.

``model.safetensors`` holds the weights, ``config.json`` the network and the generation defaults, the tokenizer's own
files stand beside them, and ``README.md`` is the model card. Nothing in it is pickled.
"""

import dataclasses
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.generation import GenerationOptions
from fairbeam.network import Network, NetworkConfig
from fairbeam.text import Tokenizer

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_MAX_CONFIG_BYTES = 1 << 20
_FIELDS = frozenset({"format", "family", "source", "target", "network", "generation"})


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model with everything it takes to use it."""

    network: Network
    source: Tokenizer
    target: Tokenizer
    generation: GenerationOptions = GenerationOptions()
    family: str = "fairseq_transformer"
    card: str = ""
    """Text of the model card behind its heading: scores with their signatures, training data, licence."""

    def __post_init__(self) -> None:
        config = self.network.config
        sides = (("source", config.source_vocabulary, self.source), ("target", config.target_vocabulary, self.target))
        for side, rows, tokenizer in sides:
            if len(tokenizer.dictionary) != rows:
                raise CheckpointError(
                    f"the {side} dictionary has {len(tokenizer.dictionary)} entries, but the model embeds {rows}; "
                    "use the dictionaries the model was trained with"
                )


def is_bundle(path: str | Path) -> bool:
    """Whether ``path`` is a folder that looks like a bundle."""
    return (Path(path) / CONFIG).is_file() and (Path(path) / WEIGHTS).is_file()


def save(folder: str | Path, bundle: Bundle, *, overwrite: bool = False) -> Path:
    """Write a bundle: built under a temporary name and renamed, so that it is never half there.

    Raises:
        ConfigError: ``folder`` exists and ``overwrite`` is false, or it exists and is no bundle.
    """
    folder = Path(folder)
    if folder.exists() and not (overwrite and (is_bundle(folder) or not any(folder.iterdir()))):
        raise ConfigError(f"{folder}: exists already; --overwrite replaces a bundle, and nothing but a bundle")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        save_file(_unique_tensors(bundle.network), building / WEIGHTS)
        (building / WEIGHTS).chmod(0o644)
        (building / CONFIG).write_text(json.dumps(_describe(bundle), indent=2) + "\n", encoding="utf-8")
        (building / CARD).write_text(_card(folder.name, bundle), encoding="utf-8")
        bundle.source.save(building)
        bundle.target.save(building)
        building.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(building, folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return folder


def load(folder: str | Path) -> Bundle:
    """Read a bundle, assuming that somebody hostile wrote it.

    Raises:
        CheckpointError: a file is missing, malformed, of another version, leads out of the folder, or the weights do
            not fit the network; names what is wrong.
    """
    folder = Path(folder)
    _refuse_links(folder)
    config = _read_config(folder / CONFIG)
    try:
        network = Network(NetworkConfig.from_dict(config["network"]))
        generation = GenerationOptions(**config["generation"])
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None
    _load_weights(network, folder / WEIGHTS)
    card = folder / CARD
    return Bundle(
        network=network.eval(),
        source=Tokenizer.load(folder, config["source"]),
        target=Tokenizer.load(folder, config["target"]),
        generation=generation,
        family=config["family"],
        card=card.read_text(encoding="utf-8") if card.is_file() else "",
    )


def _describe(bundle: Bundle) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "family": bundle.family,
        "source": bundle.source.language,
        "target": bundle.target.language,
        "network": bundle.network.config.to_dict(),
        "generation": dataclasses.asdict(bundle.generation),
    }


def _card(name: str, bundle: Bundle) -> str:
    parameters = sum(tensor.numel() for tensor in _unique_tensors(bundle.network).values())
    heading = (
        f"# {name}\n\n{bundle.source.language} to {bundle.target.language}, {parameters:,} parameters "
        f"({bundle.family}).\n\n```\nfairbeam translate {name} < input.txt\n```\n"
    )
    return heading + (f"\n{bundle.card.strip()}\n" if bundle.card else "")


def _unique_tensors(network: Network) -> dict[str, Tensor]:
    """The state dictionary without second names of tied weights."""
    seen: set[int] = set()
    unique = {}
    for name, tensor in network.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            unique[name] = tensor.contiguous()
    return unique


def _refuse_links(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such bundle")
    root = folder.resolve()
    for path in folder.iterdir():
        if not path.resolve().is_relative_to(root):
            raise CheckpointError(f"{path}: leads out of the bundle's folder")


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; is this folder a bundle?")
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise CheckpointError(f"{path}: larger than {_MAX_CONFIG_BYTES} bytes")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a bundle's configuration of format {FORMAT}")
    if config.keys() != _FIELDS:
        raise CheckpointError(
            f"{path}: missing fields {sorted(_FIELDS - config.keys())}, unknown fields {sorted(config.keys() - _FIELDS)}"
        )
    for name in ("family", "source", "target"):
        value = config[name]
        if not isinstance(value, str) or not value or value != Path(value).name:
            raise CheckpointError(f"{path}: {name} is {value!r}, expected a plain name")
    return config


def _load_weights(network: Network, path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or truncated ({error})") from None
    expected = _unique_tensors(network)
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        raise CheckpointError(f"{path}: the weights do not fit the network: {'; '.join(problems)}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            expected[name].copy_(tensor)
