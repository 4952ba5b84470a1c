"""Beam search as a whole against fairseq's rules in plain Python, over a model of random scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from searching import search_with

from fairbeam.generation import GenerationOptions, LengthNormalization
from fairbeam.network import pad_batch

PAD, EOS, TWIN, OTHER_TWIN = 1, 2, 4, 5
IMPOSSIBLE = float("-inf")


class RandomScores:
    """A model whose logits are drawn for each source and history: some impossible, two tokens always equal.

    What follows equal tokens is equal, too, so that it doesn't matter which of them a tie prefers.
    """

    first_token = rounded_head = native_head = None

    def __init__(self, vocabulary: int, impossible: float, ending: float) -> None:
        self.vocabulary, self.impossible, self.ending = vocabulary, impossible, ending

    def log_probabilities(self, key: int, history: tuple[int, ...]) -> torch.Tensor:
        random = np.random.default_rng([key, *(TWIN if token == OTHER_TWIN else token for token in history)])
        logits = random.normal(size=self.vocabulary, scale=2).astype(np.float32)
        logits[random.random(self.vocabulary) < self.impossible] = IMPOSSIBLE
        logits[EOS] += self.ending
        logits[TWIN] = logits[OTHER_TWIN] = max(logits[TWIN], -2.0)
        return torch.from_numpy(logits).log_softmax(0)

    def longest_target(self, source_length):
        return 100

    def prefill(self, source, beams):
        return Histories([row[0] for row in source.tolist()], [[()] * beams for _ in source])

    def step(self, state, tokens):
        rows = zip(state.histories, tokens.tolist(), strict=True)
        state.histories = [[(*h, t) for h, t in zip(*row, strict=True)] for row in rows]
        rows = zip(state.keys, state.histories, strict=True)
        return torch.stack([torch.stack([self.log_probabilities(key, h[1:]) for h in mine]) for key, mine in rows])


class Histories:
    """What every beam has been fed."""

    def __init__(self, keys, histories):
        self.keys, self.histories = keys, histories

    def reorder(self, parents):
        rows = zip(self.histories, parents.tolist(), strict=True)
        self.histories = [[mine[parent] for parent in row] for mine, row in rows]

    def select(self, sentences):
        kept = sentences.tolist()
        self.keys, self.histories = [self.keys[i] for i in kept], [self.histories[i] for i in kept]


def plain_beam_search(scores_after, beam: int, wanted: int, least: int, limit: int, prefix: list[int]) -> list:
    """fairseq's ``SequenceGenerator._generate`` for one sentence, as (tokens, running totals) in the order they end.

    ``scores_after``: a history's log probabilities of each token.
    """
    beams = [((), (np.float32(0),))] * beam
    finished: list = []
    for step in range(limit + 1):
        forced = prefix[step] if step < min(len(prefix), limit) else None
        continuations = []
        for history, totals in beams if step else beams[:1]:
            for token, score in enumerate(scores_after(history)):
                too_short = forced is None and token == EOS and step < least and step < limit
                too_long = step == limit and token != EOS
                not_forced = forced is not None and token != forced
                if token == PAD or too_short or too_long or not_forced:
                    score = IMPOSSIBLE
                continuations.append((history, totals, token, totals[-1] + np.float32(score)))
        if forced == EOS:  # all beams become the first
            first = next(one for one in continuations if one[2] == EOS)
            continuations = [first] * (beam if step else 1)
        continuations = sorted(continuations, key=lambda one: -one[3])[: 2 * beam]
        ends = [token == EOS and total > IMPOSSIBLE for _, _, token, total in continuations]
        for (history, totals, token, total), end in list(zip(continuations, ends, strict=True))[:beam]:
            if end and len(finished) < wanted:
                finished.append(((*history, token), (*totals, total)))
        if len(finished) >= wanted:
            break
        going = [one for one, end in zip(continuations, ends, strict=True) if not end][:beam]
        beams = [((*history, token), (*totals, total)) for history, totals, token, total in going]
        beams += [((0,) * (step + 1), (np.float32(IMPOSSIBLE),))] * (beam - len(beams))
    return finished


def canonical(tokens) -> tuple[int, ...]:
    return tuple(TWIN if token == OTHER_TWIN else token for token in tokens)


@settings(max_examples=80, deadline=None)
@given(
    keys=st.lists(st.integers(6, 999), min_size=1, max_size=9), beam=st.integers(1, 5), limit=st.integers(1, 6),
    least=st.integers(0, 3), by_source=st.sampled_from([0.0, 0.5]), vocabulary=st.sampled_from([6, 9, 300]),
    impossible=st.sampled_from([0.0, 0.3, 0.8]), ending=st.sampled_from([0.0, 2.0, 4.0]),
    patience=st.sampled_from([1.0, 1.0, 0.5, 2.0]), exponent=st.sampled_from([0.0, 0.7, 1.0]),
    kind=st.sampled_from(LengthNormalization),
    prefixes=st.none() | st.lists(st.lists(st.sampled_from([3, 4, EOS]), max_size=3), min_size=9, max_size=9),
)  # fmt: skip
def test_hypotheses_are_those_of_fairseqs_rules(
    keys, beam, limit, least, by_source, vocabulary, impossible, ending, patience, exponent, kind, prefixes
):
    model = RandomScores(vocabulary, impossible, ending)
    options = GenerationOptions(
        beam=beam, max_len_a=by_source, max_len_b=limit, min_len=min(least, limit), beam_patience=patience,
        lenpen=exponent, length_normalization=kind,
    )  # fmt: skip
    rows = [[key] * (1 + key % 4) + [EOS] for key in keys]
    starts = [(row[: row.index(EOS) + 1] if EOS in row else row) for row in prefixes or [[]] * 9][: len(keys)]
    prefix = pad_batch([[*row, PAD] for row in starts], PAD) if any(starts) else None
    found = search_with([model], options)(pad_batch(rows, PAD), prefix=prefix)
    for row, forced, hypotheses in zip(rows, starts, found, strict=True):
        expected = plain_beam_search(
            lambda history, key=row[0]: model.log_probabilities(key, history).tolist(), beam,
            max(1, round(beam * patience)), min(least, limit), int(by_source * len(row) + limit), forced,
        )  # fmt: skip
        if kind is LengthNormalization.GNMT:
            penalties = [((5 + len(tokens)) / 6) ** exponent for tokens, _ in expected]
        else:
            penalties = [len(tokens) ** exponent for tokens, _ in expected]
        scored = sorted(
            (canonical(tokens), float(totals[-1]) / penalty, totals)
            for (tokens, totals), penalty in zip(expected, penalties, strict=True)
        )
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        ours = sorted(hypotheses, key=lambda h: canonical(h.tokens.tolist()))
        assert [canonical(h.tokens.tolist()) for h in ours] == [tokens for tokens, *_ in scored]
        for hypothesis, (_, score, totals) in zip(ours, scored, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-5)
            np.testing.assert_allclose(hypothesis.positional_scores, np.diff(totals), atol=1e-5)
