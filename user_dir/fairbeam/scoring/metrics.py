"""BLEU, chrF and TER exactly as the ``sacrebleu`` command computes them, and one door to every metric."""

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
    """How to compare; the defaults are those of sacreBLEU and of published ROUGE.

    Attributes:
        tokenize: BLEU's tokenizer, one of sacreBLEU's.
        lowercase: BLEU on lower-cased text.
        chrf_word_order: longest word n-gram in chrF; 2 makes it chrF++.
        use_stemmer: ROUGE on Porter stems.
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
    """Corpus BLEU (Papineni et al., 2002) with sacreBLEU's default smoothing.

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
    """Corpus chrF (Popović, 2015), or chrF++ with ``word_order=2``; arguments and errors as in `bleu`."""
    options = MetricOptions(chrf_word_order=word_order)
    return corpus_score(sacrebleu_metric("chrf", options), hypotheses, references)


def ter(hypotheses: Sequence[str], references: References) -> Score:
    """Corpus translation edit rate (Snover et al., 2006), lower is better; the rest as in `bleu`."""
    return corpus_score(sacrebleu_metric("ter", MetricOptions()), hypotheses, references)


_SACREBLEU: Mapping[str, Callable[[MetricOptions], Metric]] = {
    "bleu": lambda options: BLEU(tokenize=options.tokenize, lowercase=options.lowercase),
    "chrf": lambda options: CHRF(word_order=options.chrf_word_order),
    "ter": lambda options: TER(),
}

METRICS = ("bleu", "chrf", "rouge", "ter")
"""The names `evaluate` knows, in the order it reports them (the ``sacrebleu`` command's)."""


def evaluate(
    hypotheses: Sequence[str],
    references: References,
    metrics: Sequence[str] = ("bleu",),
    options: MetricOptions | None = None,
) -> list[Score]:
    """Several scores of one system, ROUGE giving three of them.

    Raises:
        InputError: as `bleu`.
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
    """sacreBLEU's own metric object.

    Raises:
        ConfigError: the name is not one of sacreBLEU's, or its tokenizer needs a package that is absent.
    """
    if name not in _SACREBLEU:
        raise ConfigError(f"metric {name!r} is unknown here; expected one of {', '.join(_SACREBLEU)}")
    try:
        return _SACREBLEU[name](options)
    except (ImportError, RuntimeError) as error:
        raise ConfigError(f"BLEU tokenizer {options.tokenize!r} cannot be loaded: {error}") from error


def corpus_score(metric: Metric, hypotheses: Sequence[str], references: References) -> Score:
    """The score of a sacreBLEU metric with its signature, which counts the references it was given."""
    entries = aligned(hypotheses, references)
    if not entries:
        raise InputError("no sentence to score; expected at least one hypothesis")
    return Score.from_sacrebleu(metric.corpus_score(list(hypotheses), padded_streams(entries)), metric)
