"""Decoding: options in, hypotheses out."""

from fairbeam.generation.constraints import Required
from fairbeam.generation.decoder import Batch, Decoder
from fairbeam.generation.filters import Special
from fairbeam.generation.options import Constraints, GenerationOptions
from fairbeam.generation.search import BeamSearch, Hypothesis

__all__ = [
    "Batch",
    "BeamSearch",
    "Constraints",
    "Decoder",
    "GenerationOptions",
    "Hypothesis",
    "Required",
    "Special",
]
