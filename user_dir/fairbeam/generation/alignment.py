"""Where a hypothesis comes from: the attention of finished hypotheses, and alignments from it.

Attention is computed when a hypothesis has ended, by teacher forcing, so that the search itself does not carry it.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.model import Model


def with_attention(
    model: Model, source: Tensor, found: Sequence[Sequence[Hypothesis]], start: int
) -> list[list[Hypothesis]]:
    """The hypotheses of a batch with their attention.

    Args:
        source: (batch, source) ids, padded.
        found: for each sentence its hypotheses.
        start: the symbol that decoding began with.
    """
    aligned: list[list[Hypothesis]] = [[] for _ in found]
    for rank in range(max(map(len, found), default=0)):  # as many rows at a time as decoding had sentences
        rows = [row for row, hypotheses in enumerate(found) if len(hypotheses) > rank]
        targets = [found[row][rank].tokens for row in rows]
        longest = max(map(len, targets))
        previous = torch.stack([F.pad(target[:-1], (1, longest - len(target)), value=start) for target in targets])
        weights = model.alignments(source[rows], previous).float()  # (rows, longest, source)
        for row, target, looked in zip(rows, targets, weights, strict=True):
            aligned[row].append(replace(found[row][rank], attention=looked[: len(target)]))
    return aligned


def hard_alignment(attention: Tensor, source: Tensor, marks: Sequence[int]) -> list[tuple[int, int]]:
    """For each target token, ``</s>`` left out, the source token that it got most attention from.

    Args:
        attention: (target, source), the last row of ``</s>``.
        source: (source,) ids; ``marks`` among them (``</s>``, padding) are not counted, and nothing aligns with them.

    Returns:
        Pairs of places, source and target, from 0; fairseq's ``--print-alignment hard``.
    """
    real = torch.isin(source, source.new_tensor(list(marks)), invert=True)
    if not bool(real.any()):
        return []
    places = attention[:-1, real].argmax(1)
    return [(place, number) for number, place in enumerate(places.tolist())]


def unknown_replaced(
    symbols: Sequence[str], unknown: Sequence[bool], attention: Tensor, source: Sequence[str], known: dict[str, str]
) -> list[str]:
    """Target tokens with the unknown ones replaced by what they align with (Luong et al., 2015, section 3.3).

    Args:
        symbols: target tokens without ``</s>``; ``unknown`` says which of them to replace.
        attention: (target, source); only the columns of ``source`` are looked at.
        source: source tokens without ``</s>``.
        known: translations of source tokens; one that is not there is copied.
    """
    if not source:
        return list(symbols)
    places = attention[:, : len(source)].argmax(1).tolist()
    return [
        known.get(source[place], source[place]) if missing else symbol
        for symbol, missing, place in zip(symbols, unknown, places, strict=False)
    ]
