"""ROUGE-1, ROUGE-2 and ROUGE-L by Google's ``rouge-score`` library."""

from collections.abc import Sequence
from importlib.metadata import version
from statistics import fmean

from fairbeam.errors import InputError
from fairbeam.scoring.references import References, aligned
from fairbeam.scoring.score import Score

_NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


def rouge(hypotheses: Sequence[str], references: References, *, use_stemmer: bool = True) -> tuple[Score, Score, Score]:
    """Compute mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L (Lin, 2004), in points from 0 to 100.

    Of several references the best counts, separately for each sentence and variant. The library drops all characters
    but the letters a to z and digits, so it can't score text in other scripts.

    Args:
        hypotheses: one string per sentence or summary.
        references: one entry per hypothesis: a string or several.
        use_stemmer: compare Porter stems, as published summarization results do.

    Raises:
        InputError: there is no hypothesis, the lengths differ, or a hypothesis has no reference.
    """
    # Imported here because it loads nltk, which takes longer than all the rest of computing BLEU.
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    entries = aligned(hypotheses, references)
    if not entries:
        raise InputError("no sentence to score; expected at least one hypothesis")
    # A given tokenizer keeps the scorer from logging a line about its default one.
    scorer = RougeScorer(list(_NAMES), tokenizer=DefaultTokenizer(use_stemmer))
    results = [scorer.score_multi(entry, text) for entry, text in zip(entries, hypotheses, strict=True)]
    signature = _signature({len(entry) for entry in entries}, use_stemmer)
    one, two, longest = (
        Score(name=name, value=100 * fmean(result[key].fmeasure for result in results), signature=signature)
        for key, name in _NAMES.items()
    )
    return one, two, longest


def _signature(reference_counts: set[int], use_stemmer: bool) -> str:
    pairs = {
        "nrefs": reference_counts.pop() if len(reference_counts) == 1 else "var",
        "stat": "mean-f1",
        "multi": "best",
        "case": "lc",
        "stem": "porter" if use_stemmer else "no",
        "package": "rouge-score",
        "version": version("rouge-score"),
    }
    return "|".join(f"{key}:{value}" for key, value in pairs.items())
