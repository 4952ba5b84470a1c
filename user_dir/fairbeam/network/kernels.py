"""Attention of a decoding step in one pass over the cache, compiled by numba where it is installed.

The products of a step are tiny: five queries, a dozen keys. A matrix library spends longer on the call than on the
arithmetic, and attention over *slots*, which all beams of a sentence share, computes the scores of every beam's
history for every other beam and throws most of them away. These loops read what a beam's own history holds, and
nothing else. Without numba the network computes the same with torch's operations.
"""

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairbeam.network.cache import KeyValues, Projected, Slots

_FAST = {"reassoc", "contract", "arcp", "nsz"}
"""Sums in any order; infinities, which masks hold, stay what they are."""


logger = logging.getLogger(__name__)


@functools.cache
def available() -> bool:
    """Whether there is a numba that works with what else is installed."""
    try:
        importlib.import_module("numba")
    except ModuleNotFoundError:
        return False
    except ImportError as error:  # it checks numpy's version, for one
        logger.warning("numba cannot be used, so decoding is slower: %s", error)
        return False
    return True


def prepare() -> None:
    """Compile, or read what an earlier process compiled: before a process forks, so that each does not do it again."""
    _to_slots()
    _to_source()


def attend_to_slots(projected: Tensor, cache: KeyValues, slots: Slots, *, heads: int, scale: float) -> Tensor:
    """Attention of one step's beams, each over its own history.

    Args:
        projected: (batch, beams, 3 * heads * head_dim): queries, keys and values of the latest tokens.
        cache: the keys and values before; these are added.
        slots: the cache's slots of each beam's history, the latest token's included.
        scale: multiplies the scores.

    Returns:
        (batch, beams, heads * head_dim) float32.
    """
    projected = projected.float().contiguous()
    start = cache.reserve(projected.size(1))
    context = projected.new_empty(*projected.shape[:2], projected.size(2) // 3)
    places = slots.numbers.numpy(), slots.rows.numpy()
    _to_slots()(projected.numpy(), cache.storage.numpy(), *places, start, heads, scale, context.numpy())
    return context


def attend_to_source(query: Tensor, memory: Projected, mask: Tensor | None, *, heads: int, scale: float) -> Tensor:
    """Attention over the encoded source.

    Args:
        query: (batch, queries, heads * head_dim).
        memory: float32 keys and values, and which rows of them the batch's sentences are.
        mask: added to the scores, (sentences * heads, 1, source) like keys and values.
        scale: multiplies them.

    Returns:
        (batch, queries, heads * head_dim) float32.
    """
    assert memory.rows is not None
    query = query.float().contiguous()
    context = torch.empty_like(query)
    added = query.new_empty(0, 0) if mask is None else mask[:, 0].contiguous()
    kept = memory.keys.numpy(), memory.values.numpy(), added.numpy(), memory.rows.numpy()
    _to_source()(query.numpy(), *kept, heads, scale, context.numpy())
    return context


def compiled(signature: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A compiler that keeps what it makes for the next process, if there is a place to keep it."""

    def compiler(function: Callable[..., None]) -> Callable[..., None]:
        numba: Any = importlib.import_module("numba")
        options = {"fastmath": _FAST, "nogil": True, "error_model": "numpy"}
        made: Callable[..., None]
        try:
            made = numba.njit(signature, cache=True, **options)(function)
        except (OSError, RuntimeError):  # no folder that can be written, or a full disk
            made = numba.njit(signature, **options)(function)
        return made

    return compiler


@functools.cache
def _to_slots() -> Callable[..., None]:
    @compiled("void(f4[:,:,::1], f4[:,:,:,:,::1], i4[:,:,::1], i8[::1], i8, i8, f4, f4[:,:,::1])")
    def compute(projected, storage, slots, rows, start, heads, scale, context):  # type: ignore[no-untyped-def]
        batch, beams, _ = projected.shape
        steps, width = slots.shape[2], storage.shape[4]
        weights = np.empty(steps, np.float32)
        for sentence in range(batch):
            begin = 0  # a sentence that joined the others has no slots for the steps before
            while slots[sentence, 0, begin] < 0:
                begin += 1
            for head in range(heads):
                keys, values = storage[0, rows[sentence], head], storage[1, rows[sentence], head]
                first = head * width
                for beam in range(beams):
                    for i in range(width):
                        keys[start + beam, i] = projected[sentence, beam, heads * width + first + i]
                        values[start + beam, i] = projected[sentence, beam, 2 * heads * width + first + i]
                for beam in range(beams):
                    query = projected[sentence, beam, first : first + width]
                    highest = np.float32(-np.inf)
                    for step in range(begin, steps):
                        key = keys[slots[sentence, beam, step]]
                        score = np.float32(0)
                        for i in range(width):
                            score += query[i] * key[i]
                        score *= scale
                        weights[step] = score
                        highest = max(highest, score)
                    total = np.float32(0)
                    for step in range(begin, steps):
                        weights[step] = np.exp(weights[step] - highest)
                        total += weights[step]
                    mean = context[sentence, beam, first : first + width]
                    for i in range(width):
                        mean[i] = 0
                    for step in range(begin, steps):
                        weight = weights[step] / total
                        value = values[slots[sentence, beam, step]]
                        for i in range(width):
                            mean[i] += weight * value[i]

    return compute


@functools.cache
def _to_source() -> Callable[..., None]:
    @compiled("void(f4[:,:,::1], f4[:,:,::1], f4[:,:,::1], f4[:,::1], i8[::1], i8, f4, f4[:,:,::1])")
    def compute(projected, keys, values, mask, rows, heads, scale, context):  # type: ignore[no-untyped-def]
        batch, queries, _ = projected.shape
        length, width = keys.shape[1:]
        masked = mask.shape[0] > 0
        weights = np.empty(length, np.float32)
        for sentence in range(batch):
            for head in range(heads):
                row, first = rows[sentence] * heads + head, head * width
                for number in range(queries):
                    query = projected[sentence, number, first : first + width]
                    highest = np.float32(-np.inf)
                    for place in range(length):
                        score = np.float32(0)
                        for i in range(width):
                            score += query[i] * keys[row, place, i]
                        score *= scale
                        if masked:
                            score += mask[row, place]
                        weights[place] = score
                        highest = max(highest, score)
                    total = np.float32(0)
                    for place in range(length):
                        weights[place] = np.exp(weights[place] - highest)
                        total += weights[place]
                    mean = context[sentence, number, first : first + width]
                    for i in range(width):
                        mean[i] = 0
                    for place in range(length):
                        weight = weights[place] / total
                        for i in range(width):
                            mean[i] += weight * values[row, place, i]

    return compute
