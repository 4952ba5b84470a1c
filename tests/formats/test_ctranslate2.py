"""CTranslate2's folders: the library computes and writes what the model does that they were made of."""

import dataclasses
import sys
from pathlib import Path

import hub_folders
import pytest
import torch
from searching import search_with

from fairbeam.errors import ConfigError
from fairbeam.formats import ctranslate2 as ctranslate
from fairbeam.formats.convert import compare_decoded, convert
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.formats.registry import Format, Location, locate, read_model
from fairbeam.generation import GenerationOptions
from fairbeam.model import Bundle, special_ids
from fairbeam.network import (
    Activation,
    EncoderDecoder,
    EncoderDecoderConfig,
    NormPlacement,
    PositionConfig,
    PositionKind,
    StackConfig,
    pad_batch,
)
from fairbeam.text import Dictionary, Tokenizer
from fairbeam.text.subwords import Whitespace
from fairbeam.translator import Translator

HERE = Location(Format.BUNDLE, Path("here"))


@pytest.fixture(autouse=True)
def library():
    pytest.importorskip("ctranslate2", reason="ctranslate2 is not installed: pip install 'fairbeam[ct2]'")


def small(encoder: dict | None = None, decoder: dict | None = None, symbols: int = 20) -> Bundle:
    """A model with a dictionary of its own for each side, and random numbers in every weight."""
    torch.manual_seed(0)
    sizes = {"layers": 2, "dim": 24, "heads": 3, "ffn_dim": 40, "positions": PositionConfig(max_positions=40)}
    stacks = [StackConfig(**{**sizes, **(options or {})}) for options in (encoder, decoder)]
    sides = [
        Tokenizer(language=name, subwords=Whitespace(), dictionary=Dictionary((f"{name}{i}", 1) for i in range(count)))
        for name, count in (("a", symbols), ("b", symbols + 3))
    ]
    config = EncoderDecoderConfig(
        source_vocabulary=len(sides[0]), target_vocabulary=len(sides[1]), encoder=stacks[0], decoder=stacks[1]
    )
    network = EncoderDecoder(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return Bundle(network=network, source=sides[0], target=sides[1])


@pytest.mark.parametrize("name", [name for name in hub_folders.MODELS if name != "encoder-decoder"])  # types of tokens
def test_families(name, tmp_path):
    pytest.importorskip("transformers")
    hub_folders.make(name, tmp_path / name)
    language = {"mbart": "de_DE", "m2m_100": "deu_Latn"}.get(name)
    result = Location(Format.CTRANSLATE2, tmp_path / "out")
    parity = convert(Location(Format.HUGGING_FACE, tmp_path / name), result, files=ModelFiles(target_lang=language))
    assert parity.passed
    assert parity.random_difference < 1e-4
    assert parity.text_difference < 1e-4
    assert parity.beam_equal > 0.3  # of random weights, whose hypotheses do not end
    assert {"model.bin", "config.json", "shared_vocabulary.json", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


PRE_NORM = {"norm_placement": NormPlacement.PRE, "final_norm": True, "activation": Activation.SILU}
NO_POSITIONS = {"positions": PositionConfig(kind=PositionKind.NONE, max_positions=40), "embedding_norm": True}


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [({}, {}), (PRE_NORM, NO_POSITIONS), ({"heads": 2, "scale_embedding": False}, {**PRE_NORM, "norm_bias": False})],
)
def test_stacks_of_many_kinds(encoder, decoder, tmp_path):
    model = small(encoder, decoder)
    ctranslate.write(tmp_path / "out", model)
    parity = compare_decoded(HERE, model, Location(Format.CTRANSLATE2, tmp_path / "out"))
    assert parity.passed
    assert parity.random_difference < 1e-4


def test_a_model_that_changed_on_the_way_is_seen(tmp_path):
    model = small()
    ctranslate.write(tmp_path / "out", model)
    with torch.no_grad():
        model.network.encoder.layers[0].inner.bias += 0.5
    parity = compare_decoded(HERE, model, Location(Format.CTRANSLATE2, tmp_path / "out"))
    assert not parity.passed
    assert parity.random_difference > 1e-3


def test_a_trained_model_on_real_text(real_models, real_data, run, tmp_path):
    """Every output is the same, greedy and of five beams."""
    source, result = real_models / "multi30k-en-de" / "checkpoint.pt", Location(Format.CTRANSLATE2, tmp_path / "out")
    files = ModelFiles(source_lang="en", target_lang="de")
    parity = convert(Location(Format.FAIRSEQ, source), result, files=files)
    assert parity.passed
    assert parity.beam_equal == 1
    model = read_model(source, files)
    rows = model.source.encode_batch((real_data / "multi30k" / "test.en").read_text().splitlines()[:50])
    decoded = ctranslate.Decoded(result.path, model)
    for beam in (1, 5):
        search = search_with([model.network], GenerationOptions(beam=beam, min_len=0, max_len_b=60), special_ids(model))
        ours = [hypotheses[0].tokens.tolist()[:-1] for hypotheses in search(pad_batch(rows, 1))]
        assert decoded.search(rows, beam, 60, None) == ours


def test_favoured_prefixes_and_alternatives_are_the_librarys(real_models, real_data, tmp_path):
    """Other sentences' first words for prefixes; its alternatives of beams divide scores otherwise."""
    library = pytest.importorskip("ctranslate2")
    model = read_model(real_models / "multi30k-en-de" / "checkpoint.pt", ModelFiles(source_lang="en", target_lang="de"))
    ctranslate.write(tmp_path / "out", model)
    theirs = library.Translator(str(tmp_path / "out"), compute_type="float32", intra_threads=1)
    ours = Translator([model], precision="float32", workers=1)
    lines = (real_data / "multi30k" / "test.en").read_text().splitlines()[:6]
    texts = ours.translate(lines)
    prefixes = [" ".join(text.split()[:2]) for text in (*texts[1:], texts[0])]
    source, pieces = (
        [side.symbols(side.encode(line)[:-1]) for line in given]
        for side, given in ((model.source, lines), (model.target, prefixes))
    )
    search = {"target_prefix": pieces, "length_penalty": 1, "return_scores": True, "max_decoding_length": 200}
    followed = set()
    for beam, beta in ((1, 0.6), (3, 0.2), (3, 0.6)):
        expected = theirs.translate_batch(source, beam_size=beam, prefix_bias_beta=beta, **search)
        found = list(ours.stream(lines, target_prefix=prefixes, prefix_bias_beta=beta, beam=beam))
        for (mine,), result, prefix in zip(found, expected, prefixes, strict=True):
            assert list(mine.tokens) == result.hypotheses[0]
            assert mine.score == pytest.approx(result.scores[0], abs=1e-3)
            followed.add((beta, mine.text.startswith(prefix)))
    assert {(0.2, False), (0.6, True)} <= followed
    expected = theirs.translate_batch(source, beam_size=1, return_alternatives=True, num_hypotheses=4, **search)
    found = ours.stream(lines, target_prefix=prefixes, return_alternatives=True, nbest=4, beam=1)
    for mine, result in zip(found, expected, strict=True):
        assert [list(alternative.tokens) for alternative in mine] == result.hypotheses


def test_what_has_no_place_is_refused_by_name(tmp_path, monkeypatch):
    for stacks, message in (
        (
            ({"activation": Activation.RELU_SQUARED}, {}),
            r"encoder\.activation is relu_squared, which CTranslate2 has no",
        ),
        (({}, {"positions": PositionConfig(kind=PositionKind.ROTARY)}), r"decoder\.positions\.kind is rotary"),
        (({"final_norm": True}, {}), r"encoder\.final_norm is True"),
        (({}, {"key_value_heads": 1}), r"decoder\.key_value_heads is 1"),
        (({}, {"norm_epsilon": 1e-3}), r"decoder\.norm_epsilon is 0\.001"),
        (({}, {"positions": PositionConfig(kind=PositionKind.RELATIVE_BUCKETS)}), r"positions\.bidirectional is True"),
    ):
        with pytest.raises(ConfigError, match=message):
            ctranslate.write(tmp_path / "out", small(*stacks))
    model = small()
    with pytest.raises(ConfigError, match="the model has no tokenizer"):
        ctranslate.write(tmp_path / "out", dataclasses.replace(model, source=None, target=None))
    assert not list(tmp_path.iterdir())
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="taken: exists already; --overwrite replaces a folder of CTranslate2's"):
        ctranslate.write(tmp_path / "taken", model, overwrite=True)
    ctranslate.write(tmp_path / "out", model)
    ctranslate.write(tmp_path / "out", model, overwrite=True)
    with pytest.raises(ConfigError, match="ct2: can be a result, not a source; expected one of bundle:, hf:, fairseq:"):
        locate(f"ct2:{tmp_path / 'out'}", new=False)
    monkeypatch.setitem(sys.modules, "ctranslate2.specs.transformer_spec", None)
    with pytest.raises(ConfigError, match=r"CTranslate2 is not installed; expected: pip install 'fairbeam\[ct2\]'"):
        ctranslate.write(tmp_path / "other", model)
