"""Modules of a network: their output shapes, their parameters, and whether the weights are finite."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fairbeam.network import AnyNetwork, Generator, Seq2Seq

_FIRST_WORD = 4  # fairseq's dictionaries begin with four special tokens


@dataclass(frozen=True, kw_only=True)
class ModuleRow:
    """A module of a network, and its outputs for a dummy input."""

    name: str
    kind: str
    outputs: tuple[tuple[int, ...], ...]
    """Distinct shapes of output tensors; empty if ``forward`` was not called."""
    parameters: int
    """Number of parameters, submodules included; a tied weight counts for the first module that holds it."""


@dataclass(frozen=True, kw_only=True)
class NetworkTable:
    """Modules of a network."""

    batch: int
    """Number of dummy sentences."""
    source: int
    """Source tokens per dummy sentence."""
    target: int | None
    """Target tokens per dummy sentence; None for a network of a single stack."""
    rows: tuple[ModuleRow, ...]
    parameters: int
    """Number of parameters, tied weights counted once."""


def describe_network(network: AnyNetwork) -> NetworkTable:
    """Pass a dummy batch through ``network`` and note the output shapes of each module.

    Source and target differ in length, so that a shape tells which one it is of.
    """
    batch = 2
    source = min(11, network.max_source_positions)
    target = min(13, network.max_target_positions) if isinstance(network, Seq2Seq) else None
    shapes: dict[nn.Module, dict[tuple[int, ...], None]] = {}

    def note(module: nn.Module, _: object, output: object) -> None:
        outputs: Iterable[object] = output if isinstance(output, tuple) else (output,)
        tensors = (part.data if isinstance(part, PackedSequence) else part for part in outputs)  # tokens alone
        found = {tuple(part.shape): None for part in tensors if isinstance(part, Tensor)}
        shapes.setdefault(module, {}).update(found)

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    was_training = network.training
    try:
        with torch.inference_mode():
            network.eval()(*(dummy_tokens(network, batch, length) for length in (source, target) if length))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    counts = {name: parameter.numel() for name, parameter in network.named_parameters()}
    rows = tuple(
        ModuleRow(
            name=name, kind=type(module).__name__, outputs=tuple(shapes.get(module, ())),
            parameters=sum(count for parameter, count in counts.items() if parameter.startswith(f"{name}.")),
        )
        for name, module in network.named_modules() if name
    )  # fmt: skip
    return NetworkTable(batch=batch, source=source, target=target, rows=rows, parameters=sum(counts.values()))


def broken_weights(network: AnyNetwork) -> list[str]:
    """Return the names of weights that hold NaN or infinity, as a diverged training run leaves them."""
    return [name for name, weight in network.named_parameters() if not bool(weight.isfinite().all())]


def dummy_tokens(network: AnyNetwork | Generator, batch: int, length: int) -> Tensor:
    """Return dummy ids (batch, length) that are in both vocabularies, without padding."""
    config = network.config
    words = min(config.source_vocabulary, config.target_vocabulary)
    ids = torch.arange(batch * length, device=next(network.parameters()).device) % max(1, words - _FIRST_WORD)
    return (ids + min(_FIRST_WORD, words - 1)).view(batch, length)
