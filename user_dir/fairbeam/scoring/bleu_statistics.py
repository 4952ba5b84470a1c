"""Sufficient statistics of BLEU, which add up across batches and machines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from sacrebleu import BLEU

from fairbeam.errors import ConfigError, InputError
from fairbeam.scoring.metrics import MetricOptions, sacrebleu_metric
from fairbeam.scoring.references import References, aligned, padded_streams
from fairbeam.scoring.score import Score

_ORDERS = 4


@dataclass(frozen=True, kw_only=True)
class BleuStatistics:
    """Counts of a part of a corpus that determine BLEU and its signature.

    The sum over all parts gives the corpus score exactly. The two sums over references tell whether every sentence has
    the same number of them, which the signature states as ``nrefs``.

    Attributes:
        sys_len: number of hypothesis words.
        ref_len: number of words of the references closest in length.
        correct: number of matched n-grams of orders 1 to 4.
        total: number of hypothesis n-grams of orders 1 to 4.
        sentences: number of hypotheses.
        references: number of references, summed over sentences.
        references_squared: squared number of references, summed over sentences.
        tokenize: BLEU's tokenizer.
        lowercase: whether text was lower-cased.
    """

    sys_len: int = 0
    ref_len: int = 0
    correct: tuple[int, ...] = (0,) * _ORDERS
    total: tuple[int, ...] = (0,) * _ORDERS
    sentences: int = 0
    references: int = 0
    references_squared: int = 0
    tokenize: str = "13a"
    lowercase: bool = False

    @classmethod
    def of(
        cls,
        hypotheses: Sequence[str],
        references: References,
        *,
        tokenize: str = "13a",
        lowercase: bool = False,
    ) -> Self:
        """Return the counts of one batch, all 0 for an empty batch; arguments and errors as for `bleu`."""
        entries = aligned(hypotheses, references)
        if not entries:
            return cls(tokenize=tokenize, lowercase=lowercase)
        metric = sacrebleu_metric("bleu", MetricOptions(tokenize=tokenize, lowercase=lowercase))
        result = metric.corpus_score(list(hypotheses), padded_streams(entries))
        return cls(
            sys_len=result.sys_len,
            ref_len=result.ref_len,
            correct=tuple(result.counts),
            total=tuple(result.totals),
            sentences=len(entries),
            references=sum(len(entry) for entry in entries),
            references_squared=sum(len(entry) ** 2 for entry in entries),
            tokenize=tokenize,
            lowercase=lowercase,
        )

    def __add__(self, other: Self) -> Self:
        """Add the statistics of two parts of a corpus.

        Raises:
            ConfigError: the parts were counted with different options.
        """
        if (self.tokenize, self.lowercase) != (other.tokenize, other.lowercase):
            raise ConfigError(
                f"cannot add BLEU statistics of tokenize={self.tokenize}, lowercase={self.lowercase} and "
                f"tokenize={other.tokenize}, lowercase={other.lowercase}; expected the same options"
            )
        numbers = [a + b for a, b in zip(self.numbers, other.numbers, strict=True)]
        return self.from_numbers(numbers, tokenize=self.tokenize, lowercase=self.lowercase)

    @property
    def numbers(self) -> tuple[int, ...]:
        """All counts as a flat tuple of fixed length, for elementwise sums across workers."""
        return (
            self.sys_len, self.ref_len, *self.correct, *self.total,
            self.sentences, self.references, self.references_squared,
        )  # fmt: skip

    @classmethod
    def from_numbers(cls, numbers: Sequence[float], *, tokenize: str = "13a", lowercase: bool = False) -> Self:
        """Make statistics from `numbers`; floats with integer values, as sums of tensors, are accepted.

        Raises:
            InputError: there are too few or too many numbers, or one is negative or not an integer.
        """
        expected = len(cls().numbers)
        if len(numbers) != expected:
            raise InputError(f"{len(numbers)} BLEU statistics; expected {expected}")
        if not all(number >= 0 and float(number).is_integer() for number in numbers):
            raise InputError(f"BLEU statistics {list(numbers)} are not all counts; expected whole numbers")
        sys_len, ref_len, *ngrams, sentences, references, references_squared = map(int, numbers)
        return cls(
            sys_len=sys_len,
            ref_len=ref_len,
            correct=tuple(ngrams[:_ORDERS]),
            total=tuple(ngrams[_ORDERS:]),
            sentences=sentences,
            references=references,
            references_squared=references_squared,
            tokenize=tokenize,
            lowercase=lowercase,
        )

    def score(self) -> Score:
        """Return corpus BLEU, with the signature of scoring the whole corpus at once.

        Raises:
            InputError: there are no sentences.
        """
        if not self.sentences:
            raise InputError("no sentence to score; expected at least one hypothesis")
        result = BLEU.compute_bleu(
            list(self.correct), list(self.total), self.sys_len, self.ref_len, smooth_method="exp"
        )
        metric = sacrebleu_metric("bleu", MetricOptions(tokenize=self.tokenize, lowercase=self.lowercase))
        # Cauchy-Schwarz: equality holds only if every sentence has the same number; -1 prints as "var".
        uniform = self.sentences * self.references_squared == self.references**2
        metric.num_refs = self.references // self.sentences if uniform else -1
        return Score.from_sacrebleu(result, metric)
