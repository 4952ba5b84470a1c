"""Decoding: options in, hypotheses out."""

from fairbeam.generation.decoder import Batch, Decoder
from fairbeam.generation.filters import Special
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.search import BeamSearch, Hypothesis

__all__ = ["Batch", "BeamSearch", "Decoder", "GenerationOptions", "Hypothesis", "Special"]
