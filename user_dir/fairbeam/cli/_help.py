"""Help of commands with many options: panels in which every name is whole, at 80 columns too."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from typer.core import TyperCommand

_NAMES_WIDTH = 36
"""Columns of the names; the longest name and its indentation fit."""


class PanelCommand(TyperCommand):
    """A command whose help has a panel for each group of options."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the usage, the description and the panels."""
        console = Console(highlight=False)
        usage = f"{ctx.command_path} {' '.join(self.collect_usage_pieces(ctx))}"
        console.print(f"[bold]Usage:[/] {escape(usage)}\n")
        for paragraph in (self.help or "").split("\n\n"):
            console.print(Padding(escape(" ".join(paragraph.split())), (0, 1, 1, 1)))
        panels: dict[str, Table] = {}
        for parameter in self.get_params(ctx):
            title = getattr(parameter, "rich_help_panel", None) or "Output"
            _add(panels.setdefault(title, _table()), parameter)
        for title, table in panels.items():
            console.print(Panel(table, title=title, title_align="left", border_style="dim"))


def _table() -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=_NAMES_WIDTH, overflow="fold")
    table.add_column(ratio=1)
    return table


def _add(table: Table, parameter: Any) -> None:
    is_option = parameter.opts[0].startswith("-")
    names = sorted(parameter.opts, key=len, reverse=True) if is_option else [parameter.name.upper()]
    metavar = "" if getattr(parameter, "is_flag", False) or not is_option else parameter.metavar or ""
    left = f"[bold cyan]{escape(', '.join(names))}[/] [yellow]{escape(metavar)}[/]"
    if parameter.secondary_opts:
        left += f"\n[bold magenta]{escape(', '.join(parameter.secondary_opts))}[/]"
    table.add_row(left, escape(parameter.help or ""))
