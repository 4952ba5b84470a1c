"""The hypotheses that have ended."""

import torch
from torch import Tensor

from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.ranking import length_penalty
from fairbeam.generation.search.beams import Beams, Candidates


class Finished:
    """The hypotheses that have ended; a sentence is finished with enough of them or at its limit."""

    def __init__(self, batch: int, options: GenerationOptions, wanted: int) -> None:
        self._wanted = wanted
        self._penalty = length_penalty(options)
        self.hypotheses: list[list[Hypothesis]] = [[] for _ in range(batch)]
        self.closed = [False] * batch
        self._free: list[int] = []

    def collect(self, alive: Tensor, beams: Beams, candidates: Candidates, ends: Tensor, eos: int) -> bool:
        """Take the candidates that end, (batch, K) bool, as long as their sentence wants more; whether any does."""
        if not bool(ends.any()):
            return False
        rows, places = ends.nonzero(as_tuple=True)
        length = beams.step + 1
        starts = [0] * len(rows) if beams.starts is None else beams.starts[rows].tolist()
        parents = candidates.parents[rows, places]
        totals = candidates.totals[rows, places]
        tokens = torch.cat([beams.tokens[rows, parents, 1:length], rows.new_full((len(rows), 1), eos)], dim=1)
        running = torch.cat([beams.history[rows, parents, : length - 1], totals.unsqueeze(1)], dim=1)
        steps = running.diff(dim=1, prepend=running.new_zeros(len(rows), 1))
        penalties = totals.new_tensor([self._penalty(length - start) for start in starts])
        scores = totals / penalties if candidates.ranks is None else candidates.ranks[rows, places]
        for row, (sentence, start) in enumerate(zip(alive[rows].tolist(), starts, strict=True)):
            mine = self.hypotheses[sentence]
            if not self.closed[sentence] and len(mine) < self._wanted:
                mine.append(Hypothesis(tokens[row, start:], scores[row].item(), steps[row, start:]))
        return True

    def join(self, other: "Finished") -> list[int]:
        """Take over sentences; returns their numbers here, those of sentences that were taken away first."""
        numbers = self._free[: len(other.closed)]
        numbers += range(len(self.closed), len(self.closed) + len(other.closed) - len(numbers))
        self._free = self._free[len(other.closed) :]
        for number, hypotheses, closed in zip(numbers, other.hypotheses, other.closed, strict=True):
            self.hypotheses[number : number + 1] = [hypotheses]
            self.closed[number : number + 1] = [closed]
        return numbers

    def take(self, sentence: int) -> list[Hypothesis]:
        """The hypotheses of a sentence that leaves; its number is free then."""
        self._free.append(sentence)
        return self.hypotheses[sentence]

    def unfinished(self, alive: Tensor, below_limit: Tensor) -> Tensor:
        """Rows of the batch whose sentence goes on, (going,) long."""
        for sentence, below in zip(alive.tolist(), below_limit.tolist(), strict=True):
            if not below or len(self.hypotheses[sentence]) >= self._wanted:
                self.closed[sentence] = True
        going = [row for row, sentence in enumerate(alive.tolist()) if not self.closed[sentence]]
        return torch.tensor(going, dtype=torch.long, device=alive.device)
