"""Decoding: options in, hypotheses out."""

from fairbeam.generation.build import ModelSet, build_search
from fairbeam.generation.constraints import Required
from fairbeam.generation.continuous_batching import RequestWindow
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.logits_processors import SpecialTokenIds
from fairbeam.generation.options import Constraints, GenerationOptions, LengthNormalization
from fairbeam.generation.runner import Batch, DecoderPool
from fairbeam.generation.search.beam_search import BeamSearch

__all__ = [
    "Batch",
    "BeamSearch",
    "Constraints",
    "DecoderPool",
    "GenerationOptions",
    "Hypothesis",
    "LengthNormalization",
    "ModelSet",
    "RequestWindow",
    "Required",
    "SpecialTokenIds",
    "build_search",
]
