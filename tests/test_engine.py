"""The engine: requests of ids in, hypotheses out, whatever the batches and the way they are decoded."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairbeam.data.batching import BatchLimits
from fairbeam.engine import Engine, _batches, _shares, complete_options
from fairbeam.engine_model import EngineModel
from fairbeam.errors import CheckpointError, ConfigError, InputError
from fairbeam.generation import Constraints, GenerationOptions, ModelSet, SpecialTokenIds
from fairbeam.model import DecoderPrefix
from fairbeam.network import (
    EncoderDecoder,
    EncoderDecoderConfig,
    PositionConfig,
    Precision,
    StackConfig,
)
from fairbeam.requests import CandidateTexts, DecodingLimits, Requests, TooLong
from fairbeam.reranking import Reranker
from fairbeam.scoring.minimum_bayes_risk import Utility, expected_utilities

WORDS, LONGEST, EOS = 24, 12, 2
OPTIONS = GenerationOptions(beam=3, nbest=2, max_len_b=8)


def sources(count: int, seed: int = 0) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [
        [*generator.integers(4, WORDS, size=generator.integers(1, LONGEST - 1)).tolist(), EOS] for _ in range(count)
    ]


def made(seed: int = 0) -> EncoderDecoder:
    """Random weights, sharpened so that hypotheses differ clearly."""
    torch.manual_seed(seed)
    stack = StackConfig(layers=2, dim=32, heads=4, ffn_dim=64, positions=PositionConfig(max_positions=LONGEST))
    network = EncoderDecoder(
        EncoderDecoderConfig(source_vocabulary=WORDS, target_vocabulary=WORDS, encoder=stack, decoder=stack)
    )
    with torch.no_grad():
        network.head.weight *= 4
    return network.eval()


def engine(workers: int = 1, network: EncoderDecoder | None = None, **facts) -> Engine:
    model = EngineModel(
        networks=ModelSet([network or made()], SpecialTokenIds()), source_marks=frozenset({EOS}), **facts
    )
    return Engine(model, precision=Precision.FLOAT32, workers=workers)


@pytest.fixture(scope="module")
def alone() -> Engine:
    return engine()


@pytest.fixture(scope="module")
def two() -> Engine:
    return engine(workers=2)


def assert_same(found, expected) -> None:
    assert [[one.tokens.tolist() for one in mine] for mine in found] == [
        [one.tokens.tolist() for one in mine] for mine in expected
    ]
    scores = [[one.score for mine in each for one in mine] for each in (found, expected)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize(
    ("change", "prefixed"), [({}, False), ({"sampling": True}, False), ({}, True), ({"prefix_bias_beta": 0.5}, True)]
)
def test_hypotheses_are_the_same_by_every_way(alone, two, change, prefixed):
    """One by one, as one batch, in sorted batches, continuously, begun by workers."""
    rows, options = sources(9), dataclasses.replace(OPTIONS, **change)
    prefixes = [[4 + row, 5][: row % 3] for row in range(len(rows))] if prefixed else None
    requests = Requests(sources=rows, prefixes=prefixes)
    expected = [
        alone.generate(Requests(sources=[row], prefixes=prefixes and [prefixes[place]]), options)[0]
        for place, row in enumerate(rows)
    ]
    assert {len(mine) for mine in expected} == {2}
    limits = DecodingLimits(batch_size=2)
    for chosen in alone, two:
        assert_same(chosen.generate(requests, options), expected)
        assert_same(chosen.generate(requests, options, limits), expected)
        for shared in False, True:
            begun = chosen.begin(requests, options, shared=shared)
            assert_same([mine[:2] for mine in begun()], expected)
        if "prefix_bias_beta" not in change:
            assert_same(chosen.generate(requests, options, dataclasses.replace(limits, continuous=True)), expected)
    assert_same(
        alone.generate(requests, options), [mine[:2] for mine in alone.generate(requests, options, all_finished=True)]
    )
    watched = alone.watch(dataclasses.replace(requests, sources=rows[:1], prefixes=prefixes and prefixes[:1]), options,
                          lambda *_: None)  # fmt: skip
    assert_same(watched, expected[:1])


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40), workers=st.integers(1, 5), size=st.integers(1, 8))
def test_every_request_is_in_one_batch(lengths, workers, size):
    for batches in (
        _shares(len(lengths), workers),
        _batches(lengths, BatchLimits(max_tokens=60, max_sentences=size), workers),
    ):
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        assert all(len(batch) for batch in batches)
    assert all(len(share) > 1 for share in _shares(len(lengths), workers)) or len(lengths) == 1


def test_a_forced_first_token_stands_before_everything():
    forced = engine(prefix=DecoderPrefix(None, 9))
    rows = sources(5)
    cases = [
        (Requests(sources=rows), {}, lambda row: [9]),
        (Requests(sources=rows, prefixes=[[4 + n] for n in range(5)]), {}, lambda row: [9, 4 + row]),
        (Requests(sources=rows, prefixes=[[4]] * 5), {"prefix_bias_beta": 0.3}, lambda row: [9]),
    ]
    for requests, change, begins in cases:
        found = forced.generate(requests, dataclasses.replace(OPTIONS, **change))
        for row, mine in enumerate(found):
            assert all(one.tokens[: len(begins(row))].tolist() == begins(row) for one in mine)
    allowed = dataclasses.replace(OPTIONS, allowed_outputs=((5, 6), (7,), (9, 8)))
    said = {tuple(one.tokens.tolist()) for mine in forced.generate(Requests(sources=rows), allowed) for one in mine}
    assert said <= {(9, 5, 6, EOS), (9, 7, EOS), (9, 8, EOS)}
    with pytest.raises(ConfigError, match="first_token and prefix_bias_beta exclude each other"):
        forced.check(dataclasses.replace(OPTIONS, first_token=8, prefix_bias_beta=0.3), has_prefix=True)


def test_another_start_token_changes_the_output(alone):
    rows = sources(4)
    usual = alone.generate(Requests(sources=rows), OPTIONS)
    other = alone.generate(Requests(sources=rows, start=7), OPTIONS)
    started = engine(prefix=DecoderPrefix(7, None)).generate(Requests(sources=rows), OPTIONS)
    assert_same(other, started)
    assert [one.score for mine in other for one in mine] != [one.score for mine in usual for one in mine]


def test_texts_rank_where_options_ask_for_it(alone):
    rows, options = sources(4), dataclasses.replace(OPTIONS, beam=5, nbest=1)
    text = " ".join
    texts = CandidateTexts(source=str, target=lambda row, one: text(map(str, one.tokens.tolist())))
    requests = Requests(sources=rows, texts=texts)
    every = alone.generate(requests, options, all_finished=True)
    ranked = alone.generate(requests, dataclasses.replace(options, mbr=Utility.CHRF))
    for mine, best in zip(every, ranked, strict=True):
        utilities = expected_utilities([texts.target(0, one) for one in mine], Utility.CHRF)
        assert [one.tokens.tolist() for one in best] == [mine[int(utilities.argmax())].tokens.tolist()]
    with pytest.raises(ConfigError, match="rank texts, and the engine was given ids alone"):
        alone.generate(Requests(sources=rows), dataclasses.replace(options, mbr=Utility.CHRF))


def test_sentences_are_named_by_their_index(alone):
    rows = sources(3)
    told = []

    def allowed(index, tokens):
        told.append(index)
        return range(2, WORDS)

    indexed = Requests(sources=rows, indices=[7, 3, 5])
    alone.generate(indexed, dataclasses.replace(OPTIONS, prefix_allowed_tokens_fn=allowed))
    assert {*told} == {3, 5, 7}
    broken = made()
    with torch.no_grad():
        broken.head.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="sentence 8 has no translation"):
        engine(network=broken).generate(indexed, OPTIONS)
    with pytest.raises(InputError, match=f"sentence 4 has 13 tokens, but the model reads at most {LONGEST}"):
        alone.generate(Requests(sources=[rows[0], [4] * 12 + [EOS]], indices=[7, 3]), OPTIONS)


def test_long_sources_are_truncated_or_skipped(alone):
    long = [*range(4, 20), EOS]
    assert alone.fit(long, 0, TooLong.TRUNCATE) == [*range(4, 15), EOS]
    assert alone.fit(long, 0, TooLong.SKIP) is None
    assert alone.fit(long[:3], 0, TooLong.ERROR) == long[:3]
    two_behind = engine(source_suffix=2)
    assert two_behind.fit(long, 0, TooLong.TRUNCATE) == [*range(4, 14), 19, EOS]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lm_weight": 0.5}, "lm_weight 0.5: there is no language model; lm_path names one"),
        ({"prefix_bias_beta": 0.5}, "prefix_bias_beta 0.5: needs a prefix"),
        ({"constraints": Constraints.ORDERED}, "constraints ordered: there are no phrases"),
        ({"shortlist": True}, "shortlist: the model has none"),
        ({"draft_tokens": 3, "beam": 1, "nbest": 1}, "draft_tokens 3: there is no model to draft"),
        ({"prompt_lookup_num_tokens": 3, "beam": 1, "nbest": 1}, "needs one vocabulary for both sides"),
    ],
    ids=str,
)
def test_options_that_need_what_is_not_there_are_refused(alone, change, message):
    options = dataclasses.replace(OPTIONS, **change)
    for ask in (
        lambda: alone.check(options),
        lambda: alone.generate(Requests(sources=sources(2)), options),
        lambda: alone.begin(Requests(sources=sources(2)), options, shared=True),
    ):
        with pytest.raises(ConfigError, match=message):
            ask()


def test_options_are_completed_by_what_is_there():
    none, channel = Reranker(), Reranker(channel=object())
    assert complete_options({"beam": 3}, reranker=none) == {"beam": 3}
    assert complete_options({}, reranker=channel, drafts=True, has_phrases=True) == {
        "ch_wt": 1.0, "draft_tokens": 4, "constraints": Constraints.UNORDERED,
    }  # fmt: skip
    given = {"ch_wt": 0.5, "draft_tokens": 0, "constraints": Constraints.ORDERED}
    assert complete_options(given, reranker=channel, drafts=True, has_phrases=True) == given
    with pytest.raises(ConfigError, match=r"lm_wt 0\.5: there is no model to weigh; lm_model names one"):
        complete_options({"lm_wt": 0.5}, reranker=channel)


def test_alignments_leave_marks_out(alone):
    rows = [[4, 5, 6, EOS]]
    (found,) = alone.generate(Requests(sources=rows), dataclasses.replace(OPTIONS, attention=True))
    for one in found:
        pairs = alone.align(one, rows[0])
        assert [target for _, target in pairs] == list(range(len(one.tokens) - 1))
        assert [source for source, _ in pairs] == one.attention[:-1, :3].argmax(1).tolist()
    weights = alone.attention(rows[0], [5, 6, EOS])
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
