"""Conversion of older Hugging Face tokenizer files to ``tokenizer.json``, by ``transformers``' AutoTokenizer."""

import json
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairbeam.errors import ConfigError, InputError
from fairbeam.files import inside, read_bytes
from fairbeam.text.hugging_face_schema import ADDED_TOKENS, MODEL_CONFIG, OPTIONS, SPECIAL_TOKENS, TokenizerFolder
from fairbeam.text.reading import MAX_TABLE_BYTES, explained, read_vocabulary
from fairbeam.text.tokenizer_config import SpecialTokens

VOCABULARY_FILES = ("vocab.txt", "vocab.json")
"""Files that one of the library's tokenizers is made of, unless it is SentencePiece's."""
_COPIED = (*VOCABULARY_FILES, "merges.txt", ADDED_TOKENS, SPECIAL_TOKENS)
# What release 5 makes of a family that differs from the slow tokenizers of release 4, which the models were made with.
_DIFFERING = {"blenderbot": "leaves out its </s>"}
# Switches of the loading itself, which a file must not turn.
_LOADING = {"trust_remote_code", "local_files_only", "use_fast"}
_ROLES = [role for role, _ in SpecialTokens().items()]


def convert(folder: TokenizerFolder) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Convert a folder's older files.

    The library sees a copy of the vocabulary's own files, and of the options only switches and tokens: nothing in
    them can name another file, a class of the folder's own or an address.

    Returns:
        the content of a ``tokenizer.json``, and the token of each role.

    Raises:
        ConfigError: ``transformers`` is not installed.
        InputError: it knows no tokenizer of this kind, or none that can be written as ``tokenizer.json``.
    """
    library = _library()
    if folder.family in _DIFFERING:
        raise InputError(
            f"{folder.path}: transformers' conversion of {folder.family} {_DIFFERING[folder.family]}; "
            "expected a tokenizer.json"
        )
    with tempfile.TemporaryDirectory(prefix="fairbeam-") as place, _quiet(library):
        _stage(folder, Path(place))
        with explained(str(folder.path), "a tokenizer's files that transformers' AutoTokenizer can read"):
            tokenizer = library.AutoTokenizer.from_pretrained(place, trust_remote_code=False, local_files_only=True)
            backend = getattr(tokenizer, "backend_tokenizer", None)
            text = backend.to_str() if backend is not None else ""
            found = {role: getattr(tokenizer, f"{role}_token", None) for role in _ROLES}
    if not text:
        raise InputError(f"{folder.path}: {type(tokenizer).__name__} is Python alone; expected a tokenizer.json")
    roles = {role: None if token is None else str(token) for role, token in found.items()}
    values = json.loads(text)
    values["added_tokens"] = [token for token in values["added_tokens"] if _has_row(token, values["model"], folder)]
    for token in values["added_tokens"]:
        # The library's release 5 leaves out this flag of 4's classes, which fairseq's fill_mask agrees with.
        token["lstrip"] |= folder.defaults.mask_lstrip and token["content"] == roles["mask"]
    _check_added(folder, {token["content"]: token["id"] for token in values["added_tokens"]})
    return values, roles


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import transformers
    except ImportError:
        raise ConfigError(
            "a folder without tokenizer.json is converted by the transformers library: pip install 'fairbeam[hf]'"
        ) from None
    return transformers


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Silence the library's advice on files that the user did not write."""
    logging = library.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def _stage(folder: TokenizerFolder, place: Path) -> None:
    for name in _COPIED:
        if file := inside(folder.path, name):
            (place / name).write_bytes(read_bytes(file, MAX_TABLE_BYTES))
    if file := inside(folder.path, "vocab.json"):
        read_vocabulary(file)
    kind = folder.options.tokenizer_class
    if kind is not None and not re.fullmatch(r"\w+Tokenizer(Fast)?|TokenizersBackend", kind, re.ASCII):
        raise InputError(f"{folder.path / OPTIONS}: /tokenizer_class is {kind!r:.80}; expected a tokenizer's class")
    if kind is None and folder.family is None:
        raise InputError(f"{folder.path}: neither {OPTIONS} nor {MODEL_CONFIG} names a family; name one")
    options = {name: value for name, value in folder.raw_options.items() if _passes(name, value)}
    (place / OPTIONS).write_text(json.dumps(options))
    (place / MODEL_CONFIG).write_text(json.dumps({"model_type": folder.family} if folder.family else {}))


def _passes(name: str, value: Any) -> bool:
    """Whether an option is a switch, a number or names tokens; texts of all other kinds may name files."""
    is_token = name.endswith("_token") or name in ("additional_special_tokens", "extra_special_tokens")
    is_known = name in ("tokenizer_class", "added_tokens_decoder", "src_lang", "tgt_lang")
    return name not in _LOADING and (is_token or is_known or isinstance(value, bool | int | float | None))


def _check_added(folder: TokenizerFolder, ids: Mapping[str, int]) -> None:
    for token, index in folder.added.items():
        if ids.get(token.content, index) != index:
            raise InputError(
                f"{folder.path}: added token {token.content!r} has id {index}, but would get {ids[token.content]}; "
                "expected ids behind the vocabulary's, without a gap"
            )


def _has_row(token: dict[str, Any], model: dict[str, Any], folder: TokenizerFolder) -> bool:
    """Whether the folder's model has an embedding for a token that the library may have added by itself."""
    vocabulary = model["vocab"]
    stated = {added.content for added in folder.added}
    within = token["content"] in vocabulary if isinstance(vocabulary, dict) else token["id"] < len(vocabulary)
    return within or token["content"] in stated or token["id"] < (folder.rows or 0)
