"""Sequence-to-sequence training and fast beam search behind fairseq's commands."""

import importlib
from typing import TYPE_CHECKING, Any

from fairbeam.errors import CheckpointError, ConfigError, FairbeamError, InputError

__version__ = "0.1.0"
__all__ = [
    "CheckpointError",
    "ConfigError",
    "DecodingLimits",
    "FairbeamError",
    "GenerationOptions",
    "InputError",
    "ModelFiles",
    "TooLong",
    "Translation",
    "Translator",
    "load",
]

if TYPE_CHECKING:
    from fairbeam.formats.fairseq import ModelFiles
    from fairbeam.generation.options import GenerationOptions
    from fairbeam.requests import DecodingLimits, TooLong
    from fairbeam.translation import Translation
    from fairbeam.translator import Translator, load

_HOMES = {
    "DecodingLimits": "fairbeam.requests",
    "GenerationOptions": "fairbeam.generation.options",
    "ModelFiles": "fairbeam.formats.fairseq",
    "TooLong": "fairbeam.requests",
    "Translation": "fairbeam.translation",
    "Translator": "fairbeam.translator",
    "load": "fairbeam.translator",
}
"""Modules of the names that need torch."""


def __getattr__(name: str) -> Any:
    """Import torch only when a name needs it: ``fairbeam score`` starts without it."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
