"""Text in, ids out, and back: vocabularies, subwords and the tokenizer made of the two."""

from fairbeam.text.dictionary import Dictionary
from fairbeam.text.hub import from_hf
from fairbeam.text.pieces import Side
from fairbeam.text.pretrained import PretrainedTokenizer, TypedIds
from fairbeam.text.pretrained_config import AddedToken, PretrainedConfig, SpecialTokens, Template
from fairbeam.text.protocol import TextSide
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
from fairbeam.text.tokenizer import KINDS, Marks, Tokenizer

__all__ = [
    "KINDS",
    "AddedToken",
    "Dictionary",
    "Marks",
    "ModelType",
    "PretrainedConfig",
    "PretrainedTokenizer",
    "SentencePiece",
    "SentencePieceOptions",
    "Side",
    "SpecialTokens",
    "SubwordNMT",
    "Subwords",
    "Template",
    "TextSide",
    "Tokenizer",
    "TypedIds",
    "Whitespace",
    "find_model",
    "from_hf",
    "train_sentencepiece",
]
