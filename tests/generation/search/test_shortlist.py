"""Search within a shortlist: against the search among all symbols, and against one that forbids the others."""

import dataclasses

import numpy as np
import pytest
import torch
from searching import search_with

from fairbeam.data.lexical_shortlist import Shortlist
from fairbeam.errors import ConfigError
from fairbeam.generation import (
    Batch,
    Constraints,
    DecoderPool,
    GenerationOptions,
    ModelSet,
    SpecialTokenIds,
)
from fairbeam.generation.option_fields import declared_options
from fairbeam.generation.options import LengthNormalization
from fairbeam.generation.search.native_steps import BeamSearchSteps, BestContinuations
from fairbeam.generation.search.shortlist import PHRASES, TOKENS, ShortlistSearch
from fairbeam.network import (
    LSTM,
    DecoderOnly,
    DecoderOnlyConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    LSTMConfig,
    StackConfig,
    pad_batch,
)
from fairbeam.network.inference import native
from fairbeam.network.inference.shortlist_head import ShortlistHead, tail_moments_of
from fairbeam.scoring.minimum_bayes_risk import Utility

PAD, EOS, VOCABULARY = 1, 2, 150
VARIANTS = [
    {},
    {"beam": 3, "nbest": 3, "lenpen": 0.5, "min_len": 4, "unkpen": 1.0},
    {"temperature": 1.6, "no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.4, "banned_phrases": ((7,), (8, 9), (120, 11))},
    {"diverse_beam_groups": 2, "beam": 4},
    {"diversity_rate": 0.5, "beam": 3},
    {"sampling": True, "beam": 3, "sampling_topp": 0.9},
    {"sampling": True, "beam": 2, "temperature": 0.7},
]


def network(*, bias: bool = False, tied: bool = False, seed: int = 0, heads: int = 4) -> EncoderDecoder:
    """Random weights, sharpened so that hypotheses differ clearly."""
    torch.manual_seed(seed)
    stack = StackConfig(layers=2, dim=32, heads=heads, ffn_dim=64)
    made = EncoderDecoder(
        EncoderDecoderConfig(source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY, encoder=stack, decoder=stack,
                      output_bias=bias, tie_output=tied)
    ).eval()  # fmt: skip
    with torch.no_grad():
        made.head.weight *= 4
        if bias:
            made.head.bias.normal_()
    return made


def sources(count: int = 6) -> list[list[int]]:
    random = np.random.default_rng(1)
    return [[*random.integers(4, VOCABULARY, random.integers(1, 9)).tolist(), EOS] for _ in range(count)]


def lists(size: int, seed: int = 2) -> Shortlist:
    """Random lists of one size, and 20 random symbols in all of them."""
    random = np.random.default_rng(seed)
    rows = [np.sort(random.choice(VOCABULARY, size, replace=False)) for _ in range(VOCABULARY)]
    common = np.sort(random.choice(VOCABULARY, 20, replace=False))
    return Shortlist(np.arange(VOCABULARY + 1) * size, np.concatenate(rows), common, VOCABULARY)


class Forbidding:
    """The whole network, told to forbid what is in no sentence's list, and to take the estimate for its probability."""

    rounded_head = native_head = None

    def __init__(
        self, model: EncoderDecoder, shortlist: Shortlist, prefix: torch.Tensor | None, temperature: float
    ) -> None:
        self.model, self.shortlist, self.prefix, self.temperature = model, shortlist, prefix, temperature
        self.longest_target, self.first_token = model.longest_target, model.first_token
        rest = np.union1d(np.setdiff1d(np.arange(VOCABULARY), shortlist.common), [PAD])
        weight = model.head.weight.detach().double().numpy()[rest]
        bias = np.zeros(VOCABULARY) if model.head.bias is None else model.head.bias.detach().double().numpy()
        self.rows = np.concatenate([weight, bias[rest, None]], axis=1)

    def prefill(self, source, beams):
        lists = [{*self.shortlist.common.tolist(), 0, PAD, EOS, 3} for _ in source]
        for mine, row, forced in zip(lists, source.tolist(), self.prefix.tolist(), strict=True):
            mine.update(forced)
            for word in set(row) - {PAD}:
                mine.update(self.shortlist.symbols[slice(*self.shortlist.offsets[word : word + 2])].tolist())
        state = self.model.prefill(source, beams)
        state.others = [[symbol for symbol in range(VOCABULARY) if symbol not in mine - {PAD}] for mine in lists]
        select = state.select

        def selected(sentences):
            state.others = [state.others[i] for i in sentences.tolist()]
            select(sentences)

        state.select = selected
        return state

    def step(self, state, tokens):
        features = {}
        hook = self.model.head.register_forward_hook(lambda module, inputs, output: features.update(x=inputs[0]))
        logits = self.model.step(state, tokens).clone()
        hook.remove()
        x = np.concatenate([features["x"].double().numpy(), np.ones((*features["x"].shape[:2], 1))], axis=2)
        mean, spread = x @ self.rows.mean(0), np.einsum("sbi,ij,sbj->sb", x, np.cov(self.rows.T), x)
        for sentence, others in enumerate(state.others):
            rest = mean[sentence] / self.temperature + spread[sentence] / 2 / self.temperature**2
            rest = torch.tensor(rest + np.log(len(others))).float() * self.temperature
            logits[sentence, :, others] = float("-inf")
            logits[sentence, :, PAD] = rest
        return logits


def prefixes(count: int) -> torch.Tensor:
    """Symbols that are forced, and that most lists don't have, for every third sentence."""
    return torch.tensor([[10 + row, 20 + row] if row % 3 == 0 else [PAD, PAD] for row in range(count)])


def assert_same(found, expected, tolerance: float = 1e-4) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert [h.tokens.tolist() for h in mine] == [h.tokens.tolist() for h in theirs]
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a.positional_scores, b.positional_scores, rtol=tolerance, atol=tolerance)
            assert a.score == pytest.approx(b.score, abs=tolerance)


def narrow(models, options, shortlist, special=None):
    """Make the search within a shortlist."""
    return search_with(models, dataclasses.replace(options, shortlist=True), special, shortlist=shortlist)


@pytest.mark.parametrize(
    ("options", "dtype"),
    # A draw falls on either side of a rounded probability.
    [
        (o, d)
        for d in (torch.float32, torch.bfloat16, torch.int8)
        for o in VARIANTS
        if d == torch.float32 or "sampling" not in o
    ],
)
def test_within_the_whole_vocabulary_it_is_the_search_among_all_symbols(options, dtype):
    model = network(bias=True).for_inference(dtype)
    everything = Shortlist(np.zeros(VOCABULARY + 1, int), np.arange(0), np.arange(VOCABULARY), VOCABULARY)
    options = GenerationOptions(max_len_b=12, **options)
    source, prefix = pad_batch(sources(), PAD), prefixes(6)
    found = narrow([model], options, everything)(source, prefix=prefix)
    # Of tokens that rounding makes alike, other ones are looked at again in another order of the symbols.
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    assert_same(found, search_with([model], options)(source, prefix=prefix), tolerance)


@pytest.mark.parametrize(
    ("shape", "options"), [*(({"bias": True}, options) for options in VARIANTS), ({}, {}), ({"tied": True}, {})]
)
def test_within_random_lists_it_is_the_search_that_forbids_all_else(shape, options):
    model, shortlist = network(**shape), lists(8)
    options = GenerationOptions(max_len_b=12, **options)
    source, prefix = pad_batch(sources(), PAD), prefixes(6)
    found = narrow([model.for_inference(torch.float32)], options, shortlist)(source, prefix=prefix)
    forbidding = Forbidding(model, shortlist, prefix, options.temperature)
    assert_same(found, search_with([forbidding], options)(source, prefix=prefix), 1e-3)
    for row, hypotheses, forced in zip(sources(), found, prefix, strict=True):
        allowed = {EOS, 0, 3, *np.flatnonzero(shortlist.members(np.array([row]))[0]), *forced.tolist()}
        assert all(set(h.tokens.tolist()) <= allowed for h in hypotheses)


@pytest.mark.skipif(not native.multiplies_integers(), reason="this processor does not multiply integers")
@pytest.mark.parametrize("shape", [{"bias": True}, {"tied": True, "heads": 2}, {"bias": True, "heads": 2}])
@pytest.mark.parametrize("options", [{}, {"beam": 1}, {"beam": 3, "nbest": 3, "min_len": 9, "lenpen": 0.5}])
def test_steps_in_one_call_are_the_same(shape, options, monkeypatch):
    """Heads wide enough for the native kernels make several of them at a time."""
    model, shortlist, calls = network(**shape).for_inference(torch.int8), lists(8), []
    options, source = GenerationOptions(max_len_b=12, **options), pad_batch(sources(), PAD)

    def found(forced):
        return narrow([model], options, shortlist)(source, prefix=forced)

    one, several = BestContinuations.call, BeamSearchSteps.call
    monkeypatch.setattr(BestContinuations, "call", lambda call: (one(call), calls.append(1)))
    monkeypatch.setattr(BeamSearchSteps, "call", lambda call: (several(call), calls.append(call.steps_made)))
    together = [found(None), found(prefixes(6))]
    assert (max(calls) > 1) == ("heads" in shape)
    monkeypatch.setattr(ShortlistHead, "fully_native", False)
    calls.clear()
    for mine, theirs in zip(together, [found(None), found(prefixes(6))], strict=True):
        assert_same(mine, theirs)
    assert not calls


@pytest.mark.parametrize("options", [{}, {"sampling": True, "beam": 3}, {"repetition_penalty": 1.3, "lenpen": 0.6}])
def test_text_does_not_depend_on_the_batch(options):
    models = [network().for_inference(torch.float32), network(seed=1).for_inference(torch.float32)]
    search = narrow(models, GenerationOptions(max_len_b=12, **options), lists(8))
    rows = sources(20)
    alone = [search(torch.tensor([row]))[0] for row in rows]
    for size in (6, 20):
        found = [h for start in range(0, 20, size) for h in search(pad_batch(rows[start : start + size], PAD))]
        assert_same(found, alone)


@pytest.mark.parametrize(("kind", "pad"), [("decoder alone", PAD), ("decoder alone", -1), ("recurrent", PAD)])
def test_other_networks_search_within_the_whole_vocabulary_as_ever(kind, pad):
    torch.manual_seed(0)
    if kind == "recurrent":
        config = LSTMConfig(source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY, encoder_embedding=16,
                                 encoder_hidden=16, decoder_embedding=16, decoder_hidden=16, output_dim=16)  # fmt: skip
        model = LSTM(config).eval()
    else:
        stack = StackConfig(layers=1, dim=32, heads=4, ffn_dim=64)
        model = DecoderOnly(DecoderOnlyConfig(vocabulary=VOCABULARY, decoder=stack, pad=pad, separator=EOS)).eval()
    with torch.no_grad():
        model.head.weight *= 4
    model = model.for_inference(torch.float32)
    special, options = SpecialTokenIds(pad=pad), GenerationOptions(max_len_b=12, beam=3, temperature=1.2)
    everything = Shortlist(np.zeros(VOCABULARY + 1, int), np.arange(0), np.arange(VOCABULARY), VOCABULARY)
    source = torch.tensor([[*row[:1], EOS] for row in sources()])
    found = narrow([model], options, everything, special)(source)
    assert_same(found, search_with([model], options, special)(source))


def test_two_equal_models_are_one():
    model, source = network(tied=True).for_inference(torch.float32), pad_batch(sources(), PAD)
    options = GenerationOptions(max_len_b=12)
    one, two = (narrow([model] * count, options, lists(8))(source) for count in (1, 2))
    assert_same(two, one)


def test_the_estimate_is_what_normal_weights_add_up_to():
    """Where the weights of the symbols left out are normal, their part of the softmax is hit to a few per cent."""
    model = network()
    torch.manual_seed(3)
    with torch.no_grad():
        model.head.weight.normal_().mul_(0.2).add_(torch.randn(32) * 0.1)
    rest = torch.arange(40, VOCABULARY)
    features = torch.randn(50, 32)
    for made in (model, model.for_inference(torch.float32)):
        moments = tail_moments_of(made, rest)(features)
        estimate = moments[:, 0] + moments[:, 1:].square().sum(1) / 2 + np.log(len(rest))
        exact = (features @ model.head.weight[rest].T).logsumexp(1)
        assert (estimate - exact).abs().max() < 0.5
        assert (estimate - exact).mean().abs() < 0.05


def test_what_cannot_be_is_refused_at_once():
    model = network()
    options = GenerationOptions(shortlist=True)
    with pytest.raises(ConfigError, match="the model has none; fairbeam shortlist"):
        narrow([model], options, None)
    with pytest.raises(ConfigError, match="of 150 and 151 symbols, but the model has 150 and 150"):
        narrow([model], options, dataclasses.replace(lists(3), target_vocabulary=151))


def test_every_option_that_may_hold_ids_is_known():
    """Whoever adds one must have it rewritten to columns, or leave its feature out of what the search supports."""
    scalar = (bool, int, float, LengthNormalization, Utility | None, Constraints | None)
    holding = {
        name: one
        for name, one in declared_options(GenerationOptions).items()
        if one.type not in scalar or "token" in name or "source" in name
    }
    supported = {name for name, one in holding.items() if one.declared.feature in ShortlistSearch.capabilities.supports}
    assert supported == {*PHRASES, *TOKENS, "ensemble_weights", "match_source_len"}


def test_what_is_required_is_in_the_text_and_in_no_other():
    model, source = network().for_inference(torch.float32), pad_batch(sources(), PAD)
    options = GenerationOptions(max_len_b=14, constraints=Constraints.ORDERED, first_token=77, last_token=88)
    required = [(((30 + n, 31 + n), (60 + n,)), ((40 + n,),)) if n % 2 else () for n in range(6)]
    whole = search_with([model], options)(source, required=required)
    everything = Shortlist(np.zeros(VOCABULARY + 1, int), np.arange(0), np.arange(VOCABULARY), VOCABULARY)
    assert_same(narrow([model], options, everything)(source, required=required), whole)
    found = narrow([model], options, lists(4))(source, required=required)
    alone = narrow([model], options, lists(4))
    for n, [best, *_] in enumerate(found):
        tokens = best.tokens.tolist()
        assert [tokens[0], *tokens[-2:]] == [77, 88, EOS]
        assert not required[n] or 40 + n in tokens
    rows = sources()
    assert_same(found, [alone(torch.tensor([rows[n]]), required=[required[n]])[0] for n in range(6)])


def test_the_decoder_searches_as_the_options_of_a_batch_say():
    model, shortlist = network().for_inference(torch.float32), lists(8)
    decoder = DecoderPool(ModelSet([model], shortlist=shortlist), torch.device("cpu"), workers=1)
    source, options = pad_batch(sources(), PAD), GenerationOptions(max_len_b=12)
    within, whole = narrow([model], options, shortlist), search_with([model], options)
    for use, search in ((True, within), (False, whole)):
        batch = Batch(source.numpy(), dataclasses.replace(options, shortlist=use))
        assert_same(next(iter(decoder.decode([batch]))), search(source))
    assert within(source)[0][0].tokens.tolist() != whole(source)[0][0].tokens.tolist()
