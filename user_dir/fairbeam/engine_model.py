"""A model in memory as the engine uses it: its networks, the ids around its sources and outputs, models beside it."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from fairbeam.errors import ConfigError
from fairbeam.generation import ModelSet, SpecialTokenIds
from fairbeam.generation.ensemble import LANGUAGE_MODEL_OPTION, check_fusion
from fairbeam.generation.search.speculative import DRAFT_MODEL_OPTION
from fairbeam.model import Bundle, DecoderPrefix, generator, special_ids
from fairbeam.network import DecoderOnly
from fairbeam.reranking import CHANNEL_MODEL, LANGUAGE_MODEL, Reranker, Rescorer
from fairbeam.text import TextSide


@dataclass(frozen=True, kw_only=True)
class EngineModel:
    """Networks and what decoding with them needs to know."""

    networks: ModelSet
    """Networks of the search (several are an ensemble) before ``for_inference``."""
    prefix: DecoderPrefix = field(default_factory=DecoderPrefix)
    """Decoder start token and forced first token."""
    source_marks: frozenset[int] = frozenset()
    """Source ids that are no part of the text, such as ``</s>`` and language tokens; alignments leave them out."""
    source_suffix: int = 1
    """Number of ids behind a source's text; truncation keeps them."""
    shares_vocabulary: Callable[[], bool] = lambda: False
    """Whether source and target ids mean the same symbols; called only for options that depend on it."""
    reranker: Reranker = field(default_factory=Reranker)
    """Models that rerank finished hypotheses."""

    @property
    def special(self) -> SpecialTokenIds:
        """Ids of the special tokens."""
        return self.networks.special or SpecialTokenIds()


@dataclass(frozen=True, kw_only=True)
class HelperModels:
    """Models beside the one that translates, each None where it is not wanted."""

    fusion: Bundle | None = None
    """Language model over the target dictionary, for ``lm_weight``."""
    channel: Bundle | None = None
    """Model that translates back, for ``ch_wt``."""
    language_model: Bundle | None = None
    """Language model of the target language with any tokenizer, for ``lm_wt``."""
    draft: Bundle | None = None
    """Smaller model with the same dictionaries, for ``draft_tokens``."""


def model_of_bundles(
    bundles: Sequence[Bundle], helpers: HelperModels, device: torch.device | None = None
) -> EngineModel:
    """Return the model that bundles make together: one, or an ensemble.

    Raises:
        ConfigError: there is no tokenizer, a target language has yet to be chosen, dictionaries differ, or a model is
            of the wrong kind.
    """
    first, device = bundles[0], device or torch.device("cpu")
    networks = [generator(bundle) for bundle in bundles]
    source, target = _sides(first)
    _check_ensemble(bundles, helpers.draft)
    marks = (source.bos, source.eos, source.language_id)
    return EngineModel(
        networks=ModelSet(
            networks,
            special_ids(first),
            first.shortlist,
            None if helpers.fusion is None else _fusion(helpers.fusion, first),
            None if helpers.draft is None else generator(helpers.draft),
        ),
        prefix=first.decoder_prefix(),
        source_marks=frozenset(id for id in marks if id is not None),
        source_suffix=source.closing,
        shares_vocabulary=functools.cache(lambda: source is target or symbols_of(source) == symbols_of(target)),
        reranker=reranker_of(helpers.channel, helpers.language_model, device),
    )


def reranker_of(channel: Bundle | None, language_model: Bundle | None, device: torch.device) -> Reranker:
    """Return the reranker of a channel model and a language model.

    Raises:
        ConfigError: a model is of the wrong kind or lacks a tokenizer; names its option.
    """
    return Reranker(
        channel=None if channel is None else Rescorer(channel, device, CHANNEL_MODEL),
        language_model=None if language_model is None else Rescorer(language_model, device, LANGUAGE_MODEL),
    )


def symbols_of(side: TextSide) -> list[str]:
    """Return the symbols of a vocabulary in the order of their ids."""
    return side.symbols(range(len(side)))


def check_fusion_dictionary(language_model: Sequence[str], target: Sequence[str]) -> None:
    """Check that a language model for shallow fusion gives its symbols the target's ids.

    Raises:
        ConfigError: its dictionary is another.
    """
    if list(language_model) != list(target):
        raise ConfigError(
            "{}: the language model's dictionary ({} entries) differs from the target dictionary ({} entries)",
            LANGUAGE_MODEL_OPTION, len(language_model), len(target),
        )  # fmt: skip


def check_draft_dictionaries(draft: Sequence[Sequence[str]], model: Sequence[Sequence[str]]) -> None:
    """Check that a draft model gives its symbols the ids of the model that verifies, on either side.

    Raises:
        ConfigError: one of its dictionaries is another.
    """
    if [list(side) for side in draft] != [list(side) for side in model]:
        raise ConfigError("{}: must have the model's dictionaries, and has others", DRAFT_MODEL_OPTION)


def _sides(bundle: Bundle) -> tuple[TextSide, TextSide]:
    if bundle.source is None or bundle.target is None:
        raise ConfigError("the model has no tokenizer, so it takes ids alone; add the tokenizer's files to its folder")
    return bundle.source, bundle.target


def _fusion(language_model: Bundle, model: Bundle) -> DecoderOnly:
    network = check_fusion(language_model.network, generator(model).config.target_vocabulary)
    if language_model.source is not None and model.target is not None:
        check_fusion_dictionary(symbols_of(language_model.source), symbols_of(model.target))
    return network


def _check_ensemble(bundles: Sequence[Bundle], draft: Bundle | None) -> None:
    expected = _vocabularies(bundles[0])
    if any(_vocabularies(other) != expected for other in bundles[1:]):
        raise ConfigError("the models of an ensemble must have the same dictionaries, and these differ")
    if draft is not None:
        check_draft_dictionaries(_vocabularies(draft), expected)


def _vocabularies(bundle: Bundle) -> list[list[str]]:
    return [symbols_of(side) for side in (bundle.source, bundle.target) if side is not None]
