"""The one place that picks the search which options ask for, or refuses.

Every search, selector, ranking and way in says in its own file what it can be combined with; here all that are in use
are held against all that is asked for. A combination that nobody declared is refused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fairbeam.data.lexical_shortlist import Shortlist
from fairbeam.errors import ConfigError, OptionName
from fairbeam.generation.constraints import Required
from fairbeam.generation.continuous_batching import CONTINUOUS
from fairbeam.generation.ensemble import (
    LANGUAGE_MODEL_OPTION,
    ShallowFusion,
    as_model,
    check_attention,
    with_language_model,
)
from fairbeam.generation.features import Capabilities, Feature
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.logits_processors import SpecialTokenIds
from fairbeam.generation.model import Model
from fairbeam.generation.option_fields import declared_options, features
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.ranking import MINIMUM_BAYES_RISK, RERANKING
from fairbeam.generation.search.alternatives import AlternativesSearch
from fairbeam.generation.search.beam_search import BeamSearch
from fairbeam.generation.search.contrastive import ContrastiveSearch
from fairbeam.generation.search.shortlist import ShortlistSearch, check_shortlist
from fairbeam.generation.search.speculative import Speculation, SpeculativeSearch, check_drafting
from fairbeam.generation.search.streaming import STREAM, Watcher
from fairbeam.generation.strategies.constrained import Constrained
from fairbeam.generation.strategies.selectors import (
    CandidateSelector,
    DiverseGroups,
    DiverseSiblings,
    Sampling,
    TopCandidates,
)
from fairbeam.generation.strategies.stochastic_beam import StochasticBeam
from fairbeam.network import DecoderOnly, Generator

SELECTORS: tuple[type[CandidateSelector], ...] = (
    Constrained, Sampling, StochasticBeam, DiverseGroups, DiverseSiblings,
)  # fmt: skip
"""Candidate selectors that options ask for; ``TopCandidates`` where they ask for none."""
SEARCHES = (
    TopCandidates.capabilities,
    *(selector.capabilities for selector in SELECTORS),
    ContrastiveSearch.capabilities,
    SpeculativeSearch.capabilities,
)
"""Searches, the first of which is in use where options ask for no other."""
BESIDE = (
    ShortlistSearch.capabilities,
    AlternativesSearch.capabilities,
    ShallowFusion.capabilities,
    MINIMUM_BAYES_RISK,
    RERANKING,
)
"""What can be in use beside a search."""


@dataclass(frozen=True)
class Door:
    """A way into generation that not every search has."""

    label: OptionName
    capabilities: Capabilities


CONTINUOUS_BATCHES = Door(OptionName("continuous"), CONTINUOUS)
STREAMED_TEXT = Door(OptionName("stream", python="stream_text"), STREAM)
DOORS = (CONTINUOUS_BATCHES, STREAMED_TEXT)


class Search(Protocol):
    """A search for the outputs of a batch."""

    special: SpecialTokenIds

    def __call__(
        self,
        source: Tensor,
        *,
        prefix: Tensor | None = None,
        start: int | None = None,
        required: Sequence[Required] | None = None,
        numbers: Sequence[int] | None = None,
        watch: Watcher | None = None,
    ) -> list[list[Hypothesis]]:
        """Decode one batch; arguments and result as of ``BeamSearch``."""


def _always() -> bool:
    return True


@dataclass(frozen=True)
class ModelSet:
    """Networks made by ``for_inference``, and what searches with them need beside them."""

    networks: Sequence[Generator]
    """Several are an ensemble; all share one target vocabulary."""
    special: SpecialTokenIds | None = None
    shortlist: Shortlist | None = None
    """Lexical shortlist for ``shortlist``."""
    language_model: DecoderOnly | None = None
    """Language model for ``lm_weight``, over the same target vocabulary."""
    draft: Generator | None = None
    """Draft model for ``draft_tokens``, over the same vocabularies."""


def check_search(
    models: ModelSet,
    options: GenerationOptions,
    door: Door | None = None,
    *,
    shares_vocabulary: Callable[[], bool] = _always,
) -> None:
    """Check that there is a search for options, through a door, and that the models can do it.

    Args:
        models: networks as inference uses them.
        options: what is asked for.
        door: the way in, where not every search has it.
        shares_vocabulary: returns whether ids of sources mean what ids of targets do.

    Raises:
        ConfigError: no search combines what is asked for, or it needs another model.
    """
    check_features(options, door, several_models=len(models.networks) > 1)
    if options.attention or options.coverage_penalty:
        check_attention(models.networks, OptionName("attention" if options.attention else "coverage_penalty"))
    if options.shortlist:
        check_shortlist(models.shortlist, models.networks)
    if options.drafts:
        special = models.special or SpecialTokenIds()
        check_drafting(models.networks, options, special, models.draft, shares_vocabulary=shares_vocabulary)
    if options.lm_weight and models.language_model is None:
        names = OptionName("lm_weight"), options.lm_weight, LANGUAGE_MODEL_OPTION
        raise ConfigError("{} {}: there is no language model; {} names one", *names)


def check_features(options: GenerationOptions, door: Door | None = None, *, several_models: bool = False) -> None:
    """Check that options can be combined, whatever the models.

    Raises:
        ConfigError: they can't; names both sides.
    """
    asked: dict[Feature, OptionName | str] = dict(features(options))
    if several_models:
        asked[Feature.ENSEMBLE] = "an ensemble"
    for label, capabilities in _in_use(asked, door):
        for feature, option in asked.items():
            if feature in capabilities.supports or option == label:
                continue
            if label is not None:
                raise ConfigError("{} and {} exclude each other", label, option)
            raise ConfigError("{}: {} does not support it", option, capabilities.name)


def _in_use(
    asked: Mapping[Feature, OptionName | str], door: Door | None
) -> Iterator[tuple[OptionName | str | None, Capabilities]]:
    """Yield all that the features bring in, each with the option that does; None for plain beam search."""
    if door is not None:
        yield door.label, door.capabilities
    found = [part for part in (*BESIDE, *SEARCHES) if any(feature in part.provides for feature in asked)]
    for part in found:
        yield next(option for feature, option in asked.items() if feature in part.provides), part
    if not any(part in SEARCHES for part in found):
        yield None, SEARCHES[0]


def build_search(models: ModelSet, options: GenerationOptions) -> Search:
    """Make the search that options ask for.

    Raises:
        ConfigError: as of ``check_search``.
    """
    check_search(models, options)
    special = models.special or SpecialTokenIds()
    if options.shortlist:
        shortlist = check_shortlist(models.shortlist, models.networks)
        return ShortlistSearch(models.networks, options, special, shortlist, _beam_search)
    single = as_model(models.networks, options.ensemble_weights)
    search = _beam_search(with_language_model(single, models.language_model, options.lm_weight), options, special)
    if options.penalty_alpha:
        return ContrastiveSearch(search)
    if options.drafts:
        return SpeculativeSearch(search, Speculation(single, models.networks, options, special, models.draft))
    return AlternativesSearch(search) if options.return_alternatives else search


def _beam_search(model: Model, options: GenerationOptions, special: SpecialTokenIds) -> BeamSearch:
    asked = features(options)
    wanted = [one for one in SELECTORS if any(feature in one.capabilities.provides for feature in asked)]
    return BeamSearch(model, options, special, wanted[0] if wanted else TopCandidates)


def matrix(kind: type = GenerationOptions) -> tuple[list[str], list[tuple[list[str], list[bool]]]]:
    """Return what goes with what, for the documentation.

    Returns:
        Names of searches, of what can be in use beside them, and of doors; and for each feature that options ask for,
        their names, and whether each of the former supports it or is what they ask for.
    """
    columns = [*SEARCHES, *BESIDE, *(door.capabilities for door in DOORS)]
    options: dict[Feature, list[str]] = {}
    for name, one in declared_options(kind).items():
        options.setdefault(one.declared.feature, []).append(name)
    rows = [
        (names, [feature in one.supports or feature in one.provides for one in columns])
        for feature, names in options.items()
    ]
    return [one.name for one in columns], rows
