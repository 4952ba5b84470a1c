"""Errors that a user can mend are one line, not a traceback through fairseq."""

import sys
from types import TracebackType
from typing import Optional, Type

from fairbeam.errors import FairbeamError, command_line


def apply() -> None:
    """Show a `FairbeamError` that ends a command as its message alone; the exit status stays 1."""
    if sys.excepthook is not show_error:
        show_error.previous = sys.excepthook  # type: ignore[attr-defined]
        sys.excepthook = show_error


def show_error(kind: Type[BaseException], error: BaseException, traceback: Optional[TracebackType]) -> None:
    """What `sys.excepthook` calls for an exception that nothing caught."""
    if isinstance(error, FairbeamError):
        sys.stderr.write(f"error: {error.spoken(command_line)}\n")
    else:
        show_error.previous(kind, error, traceback)  # type: ignore[attr-defined]
