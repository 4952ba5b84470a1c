"""Tokenizers read from a Hugging Face style folder, without the ``transformers`` library."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairbeam.errors import ConfigError, InputError
from fairbeam.text.backends import TOKENIZER_JSON, JsonPieces, SentencePiecePieces, Side, require_tokenizers
from fairbeam.text.family_defaults import RECIPES, TOKENIZER_CLASSES, Extra, Recipe
from fairbeam.text.pretrained_tokenizer import PretrainedTokenizer
from fairbeam.text.reading import (
    MAX_TOKENS,
    explained,
    inside,
    parse_object,
    read_object,
    read_text,
    read_vocabulary,
)
from fairbeam.text.subwords import SentencePiece
from fairbeam.text.tokenizer_config import AddedToken, Kind, PretrainedConfig, SpecialTokens, Template

_MODELS = ("spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model")
_OPENERS = ("additional_special_tokens", "extra_special_tokens")
_MAX_SENTINELS = 10_000


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """The small files of a folder, read.

    Attributes:
        path: the folder.
        options: ``tokenizer_config.json``, special tokens of ``special_tokens_map.json`` merged in.
        added: tokens with an id of their own, from ``added_tokens.json`` and ``added_tokens_decoder``.
        listed: additional special tokens, in the order of the file.
        recipe: of the family.
    """

    path: Path
    options: Mapping[str, Any]
    added: Mapping[AddedToken, int]
    listed: tuple[AddedToken, ...]
    recipe: Recipe


def from_hf(
    folder: str | Path,
    *,
    family: str | None = None,
    language: str | None = None,
    side: Side = Side.SOURCE,
) -> PretrainedTokenizer:
    """Read the tokenizer of a Hugging Face style folder.

    ``tokenizer.json`` comes first; else SentencePiece models (``source.spm`` and ``target.spm``, or one alone),
    then ``vocab.json`` with ``merges.txt``, then ``vocab.txt``. Special tokens and options are those of
    ``tokenizer_config.json``, ``special_tokens_map.json`` and ``added_tokens.json``.

    Args:
        folder: where the files are.
        family: one of ``RECIPES``; by default what ``tokenizer_config.json`` or ``config.json`` says.
        language: for families whose template names one; by default the folder's own.
        side: which of two texts, where each has files of its own.

    Raises:
        ConfigError: ``family`` or ``language`` is unknown, or the tokenizers library is needed and not installed.
        InputError: a file is missing, malformed, too large or leads out of the folder; names it and what was
            expected.
    """
    found = _read_folder(Path(folder), family)
    default = found.options.get("src_lang" if side is Side.SOURCE else "tgt_lang")
    if language is None and isinstance(default, str):
        language = default
    models = _spm_files(found.path)
    try:
        if inside(found.path, TOKENIZER_JSON):
            return _from_tokenizer_json(found, language, side)
        if models:
            return _from_sentencepiece(found, models, language, side)
        return _from_tables(found, language, side)
    except InputError as error:
        message = str(error)
        raise InputError(message if str(found.path) in message else f"{found.path}: {message}") from None


def _read_folder(path: Path, family: str | None) -> _Folder:
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected one with a tokenizer's files")
    options = _optional(path, "tokenizer_config.json")
    roles = _optional(path, "special_tokens_map.json")
    decoder = options.get("added_tokens_decoder")
    # The decoder came with the version that stopped writing special tokens to two files.
    options = {**roles, **options} if decoder else {**options, **roles}
    where = path / "tokenizer_config.json"
    added = {
        AddedToken(content=token): index
        for token, index in _optional(path, "added_tokens.json").items()
        if _is_id(token, index, path / "added_tokens.json")
    }
    for index, entry in _object(decoder or {}, where, "added_tokens_decoder").items():
        if not index.isascii() or not index.isdigit() or len(index) > 9:
            raise InputError(f"{where}: added_tokens_decoder has the id {index!r:.80}; expected a number")
        if _is_id(index, int(index), where):
            added[_added_token(entry, where)] = int(index)
    listed = [entry for name in _OPENERS for entry in _listed(options.get(name), where)]
    return _Folder(
        path=path,
        options=options,
        added=added,
        listed=tuple(dict.fromkeys(listed)),
        recipe=_recipe(path, options, family),
    )


def _optional(path: Path, name: str) -> dict[str, Any]:
    file = inside(path, name)
    return read_object(file) if file else {}


def _object(value: Any, where: Path, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: {name} is {value!r:.80}; expected an object")
    return value


def _listed(value: Any, where: Path) -> list[AddedToken]:
    """Additional special tokens: a list, or an object whose keys are names of no interest."""
    if not isinstance(value, list | dict | None):
        raise InputError(f"{where}: {_OPENERS[0]} is {value!r:.80}; expected a list of tokens")
    entries = value.values() if isinstance(value, dict) else value or []
    return [_added_token(entry, where) for entry in entries]


def _is_id(token: str, index: Any, where: Path) -> bool:
    if type(index) is not int or not 0 <= index < MAX_TOKENS:
        raise InputError(f"{where}: added token {token!r:.80} has id {index!r:.80}; expected 0 to {MAX_TOKENS - 1}")
    return True


def _added_token(entry: Any, where: Path) -> AddedToken:
    """A token as Hugging Face writes it: its text, or an object with its flags."""
    if isinstance(entry, str) and entry:
        return AddedToken(content=entry)
    if isinstance(entry, dict):
        flags = {name: entry.get(name, name == "special") for name in ("lstrip", "rstrip", "special")}
        try:
            return AddedToken(content=entry.get("content", ""), **flags)
        except ConfigError as error:
            raise InputError(f"{where}: {error}") from None
    raise InputError(f"{where}: {entry!r:.80}; expected a token's text, or an object with its content")


def _recipe(path: Path, options: Mapping[str, Any], family: str | None) -> Recipe:
    if family is not None and family not in RECIPES:
        raise ConfigError(f"family is {family!r}; expected one of {', '.join(RECIPES)}")
    kind = options.get("tokenizer_class")
    if family is None and isinstance(kind, str):
        family = TOKENIZER_CLASSES.get(kind.removesuffix("Fast"))
    if family is None:
        config = _optional(path, "config.json")
        # A pair of two families has the tokenizer of its encoder, if it says nothing else.
        parts = (config, config.get("encoder"))
        kinds = [part.get("model_type") for part in parts if isinstance(part, dict)]
        family = next((kind for kind in kinds if isinstance(kind, str) and kind in RECIPES), None)
    if family is not None:
        return RECIPES[family]
    if inside(path, TOKENIZER_JSON):  # it says all that matters itself
        return Recipe(special=SpecialTokens())
    raise InputError(
        f"{path}: neither tokenizer_config.json nor config.json names a known family; name one of {', '.join(RECIPES)}"
    )


def _special(found: _Folder, index: Any) -> tuple[SpecialTokens, dict[str, AddedToken]]:
    """The tokens with a role, and how those that a file spells out are found in the text.

    A family's default that the vocabulary lacks is left out; a token that a file names has to be there.
    """
    where = found.path / "tokenizer_config.json"
    roles: dict[str, str | None] = {}
    flags: dict[str, AddedToken] = {}
    by_content = {token.content: token for token in (*found.listed, *found.added)}
    for role, default in found.recipe.special.items():
        entry = found.options.get(f"{role}_token", default)
        if entry is None:
            roles[role] = None
            continue
        token = _added_token(entry, where)
        if isinstance(entry, str):
            lstrip = role == "mask" and found.recipe.mask_lstrip
            token = by_content.get(token.content, AddedToken(content=token.content, lstrip=lstrip))
        known = index(token.content) is not None
        if not known and f"{role}_token" in found.options:
            raise InputError(f"{where}: {role}_token is {token.content!r}, which the vocabulary lacks")
        roles[role] = token.content if known else None
        if known and (role == "mask" or token.content not in flags):
            flags[token.content] = token
    return SpecialTokens(**roles), flags


def _languages(found: _Folder, tokens: Iterable[str]) -> dict[str, str]:
    """Codes and tokens of the languages among ``tokens``."""
    pattern = found.recipe.languages
    matches = (re.fullmatch(pattern, token) for token in tokens) if pattern else ()
    return {match[1]: match[0] for match in matches if match}


def _template(found: _Folder) -> Template:
    recipe = found.recipe
    return recipe.legacy if recipe.legacy and found.options.get("legacy_behaviour") is True else recipe.template


# --- tokenizer.json, and what is turned into one ---


def _from_tokenizer_json(found: _Folder, language: str | None, side: Side) -> PretrainedTokenizer:
    path = found.path / TOKENIZER_JSON
    text = read_text(path)
    values = parse_object(text, path)
    template = _template(found)
    if not template.names_language:
        template = _template_of(values.get("post_processor"), path) or template
    if _apply_options(values, found.options):
        text = json.dumps(values)
    return _finish(found, JsonPieces.parse(text, str(path)), template, language, side)


def _finish(
    found: _Folder, pieces: JsonPieces, template: Template, language: str | None, side: Side
) -> PretrainedTokenizer:
    """Give the library the added tokens it does not have yet, then name the roles."""
    library = require_tokenizers()
    for token, index in sorted(found.added.items(), key=lambda entry: entry[1]):
        if pieces.index(token.content) is None and _add(library, pieces, token) != index:
            raise InputError(
                f"{found.path}: added token {token.content!r} has id {index}, "
                f"but would get {pieces.index(token.content)}; expected ids behind the vocabulary's, without a gap"
            )
    special, flags = _special(found, pieces.index)
    known = pieces.backend.get_added_tokens_decoder().values()
    present = {token.content for token in known if token.special}
    for token in (*flags.values(), *found.listed, *found.added):
        if token.special and token.content not in present and pieces.index(token.content) is not None:
            _add(library, pieces, token)
    vocabulary = pieces.backend.get_vocab(with_added_tokens=True)
    languages = _languages(found, sorted(vocabulary, key=vocabulary.__getitem__))
    config = PretrainedConfig(kind=Kind.TOKENIZERS, special=special, template=template, languages=languages)
    pieces = JsonPieces(pieces.backend, str(found.path))  # its size may have grown
    return PretrainedTokenizer(config=config, pieces=pieces, language=language, side=side)


def _add(library: Any, pieces: JsonPieces, token: AddedToken) -> int | None:
    entry = library.AddedToken(
        token.content, lstrip=token.lstrip, rstrip=token.rstrip, special=token.special, normalized=not token.special
    )
    pieces.backend.add_special_tokens([entry]) if token.special else pieces.backend.add_tokens([entry])
    return pieces.index(token.content)


def _apply_options(values: dict[str, Any], options: Mapping[str, Any]) -> bool:
    """Let ``tokenizer_config.json`` have the last word on normalisation; whether that changed anything."""
    names = {
        ("normalizer", "BertNormalizer", "lowercase"): "do_lower_case",
        ("normalizer", "BertNormalizer", "strip_accents"): "strip_accents",
        ("normalizer", "BertNormalizer", "handle_chinese_chars"): "tokenize_chinese_chars",
        ("pre_tokenizer", "ByteLevel", "add_prefix_space"): "add_prefix_space",
    }
    changed = False
    for (part, kind, field), option in names.items():
        step, value = values.get(part), options.get(option)
        if isinstance(step, dict) and step.get("type") == kind and type(value) is bool and step.get(field) != value:
            step[field] = value
            changed = True
    return changed


def _template_of(processor: Any, path: Path) -> Template | None:
    """The template of a ``post_processor``; None where it has none.

    Raises:
        InputError: its form is not known.
    """
    if processor is None:
        return None
    try:
        kind = processor["type"]
        if kind == "Sequence":
            inner = [_template_of(step, path) for step in processor["processors"]]
            return next((template for template in reversed(inner) if template), None)
        if kind == "ByteLevel":
            return None
        if kind == "TemplateProcessing":
            single, single_types = _entries(processor["single"], processor["special_tokens"])
            pair, pair_types = _entries(processor["pair"], processor["special_tokens"])
            return Template(single=single, pair=pair, single_types=single_types, pair_types=pair_types)
        if kind in ("BertProcessing", "RobertaProcessing"):
            cls, sep = processor["cls"][0], processor["sep"][0]
            between, types = ((sep,), (0, 0, 0, 1, 1)) if kind == "BertProcessing" else ((sep, sep), ())
            return Template(single=(cls, "$A", sep), pair=(cls, "$A", *between, "$B", sep), pair_types=types)
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise InputError(f"{path}: post_processor is malformed ({error!r:.200}); expected a template") from None
    raise InputError(
        f"{path}: post_processor has type {kind!r:.80}; expected TemplateProcessing, BertProcessing, "
        "RobertaProcessing, ByteLevel or a Sequence of them"
    )


def _entries(steps: Any, tokens: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Entries of a template and their types, from the library's form of it."""
    entries: list[tuple[str, int]] = []
    for step in steps:
        ((kind, value),) = step.items()
        if kind == "Sequence":
            entries.append((f"${value['id']}", value["type_id"]))
        else:
            entries.extend((token, value["type_id"]) for token in tokens[value["id"]]["tokens"])
    return tuple(token for token, _ in entries), tuple(kind for _, kind in entries)


def _from_tables(found: _Folder, language: str | None, side: Side) -> PretrainedTokenizer:
    """The older files of WordPiece and byte-level BPE, built into what ``tokenizer.json`` would describe."""
    vocabulary, merges = inside(found.path, "vocab.json"), inside(found.path, "merges.txt")
    words = inside(found.path, "vocab.txt")
    if vocabulary and merges:
        backend = _byte_level(vocabulary, merges, found.options)
    elif words:
        backend = _word_piece(words, found)
    else:
        raise InputError(
            f"{found.path}: no tokenizer's files; expected tokenizer.json, vocab.txt, vocab.json with merges.txt, "
            f"source.spm with target.spm, or one of {', '.join(_MODELS)}"
        )
    return _finish(found, JsonPieces(backend, str(found.path)), _template(found), language, side)


def _word_piece(path: Path, found: _Folder) -> Any:
    library = require_tokenizers()
    lines = read_text(path).split("\n")
    if len(lines) > MAX_TOKENS:
        raise InputError(f"{path}: more than {MAX_TOKENS} lines; not a vocabulary")
    if lines[-1] == "":
        lines.pop()
    vocabulary = {token.rstrip("\r"): index for index, token in enumerate(lines)}
    unknown = _content(found.options.get("unk_token"), found.recipe.special.unk or "[UNK]")
    if unknown not in vocabulary:
        raise InputError(f"{path}: lacks {unknown!r}; expected a WordPiece vocabulary, one token a line")
    options = found.options
    with explained(str(path), "a WordPiece vocabulary, one token a line"):
        backend = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token=unknown))
        backend.normalizer = library.normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=_flag(options, "tokenize_chinese_chars", True, path),
            strip_accents=_flag(options, "strip_accents", None, path),
            lowercase=_flag(options, "do_lower_case", found.recipe.lowercase, path),
        )
        backend.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        backend.decoder = library.decoders.WordPiece(prefix="##")
    return backend


def _byte_level(vocabulary: Path, merges: Path, options: Mapping[str, Any]) -> Any:
    library = require_tokenizers()
    pairs = []
    for number, line in enumerate(read_text(merges).split("\n"), start=1):
        line = line.rstrip("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            raise InputError(f"{merges}, line {number}: {line[:80]!r}; expected two pieces with a space between them")
        pairs.append((pair[0], pair[1]))
    prefix = _flag(options, "add_prefix_space", False, vocabulary)
    with explained(str(merges), f"merges of the pieces of {vocabulary.name}"):
        backend = library.Tokenizer(library.models.BPE(read_vocabulary(vocabulary), pairs))
        backend.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        backend.decoder = library.decoders.ByteLevel()
    return backend


def _flag(options: Mapping[str, Any], name: str, default: bool | None, path: Path) -> bool | None:
    value = options.get(name, default)
    if value is not None and type(value) is not bool:
        raise InputError(f"{path.parent / 'tokenizer_config.json'}: {name} is {value!r:.80}; expected true or false")
    return default if value is None else value


def _content(entry: Any, default: str) -> str:
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else default


# --- SentencePiece models ---


def _spm_files(path: Path) -> dict[Side, Path]:
    """The SentencePiece model of each side; the same for both where there is one alone."""
    source, target = inside(path, "source.spm"), inside(path, "target.spm")
    if source and target:
        return {Side.SOURCE: source, Side.TARGET: target}
    one = next((file for name in _MODELS if (file := inside(path, name))), None)
    return {Side.SOURCE: one, Side.TARGET: one} if one else {}


def _from_sentencepiece(
    found: _Folder, models: Mapping[Side, Path], language: str | None, side: Side
) -> PretrainedTokenizer:
    model = SentencePiece.load(models[side])
    two_vocabularies = found.options.get("separate_vocabs") is True
    name = "target_vocab.json" if two_vocabularies and side is Side.TARGET else "vocab.json"
    file = inside(found.path, name)
    if file is None and (two_vocabularies or models[Side.SOURCE] != models[Side.TARGET]):
        raise InputError(f"{found.path / name}: no such file; expected the vocabulary of the SentencePiece models")
    where = file or models[side]
    vocabulary = read_vocabulary(file) if file else _own_vocabulary(model, found)
    if found.recipe.layout.tail:
        _append(vocabulary, _tail(found), found, where)
    for token, index in found.added.items():
        if vocabulary.setdefault(token.content, index) != index:
            raise InputError(
                f"{where}: added token {token.content!r} has id {index}, the vocabulary says "
                f"{vocabulary[token.content]}; expected the same"
            )
    if len(set(vocabulary.values())) != len(vocabulary):
        raise InputError(f"{where}: an added token has the id of another; expected one id for each")
    special, flags = _special(found, vocabulary.get)
    opening = found.recipe.opening
    starts = [token for token in vocabulary if opening and not two_vocabularies and re.fullmatch(opening, token)]
    languages = _languages(found, vocabulary)
    added = {
        **{token: AddedToken(content=token, opening=True, special=False) for token in starts},
        **{token: AddedToken(content=token) for token in (*languages.values(), *_sentinels(found))},
        **{token.content: token for token in (*found.listed, *found.added)},
        **flags,
    }
    try:
        config = PretrainedConfig(
            kind=Kind.SENTENCEPIECE,
            special=special,
            template=_template(found),
            languages=languages,
            added=tuple(token for token in added.values() if token.content in vocabulary),
            two_models=models[Side.SOURCE] != models[Side.TARGET],
            two_vocabularies=two_vocabularies,
        )
    except ConfigError as error:
        raise InputError(f"{where}: {error}") from None
    pieces = SentencePiecePieces(model, vocabulary, config, str(where))
    return PretrainedTokenizer(config=config, pieces=pieces, language=language, side=side)


def _own_vocabulary(model: SentencePiece, found: _Folder) -> dict[str, int]:
    """The ids of a model's pieces, behind the tokens that the family puts in front of them."""
    layout = found.recipe.layout
    tokens = dict.fromkeys([*layout.head, *model.all_pieces[layout.skip :]])
    return {token: index for index, token in enumerate(tokens)}


def _append(vocabulary: dict[str, int], tokens: Iterable[str], found: _Folder, where: Path) -> None:
    """Give tokens that have no id yet the ids behind the vocabulary's, or those that the folder states."""
    stated = {token.content: index for token, index in found.added.items()}
    following = max(vocabulary.values(), default=-1) + 1
    for token in tokens:
        if token not in vocabulary:
            vocabulary[token] = stated.get(token, following)
            following += 1
    if following > MAX_TOKENS:
        raise InputError(f"{where}: more than {MAX_TOKENS} tokens; not a vocabulary")


def _tail(found: _Folder) -> list[str]:
    listed = [token.content for token in (*found.listed, *sorted(found.added, key=found.added.__getitem__))]
    parts = {
        Extra.LANGUAGES: list(_languages(found, listed).values()),
        Extra.SENTINELS: _sentinels(found),
        Extra.MASK: [_content(found.options.get("mask_token"), found.recipe.special.mask or "<mask>")],
    }
    return [token for part in found.recipe.layout.tail for token in parts[part]]


def _sentinels(found: _Folder) -> list[str]:
    """``<extra_id_99>`` … ``<extra_id_0>``: T5 counts them down."""
    if Extra.SENTINELS not in found.recipe.layout.tail:
        return []
    count = found.options.get("extra_ids", 100)
    if type(count) is not int or not 0 <= count <= _MAX_SENTINELS:
        raise InputError(
            f"{found.path / 'tokenizer_config.json'}: extra_ids is {count!r:.80}; expected 0 to {_MAX_SENTINELS}"
        )
    return [f"<extra_id_{i}>" for i in reversed(range(count))]
