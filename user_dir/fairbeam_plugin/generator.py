"""The engine behind the interface of fairseq's ``SequenceGenerator``."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Union

import torch
from fairseq.token_generation_constraints import unpack_constraints
from torch import Tensor

from fairbeam.engine import Engine
from fairbeam.generation import GenerationOptions, Hypothesis, Required
from fairbeam.requests import CandidateTexts, Requests

_PENDING = "fairbeam_pending"
"""Attribute of a sample's source tensor that holds its ``PendingBatch``: ``fairseq-interactive`` makes the sample's
dictionary anew of the batch's tensors."""


class AlignedPair(NamedTuple):
    """A source token and a target token that belong together; as an index, the source token's position.

    fairseq's ``--print-alignment`` takes alignments for pairs and its ``--replace-unk`` for positions.
    """

    source: int
    target: int

    def __index__(self) -> int:
        return self.source


class GenerateRequest(NamedTuple):
    """Arguments of ``FairbeamGenerator.generate`` beside the sentences."""

    prefix_tokens: Optional[Tensor] = None
    constraints: Union[Tensor, List[Required], None] = None
    bos_token: Optional[int] = None

    def same(self, other: "GenerateRequest") -> bool:
        """Return whether both ask for the same."""
        return all(
            torch.equal(mine, theirs)
            if isinstance(mine, Tensor) and isinstance(theirs, Tensor)
            else type(mine) is type(theirs) and mine == theirs
            for mine, theirs in zip(self, other, strict=True)
        )


@dataclass
class PendingBatch:
    """State of a sample from an iterator that reads ahead: the iterator's hook, and the decoding that was begun."""

    follow: Callable[["FairbeamGenerator", GenerateRequest], None]
    """Tells the iterator which generator was given the sample, and with what."""
    generator: Optional["FairbeamGenerator"] = None
    """Generator that has begun to decode the sample."""
    request: Optional[GenerateRequest] = None
    wait: Optional[Callable[[], List[List[Hypothesis]]]] = None

    def attach(self, sample: Dict[str, Any]) -> None:
        """Let the sample carry this state."""
        setattr(sample["net_input"]["src_tokens"], _PENDING, self)

    @staticmethod
    def of(sample: Dict[str, Any]) -> Optional["PendingBatch"]:
        """Return the state that a sample carries, if any."""
        return getattr(sample["net_input"]["src_tokens"], _PENDING, None)

    def begin(
        self, sample: Dict[str, Any], generator: "FairbeamGenerator", request: GenerateRequest, *, shared: bool
    ) -> None:
        """Let a generator begin to decode the sample."""
        self.generator, self.request, self.wait = generator, request, generator.begin(sample, request, shared=shared)

    def take(
        self, generator: "FairbeamGenerator", request: GenerateRequest
    ) -> Optional[Callable[[], List[List[Hypothesis]]]]:
        """Return what waits for the hypotheses that the generator was asked for, once; None if they were not begun."""
        wait, self.wait = self.wait, None
        begun = self.request is not None and self.generator is generator and self.request.same(request)
        return wait if begun else None


@dataclass(frozen=True)
class TaskTexts:
    """Text of ids, for options that rank texts."""

    source: Callable[[List[int]], str]
    target: Callable[[Tensor], str]


class FairbeamGenerator:
    """Decodes fairseq's samples with the engine."""

    def __init__(
        self, engine: Engine, options: GenerationOptions, texts: TaskTexts, *, alignment: Optional[str] = None
    ) -> None:
        """``alignment``: ``hard`` or ``soft``, as fairseq prints them, where the options ask for attention."""
        special = engine.model.special
        self.engine, self.options, self.texts, self.alignment = engine, options, texts, alignment
        self.eos = special.eos  # read by fairseq, to strip it from what it prints
        self.pad, self.source_pad = special.pad, special.padding_of_sources

    def generate(
        self,
        models: List[Any],
        sample: Dict[str, Any],
        prefix_tokens: Optional[Tensor] = None,
        constraints: Union[Tensor, List[Required], None] = None,
        bos_token: Optional[int] = None,
    ) -> List[List[Dict[str, Tensor]]]:
        """Return hypotheses of each sentence of a batch, best first, as ``SequenceGenerator.generate`` does.

        ``constraints`` are fairseq's packed tensor, or ours, which may have alternatives.
        """
        request = GenerateRequest(prefix_tokens, constraints, bos_token)
        pending = PendingBatch.of(sample)
        wait = None if pending is None else pending.take(self, request)
        if wait is None:
            found = self.engine.generate(self._requests(sample, request), self.options, all_finished=True)
        else:
            found = wait()
        scores = iter(torch.tensor([one.score for hypotheses in found for one in hypotheses]).unbind())
        sources = sample["net_input"]["src_tokens"].cpu()
        return [
            [self._as_fairseq(one, next(scores), source) for one in mine]
            for source, mine in zip(sources, found, strict=True)
        ]

    @property
    def workers(self) -> int:
        """Number of batches that are decoded at a time."""
        return self.engine.workers

    @property
    def ahead(self) -> int:
        """Number of batches to ``begin`` before the first of them is asked for; none where nobody would decode them
        meanwhile."""
        waits = self.workers == 1 or self.options.prefix_allowed_tokens_fn is not None
        return 0 if waits else 2 * self.workers

    def begin(
        self, sample: Dict[str, Any], request: GenerateRequest, *, shared: bool
    ) -> Callable[[], List[List[Hypothesis]]]:
        """Begin to decode a sample, by all workers if ``shared``; return what waits for its hypotheses."""
        return self.engine.begin(self._requests(sample, request), self.options, shared=shared)

    def _requests(self, sample: Dict[str, Any], request: GenerateRequest) -> Requests:
        prefix, constraints, start = request
        rows = sample["net_input"]["src_tokens"].numpy(force=True)
        sources = [row[row != self.source_pad].tolist() for row in rows]
        return Requests(
            sources=sources,
            prefixes=None if prefix is None else [self._behind_forced(row) for row in prefix.numpy(force=True)],
            required=_unpacked(constraints) if isinstance(constraints, Tensor) else constraints,
            indices=sample["id"].tolist() if "id" in sample else None,
            start=start,
            texts=CandidateTexts(
                source=lambda row: self.texts.source(sources[row]),
                target=lambda row, hypothesis: self.texts.target(hypothesis.tokens),
            ),
        )

    def _behind_forced(self, prefix: Any) -> List[int]:
        """Return a prefix, which is the beginning of a reference, without padding and the forced first token."""
        ids: List[int] = prefix[prefix != self.pad].tolist()
        return ids[1:] if ids[:1] == [self.engine.model.prefix.forced_bos] else ids

    def _as_fairseq(self, hypothesis: Hypothesis, score: Tensor, source: Tensor) -> Dict[str, Any]:
        attention, alignment = torch.empty(0), torch.empty(0)
        if hypothesis.attention is not None:
            real = source.ne(self.source_pad)
            weights = hypothesis.attention[:, : int(real.sum())]
            attention = weights.new_zeros(len(source), len(weights))
            attention[real] = weights.mT
            alignment = self._aligned(hypothesis, source[real].tolist())
        return {
            "tokens": hypothesis.tokens,
            "score": score,
            "attention": attention,
            "alignment": alignment,
            "positional_scores": hypothesis.positional_scores,
        }

    def _aligned(self, hypothesis: Hypothesis, source: List[int]) -> Any:
        """Return an alignment as fairseq's commands print it, and as ``--replace-unk`` reads it."""
        if self.alignment == "soft":
            assert hypothesis.attention is not None
            return [[f"{weight:.6f}" for weight in row] for row in hypothesis.attention[:, : len(source)].tolist()]
        return [AlignedPair(*pair) for pair in self.engine.align(hypothesis, source)]


def _unpacked(constraints: Tensor) -> List[Required]:
    """Return phrases from fairseq's packed tensor: each row has their number, then each with 0 behind it."""
    return [tuple((tuple(phrase.tolist()),) for phrase in unpack_constraints(row)) for row in constraints.cpu()]
