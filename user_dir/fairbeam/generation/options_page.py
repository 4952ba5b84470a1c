"""The reference page of the options, ``docs/options.md``, written from their declarations."""

from collections.abc import Iterator

from fairbeam.errors import OptionName
from fairbeam.generation.build import matrix
from fairbeam.generation.option_fields import (
    CLI,
    GROUPS,
    HUGGING_FACE,
    MODEL,
    REQUEST,
    TASK,
    Needs,
    Option,
    declared_options,
)
from fairbeam.generation.options import GenerationOptions

_SOURCES = ((CLI, "command line"), (TASK, "fairseq"), (MODEL, "bundle"), (REQUEST, "request"))

_INTRODUCTION = """\
# Generation options

Written by `make docs` from the declarations in `user_dir/fairbeam/generation/options.py`.

Names are those of `GenerationOptions` and of the keyword arguments of `Translator.translate`. `fairbeam translate` and
fairseq's commands with `--task fairbeam_translation` have them with dashes: `min_p` is `--min-p`. A flag of
`fairbeam translate` can be turned off again, `--no-sampling`, where a bundle's defaults turn it on. Lengths count
target tokens before `</s>`, and source tokens with theirs; penalties are in nats.

Every option can be set in Python. The last column says where else: *command line* is `fairbeam translate`, *fairseq* is
`fairseq-generate` and `fairseq-interactive`, *bundle* means that a bundle may save it as a default, *request* is JSON.
*Hugging Face* names the entry of `generation_config.json`; in bold where it is read with a model folder.
"""

_MATRIX = """\
## What goes with what

A cell is marked where the row's options can be combined with the column. Options are refused, by name, unless every
search, ranking and way in that they bring in supports all the others. The first columns are searches, of which one is
in use; the last are continuous batching (`--continuous`) and streaming (`--stream`, `stream_text`).
"""


def options_page(kind: type = GenerationOptions) -> str:
    """Return the page as Markdown."""
    return "\n".join([_INTRODUCTION, *_sections(kind), _MATRIX, *_matrix(kind), ""])


def _sections(kind: type) -> Iterator[str]:
    known = declared_options(kind).values()
    for group in GROUPS:
        rows = [_row(one) for one in known if one.declared.group == group]
        if rows:
            head = ("option", "default", "range", "meaning", "Hugging Face", "set by")
            yield "\n".join([f"## {group}", "", *_table(head, rows), ""])


def _row(one: Option) -> tuple[str, ...]:
    unit = f" {one.declared.unit}" if one.declared.unit and one.default not in ((), None) else ""
    return (
        f"`{one.name}`",
        f"`{_value(one)}`{unit}",
        _range(one),
        one.help(_code).replace("<", "\\<"),
        ", ".join(_hugging_face(one)),
        ", ".join(name for source, name in _SOURCES if source in one.declared.sources),
    )


def _code(option: OptionName) -> str:
    return f"`{option.name}`"


def _value(one: Option) -> str:
    return f"{one.default:g}" if isinstance(one.default, float) else str(one.default)


def _range(one: Option) -> str:
    said = [" or ".join(f"`{choice}`" for choice in one.choices)] if one.choices else []
    off = one.declared.off_up_to
    said += [f"off up to {off:g}"] if off is not None else []
    said += [one.bounds] if one.bounds else []
    needs = one.declared.needs
    if isinstance(needs, str):
        said.append(f"needs `{needs}`")
    elif isinstance(needs, Needs):
        bounds = (("at least", needs.at_least), ("at most", needs.at_most))
        said += [f"needs `{needs.option}` of {words} {bound}" for words, bound in bounds if bound is not None]
    return "; ".join(said)


def _hugging_face(one: Option) -> Iterator[str]:
    mark = "**" if HUGGING_FACE in one.declared.sources else ""
    for entry in one.declared.hugging_face:
        yield f"{mark}`{entry.name}`{mark}" + (f" - {entry.more}" if entry.more else "")


def _matrix(kind: type) -> list[str]:
    columns, rows = matrix(kind)
    cells = [(f"`{'`, `'.join(names)}`", *("x" if cell else "" for cell in row)) for names, row in rows]
    return _table(("options", *columns), cells)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *escaped)]
