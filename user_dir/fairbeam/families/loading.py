"""Hugging Face state dictionaries to networks and back, whatever the family; no files."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.families.registry import FAMILIES
from fairbeam.families.spec import FamilySpec
from fairbeam.families.weight_map import Row, expand, read_weights, write_weights
from fairbeam.network import AnyConfig, AnyNetwork, EncoderDecoderConfig, StackConfig, build

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Dtypes of weights: float32, and those that it holds without loss."""
_TABLE_TOLERANCE = 1e-5
"""Largest difference of a stored table of sinusoids from the computed one."""
_SPECIAL_IDS = ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id")
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Names of a norm's parameters in the first converted files → today's."""


class LoadedNetwork(NamedTuple):
    """A network made of a Hugging Face state dictionary."""

    network: AnyNetwork
    """Network in float32, in evaluation mode."""
    unread: frozenset[str]
    """Names of tensors that the network does not hold; they are kept for writing."""


def load_network(family: str, options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LoadedNetwork:
    """Return the network that the options of a ``config.json`` describe, with the weights of a state dictionary.

    Args:
        family: key of ``FAMILIES``.
        options: options of ``config.json``; see `with_special_ids`.
        tensors: tensors by their names in the file.

    Raises:
        ConfigError: an option has no conversion.
        CheckpointError: the weights do not fit; every tensor that does not is named.
    """
    spec = FAMILIES[family]
    own_names = _own_names(tensors, spec)
    theirs = {own_names[name]: tensor for name, tensor in tensors.items()}
    if len(theirs) < len(tensors):
        raise CheckpointError("a tensor is there twice, under an old name and a new one")
    network, unread = _convert(spec, options, theirs)
    return LoadedNetwork(network.eval(), frozenset(name for name in tensors if own_names[name] in unread))


def state_dict_of(
    network: AnyNetwork,
    family: str,
    options: Mapping[str, Any],
    dtypes: Mapping[str, torch.dtype],
    kept: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Return a network's Hugging Face state dictionary; inverse of ``load_network``.

    Args:
        dtypes: dtype of each tensor that there was, by its name in the file.
        kept: those of them that the network does not hold.
    """
    spec = FAMILIES[family]
    own_names = _own_names(dtypes, spec)
    wanted = {own_names[name] for name in dtypes.keys() - kept.keys()}
    rows = [
        row for row in spec.rows_for(network.config, options) if "{i}" in row.ours or not wanted.isdisjoint(row.theirs)
    ]
    written = write_weights(rows, network.state_dict())
    return {
        name: kept[name].clone() if name in kept else written[own_names[name]].to(dtype)
        for name, dtype in dtypes.items()
    }


def with_special_ids(config: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of ``config.json``, with special-token ids that only ``generation_config.json`` names."""
    missing = (name for name in _SPECIAL_IDS if config.get(name) is None and type(generation.get(name)) is int)
    return {**config, **{name: generation[name] for name in missing}}


def described_network(family: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AnyConfig:
    """Return the configuration of the network that a ``config.json`` and its state dictionary describe.

    Raises:
        ConfigError: an option is malformed or has no conversion.
    """
    own_names = _own_names(tensors, FAMILIES[family])
    return FAMILIES[family].plan(config, {own_names[name]: tensor for name, tensor in tensors.items()})[0]


def _convert(
    spec: FamilySpec, config: Mapping[str, Any], theirs: Mapping[str, Tensor]
) -> tuple[AnyNetwork, frozenset[str]]:
    """Return the network, and the names of tensors that it does not hold."""
    not_weights = frozenset(name for name in theirs if re.fullmatch(spec.not_weights, name))
    _check_dtypes({name: tensor for name, tensor in theirs.items() if name not in not_weights})
    network_config, rows, unread = spec.plan(config, theirs)
    _check_sizes(network_config, len(theirs))
    try:
        with torch.device("meta"):  # shapes only: compare them before memory is allocated
            outline = build(network_config)
    except (ArithmeticError, RuntimeError) as error:
        raise ConfigError(f"no network can have these sizes ({error})") from None
    tables = {name: row.ours for row in spec.computed_tables for name in row.theirs}
    unread |= not_weights | tables.keys()
    state = read_weights(rows, _with_tied(rows, outline, theirs), outline.state_dict(), unread)
    network = build(network_config)
    network.load_state_dict(state)
    for name in tables.keys() & theirs.keys():
        _check_table(name, theirs[name], network.get_buffer(tables[name]), network_config)
    return network, unread


def _with_tied(rows: Sequence[Row], network: AnyNetwork, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return their tensors, each name of a tied tensor filled in from its other names."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    groups: dict[tuple[int, int], list[str]] = defaultdict(list)
    for row in expand(rows, parameters):
        # Concatenated tensors are tied part by part: query to query, whatever else is in the row.
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


def _own_names(names: Mapping[str, Any], spec: FamilySpec) -> dict[str, str]:
    """Map each name in a file to the family's own: with the base model's prefix, and today's names of norms."""
    bare = not any(name.startswith(spec.prefix) for name in names)

    def own(name: str) -> str:
        for old, new in _OLD_NAMES.items():
            if name.endswith(f".{old}"):
                name = name.removesuffix(old) + new
        return f"{spec.prefix}{name}" if bare and name not in spec.unprefixed else name

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
    """Check that a stored table equals the computed one where positions are looked up."""
    if stored.shape != table.shape:
        raise CheckpointError(f"{name} has shape {tuple(stored.shape)}, expected {tuple(table.shape)}")
    first = config.encoder.positions.offset if isinstance(config, EncoderDecoderConfig) else 0
    tolerance = max(_TABLE_TOLERANCE, torch.finfo(stored.dtype).eps)
    if not torch.allclose(stored[first:].float(), table[first:], rtol=0, atol=tolerance):
        raise CheckpointError(f"{name} is not the table of sinusoids that its configuration describes")
