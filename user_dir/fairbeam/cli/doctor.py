"""``fairbeam doctor``: check installation, machine, data and models; estimate the memory that models take."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape

from fairbeam.data import databin
from fairbeam.doctor import environment, tables
from fairbeam.doctor.machine import describe_machine
from fairbeam.doctor.memory import estimate_decoding, estimate_training
from fairbeam.doctor.modules import broken_weights, describe_network
from fairbeam.errors import FairbeamError
from fairbeam.formats import bundle
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.formats.registry import read_model
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
    """Show one data folder or model; return its problems."""
    if path.is_dir() and not _is_like_bundle(path):
        return _examine_data(console, path)
    try:
        model = read_model(path, files)
    except FairbeamError as error:
        return [str(error)]
    broken = broken_weights(model.network)
    if broken:
        return [f"{path}: NaN or infinity in {len(broken)} weights, first {broken[0]}; the training diverged"]
    _show_model(console, path, model, max_tokens)
    return []


def _is_like_bundle(folder: Path) -> bool:
    """Return whether a folder has a file of a bundle."""
    return any((folder / name).exists() for name in (bundle.CONFIG, bundle.WEIGHTS))


def _examine_data(console: Console, folder: Path) -> list[str]:
    problems = databin.check(folder)
    if not problems:
        sizes = ", ".join(f"{split} {size:,}" for split, size in databin.DataBin.open(folder).sizes().items())
        console.print(f"{escape(str(folder))}: [green]sound[/], sentences: {escape(sizes)}", soft_wrap=True)
    return problems


def _examine_installation(console: Console) -> list[str]:
    error = environment.import_error("fairseq") if environment.is_installed("fairseq") else None
    facts = environment.versions()
    if environment.is_installed("fairseq"):
        facts["import fairseq"] = "fails" if error else "works"
    console.print(tables.facts_table("software", facts))
    console.print(tables.facts_table("machine", tables.machine_facts(describe_machine())))
    return [f"fairseq is installed but cannot be imported: {error}"] if error else []


def _show_model(console: Console, path: Path, model: Bundle, max_tokens: int) -> None:
    sides = (model.source, model.target) if isinstance(model.network, Seq2Seq) else (model.source,)
    languages = " to ".join((side and side.language) or "any language" for side in sides)
    console.print(f"{escape(str(path))}: [green]sound[/], {escape(languages)}", soft_wrap=True)
    network = model.network
    console.print(tables.module_table(describe_network(network)))
    if isinstance(network, EncoderOnly):
        return
    training = {dtype: estimate_training(network.config, max_tokens, dtype=dtype) for dtype in _DTYPES}
    console.print(tables.training_table(training, max_tokens))
    decoding = {dtype: estimate_decoding(network, max_tokens, dtype=dtype) for dtype in _DTYPES}
    console.print(tables.decoding_table(decoding, max_tokens))
