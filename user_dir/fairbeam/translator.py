"""Text to text: a model, its tokenizers and beam search behind one call."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairbeam.data.batching import BatchLimits, sorted_batches
from fairbeam.errors import CheckpointError, ConfigError, InputError
from fairbeam.formats.bundle import Bundle
from fairbeam.formats.fairseq import ModelFiles, generator, read_model, special_ids
from fairbeam.generation import (
    Batch,
    Constraints,
    DecoderPool,
    GenerationOptions,
    Hypothesis,
    ModelSet,
    RequestWindow,
    Required,
)
from fairbeam.generation.alignment import hard_alignment, unknown_replaced
from fairbeam.generation.ensemble import check_fusion
from fairbeam.generation.search.beams import Beams
from fairbeam.generation.search.finished import Finished
from fairbeam.generation.search.shortlist import check_search
from fairbeam.generation.search.speculative import DRAFT_TOKENS, check_drafting
from fairbeam.generation.search.streaming import certain_tokens, given_by_thread
from fairbeam.network import (
    DecoderOnly,
    Generator,
    Precision,
    Seq2Seq,
    pad_batch,
    tune_memory,
)
from fairbeam.reranking import Reranker, Rescorer
from fairbeam.scoring.minimum_bayes_risk import expected_utilities
from fairbeam.text import TextSide, Tokenizer
from fairbeam.text.phrases import Phrases, phrase_ids, required_ids, word_numbers

logger = logging.getLogger(__name__)

_NOT_STREAMED = (
    "attention", "ch_wt", "constraints", "coverage_penalty", "lm_wt", "mbr", "penalty_alpha",
    "prefix_allowed_tokens_fn", "return_alternatives", "shortlist",
)  # fmt: skip
"""Options that rank hypotheses, or explain them, when all have ended; or whose search is another."""


class TooLong(StrEnum):
    """What to do with a sentence that has more tokens than the model has positions."""

    ERROR = "error"
    TRUNCATE = "truncate"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """How much is decoded at a time, and what becomes of sentences that are too long."""

    batch_size: int = 64
    """Sentences in a batch at most."""
    max_tokens: int = 8192
    """Source tokens in a batch at most, padding included; bounds memory however long the input."""
    buffer_size: int = 2048
    """Sentences read ahead and sorted by length at a time."""
    too_long: TooLong = TooLong.ERROR
    continuous: bool = False
    """Whether sentences join a batch as others leave it, so that it stays full, where the model can do that."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_tokens", "buffer_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")


@dataclass(frozen=True)
class Translation:
    """One output for one input."""

    text: str
    score: float
    """Length-normalised log probability in nats; with what other models add where they rank."""
    tokens: tuple[str, ...]
    """Target pieces, without ``</s>``."""
    token_scores: tuple[float, ...]
    """Log probability of each piece in nats, ``</s>`` last."""
    alignment: tuple[tuple[int, int], ...] | None = None
    """Words of the source and of the target that belong together, places from 0; with ``attention=True``."""
    attention: tuple[tuple[float, ...], ...] | None = None
    """For each piece, ``</s>`` last, where the model looked in the source's pieces; with ``attention=True``."""


class Translator:
    """A model ready to translate: weights laid out for inference, tokenizers, workers."""

    def __init__(
        self,
        models: Sequence[Bundle],
        *,
        precision: str = "auto",
        device: str = "cpu",
        workers: int | None = None,
        fusion_model: Bundle | None = None,
        channel_model: Bundle | None = None,
        lm_model: Bundle | None = None,
        draft: Bundle | None = None,
    ) -> None:
        """Several models are an ensemble and must share dictionaries.

        Args:
            models: at least one.
            precision: ``auto`` (integers or bfloat16 where the hardware is fast at them), ``float32``,
                ``bfloat16``, ``int16`` or ``int8``.
            device: as torch names it: ``cpu``, ``cuda``, ``cuda:1``.
            workers: decoding processes; by default one for each core.
            fusion_model: a language model with the same target dictionary, which counts in the search with
                ``lm_weight``.
            channel_model: translates the other way; ranks finished hypotheses with ``ch_wt``, 1 unless said.
            lm_model: a language model of the target language, with any tokenizer; ranks them with ``lm_wt``, 1 unless
                said.
            draft: a smaller model with the same dictionaries, which drafts what the models then verify; for
                ``beam=1`` alone.

        Raises:
            ConfigError: an unknown precision or device, no workers, no tokenizer, a target language that has yet to be
                chosen, dictionaries that differ, or a model of the wrong kind.
        """
        if workers is not None and workers < 1:
            raise ConfigError(f"--workers {workers}: must be at least 1")
        tune_memory()
        first = models[0]
        networks = [generator(model) for model in models]
        if first.source is None or first.target is None:
            raise ConfigError(
                "the model has no tokenizer, so it takes ids alone; add the tokenizer's files to its folder"
            )
        _check_dictionaries(models, draft)
        self._start, self._first = first.beginning()
        self.device = _device(device)
        dtype = Precision.parse(precision).resolve(self.device)
        self.networks: list[Generator] = [network.to(self.device).for_inference(dtype) for network in networks]
        self.source, self.target = first.source, first.target
        self.generation = first.generation
        self.special = special_ids(first)
        self._shortlist = first.shortlist
        self._fusion = None if fusion_model is None else self._fused(fusion_model, first).for_inference(dtype)
        self._reranker = Reranker(
            channel=None if channel_model is None else Rescorer(channel_model, self.device, "--channel-model"),
            language_model=None if lm_model is None else Rescorer(lm_model, self.device, "--lm-model"),
        )
        self._draft = None if draft is None else generator(draft).to(self.device).for_inference(dtype)
        searched = ModelSet(self.networks, self.special, self._shortlist, self._fusion, self._draft)
        self._decoder = DecoderPool(searched, self.device, workers)

    def _fused(self, language_model: Bundle, model: Bundle) -> DecoderOnly:
        """The language model of shallow fusion, on the device, once it is one that knows the model's target symbols."""
        network = check_fusion(language_model.network, generator(model).config.target_vocabulary)
        own = language_model.source
        if own is not None and model.target is not None and _symbols(own) != _symbols(model.target):
            raise ConfigError("--lm-path: the language model's dictionary differs from the model's target dictionary")
        return network.to(self.device)

    @functools.cached_property
    def _has_one_vocabulary(self) -> bool:
        """Whether ids of sources mean what ids of targets do."""
        return self.source is self.target or _symbols(self.source) == _symbols(self.target)

    @functools.cached_property
    def _empty_length(self) -> int:
        """Tokens of a source that says nothing."""
        return len(self.source.encode(""))

    @property
    def max_source_tokens(self) -> int:
        """Longest source that the model reads, ``</s>`` included."""
        return min(network.max_source_positions for network in self.networks)

    def translate(
        self,
        sentences: Sequence[str],
        *,
        limits: DecodingLimits | None = None,
        target_prefix: Sequence[str] | None = None,
        required_phrases: Sequence[Phrases] | None = None,
        replace_unk: dict[str, str] | None = None,
        **options: Any,
    ) -> list[str]:
        """The best translation of each sentence, in order; an empty line gives an empty line.

        >>> model.translate(["A man sleeps."], required_phrases=[["Mensch", ("schläft", "schlummert")]])

        Args:
            sentences: plain text, one sentence each.
            limits: batch sizes and the like.
            target_prefix: for each sentence the text that its translation begins with, or that is favoured there with
                ``prefix_bias_beta``.
            required_phrases: for each sentence what its translation must contain, in any order unless
                ``constraints="ordered"``; spelt as a text spells it between spaces.
            replace_unk: put in the place of ``<unk>`` what this makes of the source token it aligns with, or else that
                token itself.
            **options: fields of ``GenerationOptions`` that differ from the model's defaults, e.g. ``beam=4``.

        Raises:
            ConfigError: an unknown or impossible option.
            InputError: a sentence is too long for the model; names it by number. Or there are not as many
                ``required_phrases`` or prefixes as sentences.
        """
        found = self.stream(
            sentences, limits=limits, target_prefix=target_prefix, required_phrases=required_phrases,
            replace_unk=replace_unk, **options,
        )  # fmt: skip
        return [translations[0].text for translations in found]

    def token_id(self, text: str, option: str) -> int:
        """The target id of a text that is one token.

        Raises:
            ConfigError: it is none, or several, or unknown; names ``option``.
        """
        found = phrase_ids(self.target, [text])
        if len(found) != 1 or len(found[0]) != 1 or found[0][0] == self.target.unk:
            tokens = " ".join(self.target.symbols(found[0])) if found else "nothing"
            raise ConfigError(f"{option} {text!r}: expected one token of the model's; it is {tokens}")
        return found[0][0]

    def output_ids(self, outputs: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Target ids of whole outputs, for ``allowed_outputs``."""
        first = () if self._first is None else (self._first,)
        return tuple((*first, *ids) for ids in phrase_ids(self.target, outputs))

    def phrase_ids(self, phrases: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Target ids of words or phrases as a text spells them between spaces, for ``banned_phrases``."""
        return phrase_ids(self.target, phrases)

    def stream(
        self,
        sentences: Iterable[str],
        *,
        limits: DecodingLimits | None = None,
        target_prefix: Iterable[str] | None = None,
        required_phrases: Iterable[Phrases] | None = None,
        replace_unk: dict[str, str] | None = None,
        **options: Any,
    ) -> Iterator[list[Translation]]:
        """The n best translations of each sentence, in order, read and given a buffer at a time.

        >>> list(model.stream(["A man sleeps."], target_prefix=["Ein"], return_alternatives=True, nbest=5))

        Options are checked at once, before the first sentence is read; errors as for ``translate``. With
        ``return_alternatives`` they are in the order of how probable the token behind the prefix is.
        """
        if required_phrases is None and options.get("constraints") is not None:
            raise ConfigError(f"--constraints {options['constraints']}: needs phrases (required_phrases)")
        if required_phrases is not None:
            options = {"constraints": Constraints.UNORDERED, **options}
        if replace_unk is not None:
            if not (isinstance(self.source, Tokenizer) and isinstance(self.target, Tokenizer)):
                raise ConfigError(
                    "--replace-unk: needs a model with dictionaries; this one's tokenizer knows every text"
                )
            options = {**options, "attention": True}
        replaced = self._options(options, has_prefix=target_prefix is not None)
        return self._stream(
            sentences, target_prefix, required_phrases, replace_unk, replaced, limits or DecodingLimits()
        )

    def stream_text(
        self,
        sentence: str,
        *,
        target_prefix: str | None = None,
        too_long: TooLong = TooLong.ERROR,
        number: int = 1,
        **options: Any,
    ) -> Iterator[str]:
        """The best translation of one sentence, piece by piece, each as soon as it is certain.

        A piece is certain when all hypotheses that may become the best begin with it: with ``beam=1`` at every token.
        Pieces are never empty; together they are the text that ``translate`` gives.

        Args:
            target_prefix: what the translation begins with.
            too_long: what to do with a sentence that the model can't read.
            number: the sentence's, for messages.
            **options: fields of ``GenerationOptions``, as for ``translate``.

        Raises:
            ConfigError: an unknown or impossible option, or one that ranks hypotheses when all have ended.
            InputError: the sentence is too long for the model.
        """
        replaced = self._options(options, has_prefix=target_prefix is not None)
        if replaced.nbest > 1:
            raise ConfigError(f"--nbest {replaced.nbest}: one translation is streamed; expected 1")
        for name in _NOT_STREAMED:
            if getattr(replaced, name):
                raise ConfigError(f"--{name.replace('_', '-')} means nothing where a translation is streamed")
        return self._stream_text(sentence, target_prefix, too_long, number, replaced)

    def _stream_text(
        self, sentence: str, target_prefix: str | None, too_long: TooLong, number: int, options: GenerationOptions
    ) -> Iterator[str]:
        row = self._fit(self.source.encode(sentence), number, too_long)
        if not sentence.strip() or len(row) <= self._empty_length:
            return
        batch = self._batch([row], self._adapted(options), None if target_prefix is None else [target_prefix])
        given = ""
        texts: Iterator[str] = given_by_thread(lambda give: self._decoded_pieces(batch, number, give))
        for text in texts:
            if len(text) > len(given):
                yield text[len(given) :]
                given = text

    def _decoded_pieces(self, batch: Batch, number: int, give: Callable[[str], None]) -> None:
        """Give what is certain of the text at every step, and then the text."""

        def watch(alive: torch.Tensor, beams: Beams, finished: Finished) -> None:
            # Bytes of a character that is not whole, and spaces that may be the last, are not certain yet.
            give(self.target.decode(certain_tokens(0, 0, beams, finished)).rstrip("\ufffd "))

        (hypotheses,) = self._decoder.watched(batch, watch)
        if not hypotheses:
            raise _no_translation(number)
        give(self.target.decode(hypotheses[0].tokens.tolist()))

    def _options(self, options: dict[str, Any], *, has_prefix: bool) -> GenerationOptions:
        """The model's defaults with what the caller wants otherwise, checked against what there is."""
        known = [field.name for field in dataclasses.fields(GenerationOptions)]
        if unknown := sorted(options.keys() - set(known)):
            raise ConfigError(f"unknown generation option {unknown[0]!r}; known are {', '.join(known)}")
        if self._draft is not None:
            options = {"draft_tokens": DRAFT_TOKENS, **options}
        replaced = dataclasses.replace(self.generation, **self._reranker.with_weights(options))
        if replaced.shortlist:
            check_search(self._shortlist, self.networks, replaced)
        if replaced.speculates:
            check_drafting(self.networks, replaced, self.special, self._draft, one_vocabulary=self._has_one_vocabulary)
        if replaced.lm_weight and self._fusion is None:
            raise ConfigError(f"--lm-weight {replaced.lm_weight}: there is no language model; --lm-path names one")
        if replaced.prefix_bias_beta and not has_prefix:
            raise ConfigError(f"--prefix-bias-beta {replaced.prefix_bias_beta}: needs a prefix (--target-prefix)")
        return replaced

    def _stream(
        self,
        sentences: Iterable[str],
        target_prefix: Iterable[str] | None,
        required_phrases: Iterable[Phrases] | None,
        unknown: dict[str, str] | None,
        options: GenerationOptions,
        limits: DecodingLimits,
    ) -> Iterator[list[Translation]]:
        waiting = iter(sentences)
        prefixes = None if target_prefix is None else iter(target_prefix)
        phrases = None if required_phrases is None else iter(required_phrases)
        options = self._adapted(options)
        number = 1
        while window := list(islice(waiting, limits.buffer_size)):
            groups = _beside(phrases, len(window), number, "required phrases")
            required = None if groups is None else [required_ids(self.target, mine) for mine in groups]
            asked = _Asked(_beside(prefixes, len(window), number, "target prefix"), required, unknown)
            yield from self._translate_window(window, asked, number, options, limits)
            number += len(window)
        for given, what in ((phrases, "required phrases"), (prefixes, "target prefixes")):
            if given is not None and next(given, None) is not None:
                raise InputError(f"there are more than {number - 1} lines of {what} for {number - 1} sentences")

    def attention(self, source: str, target: str) -> tuple[list[str], list[str], list[list[float]]]:
        """Where the (first) model looks while it is made to write ``target``.

        Returns:
            Source pieces, target pieces, and for each target piece its weights over the source pieces: the
            last decoder layer's cross-attention, averaged over heads.

        Raises:
            InputError: one of the two is too long for the model.
        """
        rows = self.source.encode(source), self.target.encode(target)
        network = self.networks[0]
        if not isinstance(network, Seq2Seq):
            raise ConfigError("a decoder without an encoder has no cross-attention to show")
        for side, row, limit in (
            ("source", rows[0], network.max_source_positions),
            ("target", rows[1], network.max_target_positions),
        ):
            if len(row) > limit:
                raise InputError(f"the {side} has {len(row)} tokens, but the model reads at most {limit}")
        previous = [network.decoder_start if self._start is None else self._start, *rows[1][:-1]]
        weights = network.alignments(
            torch.tensor([rows[0]], device=self.device), torch.tensor([previous], device=self.device)
        )
        return (
            self.source.symbols(rows[0]), self.target.symbols(rows[1]),
            weights[0].float().tolist(),
        )  # fmt: skip

    def _translate_window(
        self,
        sentences: list[str],
        asked: "_Asked",
        number: int,
        options: GenerationOptions,
        limits: DecodingLimits,
    ) -> list[list[Translation]]:
        """Sort, batch, decode and put back in order; ``number`` is the first sentence's, for messages."""
        rows = self.source.encode_batch(sentences)
        rows = [self._fit(row, number + place, limits.too_long) for place, row in enumerate(rows)]
        lengths = np.array([len(row) for row in rows])
        blank = np.array([not sentence.strip() for sentence in sentences], dtype=bool)
        filled = np.flatnonzero((lengths > self._empty_length) & ~blank)
        batch_limits = BatchLimits(max_tokens=limits.max_tokens, max_sentences=limits.batch_size)
        batches = sorted_batches(filled, lengths, batch_limits)[::-1]  # the longest first: stragglers end early
        if (workers := self._decoder.workers) > 1 and len(batches) > workers:
            # No worker has long to wait for another at the end.
            last = [part for batch in batches[-workers:] for part in np.array_split(batch, 2)]
            batches[-workers:] = [part for part in last if len(part)]
        here = options.prefix_allowed_tokens_fn is not None

        def batch_of(chosen: np.ndarray) -> Batch:
            return dataclasses.replace(
                self._batch([rows[row] for row in chosen], options, _of(chosen, asked.prefixes)),
                required=_of(chosen, asked.required),
                numbers=[number - 1 + int(row) for row in chosen] if here else None,
                best=None if options.mbr or options.ch_wt or options.lm_wt else options.nbest,
            )

        decoded: Iterable[list[list[Hypothesis]]]
        if limits.continuous and len(batches) > 1 and self._decoder.supports_joining(options):
            whole = batch_of(filled)
            window = RequestWindow(
                [rows[row] for row in filled],
                options,
                batch_limits,
                prefix=whole.prefix,
                start=whole.start,
                required=whole.required,
                numbers=whole.numbers,
            )
            batches, decoded = [filled], [self._decoder.decode_window(window, here=here)]
        else:
            decoded = self._decoder.decode(map(batch_of, batches), here=here)
        results: list[list[Translation]] = [[] for _ in rows]
        for batch, found in zip(batches, decoded, strict=True):
            for row, hypotheses in zip(batch, found, strict=True):
                if not hypotheses:
                    raise _no_translation(number + row)
                results[row] = self._as_texts(hypotheses, sentences[row], rows[row], options, asked.unknown)
        if options.ch_wt or options.lm_wt:
            results = self._reranked(results, sentences, lengths, options)
        # A limit of very few tokens leaves fewer than n; n lines a sentence are promised.
        empty = [Translation("", 0.0, (), ())] * options.nbest
        return [(found + empty)[: options.nbest] for found in results]

    def _reranked(
        self, found: list[list[Translation]], sentences: list[str], lengths: np.ndarray, options: GenerationOptions
    ) -> list[list[Translation]]:
        """The translations of every sentence by their scores with those of other models; those are a window's work."""
        texts = [[translation.text for translation in translations] for translations in found]
        added = self._reranker(sentences, texts, lengths.tolist(), options)
        scored = [
            [dataclasses.replace(one, score=one.score + more) for one, more in zip(translations, mores, strict=True)]
            for translations, mores in zip(found, added, strict=True)
        ]
        return [sorted(translations, key=lambda one: -one.score) for translations in scored]

    def _batch(self, rows: list[list[int]], options: GenerationOptions, prefixes: Sequence[str] | None) -> Batch:
        """Sources with what their outputs begin with: the model's own first token, and then a text."""
        source = pad_batch(rows, self.special.padding_of_sources).numpy()
        first = [] if self._first is None else [self._first]
        if prefixes is None:
            prefix = np.full((len(rows), 1), self._first) if first else None
        else:
            ids = [[*first, *self._prefix_ids(text)] for text in prefixes]
            prefix = pad_batch(ids, self.special.pad).numpy().astype(np.int64)
        return Batch(source, options, prefix=prefix, start=self._start)

    def _prefix_ids(self, text: str) -> tuple[int, ...]:
        return next(iter(phrase_ids(self.target, [text])), ())

    def _adapted(self, options: GenerationOptions) -> GenerationOptions:
        """Options under which the model's own first token is forced where prefixes are not."""
        if not options.prefix_bias_beta or self._first is None:
            return options
        if options.first_token >= 0:
            raise ConfigError(
                "--first-token and --prefix-bias-beta exclude each other: the model has its own first one"
            )
        return dataclasses.replace(options, first_token=self._first)

    def _fit(self, row: list[int], number: int, too_long: TooLong) -> list[int]:
        limit = self.max_source_tokens
        if len(row) <= limit:
            return row
        what = f"sentence {number} has {len(row)} tokens, but the model reads at most {limit}"
        if too_long is TooLong.ERROR:
            raise InputError(f"{what}; --too-long truncate shortens such sentences, --too-long skip leaves them empty")
        if too_long is TooLong.SKIP:
            logger.warning("%s; its translation is left empty", what)
            return self.source.encode("")
        logger.warning("%s; it is shortened", what)
        end = len(row) - self.source.closing
        return [*row[: limit - self.source.closing], *row[end:]]

    def _as_texts(
        self,
        hypotheses: list[Hypothesis],
        sentence: str,
        source: list[int],
        options: GenerationOptions,
        unknown: dict[str, str] | None,
    ) -> list[Translation]:
        """The n best as texts."""
        ranked_again = options.mbr or options.ch_wt or options.lm_wt
        chosen = hypotheses[: None if ranked_again else options.nbest]
        texts = [self._as_text(hypothesis, sentence, source, unknown) for hypothesis in chosen]
        if options.mbr is not None:
            risk = -expected_utilities([translation.text for translation in texts], options.mbr)
            texts = [texts[place] for place in risk.argsort(kind="stable")[: options.nbest]]
        return texts

    def _as_text(
        self, hypothesis: Hypothesis, sentence: str, source: list[int], unknown: dict[str, str] | None
    ) -> Translation:
        ids = hypothesis.tokens.tolist()
        if hypothesis.attention is None:
            text, attention, alignment = self.target.decode(ids), None, None
        else:
            attention = hypothesis.attention[:, : len(source)]
            text = (
                self.target.decode(ids) if unknown is None else self._known(ids, sentence, source, attention, unknown)
            )
            marks = [id for id in (self.source.bos, self.source.eos, self.source.language_id) if id is not None]
            places = hard_alignment(attention, torch.tensor(source), marks)
            words = word_numbers(self.source.symbols(id for id in source if id not in marks))
            written = word_numbers(self.target.symbols(ids[:-1]))
            alignment = tuple(dict.fromkeys((words[a], written[b]) for a, b in places))
        return Translation(
            text=text,
            score=hypothesis.score,
            tokens=tuple(self.target.symbols(ids[:-1])),
            token_scores=tuple(hypothesis.positional_scores.tolist()),
            alignment=alignment,
            attention=None if attention is None else tuple(map(tuple, attention.tolist())),
        )

    def _known(
        self, ids: list[int], sentence: str, source: list[int], attention: torch.Tensor, unknown: dict[str, str]
    ) -> str:
        """The text of a hypothesis with what its unknown tokens align with in their place."""
        assert isinstance(self.source, Tokenizer)
        assert isinstance(self.target, Tokenizer)
        pieces = self.source.subwords.encode(sentence)[: len(source) - self.source.closing]
        missing = [id == self.target.unk for id in ids[:-1]]
        return self.target.subwords.decode(
            unknown_replaced(self.target.symbols(ids[:-1]), missing, attention, pieces, unknown)
        )


@dataclass(frozen=True)
class _Asked:
    """What is asked of the translations of a window, a thing for each sentence."""

    prefixes: list[str] | None
    required: list[Required] | None
    unknown: dict[str, str] | None
    """What takes the place of unknown words, for all of them."""


def _of(batch: Iterable[int], things: list[Any] | None) -> list[Any] | None:
    return None if things is None else [things[row] for row in batch]


def _beside(waiting: Iterator[Any] | None, count: int, number: int, what: str) -> list[Any] | None:
    """As many things as there are sentences, the first of which has this number."""
    if waiting is None:
        return None
    found = list(islice(waiting, count))
    if len(found) < count:
        raise InputError(f"sentence {number + len(found)} has no {what}, not even an empty line")
    return found


def _no_translation(number: int) -> CheckpointError:
    return CheckpointError(
        f"sentence {number} has no translation: the model's scores are not finite, or the options forbid every output"
    )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


def _check_dictionaries(models: Sequence[Bundle], draft: Bundle | None) -> None:
    expected = _vocabularies(models[0])
    if any(_vocabularies(other) != expected for other in models[1:]):
        raise ConfigError("the models of an ensemble must have the same dictionaries, and these differ")
    if draft is not None and _vocabularies(draft) != expected:
        raise ConfigError("--draft-model: must have the model's dictionaries, and has others")


def _vocabularies(model: Bundle) -> list[list[str]]:
    return [_symbols(side) for side in (model.source, model.target) if side is not None]


def _symbols(side: TextSide) -> list[str]:
    return side.symbols(range(len(side)))


def load(
    *models: str | Path,
    precision: str = "auto",
    device: str = "cpu",
    workers: int | None = None,
    files: ModelFiles | None = None,
    lm_path: str | Path | None = None,
    channel_model: str | Path | None = None,
    lm_model: str | Path | None = None,
    draft: str | Path | None = None,
) -> Translator:
    """Load a model for translation; several are an ensemble.

    >>> fairbeam.load("checkpoint_best.pt").translate(["A man sleeps."], beam=5)

    Args:
        models: bundles, folders as Hugging Face's ``transformers`` writes them, or fairseq checkpoints (``.pt``) of a
            ``transformer``, ``bart``, ``lstm``, ``transformer_lm`` or ``fairbeam_transformer``.
        precision: ``auto`` (integers or bfloat16 where the hardware is fast at them), ``float32``, ``bfloat16``,
            ``int16`` or ``int8``.
        device: as torch names it. workers: decoding processes, by default one for each core.
        files: a checkpoint's dictionaries and languages, where it needs help to find them.
        lm_path: a language model with the target dictionary, for ``lm_weight``.
        channel_model: a model that translates the other way, for ``ch_wt``.
        lm_model: a language model of the target language, for ``lm_wt``.
        draft: a smaller model with the same dictionaries, for speculative decoding with ``beam=1``: the same texts
            sooner. A call's ``draft_tokens`` says how many tokens it writes ahead; 4 by default.

    Raises:
        CheckpointError: a model cannot be read, or has no conversion.
        InputError: its dictionaries or subword model cannot be found.
    """
    if not models:
        raise ConfigError("no model was named")
    loaded = [read_model(path, files) for path in models]
    # The languages of a multilingual channel model are those of the model, the other way round.
    files = files or ModelFiles()
    back = ModelFiles(source_lang=files.target_lang, target_lang=files.source_lang)
    helpers = {"fusion_model": (lm_path, None), "channel_model": (channel_model, back), "lm_model": (lm_model, None),
               "draft": (draft, files)}  # fmt: skip
    others = {name: read_model(path, where) for name, (path, where) in helpers.items() if path is not None}
    return Translator(loaded, precision=precision, device=device, workers=workers, **others)
