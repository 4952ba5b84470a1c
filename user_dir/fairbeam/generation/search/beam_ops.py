"""Operations of beam search on whole batches, each in one place: the native library's where it can run them, else
torch's."""

import torch
from torch import Tensor

from fairbeam.network.inference import native
from fairbeam.network.inference.native import Arguments, counts, pointers

_BLOCK = 64


class TopOfSums(Arguments):
    """The highest sums of scores and their row's number (beams.h)."""

    _fields_ = (*pointers("scores shifts added sums indices"), *counts("batch beams vocabulary count"))


class Renormalise(Arguments):
    """Changes of a few log-probabilities whose logits change (beams.h)."""

    _fields_ = (*pointers("log_probs logit_deltas parents tokens deltas"), *counts("batch beams vocabulary count"))


class FindEnded(Arguments):
    """Candidates that end their hypotheses (beams.h)."""

    _fields_ = (*pointers("totals tokens ignored ends"), *counts("batch beams width eos"))


class ChooseSurvivors(Arguments):
    """The first candidates that go on (beams.h)."""

    _fields_ = (*pointers("ends ignored chosen empty"), *counts("batch beams width"))


class ExtendBeams(Arguments):
    """Hypotheses with one token more (beams.h)."""

    _fields_ = (*pointers("tokens history parents added totals"), *counts("batch beams capacity room filled"))


def top_of_sums(scores: Tensor, added: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the ``count`` highest of all scores of a batch's rows, each with its row's ``added``, highest first.

    Args:
        scores: (batch, rows, length), at least ``count`` a sentence.
        added: (batch, rows).
        count: how many of each sentence.

    Returns:
        Sums and their indices into (rows * length), each (batch, count).
    """
    if not native.can_run(scores, added):
        return _top_of_sums_by_torch(scores, added, count)
    batch, beams, length = scores.shape
    sums, indices = scores.new_empty(batch, count), added.new_empty(batch, count, dtype=torch.long)
    TopOfSums(
        scores=scores.data_ptr(),
        added=added.data_ptr(),
        sums=sums.data_ptr(),
        indices=indices.data_ptr(),
        batch=batch,
        beams=beams,
        vocabulary=length,
        count=count,
    ).call()
    return sums, indices


def _top_of_sums_by_torch(scores: Tensor, added: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Look in the ``count`` blocks with the highest maxima alone: ``topk``, which is slow, then sees a small share, and
    no sums but those are written."""
    length = scores.size(2)
    blocks = length // _BLOCK
    if scores.size(1) * blocks <= count:
        sums, indices = (scores + added.unsqueeze(2)).flatten(1).topk(count, dim=1)
        return sums, indices
    aligned = blocks * _BLOCK
    highest = scores[:, :, :aligned].unflatten(2, (blocks, _BLOCK)).amax(3) + added.unsqueeze(2)
    chosen = highest.flatten(1).topk(count, dim=1, sorted=False).indices
    starts = chosen.div(blocks, rounding_mode="floor") * (length - aligned) + chosen * _BLOCK
    indices = (starts.unsqueeze(2) + torch.arange(_BLOCK, device=scores.device)).flatten(1)
    if length > aligned:  # what no block holds
        ends = torch.arange(scores.size(1) * length, device=scores.device).view(-1, length)[:, aligned:].flatten()
        indices = torch.cat([indices, ends.expand(len(scores), -1)], dim=1)
    sums = scores.flatten(1).gather(1, indices) + added.gather(1, indices.div(length, rounding_mode="floor"))
    sums, best = sums.topk(count, dim=1)
    return sums, indices.gather(1, best)


def renormalise(log_probs: Tensor, logit_deltas: Tensor, parents: Tensor, tokens: Tensor) -> Tensor:
    """Return what to add to a few log-probabilities whose logits change.

    Args:
        log_probs: (batch, beams, vocabulary).
        logit_deltas: (batch, count) float32 changes of logits; all other logits are taken not to change.
        parents: (batch, count) beams.
        tokens: (batch, count).

    Returns:
        (batch, count) float32.
    """
    if native.can_run(log_probs, logit_deltas):
        deltas, parents, tokens = torch.empty_like(logit_deltas), parents.contiguous(), tokens.contiguous()
        batch, beams, vocabulary = log_probs.shape
        Renormalise(
            log_probs=log_probs.data_ptr(),
            logit_deltas=logit_deltas.data_ptr(),
            parents=parents.data_ptr(),
            tokens=tokens.data_ptr(),
            deltas=deltas.data_ptr(),
            batch=batch,
            beams=beams,
            vocabulary=vocabulary,
            count=parents.size(1),
        ).call()
        return deltas
    known = log_probs[torch.arange(len(parents), device=parents.device).unsqueeze(1), parents, tokens]
    more = known.new_zeros(log_probs.shape[:2])
    more.scatter_add_(1, parents, known.exp() * logit_deltas.expm1())
    return logit_deltas - more.log1p().gather(1, parents)


def ended(totals: Tensor, tokens: Tensor, ignored: Tensor, eos: int) -> Tensor:
    """Return which candidates end their hypothesis, (batch, width) bool.

    Args:
        totals, tokens: (batch, width) of the candidates.
        ignored: (batch, K) bool: of the first candidates, those that end nothing.
        eos: id of ``</s>``.
    """
    if native.can_run(totals, tokens, ignored):
        ends = torch.empty_like(tokens, dtype=torch.bool)
        batch, beams = ignored.shape
        FindEnded(
            totals.data_ptr(), tokens.data_ptr(), ignored.data_ptr(), ends.data_ptr(), batch, beams, tokens.size(1), eos
        ).call()
        return ends
    ends = tokens.eq(eos) & totals.gt(float("-inf"))
    ends[:, : ignored.size(1)] &= ~ignored
    return ends


def survivors(ends: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first ``K`` candidates that go on.

    Args:
        ends: (batch, width), from ``ended``.
        ignored: (batch, K), places of the last step that were empty.

    Returns:
        Indices into the candidates, (batch, K), and the places now empty because too few go on, (batch, K).
    """
    beam, width = ignored.size(1), ends.size(1)
    if width >= beam and native.can_run(ends, ignored):
        chosen, empty = torch.empty_like(ignored, dtype=torch.long), torch.empty_like(ignored)
        ChooseSurvivors(
            ends.data_ptr(), ignored.data_ptr(), chosen.data_ptr(), empty.data_ptr(), len(ends), beam, width
        ).call()
        return chosen, empty
    out = ends.clone()
    out[:, :beam] |= ignored
    rank = out * width + torch.arange(width, device=out.device)
    order, chosen = rank.topk(min(beam, width), dim=1, largest=False)
    return chosen, order.ge(width)


def extend_(tokens: Tensor, history: Tensor, parents: Tensor, added: Tensor, totals: Tensor, filled: int) -> None:
    """Make every hypothesis its parent with one token more, in place.

    Args:
        tokens: (batch, beams, capacity) long, the first ``filled`` of which are there.
        history: (batch, beams, room) float32, the first ``filled - 1`` of which are there.
        parents, added, totals: (batch, beams) long, long and float32.
        filled: tokens of each hypothesis.
    """
    if native.can_run(tokens, history, parents, added, totals):
        batch, beams, capacity = tokens.shape
        ExtendBeams(
            tokens=tokens.data_ptr(),
            history=history.data_ptr(),
            parents=parents.data_ptr(),
            added=added.data_ptr(),
            totals=totals.data_ptr(),
            batch=batch,
            beams=beams,
            capacity=capacity,
            room=history.size(2),
            filled=filled,
        ).call()
        return
    index = parents.unsqueeze(2).expand(-1, -1, filled)
    tokens[:, :, :filled] = tokens[:, :, :filled].gather(1, index)
    tokens[:, :, filled] = added
    history[:, :, : filled - 1] = history[:, :, : filled - 1].gather(1, index[:, :, : filled - 1])
    history[:, :, filled - 1] = totals
