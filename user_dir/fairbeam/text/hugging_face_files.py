"""The tokenizer of a Hugging Face style folder, whatever files it is made of."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairbeam.errors import InputError
from fairbeam.files import inside, parse_object, read_text
from fairbeam.text.auto_tokenizer import VOCABULARY_FILES, convert
from fairbeam.text.backends import TOKENIZER_JSON, Side, TokenizersBackend
from fairbeam.text.family_defaults import SENTENCEPIECE_FAMILIES
from fairbeam.text.hugging_face_schema import (
    TokenizerFolder,
    TokenizerOptions,
    read_folder,
    special_tokens,
)
from fairbeam.text.pretrained_tokenizer import PretrainedTokenizer
from fairbeam.text.reading import MAX_TABLE_BYTES
from fairbeam.text.sentencepiece_files import MODEL_FILES, find_models, from_sentencepiece
from fairbeam.text.tokenizer_config import AddedToken, Kind, TokenizerConfig

# Options that say the same as a step of tokenizer.json, and have the last word.
_STEP_OPTIONS = {
    ("normalizer", "BertNormalizer", "lowercase"): "do_lower_case",
    ("normalizer", "BertNormalizer", "strip_accents"): "strip_accents",
    ("normalizer", "BertNormalizer", "handle_chinese_chars"): "tokenize_chinese_chars",
    ("pre_tokenizer", "ByteLevel", "add_prefix_space"): "add_prefix_space",
}


def from_hf(
    folder: str | Path,
    *,
    family: str | None = None,
    language: str | None = None,
    side: Side = Side.SOURCE,
) -> PretrainedTokenizer:
    """Read the tokenizer of a Hugging Face style folder.

    ``tokenizer.json`` comes first. SentencePiece models run in SentencePiece itself, with the ids of
    `SENTENCEPIECE_FAMILIES`. Other files (``vocab.txt``, ``vocab.json`` with ``merges.txt``) are converted to a
    ``tokenizer.json`` by the ``transformers`` library; a tokenizer that was saved needs it no more. Special tokens
    and options are those of ``tokenizer_config.json``, ``special_tokens_map.json`` and ``added_tokens.json``.

    Args:
        folder: where the files are.
        family: name of the family; by default what ``tokenizer_config.json`` or ``config.json`` says.
        language: code of the language, for families whose template names one; by default the folder's own.
        side: which of two texts, where each has files of its own.

    Raises:
        ConfigError: ``language`` is unknown, or the transformers library is needed and not installed.
        InputError: a file is missing, malformed, too large or leads out of the folder; names it and what was
            expected.
    """
    found = read_folder(Path(folder), family)
    if language is None:
        language = found.options.src_lang if side is Side.SOURCE else found.options.tgt_lang
    try:
        return _read(found, language, side)
    except InputError as error:
        message = str(error)
        raise InputError(message if str(found.path) in message else f"{found.path}: {message}") from None


def _read(folder: TokenizerFolder, language: str | None, side: Side) -> PretrainedTokenizer:
    path = inside(folder.path, TOKENIZER_JSON)
    if path:
        return _from_tokenizer_json(folder, parse_object(read_text(path, MAX_TABLE_BYTES), path), language, side)
    models = find_models(folder.path)
    if models:
        _check_family(folder)
        return from_sentencepiece(folder, models, language, side)
    if not any(inside(folder.path, name) for name in VOCABULARY_FILES):
        raise InputError(
            f"{folder.path}: no tokenizer's files; expected tokenizer.json, vocab.txt, vocab.json with merges.txt, "
            f"source.spm with target.spm, or one of {', '.join(MODEL_FILES)}"
        )
    values, roles = convert(folder)
    return _from_tokenizer_json(_with_roles(folder, roles), values, language, side)


def _check_family(folder: TokenizerFolder) -> None:
    """Refuse SentencePiece models whose family's ids are unknown: conversions to ``tokenizer.json`` are not exact."""
    if folder.family not in SENTENCEPIECE_FAMILIES:
        raise InputError(
            f"{folder.path}: a SentencePiece model of {folder.family or 'no family that its files name'}; expected "
            f"tokenizer.json, or a model of {', '.join(SENTENCEPIECE_FAMILIES)}"
        )


def _with_roles(folder: TokenizerFolder, roles: Mapping[str, str | None]) -> TokenizerFolder:
    """Return the folder with the roles that the library knows, as defaults beside what the files name."""
    special = dataclasses.replace(folder.defaults.special, **roles)
    return dataclasses.replace(folder, defaults=dataclasses.replace(folder.defaults, special=special))


def _from_tokenizer_json(
    folder: TokenizerFolder, values: dict[str, Any], language: str | None, side: Side
) -> PretrainedTokenizer:
    """Build the tokenizer that a ``tokenizer.json`` describes, with the folder's options and added tokens."""
    where = folder.path / TOKENIZER_JSON
    _apply_options(values, folder.options)
    backend = TokenizersBackend.parse(json.dumps(values), str(where))
    _add_missing(backend, folder)
    template = folder.template
    if not template.names_language:
        template = backend.template() or template
    special, flags = special_tokens(folder, backend.index)
    present = {token.content for token in backend.library.get_added_tokens_decoder().values() if token.special}
    for token in (*flags.values(), *folder.listed, *folder.added):
        if token.special and token.content not in present and backend.index(token.content) is not None:
            _add(backend, token)
    vocabulary = backend.library.get_vocab(with_added_tokens=True)
    languages = folder.defaults.languages_among(sorted(vocabulary, key=vocabulary.__getitem__))
    config = TokenizerConfig(kind=Kind.TOKENIZERS, special=special, template=template, languages=languages)
    backend = TokenizersBackend(backend.library, str(folder.path))  # its size may have grown
    return PretrainedTokenizer(config=config, backend=backend, language=language, side=side)


def _add_missing(backend: TokenizersBackend, folder: TokenizerFolder) -> None:
    """Give the library the added tokens that it does not have yet.

    Raises:
        InputError: one of them would not get the id that the folder states.
    """
    for token, index in sorted(folder.added.items(), key=lambda entry: entry[1]):
        if backend.index(token.content) is None and _add(backend, token) != index:
            raise InputError(
                f"{folder.path}: added token {token.content!r} has id {index}, "
                f"but would get {backend.index(token.content)}; expected ids behind the vocabulary's, without a gap"
            )


def _add(backend: TokenizersBackend, token: AddedToken) -> int | None:
    import tokenizers

    entry = tokenizers.AddedToken(
        token.content, lstrip=token.lstrip, rstrip=token.rstrip, special=token.special, normalized=not token.special
    )
    add = backend.library.add_special_tokens if token.special else backend.library.add_tokens
    add([entry])
    return backend.index(token.content)


def _apply_options(values: dict[str, Any], options: TokenizerOptions) -> None:
    """Write the options that a file states into the steps of a ``tokenizer.json`` that they are about."""
    for (part, kind, field), option in _STEP_OPTIONS.items():
        step, value = values.get(part), getattr(options, option)
        if isinstance(step, dict) and step.get("type") == kind and value is not None:
            step[field] = value
