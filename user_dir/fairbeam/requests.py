"""Requests to the engine: sentences as token ids, and limits to how much is decoded at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fairbeam.data.batching import BatchLimits
from fairbeam.generation import Hypothesis, Required
from fairbeam.generation.option_fields import check_options, option


class TooLong(StrEnum):
    """What to do with a sentence that has more tokens than the model has positions."""

    ERROR = "error"
    TRUNCATE = "truncate"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class DecodingLimits:
    """Batch sizes, and the treatment of sentences that are too long.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    batch_size: int = option(64, "Maximum batch size.", group="Speed", at_least=1, unit="sentences")
    max_tokens: int = option(
        8192, "Maximum batch size in source tokens, padding included; bounds memory however long the input.",
        group="Speed", at_least=1, unit="tokens",
    )  # fmt: skip
    continuous: bool = option(
        False, "Continuous batching: sentences join a batch as others leave it, where the model supports it (Yu et "
        "al., 2022).",
        group="Speed",
    )  # fmt: skip
    buffer_size: int = option(
        2048, "Sentences read ahead and sorted by length; on a terminal, always 1.",
        group="Speed", at_least=1, unit="sentences",
    )  # fmt: skip
    too_long: TooLong = option(
        TooLong.ERROR, "Treatment of sentences longer than the model reads: stop with an error, truncate them, or skip "
        "them and leave their outputs empty.",
        group="Model and files",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_options(self)

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
