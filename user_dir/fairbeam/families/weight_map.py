"""The one mechanism that reads and writes weights: an aligned table, used in both directions.

A row says which tensor of ours is which tensors of theirs. Several of theirs are joined along the first axis
(query, key and value projections into one). ``{i}`` stands for a layer number. Of tied tensors each name has a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fairbeam.errors import CheckpointError


@dataclass(frozen=True)
class Row:
    """One tensor of ours and the tensors of theirs that make it up, joined along the first axis."""

    ours: str
    theirs: tuple[str, ...]
    lifted: bool = False
    """Theirs have a leading axis of size one that ours lack."""
    transposed: bool = False
    """Theirs are matrices with (inputs, outputs) where ours have (outputs, inputs); theirs are joined already."""
    shares: tuple[int, ...] | None = None
    """Lengths of theirs in proportion to each other, where they are not equally long."""

    def at(self, layer: int) -> "Row":
        """The row for one layer."""
        return replace(
            self,
            ours=self.ours.replace("{i}", str(layer)),
            theirs=tuple(name.replace("{i}", str(layer)) for name in self.theirs),
        )


def same(ours: str, theirs: str) -> Row:
    """One tensor, two names."""
    return Row(ours, (theirs,))


def lifted(ours: str, theirs: str) -> Row:
    """One tensor, (1, ...) at theirs and (...) at ours."""
    return Row(ours, (theirs,), lifted=True)


def transposed(ours: str, theirs: str) -> tuple[Row, Row]:
    """Weight, (inputs, outputs) at theirs and (outputs, inputs) at ours, and bias of a layer."""
    return Row(f"{ours}.weight", (f"{theirs}.weight",), transposed=True), same(f"{ours}.bias", f"{theirs}.bias")


def under(prefix: str, rows: Sequence[Row]) -> tuple[Row, ...]:
    """The same rows where their names begin with ``prefix``."""
    return tuple(replace(row, theirs=tuple(prefix + name for name in row.theirs)) for row in rows)


def affine(ours: str, *theirs: str) -> tuple[Row, Row]:
    """Weight and bias of a layer that is one, or several joined, of theirs."""
    weight, bias = (tuple(f"{name}.{part}" for name in theirs) for part in ("weight", "bias"))
    return Row(f"{ours}.weight", weight), Row(f"{ours}.bias", bias)


def expand(rows: Sequence[Row], names: Mapping[str, Tensor]) -> Iterator[Row]:
    """The rows that apply to a network: one a layer where a name has ``{i}``, none for tensors it lacks."""
    for row in rows:
        layer = 0
        while (single := row.at(layer)).ours in names:
            yield single
            if single == row:  # no layer number in the name
                break
            layer += 1


def read_weights(
    rows: Sequence[Row], theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor], ignored: frozenset[str]
) -> dict[str, Tensor]:
    """Translate their state into ours, accounting for every tensor on both sides.

    Args:
        rows: the table.
        theirs: their state dictionary.
        expected: our network's own state dictionary; gives names and shapes.
        ignored: their names that carry no weights.

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
        state[row.ours] = whole.squeeze(0) if row.lifted else whole
    problems += [f"unexpected {name}" for name in theirs if name not in used]
    problems += [f"no rule for our {name}" for name in expected if name not in state and not problems]
    if problems:
        raise CheckpointError("the weights do not fit the network: " + "; ".join(problems))
    return state


def write_weights(rows: Sequence[Row], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of ``read_weights``: our state under their names."""
    state: dict[str, Tensor] = {}
    for row in expand(rows, ours):
        parts = _parts(row, ours[row.ours])
        state.update(
            zip(row.theirs, (part.clone(memory_format=torch.contiguous_format) for part in parts), strict=True)
        )
    return state


def _parts(row: Row, whole: Tensor) -> Sequence[Tensor]:
    """Our tensor as the row's names of theirs hold it."""
    if row.transposed:
        return [whole.T]
    if row.shares is not None:
        return whole.split([len(whole) * share // sum(row.shares) for share in row.shares])
    return (whole.unsqueeze(0) if row.lifted else whole).chunk(len(row.theirs))
