"""Batches in, hypotheses out, on all cores."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from fairbeam.data.shortlist import Shortlist
from fairbeam.generation.constraints import Required
from fairbeam.generation.filters import Special
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.search import BeamSearch
from fairbeam.generation.shortlist import ShortlistSearch
from fairbeam.generation.workers import Workers, default_workers
from fairbeam.network import Generator


@dataclass(frozen=True)
class Batch:
    """Sentences decoded together."""

    source: np.ndarray
    """(batch, length) ids, each ended by ``</s>``, padded on either side."""
    options: GenerationOptions
    prefix: np.ndarray | None = None
    """(batch, prefix) ids the outputs must begin with, padded on the right."""
    start: int | None = None
    """The symbol decoding begins with; the network's own if not given."""
    required: Sequence[Required] | None = None
    """For each sentence the phrases its outputs must hold; needs ``options.constraints``."""
    numbers: Sequence[int] | None = None
    """What ``options.prefix_allowed_tokens_fn`` is told of which sentence it is asked."""


Arrays = tuple[np.ndarray, float, np.ndarray, np.ndarray | None]
"""A hypothesis as it travels between processes."""


class Decoder:
    """Beam search with networks that are done changing."""

    def __init__(
        self,
        networks: Sequence[Generator],
        device: torch.device,
        special: Special | None = None,
        workers: int | None = None,
        shortlist: Shortlist | None = None,
        draft: Generator | None = None,
    ) -> None:
        """Several networks are an ensemble.

        Args:
            networks: made by ``for_inference``, on ``device``.
            workers: decoding processes; by default one for each core, and one in all on an accelerator.
            shortlist: for searches whose options ask for one.
            draft: a network that writes ahead, for searches whose options ask for it.
        """

        @lru_cache(maxsize=8)
        def search(options: GenerationOptions) -> BeamSearch | ShortlistSearch:
            if options.shortlist:
                return ShortlistSearch(networks, options, special or Special(), shortlist)
            return BeamSearch(networks, options, special, draft)

        def decode(batch: Batch) -> list[list[Arrays]]:
            source = torch.from_numpy(batch.source).to(device)
            prefix = None if batch.prefix is None else torch.from_numpy(batch.prefix).to(device)
            found = search(batch.options)(
                source, prefix=prefix, start=batch.start, required=batch.required, numbers=batch.numbers
            )
            return [[_as_arrays(hypothesis) for hypothesis in hypotheses] for hypotheses in found]

        self._workers = Workers(decode, workers or default_workers(device))
        self._here = Workers(decode, 1)

    @property
    def workers(self) -> int:
        """Batches that are decoded at a time."""
        return self._workers.count

    def decode(self, batches: Iterable[Batch], *, here: bool = False) -> Iterator[list[list[Hypothesis]]]:
        """For each batch, in order, the finished hypotheses of each sentence, best first; tensors are on the CPU.

        ``here`` decodes in this process, as functions among the options need, which do not travel.
        """
        for found in (self._here if here else self._workers).map(batches):
            yield [[_as_hypothesis(arrays) for arrays in hypotheses] for hypotheses in found]


def _as_arrays(hypothesis: Hypothesis) -> Arrays:
    attention = None if hypothesis.attention is None else hypothesis.attention.numpy(force=True)
    tokens, scores = hypothesis.tokens.numpy(force=True), hypothesis.positional_scores.numpy(force=True)
    return tokens, hypothesis.score, scores, attention


def _as_hypothesis(arrays: Arrays) -> Hypothesis:
    tokens, score, positional_scores, attention = arrays
    return Hypothesis(
        torch.from_numpy(tokens),
        score,
        torch.from_numpy(positional_scores),
        None if attention is None else torch.from_numpy(attention),
    )
