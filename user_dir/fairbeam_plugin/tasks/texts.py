"""Vocabularies and tokenizers of a task: from its data folder, or from a pretrained model."""

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import torch
from fairseq import utils
from fairseq.data import Dictionary, data_utils, encoders

from fairbeam.errors import ConfigError, InputError
from fairbeam.families.fairseq.registry import task_symbols
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.formats.registry import read_model
from fairbeam.generation import SpecialTokenIds
from fairbeam.model import Bundle, DecoderPrefix, generator, special_ids
from fairbeam.text import Subwords, TextSide, Tokenizer, find_model
from fairbeam_plugin.tasks.bundle_data import BundleCodec, BundleDictionary
from fairbeam_plugin.tasks.config import FairbeamTranslationConfig


class SubwordCodec:
    """Subwords behind the interface of fairseq's ``--bpe``."""

    def __init__(self, source: Subwords, target: Subwords) -> None:
        self.source = source
        self.target = target

    def encode(self, text: str) -> str:
        """Return source text as pieces with spaces between."""
        return " ".join(self.source.encode(text))

    def decode(self, pieces: str) -> str:
        """Return target pieces as text; text that ``--remove-bpe`` has joined already comes back as it is."""
        return self.target.decode(pieces.split(" ")) if "\u2581" in pieces else pieces


class TaskTextSides:
    """Both sides of a task: dictionaries, tokenizers, special tokens, and text of ids."""

    def __init__(
        self, cfg: FairbeamTranslationConfig, source: Dictionary, target: Dictionary, bundle: Optional[Bundle]
    ) -> None:
        """Add the languages' symbols of ``--langs`` to the dictionaries."""
        self.cfg, self.source, self.target, self.bundle = cfg, source, target, bundle
        self.folder = Path(utils.split_paths(cfg.data)[0])
        mbart = {"_name": "translation_from_pretrained_bart", "langs": cfg.langs}
        self.symbols: Sequence[str] = task_symbols(mbart) if cfg.langs else ()
        for symbol in self.symbols:
            source.add_symbol(symbol)
            target.add_symbol(symbol)
        self._tokenizers: Dict[str, TextSide] = {}
        has_model = bundle is not None or find_model(self.folder, cfg.target_lang) is not None
        self.decoder: Optional[TextSide] = self.tokenizer(cfg.target_lang) if has_model else None
        """Makes text of target ids, through the subwords that came with the data or the model."""
        self._detokenizer = encoders.build_tokenizer(
            Namespace(tokenizer=cfg.eval_bleu_detok, **json.loads(cfg.eval_bleu_detok_args or "{}"))
        )

    @property
    def eos(self) -> int:
        """Id of the token that ends a target, and stands before it on the decoder's input."""
        return self.target.index(f"[{self.cfg.target_lang}]") if self.symbols else self.target.eos()

    @property
    def special(self) -> SpecialTokenIds:
        """Ids of special tokens that the search must know."""
        if self.bundle is not None:
            return special_ids(self.bundle)
        known = self.target
        return SpecialTokenIds(bos=known.bos(), pad=known.pad(), eos=self.eos, unk=known.unk())

    @property
    def prefix(self) -> DecoderPrefix:
        """Decoder start token and forced first token."""
        return DecoderPrefix() if self.bundle is None else self.bundle.decoder_prefix()

    @property
    def source_marks(self) -> List[int]:
        """Source ids that are no part of the text."""
        if self.bundle is None:
            return [self.eos, self.source.pad()]  # as fairseq's alignments have it
        side = self.bundle.source
        marks = () if side is None else (side.bos, side.eos, side.language_id)
        return [id for id in marks if id is not None]

    def tokenizer(self, language: str) -> TextSide:
        """Return the tokenizer of plain text in a language.

        Raises:
            InputError: the data folder has no subword model.
        """
        if self.bundle is None and find_model(self.folder, language) is None:
            raise InputError(f"{self.folder}: plain text needs a subword model (spm.model) beside it")
        return self.side(language)

    def side(self, language: str) -> TextSide:
        """Return the tokenizer of a language; words are split at spaces where there is no subword model."""
        if self.bundle is not None:
            side = self.bundle.target if language == self.cfg.target_lang else self.bundle.source
            assert side is not None
            return side
        if language not in self._tokenizers:
            side = Tokenizer.load(self.folder, language)
            self._tokenizers[language] = replace(side, dictionary=side.dictionary.extended(self.symbols))
        return self._tokenizers[language]

    def source_text(self, ids: List[int]) -> str:
        """Return the text of source ids."""
        return self.side(self.cfg.source_lang).decode(ids)

    def target_text(self, tokens: torch.Tensor) -> str:
        """Return the text of target ids, through the subwords that came with the data or else as ``--eval-bleu-*``
        say."""
        if self.decoder is not None:
            return self.decoder.decode(utils.strip_pad(tokens, self.target.pad()).tolist())
        text = self.target.string(tokens, self.cfg.eval_bleu_remove_bpe)
        return text if self._detokenizer is None else self._detokenizer.decode(text)

    def codec(self) -> Any:
        """Return the subwords that came with the data or the model, behind fairseq's interface; None without any."""
        if self.bundle is not None:
            return BundleCodec(self.target)
        if not isinstance(self.decoder, Tokenizer):
            return None
        return SubwordCodec(Tokenizer.load(self.folder, self.cfg.source_lang).subwords, self.decoder.subwords)

    def check_rows(self, state: Dict[str, Any]) -> None:
        """Check that a checkpoint was made for these dictionaries.

        Raises:
            InputError: an embedding has another number of rows; names both sizes.
        """
        if self.bundle is not None:
            return
        for names, dictionary, language in (
            (("network.source_embedding.weight", "encoder.embed_tokens.weight"), self.source, self.cfg.source_lang),
            (("network.target_embedding.weight", "decoder.embed_tokens.weight"), self.target, self.cfg.target_lang),
        ):
            for name in names:
                if name in state and len(state[name]) != len(dictionary):
                    raise InputError(
                        f"the checkpoint's {name} has {len(state[name])} rows, but {self.folder}/dict.{language}.txt "
                        f"has {len(dictionary)} entries; decode with the dictionaries the model was trained with"
                    )


def read_bundle(cfg: FairbeamTranslationConfig) -> Bundle:
    """Return the pretrained model of ``--bundle``, and complete the languages of ``cfg``.

    Raises:
        ConfigError: options do not go with a pretrained model, the source language is unknown, or the model has no
            tokenizer or writes no text.
    """
    if cfg.subword_sampling > 0:
        raise ConfigError("--subword-sampling: a pretrained model's own tokenizers do not sample")
    folder = utils.split_paths(cfg.data)[0]
    if cfg.source_lang is None or cfg.target_lang is None:
        cfg.source_lang, cfg.target_lang = data_utils.infer_language_pair(folder)
    if cfg.source_lang is None or cfg.target_lang is None:
        raise ConfigError(f"{folder}: which language is the source? Give --source-lang and --target-lang")
    model = read_model(cfg.bundle, ModelFiles(source_lang=cfg.source_lang, target_lang=cfg.target_lang))
    generator(model)
    if model.source is None or model.target is None:
        raise ConfigError(f"--bundle {cfg.bundle}: has no tokenizer; add the tokenizer's files to its folder")
    return model


def bundle_dictionaries(model: Bundle) -> List[BundleDictionary]:
    """Return the vocabularies of a pretrained model, source and target, as fairseq's dictionaries."""
    config = generator(model).config
    assert model.source is not None
    assert model.target is not None
    return [
        BundleDictionary(model, model.source, config.source_vocabulary),
        BundleDictionary(model, model.target, config.target_vocabulary),
    ]
