"""Searches over networks, as ``build_search`` makes them."""

from fairbeam.generation import GenerationOptions, ModelSet, build_search
from fairbeam.generation.build import check_features


def search_with(networks, options, special=None, **beside):
    """Make the search that options ask for; ``beside`` are further fields of ``ModelSet``."""
    return build_search(ModelSet(networks, special, **beside), options)


def checked(**options):
    """Make options and check that some search combines them."""
    made = GenerationOptions(**options)
    check_features(made)
    return made
