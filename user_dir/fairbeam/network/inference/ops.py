"""Attention, norms and the search for candidates of a decoding step, each in one compiled pass.

The products of a step are tiny: five queries, a dozen keys. A matrix library spends longer on the call than on the
arithmetic, and attention over *slots*, which all beams of a sentence share, computes the scores of every beam's
history for every other beam and throws most of them away. The loops of ``native`` read what a beam's own history
holds, and nothing else. Without them the network computes the same with torch's operations.
"""

import torch
from torch import Tensor

from fairbeam.network.cache import BeamSlots, CrossKeyValues, KeyValues
from fairbeam.network.inference import native


def attend_to_slots(projected: Tensor, cache: KeyValues, slots: BeamSlots, *, heads: int, scale: float) -> Tensor:
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
    numbers = slots.table.contiguous()
    batch, beams, width = projected.shape
    start = 0 if slots.starts is not None else cache.reserve(beams)
    context = projected.new_empty(batch, beams, width // 3)
    _, sentences, _, capacity, head_dim = cache.storage.shape
    native.function("attend_to_slots")(
        projected.data_ptr(), cache.storage.data_ptr(), numbers.data_ptr(), slots.rows.data_ptr(),
        None if slots.starts is None else slots.starts.data_ptr(), context.data_ptr(),
        batch, beams, heads, head_dim, sentences, capacity, numbers.size(2), start, scale,
    )  # fmt: skip
    return context


def attend_to_source(query: Tensor, memory: CrossKeyValues, mask: Tensor | None, *, heads: int, scale: float) -> Tensor:
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
    batch, queries, width = query.shape
    length, head_dim = memory.keys.shape[1:]
    native.function("attend")(
        query.data_ptr(), memory.keys.data_ptr(), memory.values.data_ptr(), None if mask is None else mask.data_ptr(),
        memory.rows.data_ptr(), context.data_ptr(), batch, queries, heads, head_dim, length,
        width, heads * length * head_dim, length * head_dim, head_dim, heads * length, scale,
    )  # fmt: skip
    return context


def add_norm(x: Tensor, block: Tensor | None, gain: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
    """Layer normalisation of ``x + block``, or of ``x``; both float32 (..., dim)."""
    out = torch.empty_like(x)
    native.function("add_norm")(
        x.data_ptr(), None if block is None else block.data_ptr(),
        gain.data_ptr(), None if bias is None else bias.data_ptr(), out.data_ptr(),
        x.numel() // x.size(-1), x.size(-1), epsilon,
    )  # fmt: skip
    return out


def renormalised(log_probabilities: Tensor, changes: Tensor, beams: Tensor, tokens: Tensor) -> Tensor:
    """What to add to a few log probabilities whose logits change.

    Args:
        log_probabilities: (batch, beams, vocabulary).
        changes: (batch, count) float32, of the logits.
        beams, tokens: (batch, count) long: whose logits they are. The others are taken not to change.
    """
    if native.serves(log_probabilities, changes):
        added, beams, tokens = torch.empty_like(changes), beams.contiguous(), tokens.contiguous()
        native.function("renormalise")(
            log_probabilities.data_ptr(), changes.data_ptr(), beams.data_ptr(), tokens.data_ptr(), added.data_ptr(),
            *log_probabilities.shape, beams.size(1),
        )  # fmt: skip
        return added
    known = log_probabilities[torch.arange(len(beams), device=beams.device).unsqueeze(1), beams, tokens]
    more = known.new_zeros(log_probabilities.shape[:2])
    more.scatter_add_(1, beams, known.exp() * changes.expm1())
    return changes - more.log1p().gather(1, beams)


def log_softmax_(scores: Tensor) -> Tensor:
    """Log-softmax over the last dimension, in place; float32."""
    native.function("log_softmax")(scores.data_ptr(), scores.numel() // scores.size(-1), scores.size(-1))
    return scores


def topk_of_sums(rows: Tensor, added: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` highest of all numbers of a batch's rows, each with its row's ``added``, highest first.

    Args:
        rows: (batch, rows, length) float32, of ``count`` numbers at least.
        added: (batch, rows).

    Returns:
        Sums and their places in (rows * length), each (batch, count).
    """
    batch, beams, length = rows.shape
    added = added.contiguous()
    sums, places = rows.new_empty(batch, count), added.new_empty(batch, count, dtype=torch.long)
    native.function("topk_of_sums")(
        rows.data_ptr(), added.data_ptr(), sums.data_ptr(), places.data_ptr(), batch, beams, length, count
    )
    return sums, places


def ended(totals: Tensor, tokens: Tensor, ignored: Tensor, eos: int) -> Tensor:
    """Which candidates, (batch, width) float32 and long, end their hypothesis; ``ignored`` (batch, beams) bool."""
    ends = torch.empty_like(tokens, dtype=torch.bool)
    native.function("ended")(
        totals.data_ptr(), tokens.data_ptr(), ignored.data_ptr(), ends.data_ptr(), *ignored.shape, tokens.size(1), eos
    )
    return ends


def survivors(ends: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor]:
    """The first ``beams`` candidates that do not end, and the places left empty; see ``beam.survivors``."""
    chosen, empty = torch.empty_like(ignored, dtype=torch.long), torch.empty_like(ignored)
    native.function("survivors")(
        ends.data_ptr(), ignored.data_ptr(), chosen.data_ptr(), empty.data_ptr(), *ignored.shape, ends.size(1)
    )
    return chosen, empty


def extend_(tokens: Tensor, history: Tensor, parents: Tensor, added: Tensor, totals: Tensor, filled: int) -> None:
    """Every hypothesis becomes its parent with one token more, in place.

    Args:
        tokens: (batch, beams, capacity) long, of which ``filled`` are there.
        history: (batch, beams, room) float32, of which one fewer is.
        parents, added, totals: (batch, beams) long, long and float32.
    """
    batch, beams, capacity = tokens.shape
    native.function("extend")(
        tokens.data_ptr(), history.data_ptr(), parents.data_ptr(), added.data_ptr(), totals.data_ptr(),
        batch, beams, capacity, history.size(2), filled,
    )  # fmt: skip


def embed(tokens: Tensor, vectors: Tensor, numbers: Tensor, positions: Tensor, scale: float) -> Tensor:
    """Token vectors times ``scale`` plus position vectors, (batch, queries, dim) float32.

    Args:
        tokens: (batch, queries) ids. numbers: (1,), (batch, 1) or (batch, queries) rows of ``positions``.
        vectors: (vocabulary, dim) float32; ``positions``, (numbers, dim), alike.
    """
    tokens, numbers = tokens.contiguous(), numbers.contiguous()
    out = vectors.new_empty(*tokens.shape, vectors.size(1))
    native.function("embed")(
        tokens.data_ptr(), vectors.data_ptr(), numbers.data_ptr(), positions.data_ptr(), out.data_ptr(),
        tokens.numel(), numbers.numel(), vectors.size(1), scale,
    )  # fmt: skip
    return out
