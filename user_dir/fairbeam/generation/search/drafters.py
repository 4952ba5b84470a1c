"""Drafters guess how hypotheses go on; what they say costs time where it is wrong, and never changes a text."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fairbeam.network import LSTM, Generator
from fairbeam.network.verification_state import VerificationState


class Drafts(NamedTuple):
    """Tokens that may follow the hypotheses of a batch."""

    tokens: Tensor
    """(batch, k) long."""
    counts: Tensor
    """(batch,) long: how many of each row's are real; what is behind them may be any id."""


class Drafter(Protocol):
    """Guesses for one batch; it may keep a state for each of its sentences."""

    def __call__(self, outputs: Sequence[Sequence[int]]) -> Drafts:
        """What may follow the hypotheses so far, start symbol included; each has grown since it was seen last."""

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences, (kept,) long."""


DrafterMaker = Callable[[Tensor, int], Drafter]
"""Given a batch's sources, (batch, length) ids padded, and the symbol that outputs begin with, their drafter."""


class PromptLookup:
    """What followed the latest n-gram where it stood before: in the source, or in the hypothesis (Saxena, 2023).

    The longest n-gram that is found counts, its last place, and the source's before the hypothesis' own.
    """

    def __init__(self, sources: Sequence[Sequence[int]], count: int, longest: int, *, joined: bool) -> None:
        """
        Args:
            sources: ids without padding. Where they are read apart from the targets, the start symbol stands before
                each, so that a first draft is how the source begins.
            count: tokens drafted at most.
            longest: of n-grams, in tokens.
            joined: whether hypotheses continue the sources, in place of the start symbol.
        """
        self._sources = [_text(source) for source in sources]
        self._count, self._longest, self._joined = count, longest, joined

    def __call__(self, outputs: Sequence[Sequence[int]]) -> Drafts:
        if self._joined:
            texts = [source + _text(output[1:]) for source, output in zip(self._sources, outputs, strict=True)]
            found = [self._follows((text,), text) for text in texts]
        else:
            texts = [_text(output) for output in outputs]
            found = [self._follows((source, text), text) for source, text in zip(self._sources, texts, strict=True)]
        tokens = torch.zeros(len(found), max(1, *map(len, found)), dtype=torch.long)
        for row, draft in enumerate(found):
            tokens[row, : len(draft)] = torch.tensor(list(map(ord, draft)), dtype=torch.long)
        return Drafts(tokens, torch.tensor(list(map(len, found))))

    def select(self, sentences: Tensor) -> None:
        self._sources = [self._sources[sentence] for sentence in sentences.tolist()]

    def _follows(self, places: Sequence[str], text: str) -> str:
        for size in range(min(self._longest, len(text)), 0, -1):
            latest = text[-size:]
            for place in places:
                start = place.rfind(latest, 0, len(place) - 1)  # something follows it
                if start >= 0:
                    return place[start + size : start + size + self._count]
        return ""


def _text(ids: Sequence[int]) -> str:
    """A character an id, for the search in strings that Python has in C."""
    return "".join(map(chr, ids))


class DraftModel:
    """A smaller model that says the most probable tokens, with a cache of its own."""

    def __init__(self, network: Generator, source: Tensor, count: int) -> None:
        """
        Args:
            network: made by ``for_inference``; ids mean the same to it as to the model it drafts for.
            source: (batch, length) ids, padded.
            count: tokens drafted.
        """
        assert not isinstance(network, LSTM)
        self._network, self._count = network, count
        # What is longer than it reads is not drafted for.
        reads = source.size(1) <= network.max_source_positions
        self._state = VerificationState(network.prefill(source, 1)) if reads else None
        self._read: list[list[int]] = [[] for _ in source]
        """Tokens of each row that the cache holds."""

    def __call__(self, outputs: Sequence[Sequence[int]]) -> Drafts:
        if self._state is None:
            return Drafts(torch.zeros(len(outputs), 1, dtype=torch.long), torch.zeros(len(outputs), dtype=torch.long))
        device = self._state.layers[0].storage.device
        kept = [_agreement(*rows) for rows in zip(self._read, outputs, strict=True)]
        unread = [output[start:] for output, start in zip(outputs, kept, strict=True)]
        widest = max(map(len, unread))
        block = torch.tensor([[*row, *[row[-1]] * (widest - len(row))] for row in unread], device=device)
        starts = torch.tensor(kept, device=device)
        last = torch.tensor([len(row) - 1 for row in unread], device=device)
        rows = torch.arange(len(outputs), device=device)
        said = [self._network.forward_block(self._state, block, starts, (rows, last)).argmax(1)]
        starts = starts + last
        for _ in range(self._count - 1):
            starts = starts + 1
            latest = said[-1].unsqueeze(1)
            said.append(
                self._network.forward_block(self._state, latest, starts, (rows, torch.zeros_like(rows))).argmax(1)
            )
        tokens = torch.stack(said, dim=1)
        self._read = [[*output, *row[:-1]] for output, row in zip(outputs, tokens.tolist(), strict=True)]
        return Drafts(tokens, torch.full((len(outputs),), self._count))

    def select(self, sentences: Tensor) -> None:
        if self._state is not None:
            self._state.select(sentences)
        self._read = [self._read[sentence] for sentence in sentences.tolist()]


def _agreement(read: Sequence[int], output: Sequence[int]) -> int:
    """How many tokens of an output need not be read again: all but its latest, which is yet to be scored, at most."""
    length = min(len(read), len(output) - 1)
    return next((place for place in range(length) if read[place] != output[place]), length)
