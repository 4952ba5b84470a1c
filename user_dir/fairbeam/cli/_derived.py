"""Command-line options derived from the declarations of dataclasses."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from fairbeam.errors import command_line
from fairbeam.generation.option_fields import CLI, GROUPS, Option, options_from


@dataclass(frozen=True, kw_only=True)
class Form:
    """How an option is written on the command line where that differs from its field."""

    type: Any
    metavar: str
    help: str = ""
    """Said before the option's own help."""
    convert: Callable[[Any, str, Any], Any]
    """Maps the model, the option's name and what was written to the field's value."""


def derive_options(*, forms: Mapping[str, Form] | None = None, **kinds: type) -> Callable[[Callable[..., None]], Any]:
    """Give a command the options of dataclasses in the place of one parameter each.

    Args:
        forms: how options are written that are not written as their fields are.
        **kinds: the dataclass by the name of the parameter, which gets a dictionary of the options that were given.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = [one for one in signature.parameters.values() if one.name not in kinds]
        derived = {name: derived_parameters(kind, forms or {}) for name, kind in kinds.items()}
        # What is first in its panel stands first there; elsewhere, files stand behind the options that need them.
        first = [one for one in own if _panel(one) <= 0]
        behind = [one for one in own if _panel(one) > 0]
        every = [*first, *(one for parameters in derived.values() for one in parameters), *behind]
        every = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in sorted(every, key=_panel)]

        @functools.wraps(command)
        def call(*positional: Any, **named: Any) -> None:
            for name, parameters in derived.items():
                given = {one.name: named.pop(one.name, None) for one in parameters}
                named[name] = {option: value for option, value in given.items() if value is not None}
            command(*positional, **named)

        call.__signature__ = signature.replace(parameters=every)  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in every}
        del call.__wrapped__  # typer would look behind it
        return call

    return decorate


def derived_parameters(kind: type, forms: Mapping[str, Form]) -> list[inspect.Parameter]:
    """Return a parameter for each option of a dataclass that the command line can set; None is its default."""
    return [_parameter(one, forms.get(name)) for name, one in options_from(kind, CLI).items()]


def _parameter(one: Option, form: Form | None) -> inspect.Parameter:
    flag = command_line(one.label)
    names = (f"{flag}/{flag.replace('--', '--no-', 1)}",) if one.is_flag else (flag,)
    said = form.help if form else "", one.help(command_line), _default_and_range(one, form)
    info = typer.Option(
        *names,
        help=" ".join(part for part in said if part),
        metavar=form.metavar if form else metavar(one),
        show_default=False,
        rich_help_panel=one.declared.group,
    )
    kind: Any = form.type if form else one.choices or one.type
    annotation: Any = Annotated[kind | None, info]
    return inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def metavar(one: Option) -> str | None:
    """Return what stands for an option's value in the help: its choices or unit."""
    if one.is_flag:
        return None
    return "|".join(one.choices) if one.choices else (one.declared.unit or "value").upper().replace(" ", "-")


def _default_and_range(one: Option, form: Form | None) -> str:
    said = [] if one.default in (None, ()) or form else [f"default: {shown_default(one)}"]
    said += [one.bounds] if one.bounds else []
    return f"[{'; '.join(said)}]" if said else ""


def shown_default(one: Option) -> str:
    """Return an option's default as a command line has it."""
    if one.is_flag:
        return "on" if one.default else "off"
    if one.declared.off_up_to is not None and not one.is_on(one.default):
        return f"{one.default:g}, which is off"
    return f"{one.default:g}" if isinstance(one.default, float) else str(one.default)


def _panel(parameter: inspect.Parameter) -> int:
    """Return the place of a parameter's panel; arguments stand first."""
    info = parameter.annotation.__metadata__[0]
    return GROUPS.index(info.rich_help_panel) if info.rich_help_panel in GROUPS else -1


def path_option(help: str, *names: str, group: str) -> Any:
    """Declare an option that takes the path of a file or folder."""
    return typer.Option(*names, help=help, show_default=False, rich_help_panel=group, metavar="PATH")


def text_option(help: str, *names: str, group: str, metavar: str) -> Any:
    """Declare an option that takes a text."""
    return typer.Option(*names, help=help, show_default=False, rich_help_panel=group, metavar=metavar)


def flag_option(help: str, name: str, *, group: str = "Output") -> Any:
    """Declare a flag that can be turned on and off, and is off."""
    return typer.Option(f"--{name}/--no-{name}", help=f"{help} [default: off]", rich_help_panel=group)
