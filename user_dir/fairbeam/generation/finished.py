"""The hypotheses that have ended."""

import torch
from torch import Tensor

from fairbeam.generation.beam import Beams, Candidates
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.ranking import length_penalty


class Finished:
    """The hypotheses that have ended; a sentence is finished with enough of them or at its limit."""

    def __init__(self, batch: int, options: GenerationOptions, wanted: int) -> None:
        self._wanted = wanted
        self._penalty = length_penalty(options)
        self.hypotheses: list[list[Hypothesis]] = [[] for _ in range(batch)]
        self.closed = [False] * batch

    def collect(self, alive: Tensor, beams: Beams, candidates: Candidates, ends: Tensor, eos: int) -> None:
        """Take the candidates that end, (batch, K) bool, as long as their sentence wants more."""
        rows, places = ends.nonzero(as_tuple=True)
        if not len(rows):
            return
        length = beams.step + 1
        parents = candidates.parents[rows, places]
        totals = candidates.totals[rows, places]
        tokens = torch.cat([beams.tokens[rows, parents, 1:length], rows.new_full((len(rows), 1), eos)], dim=1)
        running = torch.cat([beams.history[rows, parents, : length - 1], totals.unsqueeze(1)], dim=1)
        steps = running.diff(dim=1, prepend=running.new_zeros(len(rows), 1))
        scores = totals / self._penalty(length) if candidates.ranks is None else candidates.ranks[rows, places]
        for row, sentence in enumerate(alive[rows].tolist()):
            mine = self.hypotheses[sentence]
            if not self.closed[sentence] and len(mine) < self._wanted:
                mine.append(Hypothesis(tokens[row], scores[row].item(), steps[row]))

    def unfinished(self, alive: Tensor, below_limit: Tensor) -> Tensor:
        """Rows of the batch whose sentence goes on, (going,) long."""
        for sentence, below in zip(alive.tolist(), below_limit.tolist(), strict=True):
            if not below or len(self.hypotheses[sentence]) >= self._wanted:
                self.closed[sentence] = True
        going = [row for row, sentence in enumerate(alive.tolist()) if not self.closed[sentence]]
        return torch.tensor(going, dtype=torch.long, device=alive.device)
