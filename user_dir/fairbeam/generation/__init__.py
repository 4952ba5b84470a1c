"""Decoding: options in, hypotheses out."""

from fairbeam.generation.filters import Special
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.search import BeamSearch, Hypothesis
from fairbeam.generation.workers import Workers, default_workers, shared_workers

__all__ = ["BeamSearch", "GenerationOptions", "Hypothesis", "Special", "Workers", "default_workers", "shared_workers"]
