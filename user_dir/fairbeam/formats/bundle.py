"""A bundle: a folder that is a whole model.

``model.safetensors`` holds the weights, ``config.json`` the network and the generation defaults, the
tokenizer's own files stand beside them, ``README.md`` is the model card, and ``shortlist.safetensors``, where there is
one, says which target symbols may translate a source symbol. What it takes to write the model back
where it came from is in the files of ``fairbeam.formats.provenance``. Nothing in it is pickled.

Format 1 is an encoder-decoder with a dictionary for each side. Format 2 says in ``tokenizer`` what text becomes ids
with, and what decoding begins with. Format 3 says in ``shape`` what kind of network there is, and may have a tokenizer
for each side, in folders ``source`` and ``target``, and texts that do not just end in ``</s>``. All are read, and each
bundle is written in the first that can say what it is.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairbeam.data.lexical_shortlist import SHORTLIST, Shortlist
from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.files import atomic_folder, check_replaceable
from fairbeam.formats import provenance as origins
from fairbeam.formats.provenance import Provenance
from fairbeam.formats.tensors import read_tensors, write_tensors
from fairbeam.generation import GenerationOptions
from fairbeam.generation.options import PER_CALL
from fairbeam.network import (
    AnyConfig,
    AnyNetwork,
    DecoderOnlyConfig,
    EncoderDecoderConfig,
    EncoderOnlyConfig,
    HeadConfig,
    LSTMConfig,
    StackConfig,
    build,
)
from fairbeam.text import KINDS, Marks, PretrainedTokenizer, Side, TextSide, Tokenizer

FORMATS = (1, 2, 3)
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_MAX_TEXT_BYTES = 1 << 20
_MAX_SIZE = 1 << 24
"""Of any one dimension; what the weights do not bear out is refused before memory is taken."""
_MAX_POSITIONS = 1 << 17
"""Sinusoids are computed, not stored: the size of the weights does not bound them."""
_MAX_LAYERS = 1 << 12
"""Shared layers cost no weights: those do not bound their number."""
_FIELDS = frozenset({"format", "family", "source", "target", "network", "generation"})
_MORE_FIELDS = frozenset({"tokenizer", "start", "forced_first"})
"""Of format 2."""
_SHAPE = "shape"
"""The one of format 3."""
_FIELDS_OF = {1: _FIELDS, 2: _FIELDS | _MORE_FIELDS, 3: _FIELDS | _MORE_FIELDS | {_SHAPE}}
_SHAPES: dict[str, type[AnyConfig]] = {
    "encoder-decoder": EncoderDecoderConfig,
    "encoder": EncoderOnlyConfig,
    "decoder": DecoderOnlyConfig,
    "recurrent": LSTMConfig,
}
_FOLDERS = (origins.FILES, *(side.value for side in Side))
_TOKENIZERS: dict[str, Callable[[Path, str | None, Side], TextSide]] = {
    KINDS[Marks.ENDED]: lambda folder, language, side: Tokenizer.load(folder, language or side.value),
    "pretrained": lambda folder, language, side: PretrainedTokenizer.load(folder, language, side=side),
}
"""What ``tokenizer`` may name, and how each is read."""
_MARKED = {KINDS[marks]: marks for marks in Marks if marks is not Marks.ENDED}
"""Dictionaries in format 3, with other marks around a text."""


class DecoderPrefix(NamedTuple):
    """Tokens that a model's every output begins with."""

    start: int | None = None
    """Decoder start token (``decoder_start_token_id``); the network's own if None."""
    forced_bos: int | None = None
    """First token of every output (``forced_bos_token_id``); any if None."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model with everything it takes to use it."""

    network: AnyNetwork
    source: TextSide | None
    """None, as the target's, where the model came without one: ids in, ids out."""
    target: TextSide | None
    """An encoder has none; a decoder's is that of its prompts."""
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    family: str = "fairseq_transformer"
    card: str = ""
    """Text of the model card behind its heading: scores with their signatures, training data, licence."""
    start: int | None = None
    """What decoding begins with, if not with the network's own symbol."""
    forced_first: int | None = None
    """The token every output begins with, if any; a target language's own comes first."""
    origin: Provenance | None = None
    """What writing the model back where it came from takes."""
    apart: bool = False
    """The tokenizers come from different models, and keep their files in folders of their own."""
    shortlist: Shortlist | None = None
    """Which target symbols may translate a source symbol."""

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
        if writes and not self.apart and not alike:
            raise CheckpointError("the sides have tokenizers of two kinds, or one has none; expected the same kind")
        for name in ("start", "forced_first"):
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
            return DecoderPrefix(self.start, self.forced_first)
        language, languages = self.target.language_id, self.target.language_ids
        if language is None:
            if self.target.language_needed and self.forced_first is None and start not in languages:
                raise ConfigError("the model translates into several languages; choose one with --target-lang")
            return DecoderPrefix(self.start, self.forced_first)
        if start is None or start in languages:
            return DecoderPrefix(language, self.forced_first)
        return DecoderPrefix(self.start, language)


def is_bundle(path: str | Path) -> bool:
    """Whether ``path`` is a folder that looks like a bundle."""
    return (Path(path) / CONFIG).is_file() and (Path(path) / WEIGHTS).is_file()


def save(folder: str | Path, bundle: Bundle, *, overwrite: bool = False) -> Path:
    """Write a bundle; it is never half there.

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
    """Read a bundle, assuming that somebody hostile wrote it.

    Raises:
        CheckpointError: a file is missing, malformed, of another version, leads out of the folder, or the
            weights do not fit the network; names what is wrong.
        InputError: a dictionary or the subword model is missing or malformed.
    """
    folder = Path(folder)
    _refuse_links(folder)
    config = _read_config(folder / CONFIG)
    tensors = read_tensors(folder / WEIGHTS)
    try:
        network_config = _network_config(_SHAPES[config[_SHAPE]], config["network"], len(tensors))
        generation = _generation_options(config["generation"])
        with torch.device("meta"):  # shapes alone: they are compared before memory for them is taken
            outline = _unique_tensors(build(network_config))
    except ConfigError as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None
    except (ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: no network can have these sizes ({error})") from None
    _check_tensors(tensors, outline, folder / WEIGHTS)
    network = build(network_config)
    with torch.no_grad():
        for name, tensor in _unique_tensors(network).items():
            tensor.copy_(tensors[name])
    card = folder / CARD
    return Bundle(
        network=network.eval(),
        source=_read_side(folder, config, Side.SOURCE),
        target=None if isinstance(network_config, EncoderOnlyConfig) else _read_side(folder, config, Side.TARGET),
        generation=generation,
        family=config["family"],
        card=_behind_heading(_read_text(card)) if card.is_file() else "",
        start=config["start"],
        forced_first=config["forced_first"],
        origin=origins.load(folder),
        apart=isinstance(config["tokenizer"], dict),
        shortlist=Shortlist.load(folder / SHORTLIST) if (folder / SHORTLIST).is_file() else None,
    )


def _read_side(folder: Path, config: dict[str, Any], side: Side) -> TextSide | None:
    kinds = config["tokenizer"]
    kind = kinds[side.value] if isinstance(kinds, dict) else kinds
    if kind is None:
        return None
    place = folder / side.value if isinstance(kinds, dict) else folder
    if kind in _MARKED:
        return Tokenizer.load(place, config[side.value], marks=_MARKED[kind])
    return _TOKENIZERS[kind](place, config[side.value], side)


def _is_replaceable(folder: Path) -> bool:
    """Whether ``folder`` is empty or our own; other libraries name their files alike."""
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
            place = folder / name.value if bundle.apart else folder
            place.mkdir(exist_ok=True)
            side.save(place)
    if bundle.shortlist is not None:
        bundle.shortlist.save(folder / SHORTLIST)
    if bundle.origin is not None:
        origins.save(folder, bundle.origin)


def _describe(bundle: Bundle) -> dict[str, Any]:
    shape = next(name for name, kind in _SHAPES.items() if isinstance(bundle.network.config, kind))
    kinds = {side.value: text and text.kind for side, text in zip(Side, (bundle.source, bundle.target), strict=True)}
    more: dict[str, Any] = {
        "tokenizer": kinds if bundle.apart else kinds[Side.SOURCE.value],
        "start": bundle.start,
        "forced_first": bundle.forced_first,
    }
    if bundle.apart or shape != "encoder-decoder" or not {*kinds.values()} <= {*_TOKENIZERS, None}:
        version, more = 3, {**more, _SHAPE: shape}
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
    """The part of a card that ``_card`` did not write itself."""
    parts = card.split("```\n", 2)  # the heading ends with a fenced command
    return parts[-1].strip() if len(parts) == 3 else card.strip()


def _unique_tensors(network: AnyNetwork) -> dict[str, Tensor]:
    """The state dictionary without second names of tied weights."""
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def _refuse_links(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such bundle")
    root = folder.resolve()
    for path in (*folder.iterdir(), *(inner for part in _FOLDERS for inner in (folder / part).glob("*"))):
        if not Path(os.path.realpath(path)).is_relative_to(root):
            raise CheckpointError(f"{path}: leads out of the bundle's folder")


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; is this folder a bundle?")
    try:
        config = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error})") from None
    if not isinstance(config, dict) or type(config.get("format")) is not int or config["format"] not in FORMATS:
        raise CheckpointError(f"{path}: not a bundle's configuration of format {' or '.join(map(str, FORMATS))}")
    expected = _FIELDS_OF[config["format"]]
    if config.keys() != expected:
        raise CheckpointError(
            f"{path}: missing fields {sorted(expected - config.keys())}, "
            f"unknown fields {sorted(config.keys() - expected)}"
        )
    config = {"tokenizer": "dictionary", "start": None, "forced_first": None, _SHAPE: "encoder-decoder", **config}
    _check_tokenizer(config["tokenizer"], config["format"], path)
    if config[_SHAPE] not in list(_SHAPES):
        raise CheckpointError(f"{path}: {_SHAPE} is {config[_SHAPE]!r:.80}; expected one of {', '.join(_SHAPES)}")
    for name in ("family", "source", "target"):
        value = config[name]
        if value is None and name != "family" and config["tokenizer"] != "dictionary":
            continue
        if not isinstance(value, str) or not value or value != Path(value).name:
            raise CheckpointError(f"{path}: {name} is {value!r}, expected a plain name")
    for name in ("start", "forced_first"):
        if config[name] is not None and type(config[name]) is not int:
            raise CheckpointError(f"{path}: {name} is {config[name]!r:.80}; expected an id or null")
    return config


def _check_tokenizer(value: Any, version: int, path: Path) -> None:
    sides = {side.value for side in Side}
    kinds = value.values() if version == 3 and isinstance(value, dict) and value.keys() == sides else [value]
    known = [*_TOKENIZERS, *(_MARKED if version == 3 else ())]
    if any(kind is not None and kind not in known for kind in kinds):
        raise CheckpointError(f"{path}: tokenizer is {value!r:.80}; expected {', '.join(known)} or null")


def _read_text(path: Path) -> str:
    if path.stat().st_size > _MAX_TEXT_BYTES:
        raise CheckpointError(f"{path}: larger than {_MAX_TEXT_BYTES} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: not UTF-8") from None


def _network_config(kind: type[AnyConfig], values: Any, tensors: int) -> AnyConfig:
    """The network that is described, if one of its size can be what ``tensors`` weights are for."""
    config = kind.from_dict(values)
    for part in dataclasses.fields(config):
        value = getattr(config, part.name)
        if part.name.endswith("vocabulary"):
            _check_range(f"network.{part.name}", value, 1, _MAX_SIZE)
        elif isinstance(value, HeadConfig):
            for name in ("outputs", "hidden"):
                size = getattr(value, name)
                _check_range(f"network.{part.name}.{name}", 1 if size is None else size, 1, _MAX_SIZE)
        elif isinstance(value, StackConfig):
            _check_stack(f"network.{part.name}", value, tensors)
    if isinstance(config, LSTMConfig):
        _check_recurrent(config, tensors)
    _check_symbols(config)
    return config


def _check_symbols(config: AnyConfig) -> None:
    """Each must have a row; of the unknown word's, which some configurations leave at a default, nothing is read."""
    for name in ("bos", "pad", "eos", "decoder_start", "separator"):
        value = getattr(config, name, None)
        if value is not None:
            _check_range(f"network.{name}", value, -1 if name == "pad" else 0, config.target_vocabulary - 1)
    _check_range("network.source_pad", config.padding_of_sources, -1, config.source_vocabulary - 1)


def _check_stack(name: str, stack: StackConfig, tensors: int) -> None:
    """Every size, the ones without weights to bear them out included."""
    for field_name, value, most in (
        ("distinct_layers" if stack.distinct_layers else "layers", stack.distinct_layers or stack.layers, tensors),
        ("layers", stack.layers, _MAX_LAYERS),
        ("dim", stack.dim, _MAX_SIZE),
        ("embedding_dim", stack.embedding_width, _MAX_SIZE),
        ("heads", stack.heads, stack.dim),
        ("head_dim", stack.head_dim_resolved, _MAX_SIZE),
        ("key_value_heads", stack.num_kv_heads, stack.heads),
        ("ffn_dim", stack.ffn_dim, _MAX_SIZE),
        ("positions.buckets", stack.positions.buckets, _MAX_SIZE),
        ("positions.max_distance", stack.positions.max_distance, _MAX_POSITIONS),
        ("positions.max_positions", stack.positions.max_positions, _MAX_POSITIONS),
    ):
        _check_range(f"{name}.{field_name}", value, 1, most)
    for field_name in ("offset", "memory_length"):
        _check_range(f"{name}.positions.{field_name}", getattr(stack.positions, field_name), 0, _MAX_POSITIONS)
    _check_range(f"{name}.token_types", stack.token_types, 0, _MAX_SIZE)


def _check_recurrent(config: LSTMConfig, tensors: int) -> None:
    _check_range("network.layers", config.layers, 1, tensors)
    for name in ("encoder_embedding", "encoder_hidden", "decoder_embedding", "decoder_hidden", "output_dim"):
        _check_range(f"network.{name}", getattr(config, name), 1, _MAX_SIZE)
    for name in ("max_source_positions", "max_target_positions"):  # nothing is computed or stored for them
        _check_range(f"network.{name}", getattr(config, name), 1, _MAX_SIZE)
    for name, value in dataclasses.asdict(config.dropout).items():
        _check_range(f"network.dropout.{name}", value, 0, 1)


def _check_range(name: str, value: float, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{name} is {value}; expected {least} to {most}")


def _written_options(options: GenerationOptions) -> dict[str, Any]:
    return {
        option.name: getattr(options, option.name)
        for option in dataclasses.fields(options)
        if option.name not in PER_CALL
    }


def _generation_options(values: Any) -> GenerationOptions:
    if not isinstance(values, dict):
        raise ConfigError(f"generation: expected an object, found {values!r}")
    kinds = {
        name: str if isinstance(value, StrEnum) else type(value)
        for name, value in _written_options(GenerationOptions()).items()
    }
    values = {name: _as_phrases(value) if kinds.get(name) is tuple else value for name, value in values.items()}
    for name, value in values.items():
        if name not in kinds:
            raise ConfigError(f"generation: unknown field {name!r}; known are {', '.join(kinds)}")
        if type(value) is not kinds[name] and not (kinds[name] is float and type(value) is int):
            raise ConfigError(f"generation.{name}: expected {kinds[name].__name__}, found {value!r}")
    return GenerationOptions(**values)


def _as_phrases(value: Any) -> Any:
    """JSON's lists of lists of ids as tuples; anything else as it is."""
    phrases = isinstance(value, list) and all(
        isinstance(phrase, list) and all(type(token) is int and token >= 0 for token in phrase) for phrase in value
    )
    return tuple(tuple(phrase) for phrase in value) if phrases else value


def _check_tensors(tensors: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    problems += [
        f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        raise CheckpointError(f"{path}: the weights do not fit the network: {'; '.join(problems)}")
