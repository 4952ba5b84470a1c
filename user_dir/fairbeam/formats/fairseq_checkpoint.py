"""fairseq checkpoints, read without fairseq and without running code that is in them.

A checkpoint is a pickle, and unpickling can call any function. ``load`` lets only plain data through:
tensors, numbers, strings, containers, and the few classes that fairseq's own checkpoints hold. Anything else
is refused by name; ``FAIRBEAM_TRUST_CHECKPOINTS=1`` in the environment is the explicit way round.
"""

import argparse
import collections
import enum
import os
import pickle
import re
import threading
import typing
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairbeam.errors import CheckpointError
from fairbeam.files import atomic_write

TRUST_VARIABLE = "FAIRBEAM_TRUST_CHECKPOINTS"

_OPTIMIZER_STATE = "last_optimizer_state"
_ZIP_MAGIC = b"PK\x03\x04"
_REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+) (?:was not|whose module)|unrecognized function (.+)|but got (<class.+>)")
# torch keeps one process-wide allow-list, so two threads must not open and close it at the same time.
_allow_list_lock = threading.RLock()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model of a fairseq checkpoint, as plain data.

    Attributes:
        model: parameter name to tensor, on the CPU, in the checkpoint's own dtype.
        config: the model's options, flat (``encoder_layers``, ``dropout``, …).
        architecture: the name the model was registered under, e.g. ``transformer_iwslt_de_en``.
        task: the task's options; ``_name`` is the task.
        num_updates: optimizer updates done when it was written.
        extra: every other entry of the file, less the optimizer's state.
    """

    model: dict[str, Tensor]
    config: dict[str, Any]
    architecture: str
    task: dict[str, Any]
    num_updates: int
    extra: dict[str, Any]


def trusted() -> bool:
    """Return whether the user vouches for every checkpoint that this process reads."""
    return os.environ.get(TRUST_VARIABLE, "") not in ("", "0")


def read(path: str | Path) -> Checkpoint:
    """Read a fairseq checkpoint: current ones (``cfg``) and those from before Hydra (``args``).

    Raises:
        CheckpointError: the file is missing, truncated, not a checkpoint, or holds more than plain data.
    """
    path = Path(path)
    state = load(path, mmap=True)
    config, task = _options(state, path)
    architecture = config.get("_name") or config.get("arch")
    if not isinstance(architecture, str):
        raise CheckpointError(f"{path}: names no architecture; expected _name or arch among its options")
    rest = {"model", "cfg", "args", _OPTIMIZER_STATE}
    return Checkpoint(
        model=_owned_tensors(parameters(state, path)),
        config=config,
        architecture=architecture,
        task=task,
        num_updates=_num_updates(state),
        extra={key: value for key, value in state.items() if key not in rest},
    )


def load(path: str | Path, *, mmap: bool = False) -> dict[str, Any]:
    """Return the raw dictionary of a checkpoint, on the CPU.

    Args:
        path: a file that ``torch.save`` wrote, in its zip format or the one before it.
        mmap: map tensors into memory and read them when first used. A caller that keeps them must copy them: the
            file may be overwritten later.

    Raises:
        CheckpointError: as for `read`.
    """
    path = Path(path)
    with safe_reading(path):
        is_zip = _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=not trusted(), mmap=mmap and is_zip)
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}; expected fairseq's dictionary")
    return state


@contextmanager
def safe_reading(path: str | Path) -> Iterator[None]:
    """Admit the classes of fairseq's checkpoints to ``torch.load``; its failures become `CheckpointError`."""
    allowed = torch.serialization.safe_globals(list(_allowed_globals()))
    with _allow_list_lock, allowed, warnings.catch_warnings():
        # A checkpoint written with a newer pickle protocol is read just as well.
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        try:
            yield
        except CheckpointError:
            raise
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
        except pickle.UnpicklingError as error:
            raise CheckpointError(_refusal(path, str(error))) from None
        # A damaged or hostile pickle fails in whatever way its instructions lead to.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise CheckpointError(f"{path}: not a checkpoint, or truncated ({reason[:200]})") from None


def write(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that ``path`` is at every moment the old file or the whole new one.

    Raises:
        InputError: the disk is full or the folder cannot be written; the old file is untouched.
    """
    with atomic_write(path, "wb") as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:  # torch's report of a short write
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def average(paths: Sequence[str | Path]) -> dict[str, Any]:
    """Return the checkpoint whose parameters are the mean of those in ``paths``.

    Sums are float32 (float64 where the parameters are); each mean is rounded once, to the dtype of the first
    checkpoint. Integer buffers, options and everything else come from the first. The optimizer's state is
    left out: it does not belong to the averaged weights.

    Raises:
        CheckpointError: no paths, or checkpoints whose parameters differ in name or shape (both are named).
    """
    if not paths:
        raise CheckpointError("no checkpoints to average")
    first, *others = (Path(path) for path in paths)
    state = load(first, mmap=True)
    reference = parameters(state, first)
    total = {name: _accumulator(tensor) for name, tensor in reference.items()}
    for path in others:
        added = parameters(load(path, mmap=True), path)
        _check_same_parameters(reference, first, added, path)
        for name, tensor in added.items():
            if tensor.is_floating_point():
                total[name] += tensor
    mean = {
        name: (total[name] / len(paths) if tensor.is_floating_point() else total[name]).to(tensor.dtype)
        for name, tensor in reference.items()
    }
    return {**{key: value for key, value in state.items() if key != _OPTIMIZER_STATE}, "model": mean}


def parameters(state: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Return the ``model`` entry of a checkpoint's dictionary, checked to hold names and dense tensors.

    Raises:
        CheckpointError: it is missing, or an entry is something else, or claims more elements than it stores.
    """
    model = state.get("model")
    if not isinstance(model, dict) or not model:
        raise CheckpointError(f"{path}: has no model parameters (keys: {', '.join(map(repr, state))[:200]})")
    for name, tensor in model.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout is torch.strided):
            kind = type(tensor).__name__
            raise CheckpointError(f"{path}: model entry {name!r} is a {kind}; expected a dense tensor")
        # A view with zero strides could ask for terabytes when it is copied.
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            shape = tuple(tensor.shape)
            raise CheckpointError(f"{path}: {name!r} has shape {shape}, more than the file stores for it")
    return model


def plain(value: Any) -> Any:
    """Return ``value`` as nested dictionaries, lists, strings, numbers, booleans and None.

    Namespaces and omegaconf nodes become dictionaries and lists, sets and tuples lists, enums their names; an
    omegaconf interpolation stays the string it is.

    Raises:
        ValueError: it holds something else, a key that is not a string, or itself.
    """
    return _plain(value, {})


_UNFINISHED: Any = object()


def _plain(value: Any, done: dict[int, Any]) -> Any:
    # `done` keeps shared values shared: a small pickle can repeat a list within itself exponentially often.
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) not in done:
        done[id(value)] = _UNFINISHED
        done[id(value)] = _plain_container(value, done)
    elif done[id(value)] is _UNFINISHED:
        raise ValueError("an option contains itself")
    return done[id(value)]


def _plain_container(value: Any, done: dict[int, Any]) -> Any:
    if type(value).__module__.partition(".")[0] == "omegaconf":
        from omegaconf import OmegaConf

        return plain(OmegaConf.to_container(value, resolve=False, enum_to_str=True))
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"an option's name is {key!r}; expected a string")
        return {key: _plain(item, done) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, done) for item in value]
    raise ValueError(f"an option is a {type(value).__name__}; expected plain data")


def _options(state: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model's and the task's options of a current or an old checkpoint."""
    try:
        cfg, args = plain(state.get("cfg")), plain(state.get("args"))
    except Exception as error:  # a hostile configuration fails in ways that only its author knows
        raise CheckpointError(f"{path}: its configuration cannot be used: {error}") from None
    if isinstance(cfg, dict):
        model, task = cfg.get("model"), cfg.get("task")
    else:
        model, task = args, args
    if not isinstance(model, dict):
        raise CheckpointError(f"{path}: has neither cfg nor args with the model's options")
    task = dict(task) if isinstance(task, dict) else {}
    if "_name" not in task or not isinstance(cfg, dict):
        task["_name"] = task.get("task")
    return model, task


def _num_updates(state: Mapping[str, Any]) -> int:
    history = state.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else None
    updates = last.get("num_updates", 0) if isinstance(last, dict) else 0
    return updates if isinstance(updates, int) else 0


def _owned_tensors(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies that do not depend on the mapped file; tied tensors stay one."""
    copies: dict[Any, Tensor] = {}
    owned = {}
    for name, tensor in model.items():
        key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if key not in copies:
            copies[key] = tensor.clone()
        owned[name] = copies[key]
    return owned


def _accumulator(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.clone()
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)


def _check_same_parameters(
    reference: Mapping[str, Tensor], first: Path, other: Mapping[str, Tensor], path: Path
) -> None:
    if odd := sorted(reference.keys() ^ other.keys()):
        owner = first if odd[0] in reference else path
        raise CheckpointError(
            f"{first} and {path} hold different parameters: {odd[0]!r} is only in {owner} ({len(odd)} such)"
        )
    for name, tensor in reference.items():
        if tensor.shape != other[name].shape:
            shapes = tuple(tensor.shape), tuple(other[name].shape)
            raise CheckpointError(f"{name!r} has shape {shapes[0]} in {first} but {shapes[1]} in {path}")


def _check_archive(path: Path) -> bool:
    """Return whether the file is a zip archive; if so, check that it cannot unpack to more than its own size.

    ``torch.save`` stores members uncompressed. A compressed member, or members that overlap, would let a
    small file fill the memory.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        if stream.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            return False
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise CheckpointError(f"{path}: its member {member.filename!r} is compressed; expected stored")
    if (total := sum(member.file_size for member in members)) > size:
        raise CheckpointError(f"{path}: its members claim {total:,} bytes, more than the file's {size:,}")
    return True


def _refusal(path: str | Path, message: str) -> str:
    found = _REFUSED_GLOBAL.search(message)
    if found is None:
        return f"{path}: not a checkpoint, or damaged"
    name = next(group for group in found.groups() if group)
    return (
        f"{path}: refused, because reading it would call {name}, which no fairseq checkpoint needs. "
        f"If you trust whoever made the file, set {TRUST_VARIABLE}=1 to read it anyway"
    )


@cache
def _allowed_globals() -> tuple[Callable | tuple[Callable, str], ...]:
    """Return the classes and functions beyond tensors and plain containers that fairseq's own checkpoints need."""
    return (
        argparse.Namespace,  # options of architectures and tasks that have no dataclass
        *_numpy_globals(),  # BLEU statistics in the meters of `--eval-bleu`
        *_omegaconf_globals(),
    )


def _numpy_globals() -> Iterator[Callable | tuple[Callable, str]]:
    yield np.ndarray
    yield np.dtype
    number_types = "?bhilqBHILQefdg"
    yield from {type(np.dtype(code)) for code in number_types}
    # Their home moved in numpy 2; a checkpoint names the one of the numpy that wrote it.
    rebuilders: tuple[Any, ...] = (np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0])
    for function in rebuilders:
        for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            yield function, f"{module}.{function.__name__}"


def _omegaconf_globals() -> Iterator[Any]:
    """Yield the classes of omegaconf's nodes, which some early releases of fairseq saved a configuration as."""
    try:
        from omegaconf import DictConfig, ListConfig, base, nodes
    except ImportError:
        return
    yield from (DictConfig, ListConfig, base.ContainerMetadata, base.Metadata)
    yield from (nodes.AnyNode, nodes.StringNode, nodes.IntegerNode, nodes.FloatNode, nodes.BooleanNode)
    yield collections.defaultdict
    yield from (dict, list, int, float, bool, str)  # the types that those nodes name
    yield typing.Any, "typing.Any"
