"""Operations of decoding steps, each in one place: the native library's where it can run them, else torch's.

The products of a step are tiny: five queries, a dozen keys. A matrix library spends longer on the call than on the
arithmetic, and attention over *slots*, which all beams of a sentence share, computes the scores of every beam's
history for every other beam and throws most of them away. The native kernels read what a beam's own history holds, and
nothing else.

``attend_to_slots`` and ``attend_to_source`` are native only: without a library, decoder states tell histories as masks,
and ``attention.attend`` reads those.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.network.cache import BeamSlots, CrossKeyValues, KeyValues
from fairbeam.network.inference import native, structs


def attend_to_slots(projected: Tensor, cache: KeyValues, slots: BeamSlots, *, heads: int, scale: float) -> Tensor:
    """Attend from one step's beams, each to its own history, natively.

    Args:
        projected: (batch, beams, 3 * heads * head_dim): queries, keys and values of the latest tokens.
        cache: keys and values of earlier tokens; the latest are added.
        slots: cache slots of each beam's history, the latest token's included.
        heads: attention heads.
        scale: multiplies the scores.

    Returns:
        (batch, beams, heads * head_dim) float32.
    """
    projected = projected.float().contiguous()
    table = slots.table.contiguous()
    batch, beams, width = projected.shape
    start = 0 if slots.starts is not None else cache.reserve(beams)
    context = projected.new_empty(batch, beams, width // 3)
    _, sentences, _, capacity, head_dim = cache.storage.shape
    structs.AttendToSlots(
        projected=projected.data_ptr(),
        storage=cache.storage.data_ptr(),
        slots=table.data_ptr(),
        rows=slots.rows.data_ptr(),
        starts=_address(slots.starts),
        context=context.data_ptr(),
        batch=batch,
        beams=beams,
        heads=heads,
        head_dim=head_dim,
        sentences=sentences,
        capacity=capacity,
        steps=table.size(2),
        start=start,
        scale=scale,
    ).call()
    return context


def attend_to_source(query: Tensor, memory: CrossKeyValues, mask: Tensor | None, *, heads: int, scale: float) -> Tensor:
    """Attend to the encoded source, natively.

    Args:
        query: (batch, queries, heads * head_dim).
        memory: float32 keys and values, and the rows of the batch's sentences among them.
        mask: added to the scores, (sentences * heads, 1, source) like keys and values.
        heads: attention heads.
        scale: multiplies the scores.

    Returns:
        (batch, queries, heads * head_dim) float32.
    """
    assert memory.rows is not None
    query = query.float().contiguous()
    context = torch.empty_like(query)
    batch, queries, width = query.shape
    length, head_dim = memory.keys.shape[1:]
    structs.Attend(
        query=query.data_ptr(),
        keys=memory.keys.data_ptr(),
        values=memory.values.data_ptr(),
        mask=_address(mask),
        rows=memory.rows.data_ptr(),
        context=context.data_ptr(),
        batch=batch,
        queries=queries,
        heads=heads,
        head_dim=head_dim,
        length=length,
        query_stride=width,
        sentence_stride=heads * length * head_dim,
        head_stride=length * head_dim,
        key_stride=head_dim,
        mask_stride=heads * length,
        scale=scale,
    ).call()
    return context


def append_slots(history: Tensor, first: int) -> Tensor:
    """Return histories, (batch, beams, steps) int32, with the slots of one more step: beam ``b`` gets ``first + b``."""
    batch, beams, steps = history.shape
    if native.can_run(history):
        longer = history.new_empty(batch, beams, steps + 1)
        structs.AppendSlots(
            history=history.data_ptr(), longer=longer.data_ptr(), batch=batch, beams=beams, steps=steps, first=first
        ).call()
        return longer
    added = torch.arange(first, first + beams, dtype=history.dtype, device=history.device)
    return torch.cat([history, added.view(1, -1, 1).expand(batch, -1, -1)], dim=2)


def add_norm(x: Tensor, block: Tensor | None, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
    """Return the layer normalisation of ``x + block``, or of ``x``, over the last dimension; (..., dim) float32."""
    if not native.can_run(x, x if block is None else block):
        return F.layer_norm(x if block is None else x + block, weight.shape, weight, bias, epsilon)
    out = torch.empty_like(x)
    width = x.size(-1)
    structs.AddNorm(
        x=x.data_ptr(),
        block=_address(block),
        weight=weight.data_ptr(),
        bias=_address(bias),
        out=out.data_ptr(),
        rows=x.numel() // width,
        width=width,
        epsilon=epsilon,
    ).call()
    return out


def log_softmax(logits: Tensor, *, may_overwrite: bool) -> Tensor:
    """Return the log-softmax of float32 logits over the last dimension.

    ``may_overwrite``: the result may take the place of ``logits``.
    """
    if not may_overwrite or not native.can_run(logits):
        return logits.log_softmax(-1)
    width = logits.size(-1)
    structs.LogSoftmax(logits.data_ptr(), logits.numel() // width, width).call()
    return logits


def embed(tokens: Tensor, vectors: Tensor, position_ids: Tensor, positions: Tensor, scale: float) -> Tensor:
    """Return token vectors times ``scale`` plus position vectors, (batch, queries, dim) float32.

    Args:
        tokens: (batch, queries) ids.
        vectors: (vocabulary, dim) float32.
        position_ids: (1,), (batch, 1) or (batch, queries) rows of ``positions``.
        positions: (position ids, dim) float32.
        scale: multiplies the token vectors.
    """
    if not native.can_run(vectors, positions):
        return F.embedding(tokens, vectors) * scale + F.embedding(position_ids, positions)
    tokens, position_ids = tokens.contiguous(), position_ids.contiguous()
    out = vectors.new_empty(*tokens.shape, vectors.size(1))
    structs.Embed(
        tokens=tokens.data_ptr(),
        vectors=vectors.data_ptr(),
        position_ids=position_ids.data_ptr(),
        positions=positions.data_ptr(),
        out=out.data_ptr(),
        count=tokens.numel(),
        different=position_ids.numel(),
        width=vectors.size(1),
        scale=scale,
    ).call()
    return out


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
