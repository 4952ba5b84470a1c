"""Statistics add up to the score of the whole, however the corpus is cut."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairbeam.errors import ConfigError, InputError
from fairbeam.scoring import BleuStatistics, bleu

WORDS = st.lists(st.sampled_from(["the", "a", "cat", "sat", "mat.", "Über,", "猫"]), max_size=9).map(" ".join)
ENTRIES = st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=3), st.integers(0, 3))


@given(st.lists(ENTRIES, min_size=1, max_size=12))
def test_parts_add_up_to_the_whole(entries):
    """Each sentence goes to one of four workers, some of which may get nothing."""
    hypotheses = [hypothesis for hypothesis, _, _ in entries]
    references = [reference for _, reference, _ in entries]
    total = BleuStatistics()
    for worker in range(4):
        part = BleuStatistics.of(
            [hypothesis for hypothesis, _, owner in entries if owner == worker],
            [reference for _, reference, owner in entries if owner == worker],
        )
        # What a worker sends passes through floating-point tensors.
        total += BleuStatistics.from_numbers([float(number) for number in part.numbers])
    assert total.score() == bleu(hypotheses, references)


def test_score_by_the_definition():
    """Precisions 5/6, 3/5, 1/4 and half of 1/3 (a first zero count is halved once); one word too short."""
    statistics = BleuStatistics.of(["the cat sat on the mat"], ["the cat is here on the mat"])
    assert statistics.numbers == (6, 7, 5, 3, 1, 0, 6, 5, 4, 3, 1, 1, 1)
    expected = 100 * math.exp(1 - 7 / 6) * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** (1 / 4)
    assert statistics.score().value == pytest.approx(expected)


def test_options_stay_with_the_statistics():
    statistics = BleuStatistics.of(["A b c D"], ["a b c d"], tokenize="char", lowercase=True)
    assert statistics.score() == bleu(["A b c D"], ["a b c d"], tokenize="char", lowercase=True)
    with pytest.raises(ConfigError, match=r"tokenize=char.*tokenize=13a"):
        statistics + BleuStatistics()


def test_misfits_are_refused():
    with pytest.raises(InputError, match="no sentence"):
        BleuStatistics().score()
    with pytest.raises(InputError, match="3 BLEU statistics; expected 13"):
        BleuStatistics.from_numbers([1, 2, 3])
    for wrong in (0.5, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="whole numbers"):
            BleuStatistics.from_numbers([*BleuStatistics().numbers[:-1], wrong])
