"""Rankers against their formulas, patience, lengths by the source, weights, and attention against teacher forcing."""

import math

import pytest
import torch
from searching import search_with

from fairbeam.errors import ConfigError
from fairbeam.generation import GenerationOptions
from fairbeam.generation.alignment import hard_alignment, unknown_replaced
from fairbeam.network import (
    DecoderOnly,
    DecoderOnlyConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    StackConfig,
    pad_batch,
)

PAD, EOS, WORDS = 1, 2, 30
STACK = StackConfig(layers=2, dim=32, heads=4, ffn_dim=64)


def network(seed: int = 0) -> EncoderDecoder:
    torch.manual_seed(seed)
    made = EncoderDecoder(
        EncoderDecoderConfig(source_vocabulary=WORDS, target_vocabulary=WORDS, encoder=STACK, decoder=STACK)
    ).eval()
    with torch.no_grad():
        made.head.weight *= 4
    return made


@pytest.fixture(scope="module")
def rows() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 9, (8,), generator=generator).tolist()
    return [[*torch.randint(4, WORDS, (n,), generator=generator).tolist(), EOS] for n in lengths]


def search(rows: list[list[int]], *networks: EncoderDecoder, **options: object) -> list:
    found = search_with(networks or [network()], GenerationOptions(**{"beam": 4, "max_len_b": 12, **options}))
    return found(pad_batch(rows, PAD))


def texts(found: list) -> list:
    return [[hypothesis.tokens.tolist() for hypothesis in hypotheses] for hypotheses in found]


def test_gnmt_scores_are_equation_14(rows):
    model = network()
    options = {"length_normalization": "gnmt", "lenpen": 0.7, "coverage_penalty": 0.3, "attention": True}
    for row, hypotheses in zip(rows, search(rows, model, **options), strict=True):
        scores = []
        for hypothesis in hypotheses:
            target = hypothesis.tokens.tolist()
            weights = model.alignments(torch.tensor([row]), torch.tensor([[EOS, *target[:-1]]]))[0]
            torch.testing.assert_close(hypothesis.attention[:, : len(row)], weights, rtol=1e-4, atol=1e-5)
            assert not hypothesis.attention[:, len(row) :].any()
            covered = sum(
                math.log(min(sum(float(weights[j, i]) for j in range(len(target))), 1.0)) for i in range(len(row))
            )
            normalised = float(hypothesis.positional_scores.sum()) / ((5 + len(target)) / 6) ** 0.7
            scores.append(normalised + 0.3 * covered)
        assert [hypothesis.score for hypothesis in hypotheses] == pytest.approx(scores, abs=1e-4)
        assert scores == sorted(scores, reverse=True)


def test_the_patient_find_what_the_hasty_find_and_more(rows):
    few_words = {"banned_phrases": tuple((word,) for word in (0, 3, *range(7, WORDS)))}  # so that hypotheses end early
    hasty, usual, patient = (
        search(rows, beam_patience=patience, max_len_b=50, **few_words) for patience in (0.5, 1.0, 2.0)
    )
    assert [len(found) for found in hasty] == [2] * len(rows)
    assert any(len(found) > 4 for found in patient)
    for few, some, many in zip(texts(hasty), texts(usual), texts(patient), strict=True):
        assert len(some) <= 4
        assert len(many) <= 8
        assert all(text in some for text in few)
        assert all(text in many for text in some)


def test_lengths_go_by_the_source(rows):
    for row, found in zip(rows, texts(search(rows, match_source_len=True)), strict=True):
        assert {len(text) - 1 for text in found} == {len(row)}
    for row, found in zip(rows, texts(search(rows, min_len_a=1.0, min_len=1)), strict=True):
        assert all(len(text) - 1 >= min(len(row) + 1, 12) for text in found)


def test_an_ensemble_of_weights_one_and_zero_is_the_first(rows):
    first, second = network(), network(1)
    weighed = search(rows, first, second, ensemble_weights=(3.0, 0.0))
    assert texts(weighed) == texts(search(rows, first)) != texts(search(rows, second))
    even = search(rows, first, second, ensemble_weights=(0.5, 0.5))
    assert texts(even) == texts(search(rows, first, second))


def test_only_allowed_outputs_are_said(rows):
    outputs = ((5, 6), (5,), (9, 8, 7))
    for found in texts(search(rows, allowed_outputs=outputs, beam=3)):
        assert sorted(found) == sorted([*output, EOS] for output in outputs)


def test_first_and_last_tokens_are_forced(rows):
    for found in texts(search(rows, first_token=9, last_token=6)):
        assert found
        assert all(text[0] == 9 and text[-2:] == [6, EOS] for text in found)
    forced = texts(search(rows, first_token=9, last_token=6, max_len_b=2))
    assert forced == [[[9, 6, EOS]]] * len(rows)


def test_a_function_allows_tokens_by_sentence(rows):
    asked = []

    def allowed(number, tokens):
        asked.append((number, tokens.tolist()))
        return [EOS, 10 + number]

    for number, found in enumerate(texts(search(rows, prefix_allowed_tokens_fn=allowed))):
        assert {token for text in found for token in text} <= {EOS, 10 + number}
    assert asked[0] == (0, [EOS])


def test_alignments_and_unknown_words():
    attention = torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1], [0.0, 0.0, 1.0]])
    assert hard_alignment(attention, torch.tensor([7, 8, EOS]), (EOS, PAD)) == [(1, 0), (0, 1)]
    assert hard_alignment(attention, torch.tensor([EOS, PAD, PAD]), (EOS, PAD)) == []
    replaced = unknown_replaced(["<unk>", "<unk>"], [True, True], attention, ["Anna", "sees"], {"sees": "sieht"})
    assert replaced == ["sieht", "Anna"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unnormalized": True, "length_normalization": "gnmt"}, "unnormalized and length_normalization gnmt"),
        ({"length_normalization": "wu"}, "length_normalization wu: expected power or gnmt"),
        ({"beam_patience": 0.5, "nbest": 4}, "nbest 4 is greater than the 2 hypotheses"),
        ({"beam_patience": 2.0, "sampling": True}, "sampling and beam_patience exclude each other"),
        ({"mbr": "chrf", "beam": 1}, "mbr chrf: needs beam of at least 2, not 1"),
        ({"match_source_len": True, "min_len_a": 0.5}, "match_source_len and min_len_a exclude each other"),
        ({"ensemble_weights": (1.0,)}, "ensemble_weights: there are 1 for 2 models"),
    ],
)
def test_options_that_mean_nothing_are_refused(rows, options, message):
    with pytest.raises(ConfigError) as error:
        search(rows, network(), network(1), **options)
    assert str(error.value).startswith(message)


def test_a_model_without_an_encoder_has_no_alignments():
    model = DecoderOnly(DecoderOnlyConfig(vocabulary=WORDS, decoder=STACK)).eval()
    with pytest.raises(ConfigError, match="the model has no encoder"):
        search_with([model], GenerationOptions(coverage_penalty=0.2))
