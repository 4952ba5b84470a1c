"""Which chooser goes with which options."""

from collections.abc import Sequence

from torch import Tensor

from fairbeam.generation.choosers import BestFirst, Chooser, DiverseGroups, DiverseSiblings, Sampling, build_cuts
from fairbeam.generation.constrained import Constrained
from fairbeam.generation.constraints import Required
from fairbeam.generation.filters import Special
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.stochastic import StochasticBeam


def build_chooser(
    options: GenerationOptions, source: Tensor, special: Special, required: Sequence[Required] | None = None
) -> Chooser:
    """The chooser that ``options`` ask for, for a batch of sources, (batch, length) ids, and what each requires, None
    where none requires anything."""
    if options.constraints is not None and required is not None:
        return Constrained(required, options.constraints, options.beam, special.eos)
    if options.sampling:
        return Sampling(build_cuts(options), options.seed, source, special.padding_of_sources)
    if options.stochastic_beam:
        return StochasticBeam(options.seed, source, special, options.beam)
    if options.diverse_beam_groups > 0:
        return DiverseGroups(options.diverse_beam_groups, options.diverse_beam_strength)
    if options.diversity_rate > 0:
        return DiverseSiblings(options.diversity_rate)
    return BestFirst()
