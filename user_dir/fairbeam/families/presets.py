"""Networks of published sizes, to be trained from scratch on the vocabularies at hand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fairbeam.errors import ConfigError
from fairbeam.families.registry import FAMILIES
from fairbeam.network import AnyConfig, DecoderOnlyConfig, EncoderDecoderConfig, EncoderOnlyConfig


@dataclass(frozen=True, kw_only=True)
class Vocabularies:
    """Sizes and special-token ids of the data's vocabularies."""

    source: int
    target: int
    joined: bool
    """Whether source and target share one vocabulary."""
    bos: int
    pad: int
    eos: int
    unk: int


def sizes() -> list[tuple[str, str]]:
    """Return (family, size) of every preset."""
    return [(family, size) for family, spec in FAMILIES.items() for size in spec.presets]


def config_for_training(family: str, size: str, overrides: Mapping[str, Any], vocabularies: Vocabularies) -> AnyConfig:
    """Return the network of a published size.

    Args:
        family: key of ``FAMILIES``. size: one of the family's presets.
        overrides: options that differ, as the family's ``config.json`` names them.

    Raises:
        ConfigError: an option is unknown or its value has no conversion.
    """
    spec = FAMILIES[family]
    options = {**spec.presets[size], **overrides}
    cutoffs = options.get("cutoffs", spec.defaults.get("cutoffs"))
    if cutoffs is not None:  # leave out clusters beyond the vocabulary
        options["cutoffs"] = [cutoff for cutoff in cutoffs if cutoff < vocabularies.source]
    special = {f"{role}_token_id": getattr(vocabularies, role) for role in ("bos", "pad", "eos", "unk")}
    special["decoder_start_token_id"] = vocabularies.eos
    largest = max(vocabularies.source, vocabularies.target)
    network = spec.config_for_training({**options, **special, "vocab_size": largest})
    match network:
        case EncoderOnlyConfig():
            return network
        case DecoderOnlyConfig():  # batches are padded with a token that no text has
            return replace(network, pad=vocabularies.pad)
        case EncoderDecoderConfig():
            return replace(
                network,
                source_vocabulary=vocabularies.source,
                target_vocabulary=vocabularies.target,
                share_embeddings=network.share_embeddings and vocabularies.joined,
                decoder_start=None,
            )
    raise ConfigError(f"{family}: no network of this shape is trained from scratch")


def parse_overrides(text: str) -> dict[str, Any]:
    """Parse ``name=value,name=value``; numbers, true, false and null are read as in JSON.

    Raises:
        ConfigError: a part is no pair.
    """
    options: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise ConfigError(f"--config-overrides: {part!r} is no name=value")
        options[name] = _value(value)
    return options


def _value(text: str) -> Any:
    words: dict[str, Any] = {"true": True, "false": False, "null": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
