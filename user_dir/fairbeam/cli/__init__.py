"""The ``fairbeam`` command: one file per subcommand, each of them thin.

A subcommand's module has a function ``command``; its signature is the command line and its docstring the help.
``SETTINGS``, where a module has it, goes to typer.
"""

import ast
import importlib
import logging
import sys
from pathlib import Path

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
    asked = next((argument.replace("-", "_") for argument in sys.argv[1:] if not argument.startswith("-")), "")
    if asked in COMMANDS:  # import one module alone: `fairbeam score` need not wait for torch
        module = importlib.import_module(f"fairbeam.cli.{asked}")
        app.command(asked.replace("_", "-"), **getattr(module, "SETTINGS", {}))(module.command)
        app.callback()(lambda: None)  # typer drops the name of a single command otherwise
    else:  # list all commands, and import none
        for name in COMMANDS:
            app.command(name.replace("_", "-"), help=_help(name))(lambda: None)
    try:
        app()
    except FairbeamError as error:
        STDERR.print(f"[bold red]error:[/] {escape(error.spoken(command_line))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(141)


def _help(name: str) -> str:
    """Return the docstring of a command's function, read from the source of its module."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return next(ast.get_docstring(function) or "" for function in functions if function.name == "command")
