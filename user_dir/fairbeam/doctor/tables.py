"""Tables that ``fairbeam doctor`` prints."""

from collections.abc import Mapping

import torch
from rich.markup import escape
from rich.table import Table

from fairbeam.doctor.machine import Machine
from fairbeam.doctor.memory import DecodingMemory, TrainingMemory
from fairbeam.doctor.modules import NetworkTable


def machine_facts(machine: Machine) -> dict[str, str]:
    """Return the description of a machine as names and values."""
    facts = {
        "processor": machine.processor,
        "cores, torch threads": f"{machine.cores}, {machine.threads}",
        "instruction sets": ", ".join(machine.features) or "none of those that matter here",
        "fast bfloat16": _yes(machine.fast_bfloat16),
        "native library": _yes(machine.native_library),
        "native integer kernels": _yes(machine.integer_kernels),
        "--precision auto": _dtype_name(machine.automatic_dtype()),
        "memory": _size(machine.memory) if machine.memory else "unknown",
        "allocator can be tuned": _yes(machine.tunable_allocator),
    }
    for number, gpu in enumerate(machine.gpus):
        automatic = _dtype_name(machine.automatic_dtype(f"cuda:{number}"))
        speed = f"fast bfloat16: {_yes(gpu.fast_bfloat16)}"
        facts[f"cuda:{number}"] = f"{gpu.name}, {_size(gpu.memory)}, {speed}, --precision auto: {automatic}"
    return facts if machine.gpus else {**facts, "CUDA devices": "none"}


def facts_table(title: str, facts: dict[str, str]) -> Table:
    """Return a table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in facts.items():
        table.add_row(name, escape(value))
    return table


def module_table(network: NetworkTable) -> Table:
    """Return a table with a row for each module."""
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


def training_table(estimates: Mapping[torch.dtype, TrainingMemory], max_tokens: int) -> Table:
    """Return a table with a column for each compute dtype."""
    first = next(iter(estimates.values()))
    caption = (
        f"{first.sentences} sentences of {first.length} tokens. Activations: what autograd "
        "saves for 2 and for 4 such sentences, extended in a straight line. Buffers of single operations and "
        "the allocator's gaps come on top: leave half as much again."
    )
    title = f"memory in training, --max-tokens {max_tokens}, by compute dtype"
    rows = ("weights", "gradients", "moments", "activations", "total")
    return _memory_table(title, caption, rows, estimates)


def decoding_table(estimates: Mapping[torch.dtype, DecodingMemory], max_tokens: int) -> Table:
    """Return a table with a column for each dtype."""
    first = next(iter(estimates.values()))
    caption = (
        f"{first.sentences} sentences of {first.length} tokens that translate to as many. "
        "Cache: measured on one of them and multiplied. Each further worker takes cache and scores again."
    )
    title = f"memory in decoding, --max-tokens {max_tokens}, beam {first.beam}, by precision"
    return _memory_table(title, caption, ("weights", "cache", "scores", "total"), estimates)


def _memory_table(
    title: str,
    caption: str,
    rows: tuple[str, ...],
    estimates: Mapping[torch.dtype, TrainingMemory] | Mapping[torch.dtype, DecodingMemory],
) -> Table:
    table = Table("", title=title, title_justify="left", caption=caption, caption_justify="left", width=80)
    for dtype in estimates:
        table.add_column(_dtype_name(dtype), justify="right")
    for row in rows:
        table.add_row(row, *(_size(getattr(estimate, row)) for estimate in estimates.values()))
    return table


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
