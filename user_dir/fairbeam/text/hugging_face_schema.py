"""Schema of the small files of a Hugging Face tokenizer folder, and the folder as they describe it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le, Lt

from fairbeam import schema
from fairbeam.errors import InputError
from fairbeam.files import inside, read_object
from fairbeam.text.family_defaults import FAMILY_DEFAULTS, TOKENIZER_CLASSES, FamilyDefaults
from fairbeam.text.reading import MAX_OPTIONS_BYTES, MAX_TOKENS
from fairbeam.text.tokenizer_config import AddedToken, SpecialTokens, Template, Token

_T = TypeVar("_T")

OPTIONS = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"
MODEL_CONFIG = "config.json"

TokenEntry = Token | AddedToken
"""A token as Hugging Face writes it: its text, or an object with its flags."""
TokenId = Annotated[int, Ge(0), Lt(MAX_TOKENS)]


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """Options of ``tokenizer_config.json``, the special tokens of ``special_tokens_map.json`` among them.

    Attributes:
        tokenizer_class: the class in ``transformers``.
        bos_token: the beginning of a text; the other roles likewise.
        additional_special_tokens: special tokens without a role, such as languages.
        extra_special_tokens: the same under its name since transformers 5; the keys of an object do not matter.
        added_tokens_decoder: id to token, for tokens outside the vocabulary's file and for special ones.
        src_lang: language of source texts.
        tgt_lang: language of target texts.
        do_lower_case: whether BERT's normalizer lowercases.
        strip_accents: whether it removes accents; None means as ``do_lower_case``.
        tokenize_chinese_chars: whether it separates CJK characters.
        add_prefix_space: whether byte-level BPE puts a space before a text.
        legacy_behaviour: NLLB's older template, with the language behind the text.
        separate_vocabs: Marian's vocabulary for each side.
        extra_ids: number of T5's sentinels.
    """

    tokenizer_class: str | None = None
    bos_token: TokenEntry | None = None
    eos_token: TokenEntry | None = None
    unk_token: TokenEntry | None = None
    pad_token: TokenEntry | None = None
    cls_token: TokenEntry | None = None
    sep_token: TokenEntry | None = None
    mask_token: TokenEntry | None = None
    additional_special_tokens: list[TokenEntry] | dict[str, TokenEntry] | None = None
    extra_special_tokens: list[TokenEntry] | dict[str, TokenEntry] | None = None
    added_tokens_decoder: dict[TokenId, TokenEntry] | None = None
    src_lang: str | None = None
    tgt_lang: str | None = None
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    add_prefix_space: bool | None = None
    legacy_behaviour: bool | None = None
    separate_vocabs: bool | None = None
    extra_ids: Annotated[int, Ge(0), Le(10_000)] = 100

    def listed(self) -> list[AddedToken]:
        """Return the special tokens without a role, in the order of the file."""
        found = (self.additional_special_tokens or [], self.extra_special_tokens or [])
        entries = [entry for part in found for entry in (part.values() if isinstance(part, dict) else part)]
        return list(dict.fromkeys(as_added_token(entry) for entry in entries))


def as_added_token(entry: TokenEntry) -> AddedToken:
    """Return an entry that is a mere text as a special token without flags."""
    return AddedToken(content=entry) if isinstance(entry, str) else entry


@dataclass(frozen=True, kw_only=True)
class TokenizerFolder:
    """Small files of a folder, read and checked.

    Attributes:
        path: the folder.
        options: ``tokenizer_config.json`` with ``special_tokens_map.json``, checked.
        raw_options: the same as it was read.
        added: tokens with an id of their own, from ``added_tokens.json`` and ``added_tokens_decoder``.
        family: name of the family, if a file or the caller names one.
        rows: rows of the model's embedding, if ``config.json`` says.
        defaults: what the family's files leave unsaid.
    """

    path: Path
    options: TokenizerOptions
    raw_options: Mapping[str, Any]
    added: Mapping[AddedToken, int]
    family: str | None
    rows: int | None
    defaults: FamilyDefaults

    def names(self, role: str) -> bool:
        """Whether the files name a role, be it with null."""
        return f"{role}_token" in self.raw_options

    def role(self, role: str, default: str | None) -> TokenEntry | None:
        """Return the token of a role, or ``default`` where the files do not name the role at all."""
        return getattr(self.options, f"{role}_token") if self.names(role) else default

    @property
    def listed(self) -> list[AddedToken]:
        """Special tokens without a role, in the order of the file."""
        return self.options.listed()

    @property
    def template(self) -> Template:
        """The family's template, in the form that the options ask for."""
        legacy = self.defaults.legacy_template
        return legacy if legacy and self.options.legacy_behaviour else self.defaults.template


def read_folder(path: Path, family: str | None) -> TokenizerFolder:
    """Read the small files of a folder.

    Raises:
        InputError: the folder is missing, or a file is malformed; names the file, the place in it and what was
            expected.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; expected one with a tokenizer's files")
    options, roles = _optional(path, OPTIONS), _optional(path, SPECIAL_TOKENS)
    # Releases that write added_tokens_decoder no longer keep special tokens in two files.
    options = {**roles, **options} if options.get("added_tokens_decoder") else {**options, **roles}
    config = _optional(path, MODEL_CONFIG)
    if "tokenizer_class" not in options and isinstance(kind := config.get("tokenizer_class"), str):
        options["tokenizer_class"] = kind
    checked = _parse(TokenizerOptions, options, path / OPTIONS)
    added = _parse(dict[Token, TokenId], _optional(path, ADDED_TOKENS), path / ADDED_TOKENS)
    known = _family(checked, config, family)
    rows = config.get("vocab_size")
    return TokenizerFolder(
        path=path,
        options=checked,
        raw_options=options,
        added={
            **{AddedToken(content=token): index for token, index in added.items()},
            **{as_added_token(entry): index for index, entry in (checked.added_tokens_decoder or {}).items()},
        },
        family=known,
        rows=rows if isinstance(rows, int) else None,
        defaults=FAMILY_DEFAULTS.get(known or "", FamilyDefaults()),
    )


def _parse(kind: type[_T], values: Any, path: Path) -> _T:
    return schema.parse(kind, values, file=path, error=InputError, known_fields_only=False)


def _optional(path: Path, name: str) -> dict[str, Any]:
    file = inside(path, name)
    return read_object(file, MAX_OPTIONS_BYTES) if file else {}


def _family(options: TokenizerOptions, config: Mapping[str, Any], family: str | None) -> str | None:
    """Return the family's name: the caller's, that of the tokenizer's class, or the ``model_type``."""
    if family is not None:
        return family
    known = TOKENIZER_CLASSES.get((options.tokenizer_class or "").removesuffix("Fast"))
    # A pair of two families has the tokenizer of its encoder, if it says nothing else.
    parts = (config.get("encoder"), config)
    kinds = [part.get("model_type") for part in parts if isinstance(part, dict)]
    return known or next((kind for kind in kinds if isinstance(kind, str) and re.fullmatch(r"[\w-]+", kind)), None)


def special_tokens(
    folder: TokenizerFolder, index: Callable[[str], int | None]
) -> tuple[SpecialTokens, dict[str, AddedToken]]:
    """Return the tokens with a role, and how those are found in a text.

    A family's default that the vocabulary lacks is left out; a token that a file names has to be there.

    Raises:
        InputError: the vocabulary lacks a token that a file names.
    """
    roles: dict[str, str | None] = {}
    flags: dict[str, AddedToken] = {}
    for role, default in folder.defaults.special.items():
        entry = folder.role(role, default)
        if entry is None:
            roles[role] = None
            continue
        token = _with_flags(entry, role, folder)
        known = index(token.content) is not None
        if not known and folder.names(role):
            raise InputError(f"{folder.path / OPTIONS}: /{role}_token is {token.content!r}, which the vocabulary lacks")
        roles[role] = token.content if known else None
        if known and (role == "mask" or token.content not in flags):
            flags[token.content] = token
    return SpecialTokens(**roles), flags


def _with_flags(entry: TokenEntry, role: str, folder: TokenizerFolder) -> AddedToken:
    """Return a role's token with the flags that the folder or the family gives it."""
    if isinstance(entry, AddedToken):
        return entry
    default = AddedToken(content=entry, lstrip=role == "mask" and folder.defaults.mask_lstrip)
    return {token.content: token for token in (*folder.listed, *folder.added)}.get(entry, default)
