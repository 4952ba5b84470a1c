"""Each block of the beam step against plain NumPy, over shapes, ties and impossible tokens."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairbeam.generation.logits_processors import (
    SpecialTokenIds,
    favour_source,
    follow_tree,
    forbid_phrases,
    force_prefix,
    limit_length,
    no_ngrams_of_source,
    no_repeated_ngrams,
    penalise_repetition,
    require_length,
)
from fairbeam.generation.model import StepScores
from fairbeam.generation.search.beams import Beams, best_continuations

EOS = 2
shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(6, 20), st.integers(0, 2**31 - 1))


def draw_scores(batch: int, beam: int, vocabulary: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities with ties and impossible tokens, and totals of the beams, some of them impossible."""
    random = np.random.default_rng(seed)
    scores = random.integers(-8, 0, (batch, beam, vocabulary)).astype(np.float32) / 4
    scores[random.random(scores.shape) < 0.2] = -np.inf
    totals = random.integers(-8, 0, (batch, beam)).astype(np.float32) / 4
    totals[random.random(totals.shape) < 0.1] = -np.inf
    return scores, totals


@given(shape=shapes, count=st.integers(1, 30))
def test_best_continuations_are_the_best_of_all(shape, count):
    batch, beam, vocabulary, _ = shape
    scores, totals = draw_scores(*shape)
    found = best_continuations(StepScores(torch.from_numpy(scores)), torch.from_numpy(totals), count)
    everything = (scores + totals[:, :, None]).reshape(batch, -1)
    wanted = min(count, beam * vocabulary)
    expected = -np.sort(-everything, axis=1)[:, :wanted]
    np.testing.assert_array_equal(found.totals[:, :wanted].numpy(), expected)
    assert found.totals.shape == (batch, count)
    assert (found.totals[:, wanted:] == -np.inf).all()
    # each candidate is what it says it is, and none is taken twice
    places = (found.parents * vocabulary + found.tokens)[:, :wanted].numpy()
    np.testing.assert_array_equal(np.take_along_axis(everything, places, 1), expected)
    assert all(len(set(row)) == wanted for row in places.tolist())


def test_candidates_are_ordered_by_corrected_scores():
    scores = torch.log_softmax(torch.tensor([[[3.0, 2.9, 2.8, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5]]]), dim=2)
    added = torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0])

    class Rounded(StepScores):
        def exact_delta(self, parents, tokens):
            return added[tokens]

    found = best_continuations(Rounded(scores), torch.zeros(1, 1), 2)
    assert found.tokens.tolist() == [[1, 0]]
    torch.testing.assert_close(found.totals[0], scores[0, 0, [1, 0]] + added[[1, 0]])


def beams_with(tokens: np.ndarray, limits: list[int], prefix: np.ndarray | None = None) -> Beams:
    """Beams that have chosen ``tokens`` behind the start symbol."""
    _, beam, step = tokens.shape
    beams = Beams.begin(torch.tensor(limits), beam, EOS, None if prefix is None else torch.from_numpy(prefix))
    beams.tokens[:, :, 1 : step + 1] = torch.from_numpy(tokens)
    beams.step = step
    return beams


@settings(max_examples=60)
@given(shape=shapes, size=st.integers(1, 4), step=st.integers(0, 9))
def test_no_repeated_ngrams_forbids_exactly_repeats(shape, size, step):
    batch, beam, vocabulary, seed = shape
    random = np.random.default_rng(seed)
    tokens = random.integers(3, 6, (batch, beam, step))
    beams = beams_with(tokens, [20] * batch)
    scores = torch.zeros(batch, beam, vocabulary)
    no_repeated_ngrams(size)(scores, beams)
    for row in range(batch):
        for place in range(beam):
            history = [EOS, *tokens[row, place].tolist()]
            seen = {tuple(history[i : i + size]) for i in range(len(history) - size + 1)}
            for token in range(vocabulary):
                repeats = len(history) >= size and (*history[len(history) - size + 1 :], token) in seen
                assert (scores[row, place, token] == -np.inf) == repeats


def test_filters_forbid_and_penalise_what_an_independent_implementation_does():
    """Hugging Face's processors, on the tokens with the start symbol before them."""
    processors = pytest.importorskip("transformers").generation.logits_process
    random = np.random.default_rng(0)
    phrases = ((7,), (5, 4), (3, 3, 5), (9, 9, 9, 9))
    for step in range(5):
        tokens = random.integers(3, 6, (3, 4, step))
        beams = beams_with(tokens, [20] * 3)
        history = torch.cat([torch.full((12, 1), EOS), torch.from_numpy(tokens).flatten(0, 1)], dim=1)
        scores = torch.from_numpy(random.normal(size=(3, 4, 11)).astype(np.float32)).log_softmax(-1)
        for ours, theirs in (
            (forbid_phrases(phrases), processors.NoBadWordsLogitsProcessor([list(p) for p in phrases], eos_token_id=0)),
            (penalise_repetition(1.7), processors.RepetitionPenaltyLogitsProcessor(1.7)),
        ):
            expected = theirs(history, scores.flatten(0, 1).clone()).view_as(scores)
            found = scores.clone()
            ours(found, beams)
            torch.testing.assert_close(found, expected)


def test_filters_that_look_at_the_source_do_what_an_independent_implementation_does():
    processors = pytest.importorskip("transformers").generation.logits_process
    random = np.random.default_rng(1)
    source = torch.from_numpy(random.integers(3, 6, (3, 7)))
    for step, size in itertools.product(range(5), (1, 2, 3)):
        tokens = random.integers(3, 6, (3, 4, step))
        beams = beams_with(tokens, [20] * 3)
        beams.source = source
        history = torch.cat([torch.full((12, 1), EOS), torch.from_numpy(tokens).flatten(0, 1)], dim=1)
        scores = torch.from_numpy(random.normal(size=(3, 4, 11)).astype(np.float32)).log_softmax(-1)
        for ours, kind, value in (
            (no_ngrams_of_source(size, SpecialTokenIds()), processors.EncoderNoRepeatNGramLogitsProcessor, size),
            (favour_source(1.7), processors.EncoderRepetitionPenaltyLogitsProcessor, 1.7),
        ):
            # one sentence at a time: with many, theirs wants the source once for each hypothesis
            theirs = [kind(value, source[row : row + 1].expand(4, -1)) for row in range(3)]
            apart = zip(theirs, history.view(3, 4, -1), scores.clone(), strict=True)
            found = scores.clone()
            ours(found, beams)
            torch.testing.assert_close(found, torch.stack([one(rows, each) for one, rows, each in apart]))


@given(
    outputs=st.lists(st.lists(st.integers(3, 5), max_size=3).map(tuple), min_size=1, max_size=5),
    tokens=st.lists(st.integers(3, 5), max_size=4),
)
def test_a_tree_allows_what_continues_an_output(outputs, tokens):
    scores = torch.zeros(1, 1, 8)
    follow_tree(outputs, SpecialTokenIds())(scores, beams_with(np.array([[tokens]], dtype=np.int64), [9]))
    ended = [(*output, EOS) for output in outputs]
    allowed = {
        output[len(tokens)] for output in ended if output[: len(tokens)] == tuple(tokens) and output[len(tokens) :]
    }
    assert set(scores[0, 0].isfinite().nonzero().flatten().tolist()) == allowed


@given(shape=shapes, step=st.integers(0, 6), least=st.integers(0, 4))
def test_lengths_are_each_sentences_own(shape, step, least):
    batch, beam, vocabulary, seed = shape
    random = np.random.default_rng(seed)
    limits = random.integers(step, step + 3, batch)
    beams = beams_with(random.integers(3, 6, (batch, beam, step)), limits.tolist())
    original = torch.from_numpy(random.normal(size=(batch, beam, vocabulary)))
    scores = original.clone()
    limit_length(SpecialTokenIds())(scores, beams)
    require_length(SpecialTokenIds(), least)(scores, beams)
    for row in range(batch):
        for token in range(vocabulary):
            if limits[row] <= step:
                allowed = token == EOS
            else:
                allowed = token != EOS or step >= least
            expected = original[row, :, token] if allowed else torch.full((beam,), -np.inf, dtype=torch.float64)
            assert torch.equal(scores[row, :, token], expected)


def test_a_prefix_that_ends_makes_all_beams_the_first():
    prefix = np.array([[5, EOS, 1], [5, 4, 3]])
    beams = beams_with(np.array([[[5], [9]], [[5], [9]]]), [10, 10], prefix)
    beams.totals = torch.tensor([[-1.0, -7.0], [-1.0, -7.0]])
    scores = torch.zeros(2, 2, 10)
    force_prefix(SpecialTokenIds())(scores, beams)
    assert beams.tokens[0, :, 1].tolist() == [5, 5]
    assert beams.totals.tolist() == [[-1.0, -1.0], [-1.0, -7.0]]
    assert scores[0].isfinite().nonzero().tolist() == [[0, EOS], [1, EOS]]
    assert scores[1].isfinite().nonzero().tolist() == [[0, 4], [1, 4]]
