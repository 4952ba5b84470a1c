"""One score with the signature that makes it reproducible."""

from dataclasses import dataclass
from typing import Self

import sacrebleu.metrics.base as sacrebleu


@dataclass(frozen=True, kw_only=True)
class Score:
    """A corpus score.

    Attributes:
        name: the metric as it is printed, for example ``BLEU``, ``chrF2++`` or ``ROUGE-L``.
        value: the score in points, 0 to 100 (TER may exceed 100, and lower is better).
        signature: ``key:value`` pairs joined by ``|`` that state references, options and version.
        details: what the metric prints after its value (BLEU's precisions and lengths), or nothing.
    """

    name: str
    value: float
    signature: str
    details: str = ""

    @classmethod
    def from_sacrebleu(cls, result: sacrebleu.Score, metric: sacrebleu.Metric) -> Self:
        """The result of one of sacreBLEU's metrics, after it has seen the references."""
        return cls(
            name=result.name,
            value=result.score,
            signature=str(metric.get_signature()),
            details=result._verbose,
        )

    def format(self, *, width: int = 2, score_only: bool = False, json: bool = False) -> str:
        """The score as the ``sacrebleu`` command prints it, with ``width`` decimals."""
        printer = sacrebleu.Score(self.name, self.value)
        printer._verbose = self.details
        return str(printer.format(width, score_only, self.signature, json))

    @property
    def text(self) -> str:
        """Name, signature, value and details in one line."""
        return self.format()

    def __str__(self) -> str:
        return self.text
