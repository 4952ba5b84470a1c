"""Tokenizers of Hugging Face folders that hold SentencePiece models, run by SentencePiece itself."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from fairbeam.errors import ConfigError, InputError
from fairbeam.files import inside
from fairbeam.text.backends import SentencePieceBackend, Side
from fairbeam.text.family_defaults import Appended
from fairbeam.text.hugging_face_schema import TokenizerFolder, as_added_token, special_tokens
from fairbeam.text.pretrained_tokenizer import PretrainedTokenizer
from fairbeam.text.reading import MAX_TOKENS, read_vocabulary
from fairbeam.text.subwords import SentencePiece
from fairbeam.text.tokenizer_config import AddedToken, Kind, TokenizerConfig

MODEL_FILES = ("spiece.model", "sentencepiece.bpe.model", "sentencepiece.model", "tokenizer.model")


def find_models(path: Path) -> dict[Side, Path]:
    """Return the SentencePiece model of each side: the same for both where there is one, none where there is none."""
    source, target = inside(path, "source.spm"), inside(path, "target.spm")
    if source and target:
        return {Side.SOURCE: source, Side.TARGET: target}
    one = next((file for name in MODEL_FILES if (file := inside(path, name))), None)
    return {Side.SOURCE: one, Side.TARGET: one} if one else {}


def from_sentencepiece(
    folder: TokenizerFolder, models: Mapping[Side, Path], language: str | None, side: Side
) -> PretrainedTokenizer:
    """Build the tokenizer of one side from its SentencePiece model and its vocabulary.

    Raises:
        ConfigError: the template needs a language, and ``language`` is unknown.
        InputError: a file is missing or malformed, or two tokens claim one id.
    """
    model = SentencePiece.load(models[side])
    separate = folder.options.separate_vocabs is True
    name = "target_vocab.json" if separate and side is Side.TARGET else "vocab.json"
    file = inside(folder.path, name)
    if file is None and (separate or models[Side.SOURCE] != models[Side.TARGET]):
        raise InputError(f"{folder.path / name}: no such file; expected the vocabulary of the SentencePiece models")
    where = file or models[side]
    vocabulary = _complete(read_vocabulary(file) if file else _own_vocabulary(model, folder), folder, where)
    special, flags = special_tokens(folder, vocabulary.get)
    languages = folder.defaults.languages_among(vocabulary)
    try:
        config = TokenizerConfig(
            kind=Kind.SENTENCEPIECE,
            special=special,
            template=folder.template,
            languages=languages,
            added=_added(folder, vocabulary, languages, flags, openings=not separate),
            two_models=models[Side.SOURCE] != models[Side.TARGET],
            two_vocabularies=separate,
        )
    except ConfigError as error:
        raise InputError(f"{where}: {error}") from None
    backend = SentencePieceBackend(model, vocabulary, config, str(where))
    return PretrainedTokenizer(config=config, backend=backend, language=language, side=side)


def _own_vocabulary(model: SentencePiece, folder: TokenizerFolder) -> dict[str, int]:
    """Return the ids of a model's pieces, behind the tokens that the family puts in front of them."""
    layout = folder.defaults.layout
    tokens = dict.fromkeys([*layout.first, *model.all_pieces[layout.skipped :]])
    return {token: index for index, token in enumerate(tokens)}


def _complete(vocabulary: dict[str, int], folder: TokenizerFolder, where: Path) -> dict[str, int]:
    """Add the family's last tokens and the folder's added ones to a vocabulary."""
    stated = {token.content: index for token, index in folder.added.items()}
    following = max(vocabulary.values(), default=-1) + 1
    for token in _appended(folder):
        if token not in vocabulary:
            vocabulary[token] = stated.get(token, following)
            following += 1
    for token, index in stated.items():
        if vocabulary.setdefault(token, index) != index:
            raise InputError(
                f"{where}: added token {token!r} has id {index}, the vocabulary says {vocabulary[token]}; "
                "expected the same"
            )
    if max(vocabulary.values(), default=-1) >= MAX_TOKENS:
        raise InputError(f"{where}: more than {MAX_TOKENS} tokens; not a vocabulary")
    if len(set(vocabulary.values())) != len(vocabulary):
        raise InputError(f"{where}: an added token has the id of another; expected one id for each")
    return vocabulary


def _appended(folder: TokenizerFolder) -> list[str]:
    """Return the tokens behind a model's pieces, in the order of their ids."""
    listed = [token.content for token in (*folder.listed, *sorted(folder.added, key=folder.added.__getitem__))]
    mask = folder.options.mask_token or folder.defaults.special.mask or "<mask>"
    parts = {
        Appended.LANGUAGES: list(folder.defaults.languages_among(listed).values()),
        Appended.SENTINELS: _sentinels(folder),
        Appended.MASK: [as_added_token(mask).content],
    }
    return [token for part in folder.defaults.layout.last for token in parts[part]]


def _sentinels(folder: TokenizerFolder) -> list[str]:
    """Return ``<extra_id_99>`` … ``<extra_id_0>``, which T5 counts down."""
    if Appended.SENTINELS not in folder.defaults.layout.last:
        return []
    return [f"<extra_id_{i}>" for i in reversed(range(folder.options.extra_ids))]


def _added(
    folder: TokenizerFolder,
    vocabulary: Iterable[str],
    languages: Mapping[str, str],
    flags: Mapping[str, AddedToken],
    *,
    openings: bool,
) -> tuple[AddedToken, ...]:
    """Return the tokens that are found in the text before SentencePiece sees the rest of it."""
    pattern, first = folder.defaults.opening, folder.defaults.layout.first
    starts = [token for token in vocabulary if openings and pattern and re.fullmatch(pattern, token)]
    added = {
        **{token: AddedToken(content=token, opening=True, special=False) for token in starts},
        **{token: AddedToken(content=token) for token in (*first, *languages.values(), *_sentinels(folder))},
        **{token.content: token for token in (*folder.listed, *folder.added)},
        **flags,
    }
    return tuple(token for token in added.values() if token.content in vocabulary)
