"""Alternatives behind a prefix, against the same made a token and a search at a time."""

import importlib.util
from pathlib import Path

import pytest
import torch
from searching import search_with

from fairbeam.generation import GenerationOptions
from fairbeam.network import pad_batch

spec = importlib.util.spec_from_file_location("searches", Path(__file__).with_name("test_beam_search.py"))
searches = importlib.util.module_from_spec(spec)
spec.loader.exec_module(searches)

PREFIXES = [[], [5], [7, 9, 4], [6, 6], [8], [4, 5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("beam", "least", "dtype"), [(1, 0.0, torch.float32), (3, 0.15, torch.float32), (3, 0.0, torch.bfloat16)]
)
def test_alternatives_are_the_most_probable_tokens_completed(beam, least, dtype):
    exact, rows = searches.network(30), searches.sources(6, 30)
    model = exact.for_inference(dtype)
    options = GenerationOptions(
        beam=beam, nbest=4, max_len_b=9, return_alternatives=True, min_alternative_expansion_prob=least, min_len=2
    )
    usual = search_with([model], GenerationOptions(beam=beam, max_len_b=9, min_len=2))
    found = search_with([model], options)(
        pad_batch(rows, searches.PAD), prefix=pad_batch(PREFIXES, searches.PAD).long()
    )
    assert (min(map(len, found)) < 4) == (least > 0)
    for row, prefix, alternatives in zip(rows, PREFIXES, found, strict=True):
        with torch.no_grad():
            logits = exact(torch.tensor([row]), torch.tensor([[searches.EOS, *prefix]]))[0, -1]
        scores = logits.log_softmax(-1)
        scores[searches.PAD] = -torch.inf
        if len(prefix) < 2:
            scores[searches.EOS] = -torch.inf
        values, tokens = scores.topk(4)
        if dtype is torch.float32:
            wanted = [t for n, t in enumerate(tokens.tolist()) if n == 0 or float(values[n].exp()) >= least]
            assert [int(h.tokens[len(prefix)]) for h in alternatives] == wanted
        for alternative in alternatives:
            begins = [*prefix, int(alternative.tokens[len(prefix)])]
            alone = usual(torch.tensor([row]), prefix=torch.tensor([begins]))[0][0]
            assert alternative.tokens.tolist() == alone.tokens.tolist()
            assert alternative.score == pytest.approx(alone.score, abs=5e-2 if dtype is torch.bfloat16 else 1e-5)


def test_what_may_not_be_said_is_no_alternative():
    model, rows = searches.network(30), searches.sources(3, 30)
    options = {"nbest": 3, "beam": 3, "max_len_b": 9, "return_alternatives": True}

    def firsts(**more):
        found = search_with([model], GenerationOptions(**options, **more))(pad_batch(rows, searches.PAD))
        return [[int(h.tokens[0]) for h in alternatives] for alternatives in found]

    usual = firsts()
    banned = tuple((token,) for token in {tokens[0] for tokens in usual})
    assert not {token for tokens in firsts(banned_phrases=banned) for token in tokens} & {b for (b,) in banned}
    allowed = tuple((tokens[1], 9) for tokens in usual)
    assert all({*mine} == {a for a, _ in allowed} for mine in firsts(allowed_outputs=allowed))
