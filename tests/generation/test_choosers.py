"""Choosers: samples against the distribution they come from, cut-offs against independent ones, refusals.

Diverse beam search is compared with fairseq's own in ``tests/plugin/test_stock_parity.py``.
"""

import itertools
import math
from collections import Counter

import pytest
import torch

from fairbeam.errors import ConfigError
from fairbeam.generation import BeamSearch, GenerationOptions
from fairbeam.generation.beam import Beams
from fairbeam.generation.choosers import (
    BestFirst,
    DiverseGroups,
    DiverseSiblings,
    Sampling,
    epsilon,
    min_p,
    top_k,
    top_p,
    typical,
)
from fairbeam.generation.filters import Special
from fairbeam.generation.strategies import build_chooser
from fairbeam.network import Network, NetworkConfig, StackConfig, pad_batch

PAD, EOS = 1, 2


def sources(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 9, (count,), generator=generator).tolist()
    return [[*torch.randint(4, 30, (n,), generator=generator).tolist(), EOS] for n in lengths]


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    stack = StackConfig(layers=1, dim=32, heads=4, ffn_dim=64)
    sizes = {"source_vocabulary": 30, "target_vocabulary": 30, "encoder": stack, "decoder": stack}
    return Network(NetworkConfig(**sizes)).eval()


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


def test_samples_have_the_distribution_that_is_asked_for():
    """Of 20,000 draws the count of each token is within five standard deviations of what is expected."""
    probabilities = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05, 0.0])
    draws = 20_000
    chooser = Sampling([top_p(0.8)], seed=3, source=torch.tensor([[5, EOS]]), pad=PAD)
    beams = Beams.begin(torch.tensor([4]), draws, EOS, None)
    scores = probabilities.log().expand(1, draws, -1)
    found = chooser(scores, beams, lambda parents, tokens: None)
    counts = found.tokens[0].bincount(minlength=6).double()
    expected = torch.tensor([0.4, 0.3, 0.15, 0.0, 0.0, 0.0]).double() / 0.85
    spread = (draws * expected * (1 - expected)).sqrt()
    assert ((counts - draws * expected).abs() <= 5 * spread).all()
    torch.testing.assert_close(found.totals, scores.gather(2, found.tokens[..., None])[..., 0])
    assert found.parents.tolist() == [list(range(draws))]


@pytest.mark.parametrize("extra", [{}, {"sampling_topk": 5}, {"sampling_topp": 0.7, "temperature": 2.0}])
def test_samples_do_not_depend_on_the_batch(network, extra):
    options = GenerationOptions(sampling=True, beam=3, nbest=3, max_len_b=15, **extra)
    search = BeamSearch([network.for_inference(torch.float32)], options)
    rows = sources(20)
    alone = [search(torch.tensor([row]))[0] for row in rows]
    together = search(pad_batch(rows, PAD))
    for one, other in zip(alone, together, strict=True):
        assert [found.tokens.tolist() for found in one] == [found.tokens.tolist() for found in other]
    texts = {tuple(found.tokens.tolist()) for hypotheses in alone for found in hypotheses}
    assert len(texts) > 40  # 60 draws from a nearly flat distribution
    other_seed = BeamSearch([network], GenerationOptions(sampling=True, beam=3, max_len_b=15, seed=9, **extra))
    assert [h.tokens.tolist() for h in other_seed(torch.tensor([rows[0]]))[0]] != [h.tokens.tolist() for h in alone[0]]


def test_a_sample_scores_what_the_model_gives_it(network):
    options = GenerationOptions(sampling=True, sampling_topk=4, beam=2, max_len_b=10)
    row = sources(1)[0]
    for found in BeamSearch([network], options)(torch.tensor([row]))[0]:
        target = found.tokens.tolist()
        logits = network(torch.tensor([row]), torch.tensor([[EOS, *target[:-1]]]))[0]
        each = logits.log_softmax(-1).gather(1, found.tokens[:, None])[:, 0]
        torch.testing.assert_close(found.positional_scores, each, rtol=1e-4, atol=1e-4)


def test_diverse_groups_begin_differently(network):
    options = GenerationOptions(beam=4, nbest=4, diverse_beam_groups=4, diverse_beam_strength=50.0, max_len_b=8)
    for hypotheses in BeamSearch([network], options)(pad_batch(sources(6), PAD)):
        assert len({int(found.tokens[0]) for found in hypotheses}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": True, "diversity_rate": 0.5}, "--sampling and --diversity-rate exclude each other"),
        ({"beam": 5, "diverse_beam_groups": 2}, "--diverse-beam-groups 2: does not divide --beam 5"),
        ({"sampling_topk": 5}, "--sampling-topk 5: needs --sampling"),
        ({"sampling": True, "min_p": 1.5}, "--min-p 1.5: is a probability, at most 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(ConfigError) as error:
        GenerationOptions(**options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, BestFirst),
        ({"sampling": True}, Sampling),
        ({"beam": 4, "diverse_beam_groups": 2}, DiverseGroups),
        ({"diversity_rate": 0.1}, DiverseSiblings),
    ],
)
def test_options_choose_the_chooser(options, kind):
    assert type(build_chooser(GenerationOptions(**options), torch.tensor([[4, EOS]]), Special())) is kind


class Table:
    """A model whose next token depends on the latest alone, whatever the source."""

    first_token = None

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def prefill(self, source, beams):
        return self

    def step(self, state, tokens):
        return self.logits[tokens]

    def rounding(self, state, beams, tokens):
        return None

    def longest_target(self, source_length):
        return 100

    def reorder(self, parents):
        """It has no state."""

    select = reorder


def test_a_stochastic_beam_draws_without_replacement():
    """Of 6,000 pairs from the six possible outputs, each is drawn as often as urns say: chi-squared, 14 degrees."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(5, 5, generator=generator) / 2
    logits[:, :2] = float("-inf")  # the usable tokens are 3, 4 and </s>
    draws = 6000
    source = torch.arange(draws).unsqueeze(1) + 4  # which makes the samples independent
    options = GenerationOptions(stochastic_beam=True, beam=2, nbest=2, min_len=1, max_len_b=2)
    found = BeamSearch([Table(logits)], options)(source)

    def log_probability(text):
        total, latest = 0.0, EOS
        for step, token in enumerate(text):
            allowed = logits[latest].clone()
            if step == 0:
                allowed[EOS] = float("-inf")
            total += 0.0 if step == 2 else float(allowed.log_softmax(0)[token])  # after two tokens all end
            latest = token
        return total

    texts = [[*words, EOS] for n in (1, 2) for words in itertools.product((3, 4), repeat=n)]
    probability = {tuple(text): math.exp(log_probability(text)) for text in texts}
    assert sum(probability.values()) == pytest.approx(1)
    expected = {
        frozenset(pair): draws * math.prod(p) * sum(1 / (1 - first) for first in p)
        for pair in itertools.combinations(probability, 2)
        if (p := [probability[text] for text in pair])
    }
    counts = Counter(frozenset(tuple(h.tokens.tolist()) for h in pair) for pair in found)
    assert counts.keys() <= expected.keys()  # two different outputs, always
    assert min(expected.values()) > 5
    assert sum((counts[pair] - wanted) ** 2 / wanted for pair, wanted in expected.items()) < 36.1  # one in a thousand
    assert all(pair[0].score >= pair[1].score for pair in found)
    for hypothesis in found[0]:
        assert float(hypothesis.positional_scores.sum()) == pytest.approx(
            log_probability(hypothesis.tokens.tolist()), abs=1e-4
        )


def test_stochastic_beams_do_not_depend_on_the_batch(network):
    options = GenerationOptions(stochastic_beam=True, beam=4, nbest=4, max_len_b=9)
    search, rows = BeamSearch([network.for_inference(torch.float32)], options), sources(9)
    for row, found in zip(rows, search(pad_batch(rows, PAD)), strict=True):
        alone = [h.tokens.tolist() for h in search(torch.tensor([row]))[0]]
        assert alone == [h.tokens.tolist() for h in found]
        assert len({tuple(text) for text in alone}) == 4
