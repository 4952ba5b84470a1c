"""Which chooser goes with which options."""

from collections.abc import Sequence

from torch import Tensor

from fairbeam.generation.constraints import Required
from fairbeam.generation.logits_processors import SpecialTokenIds
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.strategies.constrained import Constrained
from fairbeam.generation.strategies.selectors import (
    CandidateSelector,
    DiverseGroups,
    DiverseSiblings,
    Sampling,
    TopCandidates,
    build_sampling_filters,
)
from fairbeam.generation.strategies.stochastic_beam import StochasticBeam


def build_selector(
    options: GenerationOptions, source: Tensor, special: SpecialTokenIds, required: Sequence[Required] | None = None
) -> CandidateSelector:
    """The chooser that ``options`` ask for, for a batch of sources, (batch, length) ids, and what each requires, None
    where none requires anything."""
    if options.constraints is not None and required is not None:
        return Constrained(required, options.constraints, options.beam, special.eos)
    if options.sampling:
        return Sampling(build_sampling_filters(options), options.seed, source, special.padding_of_sources)
    if options.stochastic_beam:
        return StochasticBeam(options.seed, source, special, options.beam)
    if options.diverse_beam_groups > 0:
        return DiverseGroups(options.diverse_beam_groups, options.diverse_beam_strength)
    if options.diversity_rate > 0:
        return DiverseSiblings(options.diversity_rate)
    return TopCandidates()
