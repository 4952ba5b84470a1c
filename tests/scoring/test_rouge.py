"""ROUGE against its definition, computed here from counts and a recursive longest common subsequence."""

import random
from collections import Counter
from functools import cache
from importlib.metadata import version

import pytest

from fairbeam.scoring import rouge

WORDS = ["we", "propose", "a", "model", "that", "learns", "to", "score", "with", "less", "data", "2"]


def f1(overlap: int, hypothesis: int, reference: int) -> float:
    return 200 * overlap / (hypothesis + reference) if overlap else 0.0


def ngram_f1(hypothesis: list[str], reference: list[str], n: int) -> float:
    first, second = (
        Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (hypothesis, reference)
    )
    return f1((first & second).total(), first.total(), second.total())


def subsequence_f1(hypothesis: list[str], reference: list[str]) -> float:
    @cache
    def longest(i: int, j: int) -> int:
        if i == len(hypothesis) or j == len(reference):
            return 0
        if hypothesis[i] == reference[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    return f1(longest(0, 0), len(hypothesis), len(reference))


def test_equals_the_definition_with_the_best_of_several_references():
    draw = random.Random(7)
    texts = [[draw.choices(WORDS, k=draw.randint(0, 12)) for _ in range(4)] for _ in range(20)]
    measures = [
        lambda a, b: ngram_f1(a, b, 1),
        lambda a, b: ngram_f1(a, b, 2),
        subsequence_f1,
    ]
    scores = rouge(
        [" ".join(hypothesis) for hypothesis, *_ in texts],
        [[" ".join(reference) for reference in references] for _, *references in texts],
        use_stemmer=False,
    )
    for score, measure in zip(scores, measures, strict=True):
        best = [max(measure(hypothesis, reference) for reference in refs) for hypothesis, *refs in texts]
        assert score.value == pytest.approx(sum(best) / len(best))


def test_stems_by_default_and_says_so():
    stemmed, *_ = rouge(["learning"], ["learned"])
    exact, *_ = rouge(["learning"], ["learned"], use_stemmer=False)
    assert (stemmed.value, exact.value) == (100, 0)
    assert "stem:porter" in stemmed.signature
    assert "stem:no" in exact.signature


def test_signature_states_references_and_version():
    one, *_ = rouge(["a b", "c d"], [["a"], ["c", "d"]])
    assert one.name == "ROUGE-1"
    assert one.signature.startswith("nrefs:var|")
    assert one.signature.endswith(f"|package:rouge-score|version:{version('rouge-score')}")
