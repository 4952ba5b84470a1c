"""Beam search and the batch it stands in, ensembles, and options that cannot be."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from searching import checked, search_with

from fairbeam.errors import ConfigError
from fairbeam.generation import GenerationOptions
from fairbeam.generation.search.native_steps import BeamSearchSteps
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
from fairbeam.network.enums import NormPlacement
from fairbeam.network.inference import native

PAD, EOS = 1, 2


def network(vocabulary: int, seed: int = 0, **kind: Any) -> EncoderDecoder:
    """Random weights, sharpened so that hypotheses differ clearly."""
    torch.manual_seed(seed)
    stack = StackConfig(**{"layers": 2, "dim": 32, "heads": 4, "ffn_dim": 64, **kind})
    made = EncoderDecoder(
        EncoderDecoderConfig(source_vocabulary=vocabulary, target_vocabulary=vocabulary, encoder=stack, decoder=stack)
    ).eval()
    with torch.no_grad():
        made.head.weight *= 4
    return made


def sources(count: int, vocabulary: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    return [[*torch.randint(4, vocabulary, (n,), generator=generator).tolist(), EOS] for n in lengths]


@pytest.mark.parametrize(
    "options", [{}, {"lenpen": 0.6, "min_len": 3}, {"no_repeat_ngram_size": 2, "max_len_a": 0.5, "max_len_b": 4}]
)
def test_text_does_not_depend_on_the_batch(options):
    model = network(30)
    options = GenerationOptions(beam=4, **{"max_len_b": 20, **options})
    search = search_with([model.for_inference(torch.float32)], options)
    rows = sources(24, 30)
    alone = [search(torch.tensor([row]))[0] for row in rows]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2)).tolist()
    for size in (7, 24):
        for start in range(0, len(rows), size):
            part = order[start : start + size]
            for row, found in zip(part, search(pad_batch([rows[i] for i in part], PAD)), strict=True):
                assert [h.tokens.tolist() for h in found] == [h.tokens.tolist() for h in alone[row]]
                assert [h.score for h in found] == pytest.approx([h.score for h in alone[row]], abs=1e-5)


@pytest.mark.skipif(not native.multiplies_integers(), reason="this processor does not multiply integers")
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
@pytest.mark.parametrize(
    ("vocabulary", "kind"),
    [
        (5, {"heads": 2}),
        (300, {"heads": 2, "norm_placement": NormPlacement.PRE, "final_norm": True, "scale_embedding": False}),
    ],
)
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("least", [2, 45])
def test_steps_in_one_call_are_the_same(dtype, vocabulary, kind, beam, least, monkeypatch):
    """With steps of either kind in one search: at the limit, below the minimum length and behind prefixes. The longer
    outputs need more room than caches begin with, and heads are wide enough for layers in one call."""
    model, rows = network(vocabulary, **kind).for_inference(dtype), sources(9, vocabulary)
    prefix = pad_batch([[4] * (row % 3) or [PAD] for row in range(9)], PAD)
    options = GenerationOptions(beam=beam, nbest=beam, min_len=least, max_len_a=0.5, max_len_b=least + 2)
    calls, call = [], BeamSearchSteps.call

    def counted(steps):
        call(steps)
        calls.append(steps.steps_made)

    def searched(*, natively):
        search = search_with([model], options)
        assert search.native_steps is not None
        search.native_steps = search.native_steps if natively else None
        found = [search(pad_batch(rows, PAD), prefix=forced) for forced in (None, prefix)]
        return [[[(h.tokens.tolist(), h.score) for h in mine] for mine in batch] for batch in found]

    monkeypatch.setattr(BeamSearchSteps, "call", counted)
    apart = searched(natively=False)
    with monkeypatch.context() as patch:
        patch.setattr(model, "fused_decoder", None)  # steps are made one by one
        assert searched(natively=True) == apart
    assert not calls
    assert searched(natively=True) == apart
    assert max(calls) > 1  # several steps in a call


def language_model(vocabulary: int) -> DecoderOnly:
    torch.manual_seed(7)
    stack = StackConfig(layers=1, dim=16, heads=2, ffn_dim=24)
    made = DecoderOnly(DecoderOnlyConfig(vocabulary=vocabulary, decoder=stack, pad=PAD, bos=EOS, eos=EOS)).eval()
    with torch.no_grad():
        made.head.weight *= 40
    return made


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_shallow_fusion_adds_what_a_language_model_says(temperature):
    """Of the same tokens behind the same start symbol; the temperature is not the language model's."""
    model, beside = network(30), language_model(30)
    options = GenerationOptions(beam=3, max_len_b=15, lm_weight=0.4, temperature=temperature)
    search, rows = search_with([model], options, language_model=beside), sources(6, 30)
    together, alone = search(pad_batch(rows, PAD)), [search(torch.tensor([row]))[0] for row in rows]
    usual = search_with([model], GenerationOptions(beam=3, max_len_b=15, temperature=temperature))(pad_batch(rows, PAD))
    assert sum(a[0].tokens.tolist() != b[0].tokens.tolist() for a, b in zip(together, usual, strict=True)) > 3
    for row, found, same in zip(rows, together, alone, strict=True):
        assert [h.tokens.tolist() for h in found] == [h.tokens.tolist() for h in same]
        for hypothesis in found:
            target = hypothesis.tokens
            previous = torch.cat([torch.tensor([EOS]), target[:-1]])[None]
            with torch.no_grad():
                each = (model(torch.tensor([row]), previous) / temperature).log_softmax(-1)
                each = each + 0.4 * beside(previous).log_softmax(-1)
            expected = each[0].gather(1, target[:, None])[:, 0]
            torch.testing.assert_close(hypothesis.positional_scores, expected, rtol=1e-4, atol=1e-4)


def mixed(model: EncoderDecoder, source: list[int], target: list[int], prefix: list[int], beta: float) -> np.ndarray:
    """Log probability of each token of ``target``, the prefix favoured while the target follows it."""
    with torch.no_grad():
        logits = model(torch.tensor([source]), torch.tensor([[EOS, *target[:-1]]]))[0]
    each = logits.double().softmax(-1).numpy()
    for step, token in enumerate(prefix[: len(target)]):
        if target[:step] != prefix[:step]:
            break
        each[step] *= 1 - beta
        each[step, token] += beta
    return np.log(each[np.arange(len(target)), target])


@pytest.mark.parametrize("beta", [0.05, 0.4])
def test_a_favoured_prefix_is_a_mixture_of_distributions(beta):
    """The best of all outputs, found with prefixes of other lengths beside it."""
    model, longest, prefixes = network(7), 3, [[5, 6], [3], [4, 4, 4], [6, 5]]
    everything = [
        [*words, EOS] for n in range(1, longest + 1) for words in itertools.product([0, 3, 4, 5, 6], repeat=n)
    ]
    search = search_with([model], GenerationOptions(beam=200, max_len_b=longest, prefix_bias_beta=beta))
    rows = sources(4, 7)
    together = search(pad_batch(rows, PAD), prefix=pad_batch(prefixes, PAD))
    for row, prefix, found in zip(rows, prefixes, together, strict=True):
        scored = {tuple(t): mixed(model, row, t, prefix, beta).mean() for t in everything}
        best = max(scored, key=scored.__getitem__)
        assert tuple(found[0].tokens.tolist()) == best
        assert found[0].score == pytest.approx(scored[best], abs=1e-5)


def test_a_prefix_that_is_favoured_above_all_is_forced():
    model, rows = network(30), sources(8, 30)
    prefixes = pad_batch([[4 + n % 20, 9, 5][: 1 + n % 3] for n in range(8)], PAD)
    found = [
        search_with([model], GenerationOptions(beam=4, max_len_b=12, lenpen=0.0, prefix_bias_beta=beta))(
            pad_batch(rows, PAD), prefix=prefixes
        )
        for beta in (0.0, 1 - 1e-12)
    ]
    for forced, favoured in zip(*found, strict=True):
        assert [h.tokens.tolist() for h in favoured] == [h.tokens.tolist() for h in forced]


def test_two_equal_models_are_one():
    model = network(30)
    one = search_with([model], GenerationOptions(max_len_b=15))
    two = search_with([model, model], GenerationOptions(max_len_b=15))
    source = pad_batch(sources(5, 30), PAD)
    for a, b in zip(one(source), two(source), strict=True):
        assert [h.tokens.tolist() for h in a] == [h.tokens.tolist() for h in b]
        assert [h.score for h in a] == pytest.approx([h.score for h in b], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"beam": 0}, "beam 0: must be at least 1"), ({"nbest": 6}, "nbest 6 is greater than beam 5"),
     ({"prefix_bias_beta": 1.0}, "prefix_bias_beta 1.0: must be at least 0 and below 1"),
     ({"prefix_bias_beta": 0.5, "penalty_alpha": 0.6}, "penalty_alpha and prefix_bias_beta exclude each other"),
     ({"lm_weight": 0.5, "stochastic_beam": True}, "lm_weight and stochastic_beam exclude each other"),
     ({"ch_wt": 1.0, "mbr": "chrf"}, "mbr and ch_wt exclude each other"),
     ({"lm_wt": 1.0, "beam": 1}, "lm_wt 1.0: needs beam of at least 2, not 1"),
     ({"return_alternatives": True, "mbr": "chrf"}, "return_alternatives and mbr exclude each other"),
     ({"min_alternative_expansion_prob": 0.1}, "0.1: needs return_alternatives"),
     ({"return_alternatives": True, "min_alternative_expansion_prob": 2.0}, "2.0: must be at least 0 and at most 1"),
     ({"temperature": 0.0}, "temperature 0.0: must be greater than 0"),
     ({"min_len": 300}, "min_len 300 is greater than max_len_b 200")],
)  # fmt: skip
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        checked(**options)


def test_a_recurrent_network_decodes_in_integers():
    """Its output projection is native like a Transformer's."""
    torch.manual_seed(0)
    made = LSTM(LSTMConfig(source_vocabulary=30, target_vocabulary=30, output_dim=32)).eval()
    source, options = pad_batch(sources(5, 30), PAD), GenerationOptions(max_len_b=8, beam=3)
    exact, rounded = (
        search_with([made.for_inference(dtype)], options)(source) for dtype in (torch.float32, torch.int8)
    )
    for mine, theirs in zip(rounded, exact, strict=True):
        assert mine[0].score == pytest.approx(theirs[0].score, abs=2e-2)
