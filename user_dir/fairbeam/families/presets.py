"""Networks of published sizes before any training, for the vocabularies at hand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fairbeam.errors import ConfigError
from fairbeam.families.registry import FAMILIES
from fairbeam.network import AnyConfig, DecoderOnlyConfig, EncoderDecoderConfig, EncoderOnlyConfig


@dataclass(frozen=True, kw_only=True)
class Vocabularies:
    """What the data says of the network: how many symbols there are, and which have a role."""

    source: int
    target: int
    joined: bool
    """Source and target have one vocabulary."""
    bos: int
    pad: int
    eos: int
    unk: int


def sizes() -> list[tuple[str, str]]:
    """(family, size) of every preset."""
    return [(family, size) for family, page in FAMILIES.items() for size in page.presets]


def untrained(family: str, size: str, overrides: Mapping[str, Any], vocabularies: Vocabularies) -> AnyConfig:
    """A network of a published size.

    Args:
        family: key of ``FAMILIES``. size: one of the family's presets.
        overrides: options that differ, as the family's ``config.json`` names them.

    Raises:
        ConfigError: an option is unknown or its value has no conversion.
    """
    page = FAMILIES[family]
    options = {**page.presets[size], **overrides}
    cutoffs = options.get("cutoffs", page.defaults.get("cutoffs"))
    if cutoffs is not None:  # without the clusters of symbols that the vocabulary does not have
        options["cutoffs"] = [cutoff for cutoff in cutoffs if cutoff < vocabularies.source]
    special = {f"{role}_token_id": getattr(vocabularies, role) for role in ("bos", "pad", "eos", "unk")}
    special["decoder_start_token_id"] = vocabularies.eos
    network = page.untrained({**options, **special, "vocab_size": max(vocabularies.source, vocabularies.target)})
    match network:
        case EncoderOnlyConfig():
            return network
        case DecoderOnlyConfig():  # data are padded with a symbol that no text has
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
    """``name=value,name=value`` as options; numbers, true, false and null are what they are in JSON.

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
