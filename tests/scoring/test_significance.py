"""Paired tests: chance differences are told from real ones."""

import random

import pytest

from fairbeam.errors import ConfigError, InputError
from fairbeam.scoring import paired_test

WORDS = [f"word{n}" for n in range(50)]
REFERENCES = [" ".join(random.Random(n).choices(WORDS, k=5 + n % 9)) for n in range(80)]


def spoilt(every: int, start: int) -> list[str]:
    """Every n-th sentence loses its third word."""
    return [
        " ".join(text.split()[:2] + text.split()[3:]) if n % every == start else text
        for n, text in enumerate(REFERENCES)
    ]


GOOD, EQUAL, BAD = spoilt(5, 0), spoilt(5, 1), spoilt(2, 0)


@pytest.mark.parametrize("test", ["bs", "ar"])
def test_a_worse_system_differs_and_an_equal_one_does_not(test):
    systems = {"good": GOOD, "equal": EQUAL, "bad": BAD}
    signatures, table = paired_test(systems, REFERENCES, ["bleu", "chrf"], test=test, samples=200)
    assert table["System"] == ["good", "equal", "bad"]
    baseline, equal, bad = table["BLEU"]
    assert baseline.p_value is None
    assert equal.score > bad.score
    assert bad.p_value < 0.05 < equal.p_value
    assert f"{test}:200" in signatures["BLEU"]
    assert set(signatures) == {"BLEU", "chrF2"}


def test_misfits_are_refused():
    with pytest.raises(ConfigError, match="1 system given"):
        paired_test({"only": GOOD}, REFERENCES)
    with pytest.raises(InputError, match="79 hypotheses"):
        paired_test({"good": GOOD, "short": BAD[1:]}, REFERENCES)
    with pytest.raises(ConfigError, match="rouge"):
        paired_test({"good": GOOD, "bad": BAD}, REFERENCES, ["rouge"])
