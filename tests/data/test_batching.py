"""Batches: every pair in exactly one, limits kept, little padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairbeam.data.batching import BatchLimits, make_batches, padding_fraction, sorted_batches
from fairbeam.errors import ConfigError, InputError
from fairbeam.files import read_lines
from fairbeam.text import SentencePiece

LONGEST = 40
lengths = st.lists(st.tuples(st.integers(1, LONGEST), st.integers(1, LONGEST)), min_size=1, max_size=120)
some_limits = st.builds(
    lambda tokens, sentences, both: BatchLimits(
        max_tokens=tokens if both != 1 else None, max_sentences=sentences if both != 2 else None
    ),
    st.integers(LONGEST, 400),
    st.integers(1, 30),
    st.integers(0, 2),
)


@given(pairs=lengths, limits=some_limits, with_target=st.booleans(), data=st.data())
def test_every_pair_is_in_one_batch_within_the_limits(pairs, limits, with_target, data):
    source, target = np.array(pairs, dtype=np.int64).T
    order = np.array(data.draw(st.lists(st.integers(0, len(pairs) - 1), unique=True)), dtype=np.int64)
    batches = make_batches(order, source, target if with_target else None, limits)
    assert sorted(np.concatenate([*batches, order[:0]]).tolist()) == sorted(order.tolist())
    widths = np.maximum(source, target) if with_target else source
    for batch in batches:
        assert len(batch)
        assert len(batch) * widths[batch].max() <= (limits.max_tokens or np.inf)
        assert len(batch) <= (limits.max_sentences or np.inf)


@given(pairs=lengths, limits=some_limits)
def test_sorted_batches_are_full_and_keep_every_sentence(pairs, limits):
    source = np.array(pairs, dtype=np.int64)[:, 0]
    order = np.arange(len(source))
    batches = sorted_batches(order, source, limits)
    joined = np.concatenate(batches)
    assert sorted(joined.tolist()) == order.tolist()
    assert (np.diff(source[joined]) >= 0).all()
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        assert limits.fit(len(batch), int(source[batch].max()))
        if following is not None:
            assert not limits.fit(len(batch) + 1, int(source[following[0]]))


def test_sorted_batches_give_an_overlong_sentence_a_batch_of_its_own():
    source = np.array([3, 50, 2, 60])
    found = sorted_batches(np.arange(4), source, BatchLimits(max_tokens=10))
    assert [batch.tolist() for batch in found] == [[2, 0], [1], [3]]
    assert sorted_batches(np.arange(0), source, BatchLimits(max_tokens=10)) == []


@given(pairs=lengths, place=st.integers(0), target_side=st.booleans())
def test_a_sentence_over_max_tokens_is_named(pairs, place, target_side):
    place %= len(pairs)
    sides = np.array(pairs, dtype=np.int64).T
    sides[int(target_side), place] = 1000
    with pytest.raises(InputError, match=rf"sentence {place + 1} has 1000 tokens, more than --max-tokens 500"):
        make_batches(np.arange(len(pairs))[::-1], *sides, BatchLimits(max_tokens=500))
    others = np.delete(np.arange(len(pairs)), place)  # left out, it is no obstacle
    assert sum(map(len, make_batches(others, *sides, BatchLimits(max_tokens=500)))) == len(others)


@pytest.mark.parametrize("limits", [{}, {"max_tokens": 0}, {"max_sentences": -1}])
def test_limits_that_allow_nothing_are_refused(limits):
    with pytest.raises(ConfigError, match=r"--(max-tokens|batch-size)"):
        BatchLimits(**limits)


def test_padding_is_what_is_left_of_the_rectangles():
    source, target = np.array([2, 4, 3]), np.array([5, 5, 1])
    batches = [np.array([0, 1]), np.array([2])]
    assert padding_fraction(batches, source, target) == pytest.approx(1 - 20 / (2 * 4 + 2 * 5 + 3 + 1))
    assert padding_fraction([], source) == 0


@pytest.fixture(scope="module")
def multi30k_lengths(real_data, real_models):
    """Tokens, ``</s>`` included, of each English and German training sentence."""
    subwords = SentencePiece.load(real_models / "multi30k-en-de" / "spm.model")
    folder = real_data / "multi30k"
    sides = (subwords.encode_batch(read_lines(folder / f"train.{language}")) for language in ("en", "de"))
    return tuple(np.array([len(pieces) + 1 for pieces in side]) for side in sides)


def test_padding_on_multi30k_is_below_three_per_cent(multi30k_lengths):
    source, target = multi30k_lengths
    limits = BatchLimits(max_tokens=4096)
    order = np.random.default_rng(1).permutation(len(source))
    ours = make_batches(order, source, target, limits)
    assert sum(map(len, ours)) == len(source)
    padding = padding_fraction(ours, source, target)
    assert padding < 0.03
    stock = greedy_batches(np.lexsort([order, target, source]), np.maximum(source, target), 4096)
    assert padding < 0.5 * padding_fraction(stock, source, target)
    assert len(ours) < 1.2 * len(stock)  # and not by way of small batches


def greedy_batches(order, widths, max_tokens):
    """Cut an order from its start, each batch as large as it may be."""
    batches, current = [], []
    for row in order:
        if current and (len(current) + 1) * widths[[*current, row]].max() > max_tokens:
            batches.append(np.array(current))
            current = []
        current.append(row)
    return [*batches, np.array(current)]
