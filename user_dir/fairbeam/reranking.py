"""Other models' opinions of finished translations: noisy-channel and language-model reranking.

A translation ``y`` of ``x`` scores ``log p(y|x) / |y| + (a log p(x|y) + b log p(y)) / |x|`` (Yee et al., 2019, section
2). Each model has its own tokenizer, so that texts go from one to the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairbeam.data.batching import BatchLimits, sorted_batches
from fairbeam.errors import ConfigError, InputError, OptionName
from fairbeam.generation import GenerationOptions
from fairbeam.model import Bundle
from fairbeam.network import DecoderOnly, Generator, Seq2Seq, pad_batch

_BATCH = BatchLimits(max_tokens=4096, max_sentences=64)
CHANNEL_MODEL, LANGUAGE_MODEL = OptionName("channel_model"), OptionName("lm_model")
_CHUNK_ELEMENTS = 1 << 22
"""Logits that exist at a time."""


class Rescorer:
    """Log probabilities of texts by teacher forcing, in float32: by a model of pairs, or by a language model."""

    def __init__(self, model: Bundle, device: torch.device, option: OptionName) -> None:
        """``option`` names the model in errors; it is ``CHANNEL_MODEL`` or ``LANGUAGE_MODEL``.

        Raises:
            ConfigError: the model is of the wrong kind, lacks a tokenizer, or a language has to be chosen.
        """
        kind = Seq2Seq if option == CHANNEL_MODEL else DecoderOnly
        if not isinstance(model.network, kind):
            expected = "an encoder-decoder" if kind is Seq2Seq else "a decoder without an encoder"
            raise ConfigError("{}: the model is a {}; expected {}", option, type(model.network).__name__, expected)
        if model.source is None or model.target is None:
            raise ConfigError("{}: the model has no tokenizer; add the tokenizer's files to its folder", option)
        self.option = option
        self.source, self.target = model.source, model.target
        self._start = model.decoder_prefix()[0]
        self._device = device
        self._network: Generator = model.network.to(device).for_inference(torch.float32)

    def __call__(self, targets: Sequence[str], sources: Sequence[str] | None = None) -> list[float]:
        """Log probability in nats of each target, its end included; given its source, where there is one.

        Raises:
            InputError: a text is too long for the model.
        """
        given = None if sources is None else self.source.encode_batch(sources)
        if given is None:
            rows = [self._sentence(ids) for ids in self.target.encode_batch(targets)]
        else:
            start = self._network.first_token if self._start is None else self._start
            begin = self._network.config.eos if start is None else start
            assert begin is not None  # every encoder-decoder has one or the other
            rows = [[begin, *ids] for ids in self.target.encode_batch(targets)]
        self._check(rows, self._network.max_target_positions + 1)
        self._check(given or (), self._network.max_source_positions)
        lengths = np.array([max(map(len, pair)) for pair in zip(rows, given or rows, strict=True)])
        found = np.zeros(len(rows))
        for batch in sorted_batches(np.arange(len(rows)), lengths, _BATCH):
            found[batch] = self._score([rows[i] for i in batch], None if given is None else [given[i] for i in batch])
        return list(found.tolist())

    def _sentence(self, ids: list[int]) -> list[int]:
        """A text between the symbols that a language model has seen there."""
        config = self._network.config
        eos = config.eos
        if eos is None:
            raise ConfigError("{}: the model has no symbol that ends a text; expected eos_token_id", self.option)
        bos = eos if config.bos is None else config.bos
        opened = ids if ids[:1] in ([bos], [eos]) else [bos, *ids]
        return opened if len(opened) > 1 and opened[-1] == eos else [*opened, eos]

    def _check(self, rows: Sequence[Sequence[int]], limit: int) -> None:
        longest = max(map(len, rows), default=0)
        if longest > limit:
            raise InputError(
                "{}: a text has {} tokens there, but the model reads at most {}", self.option, longest, limit
            )

    @torch.no_grad()
    def _score(self, rows: list[list[int]], sources: list[list[int]] | None) -> np.ndarray:
        """Sums of each row's log probabilities, its first token given."""
        config = self._network.config
        previous = pad_batch([row[:-1] for row in rows], config.pad if sources is None else max(config.pad, 0))
        previous = previous.to(self._device)
        if sources is None:
            features = self._network(previous, features_only=True)
        else:
            source = pad_batch(sources, config.padding_of_sources).to(self._device)
            features = self._network(source, previous, features_only=True)
        lengths = torch.tensor([len(row) - 1 for row in rows], device=self._device)
        real = torch.arange(previous.size(1), device=self._device) < lengths[:, None]
        wanted = torch.tensor([token for row in rows for token in row[1:]], device=self._device)
        each = self._log_probabilities(features[real], wanted)
        numbers = torch.arange(len(rows), device=self._device).repeat_interleave(lengths)
        return each.new_zeros(len(rows), dtype=torch.double).index_add_(0, numbers, each.double()).numpy(force=True)

    def _log_probabilities(self, features: Tensor, wanted: Tensor) -> Tensor:
        """Of the tokens ``wanted``, (tokens,), after ``features``, (tokens, dim)."""
        step = max(16, _CHUNK_ELEMENTS // self._network.config.target_vocabulary)
        return torch.cat(
            [
                self._network.head(part).float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
                for part, tokens in zip(features.split(step), wanted.split(step), strict=True)
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Reranker:
    """The models that rank finished translations anew."""

    channel: Rescorer | None = None
    language_model: Rescorer | None = None

    def with_weights(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options in which a model that is there counts, with fairseq's weight of 1 where none is given.

        Raises:
            ConfigError: there is a weight, and no model for it.
        """
        for name, model, option in (
            ("ch_wt", self.channel, CHANNEL_MODEL), ("lm_wt", self.language_model, LANGUAGE_MODEL),
        ):  # fmt: skip
            if model is not None:
                options = {name: 1.0, **options}
            elif options.get(name):
                names = OptionName(name), options[name], option
                raise ConfigError("{} {}: there is no model to weigh; {} names one", *names)
        return options

    def __call__(
        self, sources: Sequence[str], texts: Sequence[Sequence[str]], lengths: Sequence[int], options: GenerationOptions
    ) -> list[list[float]]:
        """What the models add to the scores of the translations of each source.

        Args:
            sources: source texts.
            texts: for each source its translations.
            lengths: of the sources in the translating model's tokens, ``</s>`` included.
        """
        pairs = dict.fromkeys((source, text) for source, mine in zip(sources, texts, strict=True) for text in mine)
        added = dict.fromkeys(pairs, 0.0)
        if options.ch_wt and self.channel is not None:
            scores = self.channel([source for source, _ in pairs], [text for _, text in pairs])
            added = {pair: added[pair] + options.ch_wt * score for pair, score in zip(pairs, scores, strict=True)}
        if options.lm_wt and self.language_model is not None:
            scores = self.language_model([text for _, text in pairs])
            added = {pair: added[pair] + options.lm_wt * score for pair, score in zip(pairs, scores, strict=True)}
        return [
            [added[source, text] / length for text in mine]
            for source, mine, length in zip(sources, texts, lengths, strict=True)
        ]
