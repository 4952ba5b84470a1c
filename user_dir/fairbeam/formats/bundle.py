"""Bundles: folders that hold a whole model.

``model.safetensors`` holds the weights, ``config.json`` the network and the generation defaults, the tokenizer's own
files stand beside them, ``README.md`` is the model card, and ``shortlist.safetensors``, if any, the lexical shortlist.
The files of ``fairbeam.formats.provenance`` are for writing the model back to its original format. Nothing is pickled.

Format 1 is an encoder-decoder with a dictionary for each side. Format 2 adds ``tokenizer``, the kind of both
tokenizers, and the tokens that every output begins with. Format 3 adds ``shape``, the kind of network; it may have a
kind of tokenizer for each side, in folders ``source`` and ``target``, and special tokens other than a final ``</s>``.
All are read; a bundle is written in the first format that can describe it.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairbeam.data.lexical_shortlist import SHORTLIST, Shortlist
from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.files import atomic_folder, check_replaceable, read_object, read_text
from fairbeam.formats import provenance
from fairbeam.formats.limits import check_limits
from fairbeam.formats.tensors import read_tensors, write_tensors
from fairbeam.generation import GenerationOptions
from fairbeam.generation.build import check_features
from fairbeam.generation.option_fields import MODEL, options_from
from fairbeam.model import Bundle
from fairbeam.network import (
    AnyConfig,
    AnyNetwork,
    DecoderOnlyConfig,
    EncoderDecoderConfig,
    EncoderOnly,
    EncoderOnlyConfig,
    LSTMConfig,
    build,
)
from fairbeam.schema import parse
from fairbeam.text import KINDS, Marks, PretrainedTokenizer, Side, TextSide, Tokenizer

FORMATS = (1, 2, 3)
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_FIELDS = frozenset({"format", "family", "source", "target", "network", "generation"})
_FIELDS_OF = {
    1: _FIELDS,
    2: _FIELDS | {"tokenizer", "start", "forced_first"},
    3: _FIELDS | {"tokenizer", "start", "forced_first", "shape"},
}
"""Fields of ``config.json`` in each format."""
_SHAPES: dict[str, type[AnyConfig]] = {
    "encoder-decoder": EncoderDecoderConfig,
    "encoder": EncoderOnlyConfig,
    "decoder": DecoderOnlyConfig,
    "recurrent": LSTMConfig,
}
_FOLDERS = (provenance.FILES, *(side.value for side in Side))
_TOKENIZERS: dict[str, Callable[[Path, str | None, Side], TextSide]] = {
    KINDS[Marks.ENDED]: lambda folder, language, side: Tokenizer.load(folder, language or side.value),
    "pretrained": lambda folder, language, side: PretrainedTokenizer.load(folder, language, side=side),
}
"""Reader of each kind of tokenizer that formats 1 and 2 may name."""
_MARKED = {KINDS[marks]: marks for marks in Marks if marks is not Marks.ENDED}
"""Kinds of format 3: dictionaries with other special tokens around a text."""


@dataclass(frozen=True, kw_only=True)
class TokenizerKinds:
    """Kinds of tokenizers that are kept in a folder for each side."""

    source: str | None
    target: str | None

    def of(self, side: Side) -> str | None:
        """Return the kind of one side."""
        return self.source if side is Side.SOURCE else self.target


@dataclass(frozen=True, kw_only=True)
class BundleConfig:
    """Contents of a bundle's ``config.json``, in any format."""

    format: int
    family: str
    """Name of the model family."""
    source: str | None
    """Language of sources."""
    target: str | None
    """Language of targets."""
    network: dict[str, Any]
    generation: dict[str, Any]
    tokenizer: str | TokenizerKinds | None = KINDS[Marks.ENDED]
    """Kind of both tokenizers, or of each side's."""
    start: int | None = None
    """Decoder start token."""
    forced_first: int | None = None
    """First token of every output (``forced_bos`` of `Bundle`)."""
    shape: str = "encoder-decoder"
    """Kind of network."""

    def __post_init__(self) -> None:
        known = [*_TOKENIZERS, *(_MARKED if self.format == 3 else ())]
        separate = isinstance(self.tokenizer, TokenizerKinds)
        if any(kind is not None and kind not in known for kind in map(self.tokenizer_kind, Side)) or (
            separate and self.format != 3
        ):
            shown = vars(self.tokenizer) if separate else self.tokenizer
            raise ConfigError(f"/tokenizer is {shown!r:.80}; expected {', '.join(known)} or null")
        if self.shape not in _SHAPES:
            raise ConfigError(f"/shape is {self.shape!r:.80}; expected one of {', '.join(_SHAPES)}")
        for name in ("family", "source", "target"):
            value = getattr(self, name)
            optional = name != "family" and self.tokenizer != KINDS[Marks.ENDED]
            if not (value is None and optional) and (not value or value != Path(value).name):
                raise ConfigError(f"/{name} is {value!r:.80}; expected a plain name")

    def tokenizer_kind(self, side: Side) -> str | None:
        """Return the kind of one side's tokenizer; None if the model has none."""
        return self.tokenizer.of(side) if isinstance(self.tokenizer, TokenizerKinds) else self.tokenizer


def is_bundle(path: str | Path) -> bool:
    """Return whether ``path`` is a folder with the files of a bundle."""
    return (Path(path) / CONFIG).is_file() and (Path(path) / WEIGHTS).is_file()


def save(folder: str | Path, bundle: Bundle, *, overwrite: bool = False) -> Path:
    """Write a bundle, whole or not at all.

    Raises:
        ConfigError: ``folder`` exists and ``overwrite`` is false, or it exists and is no bundle.
        InputError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    folder = Path(folder)
    check_replaceable(folder, overwrite=overwrite, kind="a bundle", is_kind=_is_replaceable)
    with atomic_folder(folder, replace=overwrite) as building:
        _write(building, bundle, folder.name)
    return folder


def load(folder: str | Path) -> Bundle:
    """Read a bundle, whose author may be hostile.

    Raises:
        CheckpointError: a file is missing, malformed, of another version, leads out of the folder, or the
            weights do not fit the network; names what is wrong.
        InputError: a dictionary or the subword model is missing or malformed.
    """
    folder = Path(folder)
    _refuse_links(folder)
    config = _read_config(folder / CONFIG)
    tensors = read_tensors(folder / WEIGHTS)
    network = _read_network(config, tensors, folder)
    try:
        generation = _generation_options(config.generation)
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None
    card = folder / CARD
    return Bundle(
        network=network,
        source=_read_side(folder, config, Side.SOURCE),
        target=None if isinstance(network, EncoderOnly) else _read_side(folder, config, Side.TARGET),
        generation=generation,
        family=config.family,
        card=_behind_heading(read_text(card, error=CheckpointError)) if card.is_file() else "",
        start=config.start,
        forced_bos=config.forced_first,
        origin=provenance.load(folder),
        separate_tokenizers=isinstance(config.tokenizer, TokenizerKinds),
        shortlist=Shortlist.load(folder / SHORTLIST) if (folder / SHORTLIST).is_file() else None,
    )


def _read_network(config: BundleConfig, tensors: Mapping[str, Tensor], folder: Path) -> AnyNetwork:
    """Return the network, in evaluation mode."""
    try:
        described = parse(_SHAPES[config.shape], config.network, pointer="/network")
        check_limits(described, len(tensors))
        with torch.device("meta"):  # shapes only: compare them before memory is allocated
            outline = _unique_tensors(build(described))
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None
    except (ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: no network can have these sizes ({error})") from None
    _check_tensors(tensors, outline, folder / WEIGHTS)
    network = build(described)
    with torch.no_grad():
        for name, tensor in _unique_tensors(network).items():
            tensor.copy_(tensors[name])
    return network.eval()


def _read_side(folder: Path, config: BundleConfig, side: Side) -> TextSide | None:
    kind = config.tokenizer_kind(side)
    if kind is None:
        return None
    place = folder / side.value if isinstance(config.tokenizer, TokenizerKinds) else folder
    language = config.source if side is Side.SOURCE else config.target
    if kind in _MARKED:
        return Tokenizer.load(place, language, marks=_MARKED[kind])
    return _TOKENIZERS[kind](place, language, side)


def _is_replaceable(folder: Path) -> bool:
    """Return whether ``folder`` is empty or a bundle; other libraries give their files the same names."""
    if not any(folder.iterdir()):
        return True
    try:
        return bool(_read_config(folder / CONFIG)) and is_bundle(folder)
    except CheckpointError:
        return False


def _write(folder: Path, bundle: Bundle, name: str) -> None:
    write_tensors(folder / WEIGHTS, _unique_tensors(bundle.network))
    (folder / CONFIG).write_text(json.dumps(_describe(bundle), indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(name, bundle), encoding="utf-8")
    for name, side in zip(Side, (bundle.source, bundle.target), strict=True):
        if side is not None:
            place = folder / name.value if bundle.separate_tokenizers else folder
            place.mkdir(exist_ok=True)
            side.save(place)
    if bundle.shortlist is not None:
        bundle.shortlist.save(folder / SHORTLIST)
    if bundle.origin is not None:
        provenance.save(folder, bundle.origin)


def _describe(bundle: Bundle) -> dict[str, Any]:
    shape = next(name for name, kind in _SHAPES.items() if isinstance(bundle.network.config, kind))
    kinds = {side.value: text and text.kind for side, text in zip(Side, (bundle.source, bundle.target), strict=True)}
    more: dict[str, Any] = {
        "tokenizer": kinds if bundle.separate_tokenizers else kinds[Side.SOURCE.value],
        "start": bundle.start,
        "forced_first": bundle.forced_bos,
    }
    if bundle.separate_tokenizers or shape != "encoder-decoder" or not {*kinds.values()} <= {*_TOKENIZERS, None}:
        version, more = 3, {**more, "shape": shape}
    elif more != {"tokenizer": "dictionary", "start": None, "forced_first": None}:
        version = 2
    else:
        version, more = 1, {}
    return {
        "format": version,
        "family": bundle.family,
        **more,
        "source": bundle.source and bundle.source.language,
        "target": bundle.target and bundle.target.language,
        "network": bundle.network.config.to_dict(),
        "generation": _written_options(bundle.generation),
    }


def _card(name: str, bundle: Bundle) -> str:
    parameters = sum(tensor.numel() for tensor in _unique_tensors(bundle.network).values())
    languages = [side.language for side in (bundle.source, bundle.target) if side is not None and side.language]
    direction = f"{' to '.join(languages)}, " if len(languages) == 2 else ""
    heading = (
        f"# {name}\n\n{direction}{parameters:,} parameters "
        f"({bundle.family}).\n\n```\nfairbeam translate {name} < input.txt\n```\n"
    )
    if isinstance(bundle.network.config, EncoderOnlyConfig):
        heading = heading.replace(f"fairbeam translate {name} < input.txt", f"fairbeam doctor {name}")
    return heading + (f"\n{bundle.card.strip()}\n" if bundle.card else "")


def _behind_heading(card: str) -> str:
    """Return a model card without the heading that ``_card`` writes."""
    parts = card.split("```\n", 2)  # the heading ends with a fenced command
    return parts[-1].strip() if len(parts) == 3 else card.strip()


def _unique_tensors(network: AnyNetwork) -> dict[str, Tensor]:
    """Return the state dictionary without second names of tied weights."""
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def _refuse_links(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such bundle")
    root = folder.resolve()
    for path in (*folder.iterdir(), *(inner for part in _FOLDERS for inner in (folder / part).glob("*"))):
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise CheckpointError(f"{path}: leads out of the bundle's folder")


def _read_config(path: Path) -> BundleConfig:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; is this folder a bundle?")
    values = read_object(path, error=CheckpointError)
    if type(values.get("format")) is not int or values["format"] not in FORMATS:
        raise CheckpointError(f"{path}: not a bundle's configuration of format {' or '.join(map(str, FORMATS))}")
    expected = _FIELDS_OF[values["format"]]
    if values.keys() != expected:
        raise CheckpointError(
            f"{path}: missing fields {sorted(expected - values.keys())}, "
            f"unknown fields {sorted(values.keys() - expected)}"
        )
    return parse(BundleConfig, values, file=path, error=CheckpointError)


def _written_options(options: GenerationOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options_from(GenerationOptions, MODEL)}


def _generation_options(values: Mapping[str, Any]) -> GenerationOptions:
    known = options_from(GenerationOptions, MODEL)
    if unknown := sorted(values.keys() - known.keys()):
        raise ConfigError(f"/generation/{unknown[0]} is an unknown field; known are {', '.join(known)}")
    try:
        options = GenerationOptions(**values)
        check_features(options)
    except ConfigError as error:
        raise ConfigError(error.spoken(lambda option: f"/generation/{option.name}")) from None
    return options


def _check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        raise CheckpointError(f"{path}: the weights do not fit the network: {'; '.join(problems)}")
