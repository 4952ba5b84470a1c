"""The ``fairbeam`` command: one file per subcommand, each of them thin.

A subcommand's module has a function ``command``; its signature is the command line and its docstring the help.
``SETTINGS``, where a module has it, goes to typer.
"""

import importlib
import logging
import sys

import typer
from rich.markup import escape

from fairbeam.cli._console import STDERR, ConsoleHandler
from fairbeam.errors import FairbeamError, command_line

COMMANDS = (
    "prepare", "shortlist", "translate", "average", "score", "export", "convert", "compose", "doctor", "report",
    "demo_corpus",
)  # fmt: skip


def main() -> None:
    """Run the command line; a ``FairbeamError`` becomes one line on stderr and exit status 2."""
    logging.basicConfig(level="INFO", format="%(message)s", handlers=[ConsoleHandler()])
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Prepare data, translate, score and package fairseq and fairbeam models.",
    )
    asked = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else ""
    # Import only what was asked for: `fairbeam score` need not wait for torch.
    for name in (asked,) if asked in COMMANDS else COMMANDS:
        module = importlib.import_module(f"fairbeam.cli.{name}")
        app.command(name.replace("_", "-"), **getattr(module, "SETTINGS", {}))(module.command)
    if asked in COMMANDS:
        app.callback()(lambda: None)  # one command alone would otherwise lose its name
    try:
        app()
    except FairbeamError as error:
        STDERR.print(f"[bold red]error:[/] {escape(error.spoken(command_line))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(141)
