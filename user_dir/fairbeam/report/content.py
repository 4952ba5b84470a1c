"""Contents of a report, as plain values."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairbeam.errors import InputError
from fairbeam.files import read_lines
from fairbeam.scoring import Score


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Statistics that training logged at one update; None where it logged none.

    Losses are per token, in the criterion's unit (bits for fairseq's criterions).
    """

    update: int
    train_loss: float | None = None
    valid_loss: float | None = None
    valid_bleu: float | None = None


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Attention weights of each target token on each source token.

    Attributes:
        source: source tokens.
        target: target tokens.
        weights: (target, source) weights, none below 0.

    Raises:
        InputError: the weights do not fit the tokens, or one is negative or not finite.
    """

    source: Sequence[str]
    target: Sequence[str]
    weights: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.weights}
        if len(self.weights) != len(self.target) or not widths <= {len(self.source)}:
            raise InputError(
                f"attention has {len(self.weights)} rows of {sorted(widths)} weights for {len(self.target)} "
                f"target and {len(self.source)} source tokens; expected a row per target token and a weight "
                "per source token in each"
            )
        wrong = [weight for row in self.weights for weight in row if not (math.isfinite(weight) and weight >= 0)]
        if wrong:
            raise InputError(f"attention weight {wrong[0]}; expected a number of at least 0")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One output of the model, with its source, references and attention if known."""

    hypothesis: str
    references: Sequence[str] = ()
    source: str = ""
    attention: Attention | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """Contents of a report page; empty sections are left out.

    Attributes:
        title: heading of the page.
        points: training curve, in order of updates.
        scores: final scores with their signatures.
        samples: sentences to show, with heat maps of those that have attention.
        facts: environment of the run, names and values (see `environment`).
    """

    title: str
    points: Sequence[CurvePoint] = ()
    scores: Sequence[Score] = ()
    samples: Sequence[Sample] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def read_attention(path: str | Path) -> list[Attention]:
    """Read attention from a JSON list of ``{"source": [...], "target": [...], "weights": [[...], ...]}``.

    Raises:
        InputError: the file is missing, is not JSON, or an entry (counted from 1) has another form.
    """
    try:
        entries = json.loads("\n".join(read_lines(path)))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(entries, list):
        raise InputError(f"{path}: {type(entries).__name__} at the top; expected a list of attention entries")
    return [_attention(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, start=1)]


def _attention(entry: Any, where: str) -> Attention:
    try:
        return Attention(
            source=[str(token) for token in entry["source"]],
            target=[str(token) for token in entry["target"]],
            weights=[[float(weight) for weight in row] for row in entry["weights"]],
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: expected an object with source, target and weights ({type(error).__name__}: {error})"
        ) from None
