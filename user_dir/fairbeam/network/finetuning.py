"""Fine-tuning of pretrained networks: freezing, low-rank adaptation (LoRA), layer-wise learning rates."""

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
"""Name suffixes of the linear layers of attention."""
_LOW_RANK = ".low_rank."


@dataclass(frozen=True, kw_only=True)
class FinetuningOptions:
    """Parameters that fine-tuning trains, and their learning rates."""

    freeze: tuple[str, ...] = ()
    """Name prefixes of parameters to freeze, such as ``encoder`` or ``decoder.layers.0``."""
    lora_rank: int = 0
    """LoRA rank; 0 trains the weights themselves."""
    lora_alpha: float = 16.0
    """LoRA alpha: the low-rank updates are scaled by alpha / rank (Hu et al., 2022, section 4.1)."""
    lora_targets: tuple[str, ...] = ATTENTION
    """Name suffixes of linear layers that get a low-rank update."""
    keep_training: tuple[str, ...] = ()
    """Name prefixes of parameters that stay trainable where LoRA freezes the others."""
    layer_decay: float = 1.0
    """Factor of each layer's learning rate relative to the layer above it (discriminative fine-tuning, Howard and
    Ruder, 2018, section 3.2)."""

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
    """Add low-rank updates to the target layers, if ``lora_rank`` is above 0.

    Raises:
        ConfigError: a target names no layer.
    """
    if not options.lora_rank:
        return
    linears = {name: module for name, module in network.named_modules() if isinstance(module, Linear)}
    for target in options.lora_targets:
        targets = [module for name, module in linears.items() if f".{name}".endswith(f".{target}")]
        if not targets and target not in ATTENTION:  # decoder-only networks have no cross-attention
            raise ConfigError(f"--lora-targets {target}: no linear layer's name ends so")
        for linear in targets:
            linear.low_rank = LoRA(linear.inputs, linear.outputs, options.lora_rank, options.lora_alpha)


def merge_lora_(network: nn.Module) -> None:
    """Add every low-rank update to its weight and remove it."""
    for module in network.modules():
        if isinstance(module, Linear):
            module.merge_()


def freeze_(network: nn.Module, options: FinetuningOptions) -> None:
    """Freeze the parameters that the options name, and all but LoRA's if ``lora_rank`` is above 0.

    Raises:
        ConfigError: no parameter's name has a given prefix.
    """
    names = [name for name, _ in network.named_parameters()]
    for option, prefixes in (("--freeze", options.freeze), ("--keep-training", options.keep_training)):
        for prefix in prefixes:
            if not any(_has_prefix(name, prefix) for name in names):
                known = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
                raise ConfigError(f"{option} {prefix}: begins no parameter's name; the network has {known}")
    for name, parameter in network.named_parameters():
        trained = not options.lora_rank or _LOW_RANK in name or _has_any_prefix(name, options.keep_training)
        parameter.requires_grad_(trained and not _has_any_prefix(name, options.freeze))


def learning_rates(network: nn.Module, options: FinetuningOptions) -> dict[str, float]:
    """Return the factor of each parameter's learning rate, by name.

    The top layer of a stack and everything above it have factor 1; embeddings count as one layer below the lowest.
    """
    depths: dict[str, int] = {}
    for name, _ in network.named_parameters():
        stack, depth = _depth(name)
        depths[stack] = max(depths.get(stack, 0), depth)
    return {name: options.layer_decay ** _below_top(name, depths) for name, _ in network.named_parameters()}


def _below_top(name: str, depths: dict[str, int]) -> int:
    """Return how many layers below its stack's top layer a parameter is."""
    stack, depth = _depth(name)
    if depth:
        return depths[stack] - depth
    embedded = {"source_embedding": "encoder", "target_embedding": "decoder"}.get(stack)
    if stack == "embedding":
        embedded = next((known for known in ("encoder", "decoder") if known in depths), None)
    return 0 if embedded is None else depths.get(embedded, 0)


def _depth(name: str) -> tuple[str, int]:
    """Return a parameter's stack and its layer, from 1; 0 outside of layers."""
    match = re.match(r"(\w+)\.layers\.(\d+)\.", name)
    return (match[1], int(match[2]) + 1) if match else (name.split(".")[0], 0)


def _has_any_prefix(name: str, prefixes: Sequence[str]) -> bool:
    return any(_has_prefix(name, prefix) for prefix in prefixes)


def _has_prefix(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
