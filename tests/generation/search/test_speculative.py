"""Speculative decoding against beam 1 without it: the same tokens and scores, whatever is drafted."""

import dataclasses
import random
from itertools import chain

import pytest
import torch
from searching import checked, search_with

from fairbeam.errors import ConfigError
from fairbeam.generation import GenerationOptions
from fairbeam.generation.search import speculative
from fairbeam.generation.search.drafters import Drafts, PromptLookup
from fairbeam.network import (
    LSTM,
    Activation,
    DecoderOnly,
    DecoderOnlyConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    LSTMConfig,
    NormKind,
    NormPlacement,
    PositionConfig,
    PositionKind,
    StackConfig,
    pad_batch,
)
from fairbeam.network.inference import native

PAD, EOS, WORDS, LIMIT = 1, 2, 20, 14
BLOCK = {"layers": 2, "dim": 32, "heads": 4, "ffn_dim": 64}
PRE = {"norm_placement": NormPlacement.PRE, "final_norm": True}
RMS = {**PRE, "norm": NormKind.RMS, "gated": True, "activation": Activation.SILU, "bias": False}
STACKS = {
    "bart": (True, PositionKind.LEARNED, {"embedding_norm": True}),
    "marian": (True, PositionKind.SINUSOIDAL_OPEN, {}),
    "t5": (True, PositionKind.RELATIVE_BUCKETS, RMS),
    "gpt2": (False, PositionKind.LEARNED, PRE),
    "llama": (False, PositionKind.ROTARY, {**RMS, "key_value_heads": 2}),
    "relative keys": (False, PositionKind.RELATIVE_KEY_QUERY, {}),
}


def network(name: str, seed: int = 3, words: int = WORDS, dtype: torch.dtype = torch.float32, heads: int = 4, **config):
    """Random weights, sharpened so that the best token is clear."""
    both, kind, values = STACKS[name]
    torch.manual_seed(seed)
    block = BLOCK | {"heads": heads}
    stack = StackConfig(**block, **values, positions=PositionConfig(kind=kind, max_positions=40))
    if both:
        encoder = StackConfig(**block)
        made = EncoderDecoder(
            EncoderDecoderConfig(source_vocabulary=WORDS, target_vocabulary=words, encoder=encoder, decoder=stack)
        )
    else:
        made = DecoderOnly(DecoderOnlyConfig(vocabulary=words, decoder=stack, pad=PAD, **config))
    with torch.no_grad():
        made.head.weight *= 3
    return made.eval().for_inference(dtype)


def sources(count: int, seed: int = 5) -> torch.Tensor:
    chance = random.Random(seed)
    return pad_batch([[*chance.choices(range(4, WORDS), k=chance.randint(1, 9)), EOS] for _ in range(count)], PAD)


def options(**given) -> GenerationOptions:
    return GenerationOptions(**{"beam": 1, "max_len_b": LIMIT, **given})


class Scripted:
    """Drafts a known text, each token right by some chance."""

    def __init__(self, texts: list[list[int]], right: float, seed: int = 1) -> None:
        self.texts, self.right, self.chance = texts, right, random.Random(seed)

    def __call__(self, outputs):
        drafts = torch.zeros(len(outputs), 5, dtype=torch.long)
        for row, (output, text) in enumerate(zip(outputs, self.texts, strict=True)):
            for column, token in enumerate([*text[len(output) - 1 :], *range(4, 9)][:5]):
                wrong = 4 + (token + 1) % (WORDS - 4)
                drafts[row, column] = token if self.chance.random() < self.right else wrong
        return Drafts(drafts, torch.tensor([self.chance.choice((0, 2, 5, 5)) for _ in outputs]))

    def select(self, sentences):
        self.texts = [self.texts[sentence] for sentence in sentences.tolist()]


@pytest.fixture(autouse=True)
def every_draft_is_read(monkeypatch):
    """As if a step cost the same whatever is read."""
    monkeypatch.setattr(speculative, "_STEP_COST", 1e9)
    monkeypatch.setattr(speculative, "_WORTH_DRAFTING", 0)


def same(found, expected):
    assert list(map(len, found)) == list(map(len, expected))  # none where every token is forbidden
    for mine, theirs in zip(chain(*found), chain(*expected), strict=True):
        assert mine.tokens.tolist() == theirs.tokens.tolist()
        assert mine.score == pytest.approx(theirs.score, abs=1e-5)
        torch.testing.assert_close(mine.positional_scores, theirs.positional_scores, atol=1e-5, rtol=0)


def scripted_search(model, chosen: GenerationOptions, expected, right: float, **given):
    """A search whose drafts are right by some chance."""
    search = search_with([model], dataclasses.replace(chosen, prompt_lookup_num_tokens=5))
    texts = [hypotheses[0].tokens.tolist() if hypotheses else [] for hypotheses in expected]
    search._speculation.drafter = lambda source, start: Scripted(texts, right)
    return search(**given)


@pytest.mark.parametrize("right", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("name", STACKS)
def test_the_output_is_that_of_beam_1(name, right):
    model = network(name)
    for size in (1, 9):
        source = sources(size, seed=size)
        expected = search_with([model], options())(source)
        same(scripted_search(model, options(), expected, right, source=source), expected)


@pytest.mark.skipif(not native.multiplies_integers(), reason="this processor does not multiply integers")
@pytest.mark.parametrize("right", [1.0, 0.6, 0.0])
def test_several_tokens_in_one_call_of_the_layers(right):
    """Heads are wide enough for the compiled loops."""
    model = network("marian", dtype=torch.int8, heads=2)
    assert model.decoder.fused
    for size in (1, 9):
        source = sources(size, seed=size)
        expected = search_with([model], options())(source)
        same(scripted_search(model, options(), expected, right, source=source), expected)


@pytest.mark.skipif(not native.multiplies_integers(), reason="this processor does not multiply integers")
def test_small_models_write_sooner_than_drafts_are_read(monkeypatch):
    monkeypatch.setattr(speculative, "_WORTH_DRAFTING", 16 << 20)
    source = sources(9)
    for dtype, drafts in ((torch.int8, False), (torch.float32, True)):
        model = network("marian", dtype=dtype, heads=2)
        expected = search_with([model], options())(source)
        search = search_with([model], options(prompt_lookup_num_tokens=3))
        asked = []
        drafter = search._speculation.drafter
        search._speculation.drafter = lambda *given, made=drafter, asked=asked: (asked.append(1), made(*given))[1]
        same(search(source), expected)
        assert bool(asked) == drafts
    # two layers of two attentions, of which keys and values of the source are met once, and two products of 32 by 64
    assert model.weights_of_step == 2 * (6 * 32 * 32 + 2 * 32 * 64) + 32 * WORDS


def tables(number, tokens):
    """Knows the hypotheses that it has allowed, and no others."""
    tokens = tokens.tolist()
    if any(token % 3 == number % 3 for token in tokens[1:]):
        raise AssertionError(f"{tokens} is no hypothesis of sentence {number}")
    return [EOS, *(token for token in range(4, WORDS) if token % 3 != number % 3)]


FILTERS = [
    {"min_len": 6, "unkpen": 2.0, "temperature": 1.7},
    {"max_len_a": 0.5, "max_len_b": 2, "lenpen": 0.4},
    {"min_len_a": 0.8},
    {"match_source_len": True},
    {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
    {"banned_phrases": ((7,), (8, 9), (5, 6)), "first_token": 11, "last_token": 12},
    {"encoder_repetition_penalty": 1.5, "encoder_no_repeat_ngram_size": 2},
    {"prefix_allowed_tokens_fn": tables},
    {"allowed_outputs": ((4, 5, 6), (4, 5, 7, 8, 9), (10, 4), (11, 12, 13, 14, 15, 16))},
]


@pytest.mark.parametrize("given", FILTERS, ids="+".join)
@pytest.mark.parametrize("name", ["bart", "llama"])
def test_filters_act_at_each_position(name, given):
    model, source = network(name), sources(7)
    prefix = None if "prefix_allowed_tokens_fn" in given or "allowed_outputs" in given else torch.tensor(
        [[4, 5, 6], [7, PAD, PAD], [8, 9, PAD], [10, 11, EOS], [PAD] * 3, [12, PAD, PAD], [13, 14, 15]]
    )  # fmt: skip
    for forced in (None, prefix):
        expected = search_with([model], options(**given))(source, prefix=forced)
        for right in (1.0, 0.7):
            same(scripted_search(model, options(**given), expected, right, source=source, prefix=forced), expected)


@pytest.mark.parametrize("name", ["bart", "llama", "relative keys"])
def test_both_drafters_change_nothing(name):
    model, other, source = network(name), network(name, seed=4), sources(9)
    expected = search_with([model], options())(source)
    for given, draft in (
        ({"prompt_lookup_num_tokens": 3, "prompt_lookup_max_ngram": 2}, None),
        ({"draft_tokens": 1}, other),
        ({"draft_tokens": 4}, other),
        ({"draft_tokens": 4}, model),
    ):
        same(search_with([model], options(**given), draft=draft)(source), expected)


@pytest.mark.parametrize("name", ["bart", "gpt2"])
def test_a_draft_model_that_is_the_model_is_always_right(name, monkeypatch):
    """So its cache goes back to the right place: a step for each four tokens and the one behind them."""
    model, draft, source = network(name), network(name), sources(5)
    expected = search_with([model], options(min_len=0))(source)
    blocks, run = [], type(model).forward_block
    monkeypatch.setattr(
        type(model), "forward_block", lambda self, *given: (blocks.append(self is model), run(self, *given))[1]
    )
    same(search_with([model], options(min_len=0, draft_tokens=4), draft=draft)(source), expected)
    longest = max(len(hypotheses[0].tokens) for hypotheses in expected)
    assert sum(blocks) == -(-longest // 5)


def test_what_is_made_of_outputs_stays():
    """Ensembles, attention and coverage."""
    models, source = [network("bart"), network("bart", seed=4)], sources(5)
    given = {"coverage_penalty": 0.3, "attention": True, "ensemble_weights": (0.7, 0.3)}
    expected = search_with(models, options(**given))(source)
    found = search_with(models, options(**given, prompt_lookup_num_tokens=4))(source)
    same(found, expected)
    for [mine], [theirs] in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.attention, theirs.attention)


def plain_lookup(source: list[int], output: list[int], count: int, longest: int) -> list[int]:
    for size in range(min(longest, len(output)), 0, -1):
        for text in (source, output):
            for start in range(len(text) - size - 1, -1, -1):
                if text[start : start + size] == output[-size:]:
                    return text[start + size : start + size + count]
    return []


@pytest.mark.parametrize("joined", [False, True])
def test_prompt_lookup_is_a_plain_loop(joined):
    chance = random.Random(2)
    for _ in range(150):
        source, output = (chance.choices(range(60_000, 60_004), k=chance.randint(1, 9)) for _ in range(2))
        count, longest = chance.randint(1, 4), chance.randint(1, 3)
        drafts = PromptLookup([source], count, longest, joined=joined)([output])
        both = [*source, *output[1:]]
        expected = plain_lookup(both, both, count, longest) if joined else plain_lookup(source, output, count, longest)
        assert drafts.tokens[0, : drafts.counts[0]].tolist() == expected


def test_drafts_are_read_where_they_pay():
    right, wrong = speculative.DraftWidth(), speculative.DraftWidth()
    for _ in range(20):
        right.learn(4, 4)
        wrong.learn(0, 4)
        widths = right.choose([4], 1, 16.0), wrong.choose([4], 1, 16.0), wrong.choose([4, 0, 0, 0] * 4, 16, 16.0)
    assert widths == (4, 0, 0)
    assert max(wrong.choose([4], 1, 16.0) for _ in range(300)) > 0  # it tries again


def test_what_cannot_be_is_refused_at_once():
    model = network("bart")
    lookup = options(prompt_lookup_num_tokens=3)
    for given in ({"beam": 5}, {"sampling": True}, {"beam_patience": 2.0}, {"constraints": "ordered"}):
        with pytest.raises(
            ConfigError, match=r"draft_tokens 2: needs beam of at most 1, not 5|draft_tokens .*exclude each other"
        ):
            checked(**{"beam": 1, "draft_tokens": 2, **given})
    with pytest.raises(ConfigError, match="prompt_lookup_num_tokens and draft_tokens exclude each other"):
        checked(beam=1, draft_tokens=2, prompt_lookup_num_tokens=2)
    with pytest.raises(ConfigError, match="one vocabulary for both sides; the model's have 20 and 21"):
        search_with([network("bart", words=21)], lookup)
    with pytest.raises(ConfigError, match="draft_tokens 2: there is no model to draft"):
        search_with([model], options(draft_tokens=2))
    for draft, message in ((network("gpt2"), "is a DecoderOnly; expected a EncoderDecoder"),
                           (network("bart", words=21), "has 21 target symbols; expected the model's 20")):  # fmt: skip
        with pytest.raises(ConfigError, match=f"draft: {message}"):
            search_with([model], options(draft_tokens=2), draft=draft)
    recurrent = LSTM(LSTMConfig(source_vocabulary=WORDS, target_vocabulary=WORDS))
    positions = PositionConfig(kind=PositionKind.RELATIVE_SINUSOIDAL, memory_length=4)
    segments = DecoderOnly(DecoderOnlyConfig(vocabulary=WORDS, decoder=StackConfig(**BLOCK, positions=positions)))
    for refused in (recurrent, segments):
        with pytest.raises(ConfigError, match="prompt_lookup_num_tokens: needs networks that go back"):
            search_with([refused], lookup)
