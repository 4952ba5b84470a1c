"""BLEU, chrF and TER exactly as the ``sacrebleu`` command computes them, and one function for all metrics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sacrebleu import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric

from fairbeam.errors import ConfigError, InputError
from fairbeam.scoring.references import References, aligned, padded_streams
from fairbeam.scoring.rouge import rouge
from fairbeam.scoring.score import Score


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """Options of the metrics; defaults are sacreBLEU's and those of published ROUGE scores.

    Attributes:
        tokenize: tokenizer for BLEU, one of sacreBLEU's.
        lowercase: lower-case text for BLEU.
        chrf_word_order: longest word n-grams in chrF; 2 gives chrF++.
        use_stemmer: compare Porter stems in ROUGE.
    """

    tokenize: str = "13a"
    lowercase: bool = False
    chrf_word_order: int = 0
    use_stemmer: bool = True

    def __post_init__(self) -> None:
        if self.tokenize not in BLEU.TOKENIZERS:
            raise ConfigError(f"tokenize is {self.tokenize!r}; expected one of {', '.join(BLEU.TOKENIZERS)}")
        if self.chrf_word_order < 0:
            raise ConfigError(f"chrf_word_order is {self.chrf_word_order}; expected 0 or more")


def bleu(hypotheses: Sequence[str], references: References, *, tokenize: str = "13a", lowercase: bool = False) -> Score:
    """Compute corpus BLEU (Papineni et al., 2002) with sacreBLEU's default smoothing.

    Args:
        hypotheses: detokenized text, one string per sentence.
        references: one entry per sentence: a string or several.

    Raises:
        InputError: there is no sentence, the lengths differ, or a sentence has no reference.
        ConfigError: the tokenizer is unknown or its own dependency is absent.
    """
    options = MetricOptions(tokenize=tokenize, lowercase=lowercase)
    return corpus_score(sacrebleu_metric("bleu", options), hypotheses, references)


def chrf(hypotheses: Sequence[str], references: References, *, word_order: int = 0) -> Score:
    """Compute corpus chrF (Popović, 2015), or chrF++ with ``word_order=2``; arguments and errors as for `bleu`."""
    options = MetricOptions(chrf_word_order=word_order)
    return corpus_score(sacrebleu_metric("chrf", options), hypotheses, references)


def ter(hypotheses: Sequence[str], references: References) -> Score:
    """Compute corpus translation edit rate, TER (Snover et al., 2006), lower is better; otherwise as `bleu`."""
    return corpus_score(sacrebleu_metric("ter", MetricOptions()), hypotheses, references)


_SACREBLEU: Mapping[str, Callable[[MetricOptions], Metric]] = {
    "bleu": lambda options: BLEU(tokenize=options.tokenize, lowercase=options.lowercase),
    "chrf": lambda options: CHRF(word_order=options.chrf_word_order),
    "ter": lambda options: TER(),
}

METRICS = ("bleu", "chrf", "rouge", "ter")
"""Metrics of `evaluate`, in the order of its results (the ``sacrebleu`` command's)."""


def evaluate(
    hypotheses: Sequence[str],
    references: References,
    metrics: Sequence[str] = ("bleu",),
    options: MetricOptions | None = None,
) -> list[Score]:
    """Compute several metrics of one system; ROUGE gives three scores.

    Args:
        hypotheses: detokenized text, one string per sentence.
        references: one entry per sentence: a string or several.
        metrics: names from `METRICS`.
        options: of the metrics; defaults if None.

    Raises:
        InputError: as for `bleu`.
        ConfigError: a metric is not one of `METRICS`, or an option is out of range.
    """
    options = options or MetricOptions()
    scores: list[Score] = []
    for name in sorted(set(metrics)):
        if name == "rouge":
            scores.extend(rouge(hypotheses, references, use_stemmer=options.use_stemmer))
        else:
            scores.append(corpus_score(sacrebleu_metric(name, options), hypotheses, references))
    return scores


def sacrebleu_metric(name: str, options: MetricOptions) -> Metric:
    """Make sacreBLEU's metric object for a name.

    Raises:
        ConfigError: the name is not one of sacreBLEU's metrics, or the tokenizer needs a missing package.
    """
    if name not in _SACREBLEU:
        raise ConfigError(f"metric {name!r} is unknown here; expected one of {', '.join(_SACREBLEU)}")
    try:
        return _SACREBLEU[name](options)
    except (ImportError, RuntimeError) as error:
        raise ConfigError(f"BLEU tokenizer {options.tokenize!r} cannot be loaded: {error}") from error


def corpus_score(metric: Metric, hypotheses: Sequence[str], references: References) -> Score:
    """Compute a sacreBLEU metric and return the score with its signature, which states the number of references."""
    entries = aligned(hypotheses, references)
    if not entries:
        raise InputError("no sentence to score; expected at least one hypothesis")
    return Score.from_sacrebleu(metric.corpus_score(list(hypotheses), padded_streams(entries)), metric)
