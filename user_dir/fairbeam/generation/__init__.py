"""Decoding: options in, hypotheses out."""

from fairbeam.generation.admission import Window
from fairbeam.generation.constraints import Required
from fairbeam.generation.decoder import Batch, Decoder, Models
from fairbeam.generation.filters import Special
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.options import Constraints, GenerationOptions, LengthNormalization
from fairbeam.generation.search import BeamSearch

__all__ = [
    "Batch",
    "BeamSearch",
    "Constraints",
    "Decoder",
    "GenerationOptions",
    "Hypothesis",
    "LengthNormalization",
    "Models",
    "Required",
    "Special",
    "Window",
]
