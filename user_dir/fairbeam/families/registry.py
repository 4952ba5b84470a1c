"""Models in folders as Hugging Face's ``transformers`` writes them, read and written back bit for bit.

A folder holds ``config.json`` and the weights: ``model.safetensors``, several files that
``model.safetensors.index.json`` lists, or their older namesakes ``pytorch_model.bin``. Somebody hostile may have
written it.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.families import (
    albert,
    bart,
    bert,
    ctrl,
    distilbert,
    electra,
    gpt2,
    llama,
    m2m_100,
    marian,
    mbart,
    mistral,
    mt5,
    openai_gpt,
    pegasus,
    qwen2,
    roberta,
    t5,
    transfo_xl,
    xlm_roberta,
)
from fairbeam.families import pairs as encoder_decoder
from fairbeam.families.spec import FamilySpec
from fairbeam.families.weight_map import Row, expand, read_weights, write_weights
from fairbeam.files import atomic_folder
from fairbeam.formats.provenance import Provenance
from fairbeam.formats.tensors import write_tensors
from fairbeam.network import AnyConfig, AnyNetwork, EncoderDecoderConfig, StackConfig, build

_FAMILIES: tuple[FamilySpec, ...] = (
    *(module.FAMILY for module in (bart, mbart, marian, pegasus, m2m_100, t5, mt5)),
    *(module.FAMILY for module in (bert, roberta, xlm_roberta, distilbert, electra, albert)),
    *(module.FAMILY for module in (gpt2, openai_gpt, ctrl, transfo_xl, llama, mistral, qwen2)),
    encoder_decoder.FAMILY,
)
FAMILIES = {family.model_type: family for family in _FAMILIES}
"""Family of each ``model_type``."""

CONFIG, WEIGHTS, GENERATION = "config.json", "model.safetensors", "generation_config.json"
_WEIGHT_FILES = (WEIGHTS, "pytorch_model.bin")
_MAX_CONFIG_BYTES, _MAX_INDEX_BYTES = 1 << 20, 1 << 25

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Float32, and what it holds without loss."""
_TABLE_TOLERANCE = 1e-5
_SYMBOLS = ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id")
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""As the first converted files name a norm's parameters."""


class Checkpoint(NamedTuple):
    """A model as it was read."""

    network: AnyNetwork
    """Float32, in evaluation mode."""
    family: str
    """Key of ``FAMILIES``."""
    origin: Provenance


def read(folder: str | Path) -> Checkpoint:
    """The model of a folder.

    Raises:
        CheckpointError: a file is missing, malformed or leads out of the folder, the family is unknown, an option has
            no conversion, or the weights do not fit; names what is wrong, and every tensor that does not fit.
    """
    folder = Path(folder)
    config = _read_json(folder / CONFIG, _MAX_CONFIG_BYTES)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise CheckpointError(f"{folder / CONFIG}: model_type is {model_type!r}; expected one of {', '.join(FAMILIES)}")
    family = FAMILIES[model_type]
    generation = _read_json(folder / GENERATION, _MAX_CONFIG_BYTES) if (folder / GENERATION).is_file() else {}
    tensors = _read_tensors(folder)
    own_names = _own_names(tensors, family)
    theirs = {own_names[name]: tensor for name, tensor in tensors.items()}
    if len(theirs) < len(tensors):
        raise CheckpointError(f"{folder}: a tensor is there twice, under an old name and a new one")
    try:
        network, left_over = _convert(family, with_symbols(config, generation), theirs)
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    kept = {name: tensor for name, tensor in tensors.items() if own_names[name] in left_over}
    return Checkpoint(network.eval(), model_type, Provenance(config, dtypes, kept))


def write(folder: str | Path, network: AnyNetwork, family: str, origin: Provenance) -> Path:
    """Inverse of ``read``: the same names in the same dtypes, in one ``model.safetensors``.

    Raises:
        InputError: the folder exists, or cannot be written.
    """
    with atomic_folder(folder) as building:
        write_into(building, network, family, origin)
    return Path(folder)


def write_into(folder: Path, network: AnyNetwork, family: str, origin: Provenance) -> None:
    """Write the options and the weights into an empty folder."""
    write_tensors(folder / WEIGHTS, to_state_dict(network, family, origin), {"format": "pt"})
    text = json.dumps(origin.config, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


def to_state_dict(network: AnyNetwork, family: str, origin: Provenance) -> dict[str, Tensor]:
    """Hugging Face's state dictionary of a network: the names and dtypes there were when it was read."""
    own_names = _own_names(origin.dtypes, FAMILIES[family])
    wanted = {own_names[name] for name in origin.dtypes.keys() - origin.kept.keys()}
    rows = [
        row
        for row in FAMILIES[family].rows_for(network.config, origin.config)
        if "{i}" in row.ours or not wanted.isdisjoint(row.theirs)
    ]
    written = write_weights(rows, network.state_dict())
    return {
        name: origin.kept[name].clone() if name in origin.kept else written[own_names[name]].to(dtype)
        for name, dtype in origin.dtypes.items()
    }


def with_symbols(config: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``config.json``, with the symbols that ``generation_config.json`` alone names."""
    missing = (name for name in _SYMBOLS if config.get(name) is None and type(generation.get(name)) is int)
    return {**config, **{name: generation[name] for name in missing}}


def described_network(family: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AnyConfig:
    """The network that a ``config.json`` and the tensors of a folder are of.

    Raises:
        ConfigError: an option is malformed or has no conversion.
    """
    own_names = _own_names(tensors, FAMILIES[family])
    return FAMILIES[family].plan(config, {own_names[name]: tensor for name, tensor in tensors.items()})[0]


def _convert(
    family: FamilySpec, config: Mapping[str, Any], theirs: Mapping[str, Tensor]
) -> tuple[AnyNetwork, frozenset[str]]:
    """The network, and the names that tell it nothing."""
    not_weights = frozenset(name for name in theirs if re.fullmatch(family.not_weights, name))
    _check_dtypes({name: tensor for name, tensor in theirs.items() if name not in not_weights})
    network_config, rows, unread = family.plan(config, theirs)
    _check_sizes(network_config, len(theirs))
    try:
        with torch.device("meta"):  # shapes alone: they are compared before memory for them is taken
            outline = build(network_config)
    except (ArithmeticError, RuntimeError) as error:
        raise ConfigError(f"no network can have these sizes ({error})") from None
    tables = {name: row.ours for row in family.computed_tables for name in row.theirs}
    unread |= not_weights | tables.keys()
    state = read_weights(rows, _with_tied(rows, outline, theirs), outline.state_dict(), unread)
    network = build(network_config)
    network.load_state_dict(state)
    for name in tables.keys() & theirs.keys():
        _check_table(name, theirs[name], network.get_buffer(tables[name]), network_config)
    return network, unread


def _with_tied(rows: Sequence[Row], network: AnyNetwork, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, with every name of a tied tensor filled in from the names that there are."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    groups: dict[tuple[int, int], list[str]] = defaultdict(list)
    for row in expand(rows, parameters):
        # Joined tensors are tied part by part: the query's to the query's, whatever else is in the row.
        for part, name in enumerate(row.theirs):
            groups[id(parameters[row.ours]), part].append(name)
    filled = dict(theirs)
    for names in groups.values():
        there = [name for name in names if name in theirs]
        for other in there[1:]:
            if not torch.equal(theirs[other], theirs[there[0]]):
                raise CheckpointError(f"{other} differs from {there[0]}, but the configuration ties them")
        for name in names if there else ():
            filled.setdefault(name, theirs[there[0]])
    return filled


def _own_names(names: Mapping[str, Any], family: FamilySpec) -> dict[str, str]:
    """Each name as the family's rows have it: with the prefix of the bare model, and brought up to date."""
    bare = not any(name.startswith(family.prefix) for name in names)

    def own(name: str) -> str:
        for old, new in _OLD_NAMES.items():
            if name.endswith(f".{old}"):
                name = name.removesuffix(old) + new
        return f"{family.prefix}{name}" if bare and name not in family.unprefixed else name

    return {name: own(name) for name in names}


def _check_dtypes(theirs: Mapping[str, Tensor]) -> None:
    strange = [
        f"{name} has dtype {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in theirs.items()
        if tensor.dtype not in _DTYPES
    ]
    if strange:
        raise CheckpointError(f"expected float32, float16 or bfloat16: {'; '.join(strange)}")


def _check_sizes(config: AnyConfig, tensors: int) -> None:
    for name in ("encoder", "decoder"):
        stack = getattr(config, name, None)
        if isinstance(stack, StackConfig) and (stack.distinct_layers or stack.layers) > tensors:
            raise ConfigError(f"{name}_layers is {stack.layers}, but there are only {tensors} tensors")
    if isinstance(config, EncoderDecoderConfig) and config.padding_of_sources >= config.source_vocabulary:
        raise ConfigError(f"pad_token_id is {config.padding_of_sources}, but vocab_size is {config.source_vocabulary}")


def _check_table(name: str, stored: Tensor, table: Tensor, config: AnyConfig) -> None:
    """The stored table must be the computed one where positions are looked up."""
    if stored.shape != table.shape:
        raise CheckpointError(f"{name} has shape {tuple(stored.shape)}, expected {tuple(table.shape)}")
    first = config.encoder.positions.offset if isinstance(config, EncoderDecoderConfig) else 0
    tolerance = max(_TABLE_TOLERANCE, torch.finfo(stored.dtype).eps)
    if not torch.allclose(stored[first:].float(), table[first:], rtol=0, atol=tolerance):
        raise CheckpointError(f"{name} is not the table of sinusoids that its configuration describes")


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return _read_file(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder / f"{name}.index.json")
    raise CheckpointError(f"{folder}: no weights; expected one of {', '.join(_WEIGHT_FILES)}, or its .index.json")


def _read_shards(index: Path) -> dict[str, Tensor]:
    places = _read_json(index, _MAX_INDEX_BYTES).get("weight_map")
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


def _read_json(path: Path, most_bytes: int) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if path.stat().st_size > most_bytes:
        raise CheckpointError(f"{path}: larger than {most_bytes} bytes")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected an object, found {type(values).__name__}")
    return values
