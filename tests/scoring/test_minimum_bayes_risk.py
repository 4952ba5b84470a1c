"""Minimum Bayes risk: all pairs at once are what sacreBLEU says of each pair."""

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from fairbeam.scoring.minimum_bayes_risk import Utility, expected_utilities, pairwise_bleu, pairwise_chrf

METRICS = {Utility.BLEU: sacrebleu.BLEU(effective_order=True), Utility.CHRF: sacrebleu.CHRF()}
words = st.lists(st.sampled_from(["der", "Hund", "die", "Katze,", "läuft", ".", "in", "(rot)"]), max_size=9)
texts = st.lists(words.map(" ".join) | st.text(max_size=12), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(texts=texts)
@pytest.mark.parametrize("utility", Utility)
def test_all_pairs_are_as_sacrebleu_scores_them(utility, texts):
    metric = METRICS[utility]
    expected = [[metric.sentence_score(text, [reference]).score for reference in texts] for text in texts]
    pairwise = pairwise_bleu if utility is Utility.BLEU else pairwise_chrf
    np.testing.assert_allclose(pairwise(texts), expected, atol=1e-4)
    np.testing.assert_allclose(expected_utilities(texts, utility), np.mean(expected, axis=1), atol=1e-4)
