"""The engine behind every door: token ids in, ranked hypotheses out.

A door (``Translator``, fairseq's generator) makes ids of its input and text of hypotheses. Everything between is here,
once: checking options against the models, truncation, start tokens, batches, workers, reranking, minimum Bayes risk,
alignment.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairbeam.data.batching import BatchLimits, sorted_batches
from fairbeam.engine_model import EngineModel
from fairbeam.errors import CheckpointError, ConfigError, InputError, OptionName
from fairbeam.generation import (
    Batch,
    Constraints,
    DecoderPool,
    GenerationOptions,
    Hypothesis,
    ModelSet,
    RequestWindow,
)
from fairbeam.generation.alignment import hard_alignment
from fairbeam.generation.build import CONTINUOUS_BATCHES, Door, check_search
from fairbeam.generation.ensemble import check_fusion
from fairbeam.generation.ranking import best_first
from fairbeam.generation.search.speculative import DRAFT_TOKENS
from fairbeam.generation.search.streaming import Watcher
from fairbeam.network import Precision, Seq2Seq, pad_batch
from fairbeam.requests import CandidateTexts, DecodingLimits, Requests, TooLong
from fairbeam.reranking import Reranker
from fairbeam.scoring.minimum_bayes_risk import expected_utilities

logger = logging.getLogger(__name__)

Found = list[list[Hypothesis]]
"""Hypotheses of each request, best first."""
Rows = np.ndarray
"""(n,) indices of requests."""


def complete_options(
    given: Mapping[str, Any], *, reranker: Reranker, drafts: bool = False, has_phrases: bool = False
) -> dict[str, Any]:
    """Return options with defaults for what is there to be used: a reranking model's weight is 1, a draft model writes
    a few tokens ahead, required phrases come in any order.

    Raises:
        ConfigError: a weight is given for a reranking model that is not there.
    """
    options = dict(given)
    if drafts:
        options = {"draft_tokens": DRAFT_TOKENS, **options}
    if has_phrases and options.get("constraints") is None:
        options["constraints"] = Constraints.UNORDERED
    return reranker.with_weights(options)


class Engine:
    """A model ready to decode: weights laid out for inference, and worker processes."""

    def __init__(
        self,
        model: EngineModel,
        *,
        precision: Precision = Precision.AUTO,
        device: torch.device | None = None,
        workers: int | None = None,
    ) -> None:
        """
        Args:
            model: networks as they were loaded; copies are prepared for inference.
            precision: number format of weights and activations.
            device: CPU if None.
            workers: decoding processes; by default one for each core.

        Raises:
            ConfigError: the device cannot compute in the precision, a language model for fusion is of another kind or
                size, or ``workers`` is below 1.
        """
        if workers is not None and workers < 1:
            raise ConfigError("{} {}: must be at least 1", OptionName("workers"), workers)
        self.device = device or torch.device("cpu")
        self.model = model
        self.models = _prepared(model.networks, self.device, precision.resolve(self.device))
        self._decoder = DecoderPool(self.models, self.device, workers)
        self.check = functools.lru_cache(maxsize=8)(self._check)
        """Return options as the search takes them, or refuse them; see ``_check``."""

    @property
    def workers(self) -> int:
        """Number of batches that are decoded at a time."""
        return self._decoder.workers

    @property
    def max_source_tokens(self) -> int:
        """Longest source that the model reads, in tokens, ``</s>`` included."""
        return min(network.max_source_positions for network in self.models.networks)

    def _check(
        self,
        options: GenerationOptions,
        *,
        door: Door | None = None,
        has_prefix: bool = False,
        has_phrases: bool = False,
    ) -> GenerationOptions:
        """Check options against the models, and make the model's forced first token part of them.

        Args:
            options: options of the search.
            door: continuous batching or streaming, where requests are decoded so.
            has_prefix: whether requests have prefixes. has_phrases: whether they have required phrases.

        Raises:
            ConfigError: options exclude each other, or need what the models or the requests lack.
        """
        check_search(self.models, options, door, shares_vocabulary=self.model.shares_vocabulary)
        if options.constraints is not None and not has_phrases:
            phrases = OptionName("constraints_file", python="required_phrases")
            order = OptionName("constraints"), options.constraints
            raise ConfigError("{} {}: there are no phrases; they come with {}", *order, phrases)
        if options.prefix_bias_beta and not has_prefix:
            names = OptionName("prefix_bias_beta"), options.prefix_bias_beta, OptionName("target_prefix")
            raise ConfigError("{} {}: needs a prefix ({}; --prefix-size in fairseq's commands)", *names)
        return _with_forced_bos(options, self.model.prefix.forced_bos)

    def fit(self, source: list[int], index: int, too_long: TooLong) -> list[int] | None:
        """Return source ids that the model can read, truncated if ``too_long`` says so; None if they are skipped.

        Raises:
            InputError: the source is too long, and ``too_long`` is an error; names the sentence ``index``, counted
                from 1.
        """
        limit = self.max_source_tokens
        if len(source) <= limit:
            return source
        problem = f"sentence {index + 1} has {len(source)} tokens, but the model reads at most {limit}"
        if too_long is TooLong.ERROR:
            option = OptionName("too_long")
            raise InputError(
                "{}; {} truncate shortens such sentences, {} skip leaves them empty", problem, option, option
            )
        if too_long is TooLong.SKIP:
            logger.warning("%s; its translation is left empty", problem)
            return None
        logger.warning("%s; it is shortened", problem)
        suffix = self.model.source_suffix
        return [*source[: limit - suffix], *source[len(source) - suffix :]]

    def generate(
        self,
        requests: Requests,
        options: GenerationOptions,
        limits: DecodingLimits | None = None,
        *,
        all_finished: bool = False,
    ) -> Found:
        """Decode requests.

        Args:
            requests: sentences, at least one.
            options: options of the search, unchecked.
            limits: batch sizes; if None the requests are one batch that the workers share.
            all_finished: return all finished hypotheses instead of ``options.nbest``.

        Returns:
            For each request its hypotheses on the CPU, best first; with ``return_alternatives`` in the order of the
            alternative tokens' probabilities.

        Raises:
            ConfigError: options need what the models or the requests lack.
            InputError: a source is too long.
            CheckpointError: a sentence has no hypothesis, because scores are not finite or options forbid every output.
        """
        continuous = limits is not None and limits.continuous
        checked = self._checked(requests, options, CONTINUOUS_BATCHES if continuous else None)
        best = _kept(checked, all_finished)
        here = checked.prefix_allowed_tokens_fn is not None  # functions do not travel between processes
        found: Found = [[] for _ in requests.sources]
        for rows, decoded in self._decoded(requests, checked, limits, best, here=here):
            for row, hypotheses in zip(rows, decoded, strict=True):
                found[row] = hypotheses
        return self._ranked(requests, checked, found, all_finished)

    def begin(self, requests: Requests, options: GenerationOptions, *, shared: bool) -> Callable[[], Found]:
        """Begin to decode a batch in worker processes; errors as for ``generate``.

        Args:
            requests: sentences, at least one.
            options: options of the search, unchecked.
            shared: whether all workers share the batch; one decodes it otherwise.

        Returns:
            A function that waits for all finished hypotheses of each request.
        """
        checked = self._checked(requests, options)
        parts = _shares(len(requests.sources), self.workers if shared else 1)
        waiting = [(rows, self._decoder.begin(self._batch(requests, checked, rows))) for rows in parts]

        def wait() -> Found:
            found: Found = [[] for _ in requests.sources]
            for rows, result in waiting:
                for row, hypotheses in zip(rows, result(), strict=True):
                    found[row] = hypotheses
            return self._ranked(requests, checked, found, all_finished=True)

        return wait

    def watch(self, requests: Requests, options: GenerationOptions, watcher: Watcher) -> Found:
        """Decode a batch in this process while ``watcher`` is shown the beams of every step; errors as for
        ``generate``."""
        checked = self._checked(requests, options)
        batch = self._batch(requests, checked, np.arange(len(requests.sources)))
        return self._ranked(requests, checked, self._decoder.watched(batch, watcher), all_finished=False)

    def attention(self, source: Sequence[int], target: Sequence[int]) -> Tensor:
        """Return the (first) model's cross-attention while it is made to write ``target``, (target, source): the last
        decoder layer's, averaged over heads.

        Raises:
            ConfigError: the model has no encoder.
            InputError: the source or the target is too long for the model.
        """
        network = self.models.networks[0]
        if not isinstance(network, Seq2Seq):
            raise ConfigError("a decoder without an encoder has no cross-attention to show")
        for side, ids, limit in (
            ("source", source, network.max_source_positions),
            ("target", target, network.max_target_positions),
        ):
            if len(ids) > limit:
                raise InputError(f"the {side} has {len(ids)} tokens, but the model reads at most {limit}")
        start = network.decoder_start if self.model.prefix.start is None else self.model.prefix.start
        previous = torch.tensor([[start, *target[:-1]]], device=self.device)
        return network.alignments(torch.tensor([list(source)], device=self.device), previous)[0].float()

    def align(self, hypothesis: Hypothesis, source: Sequence[int]) -> list[tuple[int, int]]:
        """Return a hard alignment: for each target token, ``</s>`` left out, the source token it attends to most.

        Args:
            hypothesis: one with its attention. source: the ids it was made of.

        Returns:
            (source, target) positions from 0; the source's marks are not counted.
        """
        assert hypothesis.attention is not None
        ids = torch.tensor(list(source))
        return hard_alignment(hypothesis.attention[:, : len(ids)], ids, sorted(self.model.source_marks))

    def _checked(self, requests: Requests, options: GenerationOptions, door: Door | None = None) -> GenerationOptions:
        for row, source in enumerate(requests.sources):
            if len(source) > self.max_source_tokens:
                self.fit(list(source), requests.index(row), TooLong.ERROR)
        has_prefix, has_phrases = requests.prefixes is not None, requests.required is not None
        return self.check(options, door=door, has_prefix=has_prefix, has_phrases=has_phrases)

    def _decoded(
        self,
        requests: Requests,
        options: GenerationOptions,
        limits: DecodingLimits | None,
        best: int | None,
        *,
        here: bool,
    ) -> Iterator[tuple[Iterable[int], Found]]:
        """Decode batch by batch, or all requests by continuous batching; yields rows and their hypotheses."""
        if limits is None:
            batches = _shares(len(requests.sources), self.workers)
        else:
            batches = _batches([len(source) for source in requests.sources], limits.batch, self.workers)
        if limits is not None and limits.continuous and len(batches) > 1 and self._decoder.supports_joining(options):
            window = self._window(requests, options, limits)
            yield range(len(requests.sources)), self._decoder.decode_window(window, here=here)
            return
        jobs = (replace(self._batch(requests, options, rows), best=best) for rows in batches)
        for rows, found in zip(batches, self._decoder.decode(jobs, here=here), strict=True):
            yield rows.tolist(), found

    def _batch(self, requests: Requests, options: GenerationOptions, rows: Rows) -> Batch:
        """Return the padded batch of some requests."""
        sources = [list(requests.sources[row]) for row in rows]
        told = options.prefix_allowed_tokens_fn is not None
        return Batch(
            pad_batch(sources, self.model.special.padding_of_sources).numpy(),
            options,
            prefix=self._prefix(requests, rows),
            start=self.model.prefix.start if requests.start is None else requests.start,
            required=None if requests.required is None else [requests.required[row] for row in rows],
            numbers=[requests.index(row) for row in rows.tolist()] if told else None,
        )

    def _window(self, requests: Requests, options: GenerationOptions, limits: DecodingLimits) -> RequestWindow:
        """Return all requests as a window for continuous batching."""
        every = self._batch(requests, options, np.arange(len(requests.sources)))
        return RequestWindow(
            [list(source) for source in requests.sources],
            options,
            limits.batch,
            prefix=every.prefix,
            start=every.start,
            required=every.required,
            numbers=every.numbers,
        )

    def _prefix(self, requests: Requests, rows: Rows) -> np.ndarray | None:
        """Return what outputs begin with, the forced first token before a request's own prefix: (rows, longest) ids,
        padded on the right; None where there is neither."""
        forced = self.model.prefix.forced_bos
        first = [] if forced is None else [forced]
        if requests.prefixes is None:
            return np.full((len(rows), 1), forced) if first else None
        prefixes = [[*first, *requests.prefixes[row]] for row in rows]
        return pad_batch(prefixes, self.model.special.pad).numpy().astype(np.int64)

    def _ranked(self, requests: Requests, options: GenerationOptions, found: Found, all_finished: bool) -> Found:
        """Rerank hypotheses by other models or by minimum Bayes risk, where options ask for it."""
        for row, hypotheses in enumerate(found):
            if not hypotheses:
                raise CheckpointError(
                    f"sentence {requests.index(row) + 1} has no translation: the model's scores are not finite, or "
                    "the options forbid every output"
                )
        if options.mbr or options.ch_wt or options.lm_wt:
            if requests.texts is None:
                names = (OptionName(name) for name in ("mbr", "ch_wt", "lm_wt"))
                raise ConfigError("{}, {} and {} rank texts, and the engine was given ids alone", *names)
            rank = _by_expected_utility if options.mbr else self._by_other_models
            found = rank(requests, requests.texts, options, found)
        return found if all_finished else [hypotheses[: options.nbest] for hypotheses in found]

    def _by_other_models(
        self, requests: Requests, texts: CandidateTexts, options: GenerationOptions, found: Found
    ) -> Found:
        rows = range(len(found))
        candidates = [[texts.target(row, each) for each in found[row]] for row in rows]
        lengths = [len(source) for source in requests.sources]
        added = self.model.reranker([texts.source(row) for row in rows], candidates, lengths, options)
        return [
            best_first([replace(one, score=one.score + more) for one, more in zip(mine, mores, strict=True)])
            for mine, mores in zip(found, added, strict=True)
        ]


def _by_expected_utility(requests: Requests, texts: CandidateTexts, options: GenerationOptions, found: Found) -> Found:
    """Rank hypotheses by their mean utility, each of the others a pseudo-reference (Eikema and Aziz, 2020)."""
    assert options.mbr is not None
    ranked: Found = []
    for row, hypotheses in enumerate(found):
        risk = -expected_utilities([texts.target(row, one) for one in hypotheses], options.mbr)
        ranked.append([hypotheses[place] for place in risk.argsort(kind="stable")])
    return ranked


def _prepared(models: ModelSet, device: torch.device, dtype: torch.dtype) -> ModelSet:
    """Return networks on a device, laid out for inference in a precision."""
    networks = [network.to(device).for_inference(dtype) for network in models.networks]
    fused, draft = models.language_model, models.draft
    if fused is not None:
        fused = check_fusion(fused, networks[0].config.target_vocabulary).to(device).for_inference(dtype)
    if draft is not None:
        draft = draft.to(device).for_inference(dtype)
    return replace(models, networks=networks, language_model=fused, draft=draft)


def _with_forced_bos(options: GenerationOptions, forced: int | None) -> GenerationOptions:
    """Return options under which the model's forced first token holds where it cannot be part of a forced prefix: where
    prefixes are only favoured, and in the list of allowed outputs.

    Raises:
        ConfigError: another first token is asked for.
    """
    if forced is None:
        return options
    if options.allowed_outputs:
        allowed = [ids if ids[:1] == (forced,) else (forced, *ids) for ids in options.allowed_outputs]
        options = replace(options, allowed_outputs=tuple(allowed))
    if not options.prefix_bias_beta:
        return options
    if options.first_token >= 0:
        names = OptionName("first_token"), OptionName("prefix_bias_beta"), forced, options.first_token
        raise ConfigError(
            "{} and {} exclude each other: the model has a first token of its own, id {}, and {} is asked for", *names
        )
    return replace(options, first_token=forced)


def _kept(options: GenerationOptions, all_finished: bool) -> int | None:
    """Return how many hypotheses of a sentence leave the search; None for all that finished."""
    reranked = options.mbr or options.ch_wt or options.lm_wt
    return None if reranked or all_finished else options.nbest


def _shares(count: int, workers: int) -> list[Rows]:
    """Divide a batch among workers, so that each gets long and short sentences alike and at least two."""
    parts = min(workers, max(1, count // 2))
    return [np.arange(first, count, parts) for first in range(parts)]


def _batches(lengths: Sequence[int], limits: BatchLimits, workers: int) -> list[Rows]:
    """Return batches of like lengths, the longest first, so that stragglers end early; the last are smaller where
    several workers would wait for one another."""
    batches = sorted_batches(np.arange(len(lengths)), np.array(lengths), limits)[::-1]
    if workers > 1 and len(batches) > workers:
        last = [part for batch in batches[-workers:] for part in np.array_split(batch, 2)]
        batches[-workers:] = [part for part in last if len(part)]
    return batches
