"""Operations of beam search against NumPy and torch, natively and without the library."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_paths import WAYS, library

from fairbeam.generation.search.beam_ops import ended, extend_, renormalise, survivors, top_of_sums

EOS = 2
SEEDS = st.integers(0, 2**31 - 1)


@settings(deadline=None, max_examples=80)
@given(
    batch=st.integers(1, 4), rows=st.integers(1, 4), length=st.integers(1, 300), count=st.integers(1, 12),
    levels=st.integers(1, 40), seed=SEEDS,
)  # fmt: skip
def test_the_highest_sums_are_found(batch, rows, length, count, levels, seed):
    random = np.random.default_rng(seed)
    scores = random.integers(-levels, 0, (batch, rows, length)).astype(np.float32)
    scores[random.random(scores.shape) < 0.3] = -np.inf
    added = random.integers(-9, 0, (batch, rows)).astype(np.float32)
    sums = (scores + added[:, :, None]).reshape(batch, -1)
    count = min(count, rows * length)
    for there in WAYS:
        with library(there):
            values, indices = top_of_sums(torch.from_numpy(scores), torch.from_numpy(added), count)
        np.testing.assert_array_equal(values, -np.sort(-sums, axis=1)[:, :count])
        np.testing.assert_array_equal(np.take_along_axis(sums, indices.numpy(), 1), values)
        assert all(len(set(row)) == count for row in indices.tolist())
        if there:  # of equal ones the first is first
            order = np.argsort(-sums, axis=1, kind="stable")[:, :count]
            finite = values.numpy() > -np.inf
            np.testing.assert_array_equal(indices.numpy()[finite], order[finite])


@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 5), SEEDS))
def test_survivors_are_the_first_that_go_on(shape):
    batch, beam, seed = shape
    random = np.random.default_rng(seed)
    width = 2 * beam
    tokens = random.integers(0, 4, (batch, width))
    totals = np.where(random.random((batch, width)) < 0.3, -np.inf, -1.0).astype(np.float32)
    ignored = random.random((batch, beam)) < 0.2
    for there in WAYS:
        with library(there):
            given = torch.from_numpy(totals), torch.from_numpy(tokens), torch.from_numpy(ignored)
            ends = ended(*given, EOS)
            chosen, empty = survivors(ends, given[2])
        for row in range(batch):
            end = [tokens[row, i] == EOS and np.isfinite(totals[row, i]) for i in range(width)]
            end = [end[i] and not (i < beam and ignored[row, i]) for i in range(width)]
            assert ends[row].tolist() == end
            going = [i for i in range(width) if not end[i] and not (i < beam and ignored[row, i])]
            assert chosen[row, : len(going)].tolist() == going[:beam]
            assert empty[row].tolist() == [i >= len(going) for i in range(beam)]


@given(batch=st.integers(1, 3), beam=st.integers(1, 4), filled=st.integers(1, 5), seed=SEEDS)
def test_hypotheses_become_their_parents_with_one_token_more(batch, beam, filled, seed):
    random = np.random.default_rng(seed)
    tokens, added = random.integers(0, 9, (batch, beam, 8)), random.integers(0, 9, (batch, beam))
    history = random.normal(size=(batch, beam, 7)).astype(np.float32)
    parents, totals = random.integers(0, beam, (batch, beam)), random.normal(size=(batch, beam)).astype(np.float32)
    for there in WAYS:
        found, running = torch.from_numpy(tokens.copy()), torch.from_numpy(history.copy())
        with library(there):
            extend_(found, running, *map(torch.from_numpy, (parents, added, totals)), filled)
        for row, place in np.ndindex(batch, beam):
            parent = parents[row, place]
            assert found[row, place, : filled + 1].tolist() == [*tokens[row, parent, :filled], added[row, place]]
            expected = [*history[row, parent, : filled - 1], totals[row, place]]
            np.testing.assert_array_equal(running[row, place, :filled], np.array(expected, np.float32))


@pytest.mark.parametrize("there", WAYS)
def test_a_few_logits_that_change_change_their_softmax(there):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 9, generator=draw)
    beams, tokens = torch.tensor([[0, 0, 1], [1, 0, 1], [0, 1, 0]]), torch.tensor([[1, 2, 1], [5, 5, 8], [0, 7, 3]])
    changes = torch.randn(3, 3, generator=draw)
    place = torch.arange(3).unsqueeze(1), beams, tokens
    changed = logits.clone()
    changed[place] += changes
    expected = changed.log_softmax(2)[place] - logits.log_softmax(2)[place]
    with library(there):
        found = renormalise(logits.log_softmax(2), changes, beams, tokens)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
