"""Text in, ids out, and back: vocabularies, subwords and the tokenizer made of the two."""

from fairbeam.text.dictionary import Dictionary
from fairbeam.text.subwords import (
    ModelType,
    SentencePiece,
    SentencePieceOptions,
    SubwordNMT,
    Subwords,
    Whitespace,
    find_model,
    train_sentencepiece,
)
from fairbeam.text.tokenizer import Tokenizer

__all__ = [
    "Dictionary",
    "ModelType",
    "SentencePiece",
    "SentencePieceOptions",
    "SubwordNMT",
    "Subwords",
    "Tokenizer",
    "Whitespace",
    "find_model",
    "train_sentencepiece",
]
