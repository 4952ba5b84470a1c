"""Options and weights of a Hugging Face folder, read and written back bit for bit.

A folder holds ``config.json`` and the weights: ``model.safetensors``, several files that
``model.safetensors.index.json`` lists, or their older namesakes ``pytorch_model.bin``. Its author may be hostile.
"""

import json
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.families.loading import load_network, state_dict_of, with_special_ids
from fairbeam.families.registry import FAMILIES
from fairbeam.files import MAX_TEXT_BYTES, atomic_folder, read_object
from fairbeam.formats.tensors import WEIGHTS, read_folder, write_tensors
from fairbeam.model import Provenance
from fairbeam.network import AnyNetwork

CONFIG, GENERATION = "config.json", "generation_config.json"


class HuggingFaceNetwork(NamedTuple):
    """A network, and what writing its folder again takes."""

    network: AnyNetwork
    """Network in float32, in evaluation mode."""
    family: str
    """Key of ``FAMILIES``."""
    origin: Provenance


def read(folder: str | Path) -> HuggingFaceNetwork:
    """Return the network of a folder.

    Raises:
        CheckpointError: a file is missing, malformed or leads out of the folder, the family is unknown, an option has
            no conversion, or the weights do not fit; names what is wrong, and every tensor that does not fit.
    """
    folder = Path(folder)
    config = read_object(folder / CONFIG, MAX_TEXT_BYTES, CheckpointError)
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise CheckpointError(f"{folder / CONFIG}: model_type is {family!r}; expected one of {', '.join(FAMILIES)}")
    path = folder / GENERATION
    generation = read_object(path, MAX_TEXT_BYTES, CheckpointError) if path.is_file() else {}
    tensors = read_folder(folder)
    try:
        network, unread = load_network(family, with_special_ids(config, generation), tensors)
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    kept = {name: tensor for name, tensor in tensors.items() if name in unread}
    return HuggingFaceNetwork(network, family, Provenance(config, dtypes, kept))


def write(folder: str | Path, network: AnyNetwork, family: str, origin: Provenance) -> Path:
    """Write the same tensors in the same dtypes, in one ``model.safetensors``; inverse of ``read``.

    Raises:
        InputError: the folder exists, or cannot be written.
    """
    with atomic_folder(folder) as building:
        write_into(building, network, family, origin)
    return Path(folder)


def write_into(folder: Path, network: AnyNetwork, family: str, origin: Provenance) -> None:
    """Write options and weights into an empty folder."""
    write_tensors(folder / WEIGHTS, to_state_dict(network, family, origin), {"format": "pt"})
    text = json.dumps(origin.config, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def to_state_dict(network: AnyNetwork, family: str, origin: Provenance) -> dict[str, Tensor]:
    """Return the Hugging Face state dictionary of a network: the names and dtypes that were read."""
    return state_dict_of(network, family, origin.config, origin.dtypes, origin.kept)
