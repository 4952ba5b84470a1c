"""Scores with the signatures that make them reproducible."""

from dataclasses import dataclass
from typing import Self

import sacrebleu.metrics.base as sacrebleu


@dataclass(frozen=True, kw_only=True)
class Score:
    """A corpus-level score.

    Attributes:
        name: printed name of the metric, for example ``BLEU``, ``chrF2++`` or ``ROUGE-L``.
        value: score in points, from 0 to 100 (TER may exceed 100, and lower is better).
        signature: ``key:value`` pairs joined by ``|`` that state references, options and version.
        details: printed after the value, such as BLEU's precisions and lengths; may be empty.
    """

    name: str
    value: float
    signature: str
    details: str = ""

    @classmethod
    def from_sacrebleu(cls, result: sacrebleu.Score, metric: sacrebleu.Metric) -> Self:
        """Convert the result of a sacreBLEU metric, whose signature counts the references it was given."""
        return cls(
            name=result.name,
            value=result.score,
            signature=str(metric.get_signature()),
            details=result._verbose,
        )

    def format(self, *, width: int = 2, score_only: bool = False, json: bool = False) -> str:
        """Format the score as the ``sacrebleu`` command prints it, with ``width`` decimals."""
        printer = sacrebleu.Score(self.name, self.value)
        printer._verbose = self.details
        return str(printer.format(width, score_only, self.signature, json))

    @property
    def text(self) -> str:
        """Name, signature, value and details in one line."""
        return self.format()

    def __str__(self) -> str:
        return self.text
