"""Whole models in Hugging Face folders: weights, tokenizer and generation defaults."""

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fairbeam.errors import CheckpointError, ConfigError, FairbeamError
from fairbeam.families.loading import described_network, with_special_ids
from fairbeam.families.registry import FAMILIES
from fairbeam.files import atomic_folder, check_replaceable, parse_object, read_object
from fairbeam.formats import hugging_face_weights as weights
from fairbeam.formats import provenance as origins
from fairbeam.formats.bundle import Bundle
from fairbeam.formats.hugging_face_weights import CONFIG, GENERATION
from fairbeam.formats.provenance import Provenance
from fairbeam.generation import GenerationOptions
from fairbeam.network import EncoderDecoder, EncoderDecoderConfig, EncoderOnly
from fairbeam.text import PretrainedTokenizer, Side, from_hf

logger = logging.getLogger(__name__)

_VOCABULARIES = frozenset(origins.KEPT_FILES) - {
    GENERATION, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
}  # fmt: skip
_ENGLISH = ("en_XX", "eng_Latn", "en")
"""The source language of multilingual models, in each family's spelling, that ``transformers`` takes by default."""

# Options of decoding that our search does not have, with the value that changes nothing.
_NEUTRAL: dict[str, Any] = {
    "do_sample": False,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": None,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "guidance_scale": None,
}


def is_folder(path: str | Path) -> bool:
    """Whether ``path`` is a folder whose ``config.json`` names a ``model_type``, as no bundle's does."""
    config = Path(path) / CONFIG
    try:
        values = read_object(config) if config.is_file() else {}
    except (FairbeamError, OSError):
        return False
    return "model_type" in values and "format" not in values


def read(folder: str | Path, *, source_lang: str | None = None, target_lang: str | None = None) -> Bundle:
    """The model of a folder, with all that writing it back takes.

    Args:
        folder: where the files are. Without a tokenizer's files the bundle has none, and a warning says so.
        source_lang: for multilingual models: the language of the text; by default the folder's own, or English.
        target_lang: the language to translate into; by default the folder's own, or left open.

    Raises:
        CheckpointError: weights or options cannot be read or have no conversion; as for ``hugging_face_weights.read``.
        ConfigError: a language is unknown, or a library is missing.
        InputError: a tokenizer's file is malformed.
    """
    folder = Path(folder)
    network, family, origin = weights.read(folder)
    files = origins.read_files(folder)
    options = _generation_values(folder, origin.config, files)
    start, first, translates = None, None, isinstance(network, EncoderDecoder)
    try:
        generation = generation_options(options if translates else _of_continuations(options))
        if isinstance(network, EncoderDecoder):
            start, first = (_symbol(options, name, network.config) for name in _STARTS)
    except ConfigError as error:
        where = GENERATION if GENERATION in files else CONFIG
        raise CheckpointError(f"{folder / where}: {error}") from None
    source, target = _tokenizers(folder, family, files, source_lang, target_lang)
    return Bundle(
        network=network,
        source=source,
        target=None if isinstance(network, EncoderOnly) else target,
        generation=generation,
        family=family,
        start=None if start == getattr(network.config, "decoder_start", None) else start,
        forced_first=first,
        origin=replace(origin, files=files),
    )


def write(folder: str | Path, bundle: Bundle, *, overwrite: bool = False) -> Path:
    """Inverse of ``read``: the same tensors in the same dtypes, and the same files.

    Raises:
        ConfigError: ``folder`` exists, and is not one of the kind or is not to be replaced; or the bundle did not
            come from such a folder.
        CheckpointError: what the bundle says of its origin does not fit it.
        InputError: the folder cannot be written.
    """
    folder = Path(folder)
    if bundle.origin is None or bundle.family not in FAMILIES:
        raise ConfigError(
            f"{folder}: a model of family {bundle.family!r} did not come from a Hugging Face folder; expected one of "
            f"{', '.join(FAMILIES)} that did"
        )
    check_replaceable(folder, overwrite=overwrite, kind="a Hugging Face folder", is_kind=is_folder)
    _check_origin(bundle, bundle.origin)
    with atomic_folder(folder, replace=overwrite) as building:
        weights.write_into(building, bundle.network, bundle.family, bundle.origin)
        origins.write_files(building, bundle.origin.files)
    return folder


def generation_options(values: Mapping[str, Any]) -> GenerationOptions:
    """Our options that do what ``generation_config.json`` asks for; a line of notice names what we do not have.

    Hugging Face counts the symbol that decoding begins with and ``</s>`` among a target's length, ours are the tokens
    between them. Beams are counted and finished as with ``early_stopping=True``.

    Raises:
        ConfigError: a value of the wrong type or out of range; names it.
    """
    chosen: dict[str, Any] = {"min_len": max(0, _number(values, "min_length", int, 0) - 1)}
    if _number(values, "max_new_tokens", int, 0):
        chosen["max_len_b"] = max(1, values["max_new_tokens"] - 1)
    elif _number(values, "max_length", int, 0):
        chosen["max_len_b"] = max(1, values["max_length"] - 2)
    if _number(values, "min_new_tokens", int, 0):
        chosen["min_len"] = values["min_new_tokens"]
    if _number(values, "num_beams", int, 0):
        chosen["beam"] = values["num_beams"]
    chosen["lenpen"] = float(_number(values, "length_penalty", float, 1.0))
    chosen["no_repeat_ngram_size"] = _number(values, "no_repeat_ngram_size", int, 0)
    chosen["repetition_penalty"] = float(_number(values, "repetition_penalty", float, 1.0))
    chosen["encoder_no_repeat_ngram_size"] = _number(values, "encoder_no_repeat_ngram_size", int, 0)
    chosen["encoder_repetition_penalty"] = float(_number(values, "encoder_repetition_penalty", float, 1.0))
    chosen["banned_phrases"] = _phrases(values, "bad_words_ids")
    unknown = [name for name, neutral in _NEUTRAL.items() if values.get(name) not in (None, [], neutral)]
    if unknown:
        logger.warning("generation defaults that change the output and are not applied: %s", ", ".join(unknown))
    return GenerationOptions(**chosen)


def _of_continuations(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options without those lengths that would count a prompt's tokens too."""
    return {name: value for name, value in values.items() if name not in ("max_length", "min_length")}


def _phrases(values: Mapping[str, Any], name: str) -> tuple[tuple[int, ...], ...]:
    phrases = values.get(name) or []
    if not isinstance(phrases, list) or not all(
        isinstance(phrase, list) and phrase and all(type(token) is int and token >= 0 for token in phrase)
        for phrase in phrases
    ):
        raise ConfigError(f"{name} is {phrases!r:.80}; expected lists of ids")
    padding = [values.get("pad_token_id")]
    return tuple(tuple(phrase) for phrase in phrases if phrase != padding)  # padding is forbidden anyway


_STARTS = ("decoder_start_token_id", "forced_bos_token_id")


def _generation_values(folder: Path, config: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """What ``generation_config.json`` says; models from before it have the same names in ``config.json``."""
    if GENERATION not in files:
        return dict(config)
    path = folder / GENERATION
    try:
        text = files[GENERATION].decode("utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: not UTF-8") from None
    return {**{name: config.get(name) for name in _STARTS}, **parse_object(text, path)}


def _symbol(values: Mapping[str, Any], name: str, network: EncoderDecoderConfig) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < network.target_vocabulary:
        raise ConfigError(f"{name} is {value!r:.80}; expected an id from 0 to {network.target_vocabulary - 1}")
    return value


def _number(values: Mapping[str, Any], name: str, kind: type, default: float) -> Any:
    value = values.get(name)
    if value is None:
        return default
    if type(value) not in ((int, float) if kind is float else (int,)) or (kind is int and value < 0):
        raise ConfigError(f"{name} is {value!r:.80}; expected a number{' from 0' if kind is int else ''}")
    return value


def _tokenizers(
    folder: Path, family: str, files: Mapping[str, bytes], source_lang: str | None, target_lang: str | None
) -> tuple[PretrainedTokenizer | None, PretrainedTokenizer | None]:
    if _VOCABULARIES.isdisjoint(files):
        logger.warning("%s: no tokenizer's files; the model takes ids, and cannot translate text", folder)
        return None, None
    target = from_hf(folder, side=Side.TARGET, language=target_lang)
    known = target.config.languages
    if known:
        for option, language in (("--source-lang", source_lang), ("--target-lang", target_lang)):
            if language is not None and language not in known:
                raise ConfigError(f"{option} {language}: expected one of {', '.join(list(known)[:200])}")
    own = _own_language(folder, files)
    if source_lang is None and own is None and target.config.template.names_language:
        source_lang = next((code for code in _ENGLISH if code in known), None)
    return from_hf(folder, side=Side.SOURCE, language=source_lang), target


def _own_language(folder: Path, files: Mapping[str, bytes]) -> Any:
    name = "tokenizer_config.json"
    return read_object(folder / name).get("src_lang") if name in files else None


def _check_origin(bundle: Bundle, origin: Provenance) -> None:
    """The options must describe the network that there is, and every tensor must be one of it or be kept."""
    config = bundle.network.config
    try:
        written = weights.to_state_dict(bundle.network, bundle.family, origin)
        text = origin.files.get(GENERATION, b"{}").decode("utf-8", "replace")
        options = with_special_ids(origin.config, parse_object(text, Path(GENERATION)))
        described = described_network(bundle.family, options, written)
    except KeyError as error:
        raise CheckpointError(f"{origins.DESCRIPTION}: the network has no tensor {error}") from None
    except ConfigError as error:
        raise CheckpointError(f"{origins.DESCRIPTION}: {error}") from None
    differing = [
        part.name for part in fields(config) if getattr(described, part.name, None) != getattr(config, part.name)
    ]
    if differing or written.keys() != origin.dtypes.keys():
        raise CheckpointError(
            f"{origins.DESCRIPTION}: describes another network than the bundle's: {', '.join(differing)} differ"
        )
