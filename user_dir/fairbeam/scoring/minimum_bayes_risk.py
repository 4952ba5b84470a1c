"""Minimum Bayes risk: the output that is most like all the others (Kumar and Byrne, 2004; Eikema and Aziz, 2020).

Utilities are sacreBLEU's sentence scores. All pairs are scored at once from matrices of n-gram counts: the matches of
two texts are sums of minima, and a sum of minima is a product of indicators, one for each height of the counts.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from sacrebleu import BLEU, CHRF

Matrix = NDArray[np.float64]


class Utility(StrEnum):
    """How good a text is if another were right."""

    BLEU = "bleu"
    CHRF = "chrf"


def expected_utilities(texts: Sequence[str], utility: Utility) -> Matrix:
    """The mean utility of each text, (texts,), if every one of them, itself too, is as likely to be right.

    A text that was sampled several times counts as often.
    """
    times = Counter(texts)
    pairs = pairwise_bleu(list(times)) if utility is Utility.BLEU else pairwise_chrf(list(times))
    expected = dict(zip(times, pairs @ np.array(list(times.values())) / len(texts), strict=True))
    return np.array([expected[text] for text in texts])


def pairwise_bleu(texts: Sequence[str]) -> Matrix:
    """sacreBLEU's sentence BLEU, smoothed and of effective order, of text ``i`` against reference ``j``."""
    tokenize = BLEU(effective_order=True).tokenizer
    tokens = [tokenize(text.rstrip()).split() for text in texts]
    lengths = np.array([len(words) for words in tokens], dtype=float)
    logarithms, orders = np.zeros((len(texts), len(texts))), np.zeros((len(texts), 1))
    missing, any_match = np.zeros_like(logarithms), np.zeros_like(logarithms, dtype=bool)
    for order in range(1, BLEU(effective_order=True).max_ngram_order + 1):
        matches, totals, _ = _matches([_ngrams(words, order) for words in tokens])
        counted = totals > 0
        missing += counted & (matches == 0)  # each halves what stands for no match
        precisions = np.where(matches > 0, matches, 0.5**missing) / np.where(counted, totals, 1)
        logarithms += np.where(counted, np.log(precisions), 0)
        orders += counted
        any_match |= matches > 0
    ratio = lengths[None] / np.maximum(lengths, 1)[:, None]
    brevity = np.exp(np.minimum(0, 1 - ratio))
    return np.where(any_match, 100 * brevity * np.exp(logarithms / np.maximum(orders, 1)), 0)


def pairwise_chrf(texts: Sequence[str]) -> Matrix:
    """sacreBLEU's sentence chrF of text ``i`` against reference ``j``."""
    letters = ["".join(text.split()) for text in texts]
    precision, recall, orders = (np.zeros((len(texts), len(texts))) for _ in range(3))
    for order in range(1, CHRF.CHAR_ORDER + 1):
        matches, said, wanted = _matches([_ngrams(text, order) for text in letters])
        precision += matches / np.maximum(said, 1)
        recall += matches / np.maximum(wanted, 1)
        orders += (said > 0) & (wanted > 0)
    precision, recall = precision / np.maximum(orders, 1), recall / np.maximum(orders, 1)
    weight = CHRF.BETA**2
    below = weight * precision + recall
    return 100 * (1 + weight) * precision * recall / np.where(below > 0, below, 1)


def _ngrams(sequence: Sequence[str], order: int) -> Counter[Hashable]:
    return Counter(tuple(sequence[i : i + order]) for i in range(len(sequence) - order + 1))


def _matches(counters: list[Counter[Hashable]]) -> tuple[Matrix, Matrix, Matrix]:
    """N-grams that texts have in common, (texts, texts), and how many each has: as a column, and as a row."""
    numbers: dict[Hashable, int] = {}
    cells = [
        (row, numbers.setdefault(ngram, len(numbers)), count)
        for row, counter in enumerate(counters)
        for ngram, count in counter.items()
    ]
    counts = np.zeros((len(counters), len(numbers)), dtype=np.float32)
    if cells:
        rows, columns, values = zip(*cells, strict=True)
        counts[list(rows), list(columns)] = values
    matches = np.zeros((len(counters), len(counters)))
    for height in range(1, int(counts.max(initial=0)) + 1):
        reaching = (counts >= height).astype(np.float32)
        reaching = reaching[:, reaching.any(axis=0)]
        matches += reaching @ reaching.T
    totals = counts.sum(axis=1, dtype=np.float64)
    return matches, totals[:, None], totals[None]
