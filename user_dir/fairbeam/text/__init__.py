"""Tokenizers: vocabularies, subwords, and those of pretrained models."""

from fairbeam.text.backends import Side
from fairbeam.text.dictionary import Dictionary
from fairbeam.text.dictionary_tokenizer import KINDS, Marks, Tokenizer
from fairbeam.text.hugging_face_files import from_hf
from fairbeam.text.interface import TextSide
from fairbeam.text.pretrained_tokenizer import PretrainedTokenizer, TypedIds
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
from fairbeam.text.tokenizer_config import AddedToken, SpecialTokens, Template, TokenizerConfig

__all__ = [
    "KINDS",
    "AddedToken",
    "Dictionary",
    "Marks",
    "ModelType",
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
    "TokenizerConfig",
    "TypedIds",
    "Whitespace",
    "find_model",
    "from_hf",
    "train_sentencepiece",
]
