"""Reranking by a channel model and a language model of other vocabularies, against a plain loop."""

import dataclasses

import pytest
import torch

from fairbeam.cli import translate
from fairbeam.errors import ConfigError, InputError
from fairbeam.formats import bundle
from fairbeam.model import Bundle
from fairbeam.network import (
    DecoderOnly,
    DecoderOnlyConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    PositionConfig,
    StackConfig,
)
from fairbeam.text import Dictionary, Marks, Tokenizer, Whitespace
from fairbeam.translator import Translator, load

SENTENCES = ["w1 w2 w3", "", "w4", "w5 w6 w7 w8 w9 w10", "w2 nowhere w3"]
WEIGHTS = [(1.0, 1.0), (0.0, 3.0), (2.0, 0.0), (-1.5, 0.5)]
START = 2


def side(order: int, marks: Marks = Marks.ENDED) -> Tokenizer:
    """The same words with other numbers."""
    words = [f"w{i}" for i in range(24)]
    dictionary = Dictionary((word, 1) for word in words[::order])
    language = "a" if marks is Marks.ENDED else None
    return Tokenizer(language=language, subwords=Whitespace(), dictionary=dictionary, marks=marks)


def made(seed: int, order: int, longest: int = 20, marks: Marks | None = None) -> Bundle:
    """A model of pairs, or of texts with ``marks``: random weights, sharpened."""
    torch.manual_seed(seed)
    tokenizer = side(order, Marks.ENDED if marks is None else marks)
    stack = StackConfig(layers=2, dim=32, heads=4, ffn_dim=64, positions=PositionConfig(max_positions=longest))
    size = len(tokenizer.dictionary)
    if marks is None:
        network = EncoderDecoder(
            EncoderDecoderConfig(source_vocabulary=size, target_vocabulary=size, encoder=stack, decoder=stack)
        )
    else:
        bos = 0 if marks is Marks.OPENED else START
        network = DecoderOnly(DecoderOnlyConfig(vocabulary=size, decoder=stack, pad=1, bos=bos, eos=2))
    with torch.no_grad():
        network.head.weight *= 4
    return Bundle(network=network.eval(), source=tokenizer, target=tokenizer)


@pytest.fixture(scope="module")
def models():
    return made(0, 1), made(1, -1), made(2, -1, marks=Marks.OPENED)


@torch.no_grad()
def log_probability(logits: torch.Tensor, target: list[int]) -> float:
    return float(logits[0].log_softmax(-1)[range(len(target)), target].sum())


def expected(models, sentence: str, found, channel_weight: float, weight: float) -> list[tuple[float, str]]:
    """One hypothesis at a time."""
    forward, channel, beside = models
    scored = []
    for each in found:
        source = forward.source.encode(sentence)
        ids = forward.target.encode(each.text)
        logits = forward.network(torch.tensor([source]), torch.tensor([[START, *ids[:-1]]]))
        score = log_probability(logits, ids) / len(ids)
        back = channel.target.encode(sentence)
        logits = channel.network(torch.tensor([channel.source.encode(each.text)]), torch.tensor([[START, *back[:-1]]]))
        score += channel_weight * log_probability(logits, back) / len(source)
        text = [*beside.source.encode(each.text), 2]
        score += weight * log_probability(beside.network(torch.tensor([text[:-1]])), text[1:]) / len(source)
        scored.append((score, each.text))
    return sorted(scored, reverse=True)


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_scores_are_those_of_a_plain_loop(models, weights):
    options = {"beam": 5, "nbest": 5, "max_len_b": 8}
    usual = list(Translator(models[:1], precision="float32", workers=1).stream(SENTENCES, **options))
    translator = Translator(models[:1], precision="float32", workers=1, channel_model=models[1], lm_model=models[2])
    found = list(translator.stream(SENTENCES, ch_wt=weights[0], lm_wt=weights[1], **options))
    for sentence, mine, before in zip(SENTENCES, found, usual, strict=True):
        if not sentence:
            assert mine == before
            continue
        wanted = expected(models, sentence, before, *weights)
        assert [each.text for each in mine] == [text for _, text in wanted]
        assert [each.score for each in mine] == pytest.approx([score for score, _ in wanted], abs=1e-4)
        scores = {each.text: each.token_scores for each in before}
        assert all(each.token_scores == scores[each.text] for each in mine)
    assert [mine[0].text for mine in found] != [before[0].text for before in usual]
    best = translator.translate(SENTENCES, ch_wt=weights[0], lm_wt=weights[1], beam=5, max_len_b=8)
    assert best == [mine[0].text for mine in found]
    assert list(translator.stream(SENTENCES, ch_wt=0.0, lm_wt=0.0, **options)) == usual


def test_a_language_model_reads_texts_as_it_was_trained(models):
    """``</s>`` before a text where it was trained on one text behind the other."""
    beside = made(3, 1, marks=Marks.CONTINUED)
    translator = Translator(models[:1], precision="float32", workers=1, lm_model=beside)
    (found,) = translator.stream(["w4 w5"], beam=4, nbest=4, max_len_b=8)  # of weight 1 where nothing is said
    for each in found:
        text = [2, *(beside.target.dictionary.index(word) for word in each.text.split()), 2]
        added = log_probability(beside.network(torch.tensor([text[:-1]])), text[1:]) / 3
        assert each.score == pytest.approx(sum(each.token_scores) / len(each.token_scores) + added, abs=1e-4)


def test_the_command_reranks_and_fuses(models, tmp_path, capsys):
    paths = [bundle.save(tmp_path / name, model) for name, model in zip("abc", models, strict=True)]
    fusion = bundle.save(tmp_path / "d", made(4, 1, marks=Marks.CONTINUED))
    (tmp_path / "in").write_text("".join(f"{sentence}\n" for sentence in SENTENCES))
    here = {"precision": "float32", "workers": 1}

    def call(**options) -> list[str]:
        translate.command([paths[0]], input_file=tmp_path / "in", quiet=True, max_len_b=8, **here, **options)
        return capsys.readouterr().out.split("\n")[:-1]

    translator = load(paths[0], channel_model=paths[1], lm_model=paths[2], **here)
    assert call(channel_model=paths[1], lm_model=paths[2], lm_wt=2.0) == translator.translate(
        SENTENCES, max_len_b=8, lm_wt=2.0
    )
    fused = load(paths[0], lm_path=fusion, **here).translate(SENTENCES, max_len_b=8, lm_weight=0.5)
    assert call(lm_path=fusion, lm_weight=0.5) == fused != call()
    for options, message in (
        ({"lm_path": fusion}, "lm_path .*means nothing without lm_weight"),
        ({"lm_weight": 0.5}, "lm_weight 0.5: there is no language model; lm_path names one"),
        ({"ch_wt": 0.5}, "ch_wt 0.5: there is no model to weigh; channel_model names one"),
        ({"lm_path": paths[2], "lm_weight": 0.5}, "dictionary .*differs"),
        ({"lm_path": paths[1], "lm_weight": 0.5}, "lm_path: the model is no language model"),
        ({"channel_model": paths[2]}, "channel_model: the model is a DecoderOnly; expected an encoder-decoder"),
        ({"lm_model": paths[1]}, "lm_model: the model is a EncoderDecoder; expected a decoder without an encoder"),
        ({"channel_model": paths[1], "beam": 1}, "ch_wt 1.0: needs beam of at least 2, not 1"),
        ({"channel_model": paths[1], "stream": True}, "stream_text and ch_wt exclude each other"),
    ):
        with pytest.raises(ConfigError, match=message):
            call(**options)


def test_models_that_cannot_be_weighed_are_refused(models):
    for model, message in (
        (dataclasses.replace(models[1], source=None, target=None), "channel_model: the model has no tokenizer"),
        (made(5, 1, marks=Marks.OPENED), "channel_model: .* expected an encoder-decoder"),
    ):
        with pytest.raises(ConfigError, match=message):
            Translator(models[:1], precision="float32", workers=1, channel_model=model)
    short = made(6, 1, longest=3)
    translator = Translator(models[:1], precision="float32", workers=1, channel_model=short)
    with pytest.raises(InputError, match=r"channel_model: a text has \d tokens there, but the model reads at most"):
        translator.translate(SENTENCES, max_len_b=8)
