"""The terminal of all commands: one console, so that log lines are printed above progress bars, not across them."""

import logging

from rich.console import Console
from rich.markup import escape

STDERR = Console(stderr=True)


class ConsoleHandler(logging.Handler):
    """Log handler that prints the message alone, after the word "warning" or "error" where it is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        is_warning = record.levelno >= logging.WARNING
        level = f"[bold yellow]{record.levelname.lower()}:[/] " if is_warning else ""
        STDERR.print(f"{level}{escape(self.format(record))}", highlight=False, soft_wrap=True)
