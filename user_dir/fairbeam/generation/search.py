"""Beam search over a batch: fairseq's semantics, one token of every hypothesis at a step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fairbeam.generation.beam import Beams, Candidates, ended, survivors
from fairbeam.generation.choosers import build_chooser
from fairbeam.generation.constraints import Required
from fairbeam.generation.filters import Special, build_filters
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.protocol import as_model
from fairbeam.network import Generator

_BATCH_BITS = 3
"""Finished sentences leave the batch when its size can fall to a number of this many leading bits. Leaving copies the
cache, and every size of a batch costs compiled kernels."""


@dataclass(frozen=True)
class Hypothesis:
    """One finished translation."""

    tokens: Tensor
    """(length,) ids, ``</s>`` last."""
    score: float
    """Log probability in nats, divided by ``length ** lenpen`` unless unnormalized."""
    positional_scores: Tensor
    """(length,) log probability of each token in nats."""


class BeamSearch:
    """Finds the best target sequences of networks under ``GenerationOptions``.

    The result for a sentence depends on the sentence alone, never on what else is in the batch.
    """

    def __init__(
        self, networks: Sequence[Generator], options: GenerationOptions, special: Special | None = None
    ) -> None:
        """Several networks are an ensemble; all share one target vocabulary."""
        self.model = as_model(networks)
        self.options = options
        self.special = special or Special()
        self.filters = build_filters(options, self.special)

    @torch.no_grad()
    def __call__(
        self,
        source: Tensor,
        *,
        prefix: Tensor | None = None,
        start: int | None = None,
        required: Sequence[Required] | None = None,
    ) -> list[list[Hypothesis]]:
        """Decode one batch.

        Args:
            source: (batch, length) ids padded on either side, each ended by ``</s>``; or, where there is no encoder,
                prompts, which the outputs continue.
            prefix: (batch, prefix) ids the outputs must begin with, padded on the right.
            start: the symbol decoding begins with; the network's own if not given, which mostly is ``</s>``.
            required: for each sentence the phrases its outputs must hold, in the order ``options.constraints`` says.

        Returns:
            For each sentence its finished hypotheses, best first, at most ``beam``.
        """
        beams = Beams.begin(
            self._limits(source),
            self.options.beam,
            self._default_start() if start is None else start,
            prefix,
        )
        state = self.model.prefill(source, self.options.beam)
        choose = build_chooser(self.options, source, self.special, required)
        finished = Finished(len(source), self.options)
        alive = torch.arange(len(source), device=source.device)

        def correction(parents: Tensor, tokens: Tensor) -> Tensor | None:
            return self.model.correction(state, parents, tokens, self.options.temperature)

        while True:
            scores = self.model.log_probabilities(state, beams.tokens[:, :, beams.step], self.options.temperature)
            for apply in self.filters:
                apply(scores, beams)
            candidates = choose(scores, beams, correction)
            ends = ended(candidates, beams.ignored, self.special.eos)
            finished.collect(alive, beams, candidates, ends[:, : self.options.beam], self.special.eos)
            going = finished.unfinished(alive, beams.limits > beams.step)
            if not len(going):
                return finished.ranked()
            chosen, beams.ignored = survivors(ends, beams.ignored)
            choose.reorder(chosen)
            parents = candidates.parents.gather(1, chosen)
            beams.extend(parents, candidates.tokens.gather(1, chosen), candidates.totals.gather(1, chosen))
            state.reorder(parents)
            size = rounded_up(len(going))
            if size < len(alive):
                kept = with_company(going, len(alive), size)
                alive = alive[kept]
                for part in (beams, state, choose):
                    part.select(kept)

    def _default_start(self) -> int:
        return self.special.eos if self.model.decoder_start is None else self.model.decoder_start

    def _limits(self, source: Tensor) -> Tensor:
        lengths = source.ne(self.special.pad).sum(1).tolist()
        limits = [self.options.length_limit(length, self.model.longest_target(length)) for length in lengths]
        return torch.tensor(limits, device=source.device)


def rounded_up(size: int) -> int:
    """The next number of at most ``_BATCH_BITS`` leading bits: 1 to 8, 10, 12, 14, 16, 20, …"""
    step = 1 << max(0, size.bit_length() - _BATCH_BITS)
    return -(-size // step) * step


def with_company(going: Tensor, batch: int, size: int) -> Tensor:
    """``going`` and as many of the batch's other rows as make it ``size``, in order."""
    others = torch.ones(batch, dtype=torch.bool, device=going.device).index_fill_(0, going, False).nonzero()[:, 0]
    return torch.cat([going, others[: size - len(going)]]).sort().values


class Finished:
    """The hypotheses that have ended; a sentence is finished with ``beam`` of them or at its limit."""

    def __init__(self, batch: int, options: GenerationOptions) -> None:
        self.options = options
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
        scores = totals if self.options.unnormalized else totals / length**self.options.lenpen
        for row, sentence in enumerate(alive[rows].tolist()):
            mine = self.hypotheses[sentence]
            if not self.closed[sentence] and len(mine) < self.options.beam:
                mine.append(Hypothesis(tokens[row], scores[row].item(), steps[row]))

    def unfinished(self, alive: Tensor, below_limit: Tensor) -> Tensor:
        """Rows of the batch whose sentence goes on, (going,) long."""
        for sentence, below in zip(alive.tolist(), below_limit.tolist(), strict=True):
            if not below or len(self.hypotheses[sentence]) >= self.options.beam:
                self.closed[sentence] = True
        going = [row for row, sentence in enumerate(alive.tolist()) if not self.closed[sentence]]
        return torch.tensor(going, dtype=torch.long, device=alive.device)

    def ranked(self) -> list[list[Hypothesis]]:
        """Each sentence's hypotheses, best first."""
        return [sorted(mine, key=lambda hypothesis: -hypothesis.score) for mine in self.hypotheses]
