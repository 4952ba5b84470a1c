"""Hypotheses as text: detokenized, with words for unknown tokens, and aligned with the source's words."""

from collections.abc import Sequence
from dataclasses import dataclass

from fairbeam.errors import ConfigError
from fairbeam.generation import Hypothesis
from fairbeam.generation.alignment import unknown_replaced
from fairbeam.text import TextSide, Tokenizer
from fairbeam.text.phrases import word_numbers


@dataclass(frozen=True)
class Translation:
    """One output for one input."""

    text: str
    score: float
    """Length-normalised log probability in nats; with what other models add where they rank."""
    tokens: tuple[str, ...]
    """Target tokens, without ``</s>``."""
    token_scores: tuple[float, ...]
    """Log probability of each token in nats, ``</s>`` last."""
    alignment: tuple[tuple[int, int], ...] | None = None
    """Aligned words as (source, target) positions from 0; with ``attention=True``."""
    attention: tuple[tuple[float, ...], ...] | None = None
    """Cross-attention of each token, ``</s>`` last, over the source's tokens; with ``attention=True``."""


@dataclass(frozen=True)
class Detokenizer:
    """Text of hypotheses."""

    source: TextSide
    target: TextSide
    replace_unk: dict[str, str] | None = None
    """Translations of source tokens that take the place of unknown target tokens; None leaves those as they are."""

    def __post_init__(self) -> None:
        has_dictionaries = isinstance(self.source, Tokenizer) and isinstance(self.target, Tokenizer)
        if self.replace_unk is not None and not has_dictionaries:
            raise ConfigError("--replace-unk: needs a model with dictionaries; this one's tokenizer knows every text")

    def text(self, hypothesis: Hypothesis, sentence: str, source: Sequence[int]) -> str:
        """Return the text of a hypothesis of a sentence, ``source`` ids; unknown tokens are replaced if asked for."""
        ids = hypothesis.tokens.tolist()
        if self.replace_unk is None:
            return self.target.decode(ids)
        assert isinstance(self.source, Tokenizer)
        assert isinstance(self.target, Tokenizer)
        assert hypothesis.attention is not None
        pieces = self.source.subwords.encode(sentence)[: len(source) - self.source.closing]
        symbols, missing = self.target.symbols(ids[:-1]), [id == self.target.unk for id in ids[:-1]]
        attention = hypothesis.attention[:, : len(source)]
        return self.target.subwords.decode(unknown_replaced(symbols, missing, attention, pieces, self.replace_unk))

    def translation(
        self,
        hypothesis: Hypothesis,
        sentence: str,
        source: Sequence[int],
        alignment: Sequence[tuple[int, int]] | None,
    ) -> Translation:
        """Return a hypothesis of a sentence, ``source`` ids, as text; ``alignment`` is that of its tokens, if any."""
        tokens, attention = self.target.symbols(hypothesis.tokens[:-1].tolist()), None
        if hypothesis.attention is not None:
            attention = tuple(map(tuple, hypothesis.attention[:, : len(source)].tolist()))
        return Translation(
            text=self.text(hypothesis, sentence, source),
            score=hypothesis.score,
            tokens=tuple(tokens),
            token_scores=tuple(hypothesis.positional_scores.tolist()),
            alignment=None if alignment is None else self._aligned_words(alignment, source, tokens),
            attention=attention,
        )

    def _aligned_words(
        self, alignment: Sequence[tuple[int, int]], source: Sequence[int], tokens: Sequence[str]
    ) -> tuple[tuple[int, int], ...]:
        """Return pairs of words of which tokens are aligned, in the order of the target."""
        side = self.source
        marks = {side.bos, side.eos, side.language_id}
        words = word_numbers(side.symbols(id for id in source if id not in marks))
        written = word_numbers(tokens)
        return tuple(dict.fromkeys((words[a], written[b]) for a, b in alignment))
