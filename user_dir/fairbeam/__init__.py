"""Sequence-to-sequence training and fast beam search behind fairseq's commands."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ModelFiles", "Translator", "load"]

if TYPE_CHECKING:
    from fairbeam.formats.fairseq import ModelFiles
    from fairbeam.translator import Translator, load


def __getattr__(name: str) -> Any:
    """Import torch only when a model is asked for: ``fairbeam score`` starts without it."""
    if name in __all__:
        from fairbeam import translator

        return getattr(translator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
