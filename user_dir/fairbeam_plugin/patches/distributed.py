"""``torchrun … fairseq-train`` on machines without a GPU, over gloo."""

import os
from typing import Any, Callable, List, Optional

import torch
import torch.distributed as dist
from fairseq import utils
from fairseq.distributed import utils as distributed_utils
from fairseq.models import distributed_fairseq_model
from omegaconf import open_dict

from fairbeam_plugin.patches.patching import mend


def apply() -> None:
    """Put this page's mends in place."""
    mend(distributed_utils, "infer_init_method", infer_init_method)
    mend(distributed_utils, "all_gather_list", all_gather_list)
    mend(distributed_utils, "_broadcast_object_slow", broadcast_object)
    mend(distributed_fairseq_model, "DistributedDataParallel", data_parallel)


def infer_init_method(stock: Callable, cfg: Any, force_distributed: bool = False) -> None:
    """Join the group that torchrun describes.

    Without a GPU, stock counts a world of one: each process trains alone, on all the data, and all of them
    write the same checkpoints. Told the world's size, it divides by the number of GPUs, which is zero.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    joined = cfg.distributed_init_method is not None or "RANK" not in os.environ
    if joined or world_size == 1 or torch.cuda.is_available():
        return stock(cfg, force_distributed)
    with open_dict(cfg):
        cfg.distributed_init_method = "env://"
        cfg.distributed_world_size = world_size
        cfg.distributed_rank = int(os.environ["RANK"])
        cfg.distributed_backend = "gloo"
        cfg.distributed_no_spawn = True
        cfg.device_id = 0


def all_gather_list(stock: Callable, data: Any, group: Any = None, max_size: int = 16384) -> List[Any]:
    """Gather objects over gloo; stock's buffers are on a GPU."""
    if torch.cuda.is_available():
        return stock(data, group, max_size)
    group = distributed_utils.get_global_group() if group is None else group
    gathered: List[Any] = [None] * distributed_utils.get_world_size(group)
    dist.all_gather_object(gathered, utils.move_to_cpu(data), group=group)
    return gathered


def broadcast_object(stock: Callable, obj: Any, src_rank: int, group: Any, dist_device: torch.device) -> Any:
    """Send a checkpoint's state from the rank that read it; stock's bare ``torch.load`` refuses its classes.

    What arrives was sent by this run's own processes.
    """
    box: List[Optional[Any]] = [obj]
    dist.broadcast_object_list(box, src=src_rank, group=group, device=dist_device)
    return box[0]


def data_parallel(stock: Callable, module: torch.nn.Module, **options: Any) -> Any:
    """Wrap a model that is on the CPU; stock names a GPU for it to run on."""
    if next(module.parameters()).device.type == "cpu":
        options.update(device_ids=None, output_device=None)
    return stock(module, **options)
