"""What of a pretrained network is trained, and how fast: freezing, low-rank adaptation, layer-wise learning rates."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from fairbeam.errors import ConfigError
from fairbeam.network.linear import Linear, LoRA

ATTENTION = (
    "self_attention.qkv", "self_attention.output", "cross_attention.query", "cross_attention.key_value",
    "cross_attention.output",
)  # fmt: skip
"""Ends of the names of the linear layers of attention."""
_LOW_RANK = ".low_rank."


@dataclass(frozen=True, kw_only=True)
class FinetuningOptions:
    """What fine-tuning changes."""

    freeze: tuple[str, ...] = ()
    """Beginnings of the names of parameters that stay as they are, such as ``encoder`` or ``decoder.layers.0``."""
    lora_rank: int = 0
    """Rank of the changes of frozen weights; 0 trains the weights themselves."""
    lora_alpha: float = 16.0
    """The changes are multiplied by this over the rank (Hu et al., 2022, section 4.1)."""
    lora_targets: tuple[str, ...] = ATTENTION
    """Ends of the names of linear layers that change."""
    keep_training: tuple[str, ...] = ()
    """Beginnings of the names of parameters that are trained all the same where ``lora_rank`` freezes the rest."""
    layer_decay: float = 1.0
    """Each layer learns this much slower than the one above it (Howard and Ruder, 2018, section 3.2)."""

    def __post_init__(self) -> None:
        if self.lora_rank < 0:
            raise ConfigError(f"--lora-rank {self.lora_rank}: must be at least 0")
        if self.lora_rank and self.lora_alpha <= 0:
            raise ConfigError(f"--lora-alpha {self.lora_alpha}: must be greater than 0")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"--layer-decay {self.layer_decay}: must be above 0 and at most 1")
        if self.keep_training and not self.lora_rank:
            raise ConfigError("--keep-training makes sense only with --lora-rank, which freezes everything else")


def add_lora_(network: nn.Module, options: FinetuningOptions) -> None:
    """Give the target layers a low-rank change, where the options ask for one.

    Raises:
        ConfigError: a target names no layer.
    """
    if not options.lora_rank:
        return
    linears = {name: module for name, module in network.named_modules() if isinstance(module, Linear)}
    for target in options.lora_targets:
        found = [module for name, module in linears.items() if f".{name}".endswith(f".{target}")]
        if not found and target not in ATTENTION:  # a decoder alone has no cross-attention
            raise ConfigError(f"--lora-targets {target}: no linear layer's name ends so")
        for linear in found:
            linear.low_rank = LoRA(linear.inputs, linear.outputs, options.lora_rank, options.lora_alpha)


def merge_lora_(network: nn.Module) -> None:
    """Make every low-rank change part of its weight."""
    for module in network.modules():
        if isinstance(module, Linear):
            module.merge_()


def freeze_(network: nn.Module, options: FinetuningOptions) -> None:
    """Stop the training of what the options freeze.

    Raises:
        ConfigError: a name begins no parameter's.
    """
    names = [name for name, _ in network.named_parameters()]
    for option, beginnings in (("--freeze", options.freeze), ("--keep-training", options.keep_training)):
        for beginning in beginnings:
            if not any(_begins(name, beginning) for name in names):
                known = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
                raise ConfigError(f"{option} {beginning}: begins no parameter's name; the network has {known}")
    for name, parameter in network.named_parameters():
        kept = not options.lora_rank or _LOW_RANK in name or _any_begins(name, options.keep_training)
        parameter.requires_grad_(kept and not _any_begins(name, options.freeze))


def learning_rates(network: nn.Module, options: FinetuningOptions) -> dict[str, float]:
    """What the learning rate of each parameter is multiplied by.

    The top layer of a stack learns at the full rate, as does what stands above it; embeddings are below the lowest.
    """
    depths: dict[str, int] = {}
    for name, _ in network.named_parameters():
        stack, depth = _depth(name)
        depths[stack] = max(depths.get(stack, 0), depth)
    return {name: options.layer_decay ** _below_top(name, depths) for name, _ in network.named_parameters()}


def _below_top(name: str, depths: dict[str, int]) -> int:
    stack, depth = _depth(name)
    if depth:
        return depths[stack] - depth
    embedded = {"source_embedding": "encoder", "target_embedding": "decoder"}.get(stack)
    if stack == "embedding":
        embedded = next((known for known in ("encoder", "decoder") if known in depths), None)
    return 0 if embedded is None else depths.get(embedded, 0)


def _depth(name: str) -> tuple[str, int]:
    """A parameter's stack and its layer, from 1; 0 outside of layers."""
    match = re.match(r"(\w+)\.layers\.(\d+)\.", name)
    return (match[1], int(match[2]) + 1) if match else (name.split(".")[0], 0)


def _any_begins(name: str, beginnings: Sequence[str]) -> bool:
    return any(_begins(name, beginning) for beginning in beginnings)


def _begins(name: str, beginning: str) -> bool:
    return name == beginning or name.startswith(f"{beginning}.")
