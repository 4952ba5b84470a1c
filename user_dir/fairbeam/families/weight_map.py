"""Weight maps: an aligned table of our tensor names and theirs, read in both directions.

A row maps one of our tensors to theirs. Several of theirs are concatenated along the first axis (query, key and value
projections into one). ``{i}`` stands for a layer number. Each name of a tied tensor has a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fairbeam.errors import CheckpointError


@dataclass(frozen=True)
class Row:
    """One of our tensors, and their tensors that it is concatenated from along the first axis."""

    ours: str
    theirs: tuple[str, ...]
    unsqueezed: bool = False
    """Their tensors have a leading axis of size one that ours lacks."""
    transposed: bool = False
    """Their weight has the shape (inputs, outputs), ours (outputs, inputs); theirs is concatenated already."""
    shares: tuple[int, ...] | None = None
    """Ratio of the lengths of their tensors, where these differ (grouped-query attention)."""

    def for_layer(self, layer: int) -> "Row":
        """Return the row of one layer."""
        return replace(
            self,
            ours=self.ours.replace("{i}", str(layer)),
            theirs=tuple(name.replace("{i}", str(layer)) for name in self.theirs),
        )


def same(ours: str, theirs: str) -> Row:
    """Map one tensor to its other name."""
    return Row(ours, (theirs,))


def unsqueezed(ours: str, theirs: str) -> Row:
    """Map one tensor of shape (...) to theirs of shape (1, ...)."""
    return Row(ours, (theirs,), unsqueezed=True)


def transposed(ours: str, theirs: str) -> tuple[Row, Row]:
    """Map weight and bias of a linear layer whose weight they store as (inputs, outputs)."""
    return Row(f"{ours}.weight", (f"{theirs}.weight",), transposed=True), same(f"{ours}.bias", f"{theirs}.bias")


def with_prefix(prefix: str, rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows with ``prefix`` before each of their names."""
    return tuple(replace(row, theirs=tuple(prefix + name for name in row.theirs)) for row in rows)


def linear(ours: str, *theirs: str) -> tuple[Row, Row]:
    """Map weight and bias of a linear layer (or a norm) to theirs, or to several of theirs concatenated."""
    weight, bias = (tuple(f"{name}.{part}" for name in theirs) for part in ("weight", "bias"))
    return Row(f"{ours}.weight", weight), Row(f"{ours}.bias", bias)


def expand(rows: Sequence[Row], names: Mapping[str, Tensor]) -> Iterator[Row]:
    """Yield the rows that apply to a network: one per layer for ``{i}``, none for tensors it lacks."""
    for row in rows:
        layer = 0
        while (single := row.for_layer(layer)).ours in names:
            yield single
            if single == row:  # no layer number in the name
                break
            layer += 1


def read_weights(
    rows: Sequence[Row], theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor], ignored: frozenset[str]
) -> dict[str, Tensor]:
    """Translate their state dictionary into ours, accounting for every tensor on both sides.

    Args:
        rows: the weight map.
        theirs: their state dictionary.
        expected: our network's state dictionary, for its names and shapes.
        ignored: their names that hold no weights.

    Raises:
        CheckpointError: lists every missing, unexpected and mis-shaped tensor.
    """
    state: dict[str, Tensor] = {}
    problems: list[str] = []
    used: set[str] = set(ignored)
    for row in expand(rows, expected):
        used.update(row.theirs)
        absent = [name for name in row.theirs if name not in theirs]
        if absent:
            problems += [f"missing {name}" for name in absent]
            continue
        parts = [theirs[name] for name in row.theirs]
        shapes = [part.shape for part in _parts(row, expected[row.ours])]
        misshapen = [
            f"{name} has shape {tuple(part.shape)}, expected {tuple(shape)} for {row.ours}"
            for name, part, shape in zip(row.theirs, parts, shapes, strict=True)
            if part.shape != shape
        ]
        if misshapen:
            problems += misshapen
            continue
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        whole = whole.T if row.transposed else whole
        state[row.ours] = whole.squeeze(0) if row.unsqueezed else whole
    problems += [f"unexpected {name}" for name in theirs if name not in used]
    problems += [f"no rule for our {name}" for name in expected if name not in state and not problems]
    if problems:
        raise CheckpointError("the weights do not fit the network: " + "; ".join(problems))
    return state


def write_weights(rows: Sequence[Row], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our state dictionary under their names; inverse of ``read_weights``."""
    state: dict[str, Tensor] = {}
    for row in expand(rows, ours):
        parts = _parts(row, ours[row.ours])
        state.update(
            zip(row.theirs, (part.clone(memory_format=torch.contiguous_format) for part in parts), strict=True)
        )
    return state


def _parts(row: Row, whole: Tensor) -> Sequence[Tensor]:
    """Split our tensor into theirs."""
    if row.transposed:
        return [whole.T]
    if row.shares is not None:
        return whole.split([len(whole) * share // sum(row.shares) for share in row.shares])
    return (whole.unsqueeze(0) if row.unsqueezed else whole).chunk(len(row.theirs))
