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
from fairbeam.formats.hugging_face_weights import CONFIG, GENERATION
from fairbeam.generation import GenerationOptions
from fairbeam.generation.generation_config import from_generation_config
from fairbeam.model import Bundle, Provenance
from fairbeam.network import EncoderDecoder, EncoderDecoderConfig, EncoderOnly
from fairbeam.text import PretrainedTokenizer, Side, from_hf

logger = logging.getLogger(__name__)

_VOCABULARIES = frozenset(origins.KEPT_FILES) - {
    GENERATION, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
}  # fmt: skip
_ENGLISH = ("en_XX", "eng_Latn", "en")
"""Default source language of multilingual models in ``transformers``, in each family's spelling."""

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
    """Return whether ``path`` is a folder whose ``config.json`` names a ``model_type``, as no bundle's does."""
    config = Path(path) / CONFIG
    try:
        values = read_object(config) if config.is_file() else {}
    except (FairbeamError, OSError):
        return False
    return "model_type" in values and "format" not in values


def read(folder: str | Path, *, source_lang: str | None = None, target_lang: str | None = None) -> Bundle:
    """Return the model of a folder, with its provenance for writing it back.

    Args:
        folder: folder of the files. Without a tokenizer's files the model has none, and a warning says so.
        source_lang: source language of a multilingual model; by default the folder's own, or English.
        target_lang: target language; by default the folder's own, or left open.

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
        forced_bos=first,
        origin=replace(origin, files=files),
    )


def write(folder: str | Path, bundle: Bundle, *, overwrite: bool = False) -> Path:
    """Write the same tensors in the same dtypes, and the same files; inverse of ``read``.

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
    """Return our options that do what ``generation_config.json`` asks for; a warning names what is not applied.

    Raises:
        ConfigError: a value of the wrong type or out of range; names it.
    """
    padding = [values.get("pad_token_id")]
    banned = values.get("bad_words_ids")
    if isinstance(banned, list):  # padding is forbidden anyway
        values = {**values, "bad_words_ids": [phrase for phrase in banned if phrase != padding]}
    unknown = [name for name, neutral in _NEUTRAL.items() if values.get(name) not in (None, [], neutral)]
    options = from_generation_config(values)
    if unknown:
        logger.warning("generation defaults that change the output and are not applied: %s", ", ".join(unknown))
    return options


def _of_continuations(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without lengths that would count a prompt's tokens too."""
    return {name: value for name, value in values.items() if name not in ("max_length", "min_length")}


_STARTS = ("decoder_start_token_id", "forced_bos_token_id")


def _generation_values(folder: Path, config: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the options of ``generation_config.json``; older models have them in ``config.json``."""
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
    """Check that the provenance describes the network, and that every tensor is one of it or is kept."""
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
