"""Learning rates that differ between parameters, for every optimizer."""

from collections import defaultdict
from typing import Any, Callable, Dict, List

from fairseq import optim
from fairseq.optim import FairseqOptimizer

from fairbeam_plugin.patches.patching import mend


def apply() -> None:
    """Put this page's mends in place."""
    mend(optim, "build_optimizer", build_optimizer)
    mend(FairseqOptimizer, "set_lr", set_lr)


def build_optimizer(stock: Callable, *args: Any, **options: Any) -> Any:
    """Group parameters by their ``lr_scale``, where a model has given them any.

    Stock takes groups apart before it hands them to the optimizer, so all parameters learn at one rate.
    """
    optimizer = stock(*args, **options)
    inner = optimizer.optimizer
    scales = {getattr(parameter, "lr_scale", 1.0) for group in inner.param_groups for parameter in group["params"]}
    if scales - {1.0}:
        inner.param_groups[:] = [part for group in inner.param_groups for part in _by_scale(group)]
    return optimizer


def set_lr(stock: Callable, optimizer: FairseqOptimizer, lr: float) -> None:
    """Multiply the rate of each group by its own factor; stock sets one rate for all."""
    stock(optimizer, lr)
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def _by_scale(group: Dict[str, Any]) -> List[Dict[str, Any]]:
    parts: Dict[float, List[Any]] = defaultdict(list)
    for parameter in group["params"]:
        parts[getattr(parameter, "lr_scale", 1.0)].append(parameter)
    # The fastest first: what fairseq logs is the first group's rate.
    return [{**group, "params": parts[scale], "lr_scale": scale} for scale in sorted(parts, reverse=True)]
