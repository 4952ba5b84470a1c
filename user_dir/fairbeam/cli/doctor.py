"""``fairbeam doctor``: what the machine can do, whether data and models are sound, how large models are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fairbeam.data import databin
from fairbeam.doctor import inspection
from fairbeam.doctor.inspection import DecodingMemory, Machine, NetworkTable, TrainingMemory
from fairbeam.errors import FairbeamError
from fairbeam.formats import bundle
from fairbeam.formats.fairseq import ModelFiles, read_model
from fairbeam.model import Bundle
from fairbeam.network import EncoderOnly, Seq2Seq

_PIPE_WIDTH = 120
_DTYPES = (torch.float32, torch.bfloat16)


def command(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", exists=True, help="Data folders, checkpoints or bundles."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens in a batch, to estimate memory for.")] = 4096,
    source_lang: Annotated[str | None, typer.Option("--source-lang", "-s", help="Source language.")] = None,
    target_lang: Annotated[str | None, typer.Option("--target-lang", "-t", help="Target language.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of a checkpoint's dictionaries.")] = None,
) -> None:
    """Check the installation, or PATHs: data folders, checkpoints, bundles.

    For a model, also show every module with its output shapes and parameters, and estimate the memory that
    training and decoding take. Exit status 1 if a problem was found.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PIPE_WIDTH)
    files = ModelFiles(data=data, source_lang=source_lang, target_lang=target_lang)
    if paths:
        problems = [problem for path in paths for problem in _examine(console, path, files, max_tokens)]
    else:
        problems = _examine_installation(console)
    for problem in problems:
        console.print(f"[bold red]problem:[/] {escape(problem)}", soft_wrap=True)
    if problems:
        raise typer.Exit(1)


def _examine(console: Console, path: Path, files: ModelFiles, max_tokens: int) -> list[str]:
    """Show one data folder or model; returns its problems."""
    if path.is_dir() and not _is_like_bundle(path):
        return _examine_data(console, path)
    try:
        model = read_model(path, files)
    except FairbeamError as error:
        return [str(error)]
    broken = inspection.broken_weights(model.network)
    if broken:
        return [f"{path}: NaN or infinity in {len(broken)} weights, first {broken[0]}; the training diverged"]
    _show_model(console, path, model, max_tokens)
    return []


def _is_like_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle or what is left of one."""
    return any((folder / name).exists() for name in (bundle.CONFIG, bundle.WEIGHTS))


def _examine_data(console: Console, folder: Path) -> list[str]:
    problems = databin.check(folder)
    if not problems:
        sizes = ", ".join(f"{split} {size:,}" for split, size in inspection.split_sizes(folder).items())
        console.print(f"{escape(str(folder))}: [green]sound[/], sentences: {escape(sizes)}", soft_wrap=True)
    return problems


def _examine_installation(console: Console) -> list[str]:
    machine = inspection.machine()
    error = inspection.import_error("fairseq") if inspection.is_installed("fairseq") else None
    facts = inspection.versions()
    if inspection.is_installed("fairseq"):
        facts["import fairseq"] = "fails" if error else "works"
    console.print(_facts_table("software", facts))
    console.print(_facts_table("machine", _machine_facts(machine)))
    return [f"fairseq is installed but cannot be imported: {error}"] if error else []


def _machine_facts(machine: Machine) -> dict[str, str]:
    facts = {
        "processor": machine.processor,
        "cores, torch threads": f"{machine.cores}, {machine.threads}",
        "instruction sets": ", ".join(machine.features) or "none of those that matter here",
        "fast bfloat16": _yes(machine.fast_bfloat16),
        "compiled loops": _yes(machine.compiled_loops),
        "of integers": _yes(machine.compiled_integers),
        "--precision auto": _dtype_name(machine.automatic_dtype()),
        "memory": _size(machine.memory) if machine.memory else "unknown",
        "allocator can be tuned": _yes(machine.tunable_allocator),
    }
    for number, gpu in enumerate(machine.gpus):
        automatic = _dtype_name(machine.automatic_dtype(f"cuda:{number}"))
        speed = f"fast bfloat16: {_yes(gpu.fast_bfloat16)}"
        facts[f"cuda:{number}"] = f"{gpu.name}, {_size(gpu.memory)}, {speed}, --precision auto: {automatic}"
    return facts if machine.gpus else {**facts, "CUDA devices": "none"}


def _show_model(console: Console, path: Path, model: Bundle, max_tokens: int) -> None:
    sides = (model.source, model.target) if isinstance(model.network, Seq2Seq) else (model.source,)
    languages = " to ".join((side and side.language) or "any language" for side in sides)
    console.print(f"{escape(str(path))}: [green]sound[/], {escape(languages)}", soft_wrap=True)
    network = model.network
    console.print(_module_table(inspection.describe_network(network)))
    if isinstance(network, EncoderOnly):
        return
    training = [inspection.estimate_training(network.config, max_tokens, dtype=dtype) for dtype in _DTYPES]
    console.print(_training_table(training, max_tokens))
    decoding = [inspection.estimate_decoding(network, max_tokens, dtype=dtype) for dtype in _DTYPES]
    console.print(_decoding_table(decoding, max_tokens))


def _facts_table(title: str, facts: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in facts.items():
        table.add_row(name, escape(value))
    return table


def _module_table(network: NetworkTable) -> Table:
    tokens = (
        f"{network.source} source and {network.target} target tokens"
        if network.target
        else (f"{network.source} tokens")
    )
    title = f"modules, on {network.batch} sentences of {tokens}"
    table = Table("module", "class", "output", title=title, title_justify="left", show_footer=True)
    table.columns[0].footer = "all, tied weights once"
    table.add_column("parameters", justify="right", footer=f"{network.parameters:,}")
    for row in network.rows:
        outputs = ", ".join("×".join(map(str, shape)) for shape in row.outputs)
        table.add_row(row.name, row.kind, outputs, f"{row.parameters:,}" if row.parameters else "")
    return table


def _training_table(estimates: list[TrainingMemory], max_tokens: int) -> Table:
    caption = (
        f"{estimates[0].sentences} sentences of {estimates[0].length} tokens. Activations: what autograd "
        "saves for 2 and for 4 such sentences, extended in a straight line. Buffers of single operations and "
        "the allocator's gaps come on top: leave half as much again."
    )
    title = f"memory in training, --max-tokens {max_tokens}, by compute dtype"
    rows = ("weights", "gradients", "moments", "activations", "total")
    return _memory_table(title, caption, rows, estimates)


def _decoding_table(estimates: list[DecodingMemory], max_tokens: int) -> Table:
    caption = (
        f"{estimates[0].sentences} sentences of {estimates[0].length} tokens that translate to as many. "
        "Cache: measured on one of them and multiplied. Each further worker takes cache and scores again."
    )
    title = f"memory in decoding, --max-tokens {max_tokens}, beam {estimates[0].beam}, by precision"
    return _memory_table(title, caption, ("weights", "cache", "scores", "total"), estimates)


def _memory_table(
    title: str,
    caption: str,
    rows: tuple[str, ...],
    estimates: Sequence[TrainingMemory | DecodingMemory],
) -> Table:
    table = Table("", title=title, title_justify="left", caption=caption, caption_justify="left", width=80)
    for dtype in _DTYPES:
        table.add_column(_dtype_name(dtype), justify="right")
    for row in rows:
        table.add_row(row, *(_size(getattr(estimate, row)) for estimate in estimates))
    return table


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
