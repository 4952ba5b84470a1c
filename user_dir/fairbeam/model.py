"""A model in memory: a network, its tokenizers, generation defaults, and what writing it back takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from fairbeam.data.lexical_shortlist import Shortlist
from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.generation import GenerationOptions, SpecialTokenIds
from fairbeam.network import AnyNetwork, EncoderOnly, EncoderOnlyConfig, Generator
from fairbeam.text import TextSide


@dataclass(frozen=True)
class Provenance:
    """Contents of a model's original files beyond the network: enough to write them again as they were."""

    config: dict[str, Any]
    """Options, as their own file holds them."""
    dtypes: dict[str, torch.dtype]
    """Dtype of each tensor in the original file, by its name there."""
    kept: dict[str, Tensor]
    """Tensors of the original file that the network does not hold."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Tokenizer and generation files, byte for byte, by their names."""


class DecoderPrefix(NamedTuple):
    """Tokens that a model's every output begins with."""

    start: int | None = None
    """Decoder start token (``decoder_start_token_id``); the network's own if None."""
    forced_bos: int | None = None
    """First token of every output (``forced_bos_token_id``); any if None."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model with everything that translating with it takes."""

    network: AnyNetwork
    source: TextSide | None
    """Tokenizer of sources. Both tokenizers are None for a model that came without one: ids in, ids out."""
    target: TextSide | None
    """Tokenizer of targets: None for an encoder; a decoder's prompts have the same one."""
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    """Generation defaults."""
    family: str = "fairseq_transformer"
    """Name of the model family, of Hugging Face or fairseq."""
    card: str = ""
    """Model card behind its heading: scores with their signatures, training data, licence."""
    start: int | None = None
    """Decoder start token, where it is not the network's own."""
    forced_bos: int | None = None
    """First token of every output, if any; a chosen target language takes precedence."""
    origin: Provenance | None = None
    """Contents of the files that the model was read from, for writing them back."""
    separate_tokenizers: bool = False
    """Whether the tokenizers come from different models; a bundle keeps them in folders of their own."""
    shortlist: Shortlist | None = None
    """Lexical shortlist: likely target tokens of each source token."""

    def __post_init__(self) -> None:
        config = self.network.config
        sides = (
            ("source", config.source_vocabulary, self.source),
            ("target", config.target_vocabulary, self.target),
        )
        for side, rows, tokenizer in sides:
            if tokenizer is not None and not tokenizer.fits(rows):
                raise CheckpointError(
                    f"the {side} dictionary has {len(tokenizer)} entries, "
                    f"but the model embeds {rows}; use the dictionaries the model was trained with"
                )
        if self.shortlist is not None:
            self.shortlist.check(config.source_vocabulary, config.target_vocabulary)
        writes = not isinstance(config, EncoderOnlyConfig)
        if self.target is not None and not writes:
            raise CheckpointError("an encoder writes no text; expected no tokenizer for a target")
        alike = (self.source and self.source.kind) == (self.target and self.target.kind)
        if writes and not self.separate_tokenizers and not alike:
            raise CheckpointError("the sides have tokenizers of two kinds, or one has none; expected the same kind")
        for name in ("start", "forced_bos"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < config.target_vocabulary:
                raise CheckpointError(f"{name} is {value}; expected an id from 0 to {config.target_vocabulary - 1}")

    def decoder_prefix(self) -> DecoderPrefix:
        """Return the tokens that every output begins with.

        A chosen target language takes the place of a start token that is a language's token or left open (mBART-25),
        and is the forced first token behind any other (mBART-50, M2M-100, NLLB).

        Raises:
            ConfigError: the model translates into many languages, and none is chosen.
        """
        start = getattr(self.network.config, "decoder_start", None) if self.start is None else self.start
        if self.target is None:
            return DecoderPrefix(self.start, self.forced_bos)
        language, languages = self.target.language_id, self.target.language_ids
        if language is None:
            if self.target.language_needed and self.forced_bos is None and start not in languages:
                raise ConfigError("the model translates into several languages; choose one with --target-lang")
            return DecoderPrefix(self.start, self.forced_bos)
        if start is None or start in languages:
            return DecoderPrefix(language, self.forced_bos)
        return DecoderPrefix(self.start, language)

    def with_languages(self, source: str | None, target: str | None) -> Self:
        """Return the same model for other languages; None leaves a side as it is.

        Raises:
            ConfigError: a tokenizer does not have the language.
        """

        def chosen(side: TextSide | None, language: str | None) -> TextSide | None:
            return side if side is None or language is None else side.with_language(language)

        return replace(self, source=chosen(self.source, source), target=chosen(self.target, target))


def generator(model: Bundle) -> Generator:
    """Return the model's network, if it generates text.

    Raises:
        ConfigError: it is an encoder.
    """
    if isinstance(model.network, EncoderOnly):
        raise ConfigError("the model is an encoder, which writes no text; fairbeam compose gives it a decoder")
    return model.network


def special_ids(model: Bundle) -> SpecialTokenIds:
    """Return the special-token ids that a search needs.

    Raises:
        ConfigError: the model has no end-of-text token.
    """
    config = generator(model).config
    if config.eos is None:
        raise ConfigError("the model has no symbol that ends a text; expected eos_token_id in its configuration")
    known = getattr(config, "unk", None) if model.target is None or model.target.unk is None else model.target.unk
    # Some configurations leave it at a default that is beyond their vocabulary.
    unknown = known if known is not None and known < config.target_vocabulary else config.pad
    bos = config.eos if config.bos is None else config.bos
    return SpecialTokenIds(bos=bos, pad=config.pad, eos=config.eos, unk=unknown, source_pad=config.padding_of_sources)
