"""Minimum Bayes risk: expected utilities of candidates (Kumar and Byrne, 2004; Eikema and Aziz, 2020).

Utilities are sacreBLEU's sentence scores. All pairs are scored at once from a matrix of n-gram counts: the matches of
two texts are sums of minima of counts, which are sums over k of products of the indicators "count is at least k".
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from sacrebleu import BLEU, CHRF

Matrix = NDArray[np.float64]


class Utility(StrEnum):
    """Utility of a candidate against a pseudo-reference: a sentence-level metric."""

    BLEU = "bleu"
    CHRF = "chrf"


def expected_utilities(texts: Sequence[str], utility: Utility) -> Matrix:
    """Return the average utility of each text, (texts,), with all texts, itself included, as pseudo-references.

    A text that was sampled several times counts that many times.
    """
    counts = Counter(texts)
    pairs = pairwise_bleu(list(counts)) if utility is Utility.BLEU else pairwise_chrf(list(counts))
    expected = dict(zip(counts, pairs @ np.array(list(counts.values())) / len(texts), strict=True))
    return np.array([expected[text] for text in texts])


def pairwise_bleu(texts: Sequence[str]) -> Matrix:
    """Compute sacreBLEU's sentence BLEU of each text against each, smoothed and with effective order.

    Returns:
        (texts, texts): hypothesis ``i`` against reference ``j``, in points from 0 to 100.
    """
    tokenize = BLEU(effective_order=True).tokenizer
    tokens = [tokenize(text.rstrip()).split() for text in texts]
    lengths = np.array([len(words) for words in tokens], dtype=float)
    logarithms, orders = np.zeros((len(texts), len(texts))), np.zeros((len(texts), 1))
    missing, any_match = np.zeros_like(logarithms), np.zeros_like(logarithms, dtype=bool)
    for order in range(1, BLEU(effective_order=True).max_ngram_order + 1):
        matches, totals, _ = _matches([_ngrams(words, order) for words in tokens])
        counted = totals > 0
        missing += counted & (matches == 0)  # exponential smoothing: each order without matches counts half as much
        precisions = np.where(matches > 0, matches, 0.5**missing) / np.where(counted, totals, 1)
        logarithms += np.where(counted, np.log(precisions), 0)
        orders += counted
        any_match |= matches > 0
    ratio = lengths[None] / np.maximum(lengths, 1)[:, None]
    brevity = np.exp(np.minimum(0, 1 - ratio))
    return np.where(any_match, 100 * brevity * np.exp(logarithms / np.maximum(orders, 1)), 0)


def pairwise_chrf(texts: Sequence[str]) -> Matrix:
    """Compute sacreBLEU's sentence chrF of each text against each.

    Returns:
        (texts, texts): hypothesis ``i`` against reference ``j``, in points from 0 to 100.
    """
    letters = ["".join(text.split()) for text in texts]
    precision, recall, orders = (np.zeros((len(texts), len(texts))) for _ in range(3))
    for order in range(1, CHRF.CHAR_ORDER + 1):
        matches, in_hypothesis, in_reference = _matches([_ngrams(text, order) for text in letters])
        precision += matches / np.maximum(in_hypothesis, 1)
        recall += matches / np.maximum(in_reference, 1)
        orders += (in_hypothesis > 0) & (in_reference > 0)
    precision, recall = precision / np.maximum(orders, 1), recall / np.maximum(orders, 1)
    weight = CHRF.BETA**2
    denominator = weight * precision + recall
    return 100 * (1 + weight) * precision * recall / np.where(denominator > 0, denominator, 1)


def _ngrams(sequence: Sequence[str], order: int) -> Counter[Hashable]:
    return Counter(tuple(sequence[i : i + order]) for i in range(len(sequence) - order + 1))


def _matches(counters: list[Counter[Hashable]]) -> tuple[Matrix, Matrix, Matrix]:
    """Return the matching n-grams of each pair, (texts, texts), and the n-grams of each text, (texts, 1) and (1,
    texts).

    Args:
        counters: n-gram counts of each text.
    """
    columns_of: dict[Hashable, int] = {}
    cells = [
        (row, columns_of.setdefault(ngram, len(columns_of)), count)
        for row, counter in enumerate(counters)
        for ngram, count in counter.items()
    ]
    counts = np.zeros((len(counters), len(columns_of)), dtype=np.float32)
    if cells:
        rows, columns, values = zip(*cells, strict=True)
        counts[list(rows), list(columns)] = values
    matches = np.zeros((len(counters), len(counters)))
    for at_least in range(1, int(counts.max(initial=0)) + 1):
        indicators = (counts >= at_least).astype(np.float32)
        indicators = indicators[:, indicators.any(axis=0)]
        matches += indicators @ indicators.T
    totals = counts.sum(axis=1, dtype=np.float64)
    return matches, totals[:, None], totals[None]
