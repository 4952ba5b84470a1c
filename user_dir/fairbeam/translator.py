"""Text to text: tokenize, decode with the engine, detokenize."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from fairbeam.engine import Engine, complete_options
from fairbeam.engine_model import HelperModels, model_of_bundles
from fairbeam.errors import ConfigError, InputError, OptionName
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.formats.registry import read_model
from fairbeam.generation import GenerationOptions
from fairbeam.generation.build import CONTINUOUS_BATCHES, STREAMED_TEXT, Door
from fairbeam.generation.options import with_defaults
from fairbeam.generation.search.beams import Beams
from fairbeam.generation.search.finished import Finished
from fairbeam.generation.search.streaming import certain_tokens, given_by_thread
from fairbeam.model import Bundle
from fairbeam.network import Generator, Precision, tune_memory
from fairbeam.requests import CandidateTexts, DecodingLimits, Requests, TooLong
from fairbeam.text import TextSide
from fairbeam.text.phrases import Phrases, phrase_ids, required_ids
from fairbeam.translation import Detokenizer, Translation

__all__ = ["DecodingLimits", "ModelFiles", "TooLong", "Translation", "Translator", "load"]


class Translator:
    """A model ready to translate: the engine with tokenizers on either side."""

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
            channel_model: translates the other way; reranks finished hypotheses with ``ch_wt``, 1 by default.
            lm_model: a language model of the target language, with any tokenizer; reranks them with ``lm_wt``, 1 by
                default.
            draft: a smaller model with the same dictionaries, which drafts what the models then verify; for
                ``beam=1`` alone.

        Raises:
            ConfigError: an unknown precision or device, no workers, no tokenizer, a target language that has yet to be
                chosen, dictionaries that differ, or a model of the wrong kind.
        """
        tune_memory()
        self.device = _device(device)
        helpers = HelperModels(fusion=fusion_model, channel=channel_model, language_model=lm_model, draft=draft)
        model = model_of_bundles(models, helpers, self.device)
        self.engine = Engine(model, precision=Precision.parse(precision), device=self.device, workers=workers)
        first = models[0]
        assert first.source is not None
        assert first.target is not None
        self.source: TextSide = first.source
        self.target: TextSide = first.target
        self.generation, self.special = first.generation, model.special

    @functools.cached_property
    def _empty_length(self) -> int:
        """Number of tokens of an empty source."""
        return len(self.source.encode(""))

    @property
    def networks(self) -> Sequence[Generator]:
        """Networks of the search, as inference uses them."""
        return self.engine.models.networks

    @property
    def max_source_tokens(self) -> int:
        """Longest source that the model reads, ``</s>`` included."""
        return self.engine.max_source_tokens

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
        """Return the best translation of each sentence, in order; an empty line gives an empty line.

        >>> model.translate(["A man sleeps."], required_phrases=[["Mensch", ("schläft", "schlummert")]])

        Args:
            sentences: plain text, one sentence each.
            limits: batch sizes and the like.
            target_prefix: for each sentence the text that its translation begins with, or that is favoured there with
                ``prefix_bias_beta``.
            required_phrases: for each sentence what its translation must contain, in any order unless
                ``constraints="ordered"``; spelt as a text spells it between spaces.
            replace_unk: replace ``<unk>`` by the source token it aligns with, translated by this dictionary where it
                has that token.
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

    def token_id(self, text: str, name: str) -> int:
        """Return the target id of a text that is one token.

        Raises:
            ConfigError: it is none, or several, or unknown; says so of the option of this name.
        """
        found = phrase_ids(self.target, [text])
        if len(found) != 1 or len(found[0]) != 1 or found[0][0] == self.target.unk:
            tokens = " ".join(self.target.symbols(found[0])) if found else "nothing"
            raise ConfigError("{} {!r}: expected one token of the model's; it is {}", OptionName(name), text, tokens)
        return found[0][0]

    def output_ids(self, outputs: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Return target ids of whole outputs, for ``allowed_outputs``."""
        return phrase_ids(self.target, outputs)

    def phrase_ids(self, phrases: Iterable[str]) -> tuple[tuple[int, ...], ...]:
        """Return target ids of words or phrases as a text spells them between spaces, for ``banned_phrases``."""
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
        """Yield the n best translations of each sentence, in order; read and translate a buffer at a time.

        >>> list(model.stream(["A man sleeps."], target_prefix=["Ein"], return_alternatives=True, nbest=5))

        Options are checked at once, before the first sentence is read; errors as for ``translate``. With
        ``return_alternatives`` they are in the order of how probable the token behind the prefix is.
        """
        if replace_unk is not None:
            options = {**options, "attention": True}
        limits = limits or DecodingLimits()
        door = CONTINUOUS_BATCHES if limits.continuous else None
        has_prefix, has_phrases = target_prefix is not None, required_phrases is not None
        chosen = self._options(options, door, has_prefix=has_prefix, has_phrases=has_phrases)
        call = _Call(limits, chosen, Detokenizer(self.source, self.target, replace_unk))
        return self._stream(sentences, target_prefix, required_phrases, call)

    def stream_text(
        self,
        sentence: str,
        *,
        target_prefix: str | None = None,
        too_long: TooLong = TooLong.ERROR,
        number: int = 1,
        **options: Any,
    ) -> Iterator[str]:
        """Yield the best translation of one sentence piece by piece, each as soon as it is certain.

        A piece is certain when all hypotheses that may become the best begin with it: with ``beam=1`` at every token.
        Pieces are never empty; together they are the text that ``translate`` gives.

        Args:
            target_prefix: text that the translation begins with.
            too_long: what to do with a sentence that the model can't read.
            number: the sentence's, for messages.
            **options: fields of ``GenerationOptions``, as for ``translate``.

        Raises:
            ConfigError: an unknown or impossible option, or one that ranks hypotheses when all have ended.
            InputError: the sentence is too long for the model.
        """
        chosen = self._options(options, STREAMED_TEXT, has_prefix=target_prefix is not None, has_phrases=False)
        return self._stream_text(sentence, target_prefix, too_long, number, chosen)

    def attention(self, source: str, target: str) -> tuple[list[str], list[str], list[list[float]]]:
        """Return the (first) model's cross-attention while it is made to write ``target``.

        Returns:
            Source tokens, target tokens, and for each target token its weights over the source tokens: the
            last decoder layer's cross-attention, averaged over heads.

        Raises:
            InputError: one of the two is too long for the model.
        """
        ids = self.source.encode(source), self.target.encode(target)
        weights = self.engine.attention(*ids)
        return self.source.symbols(ids[0]), self.target.symbols(ids[1]), weights.tolist()

    def _options(
        self, given: dict[str, Any], door: Door | None, *, has_prefix: bool, has_phrases: bool
    ) -> GenerationOptions:
        """Return the model's defaults with what the caller wants otherwise, checked against the models."""
        model = self.engine.model
        drafts = model.networks.draft is not None
        given = complete_options(given, reranker=model.reranker, drafts=drafts, has_phrases=has_phrases)
        options = with_defaults(given, self.generation)
        self.engine.check(options, door=door, has_prefix=has_prefix, has_phrases=has_phrases)
        return options

    def _stream(
        self,
        sentences: Iterable[str],
        target_prefix: Iterable[str] | None,
        required_phrases: Iterable[Phrases] | None,
        call: "_Call",
    ) -> Iterator[list[Translation]]:
        waiting, number = iter(sentences), 1
        prefixes, phrases = (None if given is None else iter(given) for given in (target_prefix, required_phrases))
        while lines := list(islice(waiting, call.limits.buffer_size)):
            required = _take(phrases, len(lines), number, "required phrases")
            window = _Window(lines, number, _take(prefixes, len(lines), number, "target prefix"), required)
            yield from self._translate(window, call)
            number += len(lines)
        for given, name in ((phrases, "required phrases"), (prefixes, "target prefixes")):
            if given is not None and next(given, None) is not None:
                raise InputError(f"there are more than {number - 1} lines of {name} for {number - 1} sentences")

    def _translate(self, window: "_Window", call: "_Call") -> list[list[Translation]]:
        """Translate a window: decode what is no blank line and short enough, and put it back in order."""
        options = call.options
        rows, requests = self._requests(window, call)
        found = self.engine.generate(requests, options, call.limits) if rows else []
        # A limit of very few tokens leaves fewer than n; n lines a sentence are promised.
        results = [[Translation("", 0.0, (), ())] * options.nbest for _ in window.lines]
        for row, source, hypotheses in zip(rows, requests.sources, found, strict=True):
            for rank, each in enumerate(hypotheses):
                pairs = None if each.attention is None else self.engine.align(each, source)
                results[row][rank] = call.texts.translation(each, window.lines[row], source, pairs)
        return results

    def _requests(self, window: "_Window", call: "_Call") -> tuple[list[int], Requests]:
        """Return the places in the window of sentences to decode, and what the engine needs to know of them."""
        encoded = self.source.encode_batch(window.lines)
        fitted = [self.engine.fit(ids, window.first + row - 1, call.limits.too_long) for row, ids in enumerate(encoded)]
        sources = {
            row: ids
            for row, ids in enumerate(fitted)
            if ids is not None and window.lines[row].strip() and len(ids) > self._empty_length
        }
        rows = list(sources)
        lines = [window.lines[row] for row in rows]
        ids = list(sources.values())
        texts = CandidateTexts(
            source=lambda row: lines[row],
            target=lambda row, each: call.texts.text(each, lines[row], ids[row]),
        )
        prefixes, required = window.prefixes, window.required
        return rows, Requests(
            sources=ids,
            prefixes=None if prefixes is None else [self._prefix_ids(prefixes[row]) for row in rows],
            required=None if required is None else [required_ids(self.target, required[row]) for row in rows],
            indices=[window.first + row - 1 for row in rows],
            texts=texts,
        )

    def _prefix_ids(self, text: str) -> tuple[int, ...]:
        return next(iter(phrase_ids(self.target, [text])), ())

    def _stream_text(
        self, sentence: str, target_prefix: str | None, too_long: TooLong, number: int, options: GenerationOptions
    ) -> Iterator[str]:
        row = self.engine.fit(self.source.encode(sentence), number - 1, too_long)
        if row is None or not sentence.strip() or len(row) <= self._empty_length:
            return
        prefixes = None if target_prefix is None else [self._prefix_ids(target_prefix)]
        requests = Requests(sources=[row], prefixes=prefixes, indices=[number - 1])
        given = ""
        texts: Iterator[str] = given_by_thread(lambda give: self._decoded_pieces(requests, options, give))
        for text in texts:
            if len(text) > len(given):
                yield text[len(given) :]
                given = text

    def _decoded_pieces(self, requests: Requests, options: GenerationOptions, give: Callable[[str], None]) -> None:
        """Give what is certain of the text at every step, and then the text."""

        def watch(alive: torch.Tensor, beams: Beams, finished: Finished) -> None:
            # Bytes of a character that is not whole, and spaces that may be the last, are not certain yet.
            give(self.target.decode(certain_tokens(0, 0, beams, finished)).rstrip("\ufffd "))

        ((best, *_),) = self.engine.watch(requests, options, watch)
        give(self.target.decode(best.tokens.tolist()))


@dataclass(frozen=True)
class _Call:
    """Arguments of a call that hold for all its sentences."""

    limits: DecodingLimits
    options: GenerationOptions
    texts: Detokenizer


@dataclass(frozen=True)
class _Window:
    """Sentences that are translated together, with one prefix and one list of phrases each, if any."""

    lines: list[str]
    first: int
    """Number of the first sentence, from 1."""
    prefixes: list[str] | None
    required: list[Phrases] | None


def _take(waiting: Iterator[Any] | None, count: int, number: int, name: str) -> list[Any] | None:
    """Return the next ``count`` items, one for each sentence from sentence ``number`` on; None if there is no iterator.

    Raises:
        InputError: there are fewer.
    """
    if waiting is None:
        return None
    found = list(islice(waiting, count))
    if len(found) < count:
        raise InputError(f"sentence {number + len(found)} has no {name}, not even an empty line")
    return found


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError("{} {}: {}", OptionName("device"), name, str(error).splitlines()[0]) from None
    return device


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
