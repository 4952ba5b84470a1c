"""Hugging Face's ``generation_config.json``: its entries to options and back, by the names in their declarations.

Hugging Face counts the start symbol and ``</s>`` among an output's length; ours are the tokens between them.
"""

from collections.abc import Mapping
from typing import Any

from fairbeam.errors import ConfigError, OptionName
from fairbeam.generation.option_fields import HUGGING_FACE, Option, declared_options, options_from, parse_option
from fairbeam.generation.options import GenerationOptions


def from_generation_config(values: Mapping[str, Any]) -> GenerationOptions:
    """Return the options that ``generation_config.json`` asks for; entries that are not ours are ignored.

    Entries of searches other than beam search are not applied. Beams finish as with ``early_stopping=True``.

    Raises:
        ConfigError: a value of the wrong type or out of range; names the entry.
    """
    chosen: dict[str, Any] = {"min_len": 0}  # theirs where nothing is said
    try:
        for name, one in options_from(GenerationOptions, HUGGING_FACE).items():
            if (value := _read(one, values)) is not None:
                chosen[name] = value
        return GenerationOptions(**chosen)
    except ConfigError as error:
        raise ConfigError(error.spoken(lambda option: _entry(option, values))) from None


def to_generation_config(options: GenerationOptions) -> dict[str, Any]:
    """Return the entries of ``generation_config.json`` that ask for the same; options without one are left out."""
    entries: dict[str, Any] = {}
    for name, one in declared_options(GenerationOptions).items():
        value = getattr(options, name)
        if one.declared.hugging_face and (HUGGING_FACE in one.declared.sources or one.is_on(value)):
            entry = one.declared.hugging_face[0]
            entries[entry.name] = value + entry.more if entry.more else value
    return entries


def _read(one: Option, values: Mapping[str, Any]) -> Any:
    """Return the value of the first entry of an option that says something; None where none does."""
    for entry in one.declared.hugging_face:
        value = values.get(entry.name)
        if value is None or (one.type is int and value == 0 and value is not False):  # 0 is theirs for nothing
            continue
        parsed = parse_option(one, value)
        return max(entry.least, parsed - entry.more) if entry.more else parsed
    return None


def _entry(option: OptionName, values: Mapping[str, Any]) -> str:
    entries = declared_options(GenerationOptions)[option.name].declared.hugging_face
    return next((entry.name for entry in entries if values.get(entry.name) is not None), option.name)
