"""``--optimizer adam`` in one pass over the parameters on a CPU."""

import math
from collections import defaultdict
from typing import Any, Callable, Dict, List

import torch
from fairseq.optim.adam import Adam

from fairbeam_plugin.patches.patching import mend


def apply() -> None:
    """Put this page's mend in place."""
    mend(Adam, "step", step)


def step(stock: Callable, optimizer: Adam, closure: Any = None) -> Any:
    """The same update through torch's fused kernel.

    Stock makes ten passes over parameters and moments, which took a twentieth of a small model's training step.
    Anything but dense float32 parameters on a CPU without AMSGrad is left to it.
    """
    if not all(_is_fusable(group) for group in optimizer.param_groups):
        return stock(optimizer, closure)
    loss = None if closure is None else closure()
    for group in optimizer.param_groups:
        by_step: Dict[int, List[torch.Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_step[_advance(optimizer.state[parameter], parameter)].append(parameter)
        for number, parameters in by_step.items():
            _update(parameters, [optimizer.state[parameter] for parameter in parameters], number, group)
    return loss


def _is_fusable(group: Dict[str, Any]) -> bool:
    tensors = [tensor for parameter in group["params"] for tensor in (parameter, parameter.grad) if tensor is not None]
    return not group.get("amsgrad") and all(
        tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.layout == torch.strided
        for tensor in tensors
    )


def _advance(state: Dict[str, Any], parameter: torch.Tensor) -> int:
    """Count the step, under the names that stock gives the state, so that checkpoints mean the same."""
    if not state:
        state["step"] = 0
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    for name in ("exp_avg", "exp_avg_sq"):
        state[name] = state[name].to(parameter)
    state["step"] += 1
    return int(state["step"])


def _update(parameters: List[torch.Tensor], states: List[Dict[str, Any]], number: int, group: Dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    with torch.no_grad():
        torch._fused_adamw_(
            parameters,
            [parameter.grad for parameter in parameters],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [torch.tensor(float(number)) for _ in parameters],
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"] / math.sqrt(1 - beta2**number),  # stock adds it before the bias is corrected
            amsgrad=False,
            maximize=False,
        )
