"""Checkpoints are read safely and written whole or not at all."""

import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from fairseq import checkpoint_utils
from fairseq.dataclass.utils import overwrite_args_by_name
from fairseq.file_io import PathManager
from fairseq.trainer import Trainer
from omegaconf import OmegaConf

from fairbeam.errors import CheckpointError
from fairbeam.files import atomic_write
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam_plugin.patches.patching import mend


def apply() -> None:
    """Put this page's mends in place."""
    mend(checkpoint_utils, "load_checkpoint_to_cpu", load_checkpoint_to_cpu)
    mend(checkpoint_utils, "load_ema_from_checkpoint", load_ema_from_checkpoint)
    mend(checkpoint_utils, "torch_persistent_save", torch_persistent_save)
    mend(PathManager, "copy", copy)
    mend(Trainer, "load_checkpoint", load_checkpoint)


def load_checkpoint_to_cpu(
    stock: Callable,
    path: str,
    arg_overrides: Optional[Dict[str, Any]] = None,
    load_on_all_ranks: bool = False,
) -> Dict[str, Any]:
    """Read through the engine's allow-list, then bring the configuration up to date as stock does.

    Stock calls ``torch.load`` bare. Since torch 2.6 that refuses `argparse.Namespace`, which every stock
    checkpoint holds; before, it ran whatever the file said.
    """
    if PathManager.path_requires_pathmanager(path):  # remote storage: stock keeps a local copy of its own
        with checkpoint.safe_reading(path):
            return stock(path, arg_overrides, load_on_all_ranks)
    state = checkpoint.load(path)
    for name, value in (arg_overrides or {}).items():
        if state.get("args") is not None:
            setattr(state["args"], name, value)
    if state.get("cfg") is not None:
        # Architectures without a dataclass keep their options as a Namespace inside the configuration.
        state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})
        overwrite_args_by_name(state["cfg"], arg_overrides or {})
    try:
        return checkpoint_utils._upgrade_state_dict(state)
    except KeyError as error:
        raise CheckpointError(f"{path}: lacks {error}; expected what fairseq-train writes") from None


def load_ema_from_checkpoint(stock: Callable, fpath: str) -> Dict[str, Any]:
    """The same allow-list for averaged weights; stock's ``torch.load`` fails on them in the same way."""
    with checkpoint.safe_reading(fpath):
        return stock(fpath)


def torch_persistent_save(stock: Callable, obj: Any, filename: Any, async_write: bool = False) -> None:
    """Write to a temporary file, flush it to the disk, rename it.

    Stock renames without ``fsync``, leaves its ``.tmp`` behind when the disk is full, and tries three times.
    """
    if async_write or not isinstance(filename, str) or PathManager.path_requires_pathmanager(filename):
        return stock(obj, filename, async_write)
    return checkpoint.write(filename, obj)


def copy(stock: Callable, src_path: str, dst_path: str, overwrite: bool = False) -> Any:
    """Copy to a temporary file, flush it to the disk, rename it.

    Stock writes one name of a checkpoint and copies it over the others in place, ``checkpoint_last.pt`` among
    them: a kill during the copy leaves half a file under the one name that a restart reads.
    """
    if any(PathManager.path_requires_pathmanager(path) for path in (src_path, dst_path)):
        return stock(src_path, dst_path, overwrite)
    with open(src_path, "rb") as source, atomic_write(dst_path, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    return dst_path


def load_checkpoint(stock: Callable, trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
    """Remove the temporary files that a killed run left in the folder before resuming in it."""
    if trainer.data_parallel_rank == 0:
        for stray in Path(trainer.cfg.checkpoint.save_dir).glob(".checkpoint*.pt.*.tmp"):
            stray.unlink(missing_ok=True)
    return stock(trainer, *args, **kwargs)
