"""Requests to the engine: sentences as token ids, and limits to how much is decoded at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fairbeam.data.batching import BatchLimits
from fairbeam.errors import ConfigError
from fairbeam.generation import Hypothesis, Required


class TooLong(StrEnum):
    """What to do with a sentence that has more tokens than the model has positions."""

    ERROR = "error"
    TRUNCATE = "truncate"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """Batch sizes, and the treatment of sentences that are too long."""

    batch_size: int = 64
    """Largest number of sentences in a batch."""
    max_tokens: int = 8192
    """Largest number of source tokens in a batch, padding included; bounds memory however long the input."""
    buffer_size: int = 2048
    """Number of sentences read ahead and sorted by length at a time."""
    too_long: TooLong = TooLong.ERROR
    continuous: bool = False
    """Continuous batching: sentences join a batch as others leave it, where the model supports it."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_tokens", "buffer_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")

    @property
    def batch(self) -> BatchLimits:
        """Limits of one batch."""
        return BatchLimits(max_tokens=self.max_tokens, max_sentences=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class CandidateTexts:
    """Texts that reranking and minimum Bayes risk read."""

    source: Callable[[int], str]
    """Returns the source text of a request, given its row."""
    target: Callable[[int, Hypothesis], str]
    """Returns the text of a hypothesis, given the row of its request."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Sentences to decode with the same options; one entry per sentence in each sequence."""

    sources: Sequence[Sequence[int]]
    """Source ids, ended as the model wants them, without padding."""
    prefixes: Sequence[Sequence[int]] | None = None
    """Target ids that outputs begin with, behind the forced first token; or that ``prefix_bias_beta`` favours."""
    required: Sequence[Required] | None = None
    """Phrases that outputs contain."""
    indices: Sequence[int] | None = None
    """Indices of the sentences in the input, for messages and ``prefix_allowed_tokens_fn``; from 0 if None."""
    start: int | None = None
    """Decoder start token, where it is not the model's."""
    texts: CandidateTexts | None = None
    """Texts for options that rank by them."""

    def index(self, row: int) -> int:
        """Return the index in the input of the sentence of this row."""
        return row if self.indices is None else self.indices[row]
