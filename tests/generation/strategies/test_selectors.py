"""Choosers: samples against the distribution they come from, cut-offs against independent ones, refusals.

Diverse beam search is compared with fairseq's own in ``tests/plugin/test_stock_parity.py``.
"""

import itertools
import math
from collections import Counter

import pytest
import torch
from searching import checked, search_with

from fairbeam.errors import ConfigError
from fairbeam.generation import GenerationOptions
from fairbeam.generation.strategies.selectors import (
    DiverseGroups,
    DiverseSiblings,
    Sampling,
    TopCandidates,
    epsilon,
    min_p,
    top_k,
    top_p,
    typical,
)
from fairbeam.network import EncoderDecoder, EncoderDecoderConfig, StackConfig, pad_batch

PAD, EOS = 1, 2


def sources(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [[*torch.randint(4, 30, (n,), generator=generator).tolist(), EOS] for n in lengths]


@pytest.fixture(scope="module")
def network() -> EncoderDecoder:
    torch.manual_seed(0)
    stack = StackConfig(layers=1, dim=32, heads=4, ffn_dim=64)
    sizes = {"source_vocabulary": 30, "target_vocabulary": 30, "encoder": stack, "decoder": stack}
    return EncoderDecoder(EncoderDecoderConfig(**sizes)).eval()


@pytest.mark.parametrize(
    ("cut", "warper", "value"),
    [
        (top_k, "TopKLogitsWarper", 7),
        (top_p, "TopPLogitsWarper", 0.8),
        (min_p, "MinPLogitsWarper", 0.15),
        (typical, "TypicalLogitsWarper", 0.6),
        (epsilon, "EpsilonLogitsWarper", 0.03),
        (epsilon, "EpsilonLogitsWarper", 0.9),
    ],
)
def test_cut_offs_keep_what_an_independent_implementation_keeps(cut, warper, value):
    processors = pytest.importorskip("transformers").generation.logits_process
    generator = torch.Generator().manual_seed(0)
    scores = (torch.randn(40, 60, generator=generator) * torch.linspace(0.2, 4, 40)[:, None]).log_softmax(-1)
    theirs = getattr(processors, warper)(value)(None, scores.clone()) > float("-inf")
    assert torch.equal(cut(value)(scores[:, None])[:, 0], theirs)


def test_cut_offs_bear_impossible_tokens():
    scores = torch.tensor([0.5, 0.3, 0.2, 0.0]).log()
    for cut in (top_k(2), top_p(0.6), min_p(0.5), typical(0.6), epsilon(0.25)):
        kept = cut(scores)
        assert kept.any()
        assert not kept[3]


@pytest.mark.parametrize("extra", [{}, {"sampling_topk": 5}, {"sampling_topp": 0.7, "temperature": 2.0}])
def test_samples_do_not_depend_on_the_batch(network, extra):
    options = GenerationOptions(sampling=True, beam=3, nbest=3, max_len_b=15, **extra)
    search = search_with([network.for_inference(torch.float32)], options)
    rows = sources(20)
    alone = [search(torch.tensor([row]))[0] for row in rows]
    together = search(pad_batch(rows, PAD))
    for one, other in zip(alone, together, strict=True):
        assert [found.tokens.tolist() for found in one] == [found.tokens.tolist() for found in other]
    texts = {tuple(found.tokens.tolist()) for hypotheses in alone for found in hypotheses}
    assert len(texts) > 40  # 60 draws from a nearly flat distribution
    other_seed = search_with([network], GenerationOptions(sampling=True, beam=3, max_len_b=15, seed=9, **extra))
    assert [h.tokens.tolist() for h in other_seed(torch.tensor([rows[0]]))[0]] != [h.tokens.tolist() for h in alone[0]]


def test_diverse_groups_begin_differently(network):
    options = GenerationOptions(beam=4, nbest=4, diverse_beam_groups=4, diverse_beam_strength=50.0, max_len_b=8)
    for hypotheses in search_with([network], options)(pad_batch(sources(6), PAD)):
        assert len({int(found.tokens[0]) for found in hypotheses}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": True, "diversity_rate": 0.5}, "sampling and diversity_rate exclude each other"),
        ({"beam": 5, "diverse_beam_groups": 2}, "diverse_beam_groups 2: does not divide beam 5"),
        ({"sampling_topk": 5}, "sampling_topk 5: needs sampling"),
        ({"sampling": True, "min_p": 1.5}, "min_p 1.5: must be at least 0 and at most 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ConfigError) as error:
        checked(**options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, TopCandidates),
        ({"sampling": True}, Sampling),
        ({"beam": 4, "diverse_beam_groups": 2}, DiverseGroups),
        ({"diversity_rate": 0.1}, DiverseSiblings),
    ],
)
def test_options_choose_the_chooser(options, kind):
    assert search_with([Table(torch.zeros(4, 4))], GenerationOptions(**options)).selector is kind


class Table:
    """A model whose next token depends on the latest alone, whatever the source."""

    first_token = rounded_head = native_head = None

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def prefill(self, source, beams):
        return self

    def step(self, state, tokens):
        return self.logits[tokens]

    def longest_target(self, source_length):
        return 100

    def reorder(self, parents):
        """It has no state."""

    select = reorder


def softmax_of(scores: dict[int, float], temperature: float = 1.0) -> dict[int, float]:
    heights = {token: math.exp(score / temperature) for token, score in scores.items()}
    return {token: height / sum(heights.values()) for token, height in heights.items()}


def until(tokens: list[int], p: dict[int, float], mass: float) -> set[int]:
    """The first of ``tokens`` that together have ``mass``."""
    return {token for place, token in enumerate(tokens) if sum(p[other] for other in tokens[:place]) < mass}


CUT_OFFS = {
    "sampling_topk": lambda p, count: set(sorted(p, key=p.get)[-count:]),
    "sampling_topp": lambda p, mass: until(sorted(p, key=p.get, reverse=True), p, mass),
    "min_p": lambda p, share: {token for token in p if p[token] >= share * max(p.values())},
    "typical_p": lambda p, mass: until(
        sorted(p, key=lambda token: abs(-math.log(p[token]) - sum(-q * math.log(q) for q in p.values()))), p, mass
    ),
    "epsilon_cutoff": lambda p, least: {token for token in p if p[token] >= least} or {max(p, key=p.get)},
}


def outputs_of(logits: torch.Tensor, options: GenerationOptions) -> dict[tuple[int, ...], float]:
    """All outputs of at most ``max_len_b`` tokens with their probabilities, by the definitions of the options.

    Cut-offs look at what the model says; what filters forbid has lost its share.
    """
    said = {(): 1.0}
    ended: dict[tuple[int, ...], float] = {}
    for step in range(options.max_len_b + 1):
        longer: dict[tuple[int, ...], float] = {}
        for text, probability in said.items():
            row = logits[text[-1] if text else EOS].tolist()
            p = softmax_of({t: row[t] for t in range(len(row)) if row[t] > float("-inf")}, options.temperature)
            p = {t: q for t, q in p.items() if (step >= options.min_len or t != EOS)
                 and (step < options.max_len_b or t == EOS)}  # fmt: skip
            for name, cut in CUT_OFFS.items():
                if (value := getattr(options, name)) > 0:
                    kept = cut(p, value)
                    p = {t: q for t, q in p.items() if t in kept}
            for token, q in p.items():
                place = ended if token == EOS else longer
                place[(*text, token)] = probability * q / sum(p.values())
        said = longer
    assert sum(ended.values()) == pytest.approx(1)
    return ended


def chance(counts: Counter, probabilities: dict, draws: int) -> float:
    """Of counts at least as far from their expectations, by Pearson's chi-squared."""
    expected = {what: draws * probability for what, probability in probabilities.items()}
    assert counts.keys() <= expected.keys()
    assert min(expected.values()) > 5
    distance = sum((counts[what] - wanted) ** 2 / wanted for what, wanted in expected.items())
    return float(torch.special.gammaincc(torch.tensor((len(expected) - 1) / 2), torch.tensor(distance / 2)))


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    """Logits of the next token by the latest; the usable ones are </s> and 3 to 7."""
    logits = torch.randn(8, 8, generator=torch.Generator().manual_seed(4))
    logits[:, :2] = float("-inf")
    return logits


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 1.8}, {"temperature": 0.8}, {"sampling_topk": 3}, {"sampling_topp": 0.75}, {"min_p": 0.3},
     {"typical_p": 0.7}, {"epsilon_cutoff": 0.15}, {"sampling_topk": 4, "sampling_topp": 0.8, "temperature": 1.4}],
    ids=str,
)  # fmt: skip
def test_samples_have_the_distribution_that_is_asked_for(table, options):
    """Of 20,000 outputs of two tokens at most, each is drawn as often as its probability says."""
    options = GenerationOptions(sampling=True, beam=10, nbest=10, max_len_b=2, min_len=0, **options)
    found = search_with([Table(table)], options)(torch.arange(2000).unsqueeze(1) + 9)
    counts = Counter(tuple(hypothesis.tokens.tolist()) for hypotheses in found for hypothesis in hypotheses)
    assert counts.total() == 20_000
    expected = outputs_of(table, options)
    assert len(expected) > 3
    assert chance(counts, expected, 20_000) > 1e-3


def test_a_stochastic_beam_draws_without_replacement(table):
    """Of 6,000 ordered pairs of outputs, each is drawn as often as Plackett and Luce say, and so is each first."""
    logits, draws = table[:5, :5] / 2, 6000
    source = torch.arange(draws).unsqueeze(1) + 4  # which makes the samples independent
    options = GenerationOptions(stochastic_beam=True, beam=2, nbest=2, min_len=1, max_len_b=2)
    found = search_with([Table(logits)], options)(source)
    probability = outputs_of(logits, options)
    assert len(probability) == 6
    pairs = {pair: math.prod(map(probability.get, pair)) / (1 - probability[pair[0]])
             for pair in itertools.permutations(probability, 2)}  # fmt: skip
    drawn = [tuple(tuple(hypothesis.tokens.tolist()) for hypothesis in pair) for pair in found]
    assert chance(Counter(drawn), pairs, draws) > 1e-3
    assert chance(Counter(first for first, _ in drawn), probability, draws) > 1e-3
    assert all(pair[0].score >= pair[1].score for pair in found)
    for hypothesis in found[0]:
        wanted = math.log(probability[tuple(hypothesis.tokens.tolist())])
        assert float(hypothesis.positional_scores.sum()) == pytest.approx(wanted, abs=1e-4)


def test_stochastic_beams_do_not_depend_on_the_batch(network):
    options = GenerationOptions(stochastic_beam=True, beam=4, nbest=4, max_len_b=9)
    search, rows = search_with([network.for_inference(torch.float32)], options), sources(9)
    for row, found in zip(rows, search(pad_batch(rows, PAD)), strict=True):
        alone = [h.tokens.tolist() for h in search(torch.tensor([row]))[0]]
        assert alone == [h.tokens.tolist() for h in found]
        assert len({tuple(text) for text in alone}) == 4
