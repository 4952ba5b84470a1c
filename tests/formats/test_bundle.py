"""Bundles: what is saved comes back to the bit, and nothing damaged or hostile is loaded."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fairbeam.data.lexical_shortlist import SHORTLIST, Shortlist
from fairbeam.errors import CheckpointError, ConfigError, FairbeamError, InputError
from fairbeam.formats import bundle
from fairbeam.formats.bundle import CARD, CONFIG, WEIGHTS
from fairbeam.generation import GenerationOptions
from fairbeam.model import Bundle
from fairbeam.network import (
    LSTM,
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
)
from fairbeam.text import Dictionary, Marks, Tokenizer, Whitespace


def tokenizer(language: str, words: int) -> Tokenizer:
    dictionary = Dictionary((f"{language}{i}", 1) for i in range(words))
    return Tokenizer(language=language, subwords=Whitespace(), dictionary=dictionary)


def small_bundle(*, source_words: int = 20, target_words: int = 20, **config) -> Bundle:
    torch.manual_seed(0)
    stack = StackConfig(layers=2, dim=16, heads=2, ffn_dim=24, norm_placement=NormPlacement.PRE, final_norm=True)
    source, target = tokenizer("x", source_words), tokenizer("y", target_words)
    sizes = {"source_vocabulary": len(source.dictionary), "target_vocabulary": len(target.dictionary)}
    network = EncoderDecoder(EncoderDecoderConfig(**sizes, encoder=stack, decoder=stack, **config)).eval()
    options = GenerationOptions(beam=3, lenpen=0.7, banned_phrases=((5, 6), (9,)))
    card = "BLEU 12.3 (sig)\n\n```\nhow it was trained\n```\n\nLicence: MIT"
    return Bundle(network=network, source=source, target=target, generation=options, card=card)


@pytest.fixture
def saved(tmp_path):
    return bundle.save(tmp_path / "model", small_bundle())


def rewrite_config(folder, **changes) -> None:
    config = json.loads((folder / CONFIG).read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = config
        for parent in parents:
            place = place[parent]
        place[last] = value
    (folder / CONFIG).write_text(json.dumps(config))


def rewrite_weights(folder, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, (20, 31)),
        ({"tie_output": True}, (20, 31)),
        ({"share_embeddings": True, "tie_output": True}, (20, 20)),
    ],
    ids=["untied", "tied output", "all tied"],
)
def test_what_is_saved_comes_back_to_the_bit(tmp_path, config, words):
    made = small_bundle(source_words=words[0], target_words=words[1], **config)
    found = bundle.load(bundle.save(tmp_path / "deep" / "model", made))
    expected, state = made.network.state_dict(), found.network.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert not found.network.training
    assert found.network.config == made.network.config
    assert (found.generation, found.family, found.card) == (made.generation, made.family, made.card)
    assert (found.source.dictionary, found.target.dictionary) == (
        made.source.dictionary,
        made.target.dictionary,
    )
    tied = found.network.head.weight is found.network.target_embedding.weight
    assert tied is config.get("tie_output", False)


def test_saving_twice_gives_the_same_files(saved):
    again = bundle.save(saved.parent / "again" / "model", bundle.load(saved))
    names = {path.name for path in saved.iterdir()}
    assert names == {CONFIG, WEIGHTS, CARD, "dict.x.txt", "dict.y.txt"} == {path.name for path in again.iterdir()}
    assert all((saved / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_a_shortlist_travels_along_and_is_looked_at(tmp_path):
    rows = len(small_bundle().source), len(small_bundle().target)
    listed = Shortlist(np.arange(rows[0] + 1), np.arange(rows[0]) % rows[1], np.array([4, 5]), rows[1])
    made = dataclasses.replace(small_bundle(), shortlist=listed)
    folder = bundle.save(tmp_path / "model", made)
    assert bundle.load(folder).shortlist == listed
    with pytest.raises(ConfigError, match=f"of {rows[0]} and {rows[1]} symbols, but the model has {rows[0] + 1}"):
        dataclasses.replace(small_bundle(source_words=21), shortlist=listed)
    tensors = load_file(folder / SHORTLIST)
    tensors["symbols"][0] = rows[1]
    save_file(tensors, folder / SHORTLIST, {"format": "fairbeam shortlist 1"})
    with pytest.raises(InputError, match=r"shortlist\.safetensors: symbols has an id outside of 0"):
        bundle.load(folder)
    (folder / SHORTLIST).unlink()
    (folder / SHORTLIST).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="leads out of the bundle's folder"):
        bundle.load(folder)


def test_card_says_what_the_model_is(saved):
    card = (saved / CARD).read_text()
    parameters = sum(parameter.numel() for parameter in small_bundle().network.parameters())
    assert card.startswith("# model\n")
    assert f"x to y, {parameters:,} parameters" in card
    assert "fairbeam translate model" in card
    assert card.endswith("BLEU 12.3 (sig)\n\n```\nhow it was trained\n```\n\nLicence: MIT\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop("decoder.layers.1.outer.bias"),
            r"missing decoder\.layers\.1\.outer\.bias",
        ),
        (lambda tensors: tensors.update(extra=torch.ones(1)), "unexpected extra"),
        (
            lambda tensors: tensors.update({"encoder.layers.0.inner.bias": torch.ones(7)}),
            r"encoder\.layers\.0\.inner\.bias has shape \(7,\), expected \(24,\)",
        ),
    ],
    ids=["missing", "unexpected", "mis-shaped"],
)
def test_weights_that_do_not_fit_are_named(saved, change, message):
    rewrite_weights(saved, change)
    with pytest.raises(CheckpointError, match=message):
        bundle.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, r"unknown fields \['surprise'\]"),
        ({"format": 4}, "format 1 or 2 or 3"),
        ({"format": 2}, r"missing fields .*tokenizer"),
        ({"network__surprise": 1}, "/network/surprise is an unknown field"),
        ({"network__encoder__heads": 0}, "no network can have these sizes"),
        ({"network__encoder__heads": 3}, "heads"),
        ({"network__encoder__layers": 10**9}, r"/network/encoder/layers is 1000000000"),
        ({"network__encoder__dim": -16}, r"/network/encoder/dim is -16"),
        ({"network__decoder__ffn_dim": 10**7}, r"expected \(10000000, 16\)"),
        ({"network__decoder__positions__max_positions": 10**12}, "max_positions is 1000000000000"),
        ({"network__target_vocabulary": 10**15}, "target_vocabulary"),
        ({"network__encoder__dim": "16"}, '/network/encoder/dim is "16"; expected an integer'),
        ({"generation__surprise": 1}, "/generation/surprise is an unknown field"),
        ({"generation__beam": 2.5}, r"/generation/beam 2\.5: expected a whole number"),
        ({"generation__beam": True}, "/generation/beam True"),
        ({"generation__beam": 0}, "/generation/beam 0"),
        ({"generation__lenpen": "high"}, "/generation/lenpen .*high"),
        ({"generation": [1]}, r"/generation is \[1\]; expected an object"),
        ({"network": None}, "/network is null; expected an object"),
        ({"source": "../x"}, "/source is '../x'; expected a plain name"),
    ],
)  # fmt: skip
def test_configurations_that_make_no_sense_are_refused(saved, changes, message):
    rewrite_config(saved, **changes)
    with pytest.raises(CheckpointError, match=message):
        bundle.load(saved)


@pytest.fixture
def apart(tmp_path):
    """Format 3: a folder for the tokenizer of each side."""
    model = dataclasses.replace(small_bundle(), separate_tokenizers=True, family="composed")
    return bundle.save(tmp_path / "apart", model)


@pytest.fixture
def decoder(tmp_path):
    """Format 3: a decoder alone."""
    stack = StackConfig(layers=2, dim=16, heads=2, ffn_dim=24)
    network = DecoderOnly(DecoderOnlyConfig(vocabulary=24, decoder=stack, separator=0, eos=2)).eval()
    return bundle.save(tmp_path / "decoder", dataclasses.replace(small_bundle(), network=network))


@pytest.fixture
def recurrent(tmp_path):
    """Format 3: LSTMs."""
    sizes = {"encoder_embedding": 5, "encoder_hidden": 6, "decoder_embedding": 7, "decoder_hidden": 8, "output_dim": 9}
    config = LSTMConfig(source_vocabulary=24, target_vocabulary=24, layers=2, bidirectional=True, **sizes)
    network = LSTM(config).eval()
    return bundle.save(tmp_path / "recurrent", dataclasses.replace(small_bundle(), network=network))


@pytest.fixture
def marked(tmp_path):
    """Format 3: an encoder-decoder of texts that do not just end in ``</s>``, in one language without a name."""
    one = dataclasses.replace(tokenizer("x", 20), language=None, marks=Marks.CONTINUED)
    return bundle.save(tmp_path / "marked", dataclasses.replace(small_bundle(), source=one, target=one))


@pytest.mark.parametrize(
    ("marks", "ids"), [(Marks.ENCLOSED, [0, 5, 6, 2]), (Marks.OPENED, [0, 5, 6]), (Marks.CONTINUED, [2, 5, 6])]
)
def test_marks_around_a_text_come_back_in_format_3_alone(marks, ids, marked):
    rewrite_config(marked, tokenizer=f"dictionary-{marks}")
    side = bundle.load(marked).source
    assert (side.marks, side.encode("x1 x2"), side.decode(ids)) == (marks, ids, "x1 x2")
    assert len(ids) - side.closing == ids.index(6) + 1
    assert {path.name for path in marked.iterdir()} == {CONFIG, WEIGHTS, CARD, "dict.txt"}
    config = json.loads((marked / CONFIG).read_text())
    for changes, message in (
        (
            {"tokenizer": "dictionary-strewn"},
            "'dictionary-strewn'; expected dictionary, .*continued or null",
        ),
        ({"format": 2}, r"'dictionary-[a-z]+'; expected dictionary, pretrained or null"),
    ):
        fields = {k: v for k, v in config.items() if k != "shape" or "format" not in changes}
        (marked / CONFIG).write_text(json.dumps({**fields, **changes}))
        with pytest.raises(CheckpointError, match=message):
            bundle.load(marked)


@pytest.mark.parametrize("kind", ["apart", "decoder", "recurrent", "marked"])
def test_other_shapes_come_back_to_the_bit(kind, request):
    saved = request.getfixturevalue(kind)
    assert json.loads((saved / CONFIG).read_text())["format"] == 3
    found = bundle.load(saved)
    again = bundle.save(saved.parent / "again" / saved.name, found)
    names = {path.relative_to(saved) for path in saved.rglob("*") if path.is_file()}
    assert names == {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    assert all((saved / name).read_bytes() == (again / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("apart", {"shape": "pair"}, "shape is 'pair'; expected one of encoder-decoder, encoder, decoder"),
        ("apart", {"shape": []}, r"/shape is \[\]; expected a string"),
        ("apart", {"shape": "encoder"}, "/network/vocabulary is missing"),
        ("apart", {"surprise": 1}, r"unknown fields \['surprise'\]"),
        ("apart", {"format": 2}, r"unknown fields \['shape'\]"),
        ("apart", {"format": 4}, "format 1 or 2 or 3"),
        ("apart", {"format": 3.0}, "format 1 or 2 or 3"),
        ("apart", {"tokenizer": {"source": "dictionary", "up": "dictionary"}}, "/tokenizer/target is missing"),
        ("apart", {"tokenizer": {"source": "dictionary"}}, "/tokenizer/target is missing"),
        ("apart", {"tokenizer__target": ["dictionary"]}, r"/tokenizer/target is \["),
        ("apart", {"tokenizer__target": "pretrained"}, r"target/tokenizer\.fairbeam\.json: no such file"),
        ("apart", {"tokenizer": "dictionary"}, r"apart/dict\.x\.txt: no such"),
        ("apart", {"source": "../x"}, "/source is '../x'; expected a plain name"),
        ("apart", {"network__source_pad": 24}, r"/network/source_pad is 24; expected -1 to 23"),
        ("apart", {"network__pad": 10**9}, r"/network/pad is 1000000000; expected -1 to 23"),
        ("apart", {"network__share_layers": "yes"}, '/network/share_layers is "yes"; expected true or false'),
        ("apart", {"network__decoder__transform": "sine"}, '/network/decoder/transform is "sine"; expected one of'),
        ("apart", {"network__decoder__transform": "gelu"}, r"missing decoder\.transform\.linear\.weight"),
        ("decoder", {"shape": "encoder-decoder"}, "/network/source_vocabulary is missing"),
        ("decoder", {"network__separator": 24}, r"/network/separator is 24; expected 0 to 23"),
        ("decoder", {"network__eos": -1}, r"/network/eos is -1; expected 0 to 23"),
        ("decoder", {"network__separator": None, "network__prefix_attention": True}, "nothing says where a source"),
        ("decoder", {"network__decoder__layers": 1 << 20}, r"/network/decoder/layers is 1048576"),
        ("recurrent", {"shape": "encoder-decoder"}, "/network/.* is an unknown field"),
        ("recurrent", {"network__layers": 1 << 20}, r"/network/layers is 1048576; expected 1 to"),
        ("recurrent", {"network__layers": 0}, r"/network/layers is 0; expected 1 to"),
        ("recurrent", {"network__encoder_hidden": 1 << 40}, r"/network/encoder_hidden is 1099511627776; expected 1 to"),
        ("recurrent", {"network__decoder_hidden": 1 << 24}, r"decoder\.0\.weight_ih has shape \(32, 15\), expected"),
        ("recurrent", {"network__target_vocabulary": 1 << 30}, r"/network/target_vocabulary is 1073741824"),
        ("recurrent", {"network__max_source_positions": 0}, r"/network/max_source_positions is 0"),
        ("recurrent", {"network__dropout__encoder_output": 2}, r"/network/dropout/encoder_output is 2.0; expected 0"),
        ("recurrent", {"network__output_dim": -3}, r"/network/output_dim is -3; expected 1 to"),
        ("recurrent", {"network__attention": False}, r"unexpected attention_output\.weight"),
        ("recurrent", {"network__pad": 24}, r"/network/pad is 24; expected -1 to 23"),
        ("recurrent", {"network__eos": 10**9}, r"/network/eos is 1000000000; expected 0 to 23"),
    ],
)  # fmt: skip
def test_descriptions_of_other_shapes_that_make_no_sense_are_refused(kind, changes, message, request):
    saved = request.getfixturevalue(kind)
    rewrite_config(saved, **changes)
    with pytest.raises(FairbeamError, match=message):
        bundle.load(saved)


def test_weights_of_other_shapes_must_fit_and_folders_lead_nowhere(apart, decoder, tmp_path):
    rewrite_weights(decoder, lambda tensors: tensors.pop("embedding.weight"))
    with pytest.raises(CheckpointError, match=r"missing embedding\.weight"):
        bundle.load(decoder)
    rewrite_weights(decoder, lambda tensors: tensors.update({"embedding.weight": torch.ones(24, 15)}))
    with pytest.raises(CheckpointError, match=r"embedding\.weight has shape \(24, 15\), expected \(24, 16\)"):
        bundle.load(decoder)
    outside = tmp_path / "outside"
    outside.mkdir()
    for inner in ("source/dict.x.txt", "target"):
        (apart / inner).rename(outside / Path(inner).name)
        (apart / inner).symlink_to(outside / Path(inner).name)
        with pytest.raises(CheckpointError, match=f"{inner}: leads out of the bundle's folder"):
            bundle.load(apart)
        (apart / inner).unlink()
        (outside / Path(inner).name).rename(apart / inner)
    assert bundle.load(apart).separate_tokenizers
    (apart / "source" / "dict.x.txt").unlink()
    with pytest.raises(FairbeamError, match=r"source/dict\.x\.txt: no such"):
        bundle.load(apart)


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_truncated_weights_are_refused(saved, kept):
    weights = (saved / WEIGHTS).read_bytes()
    (saved / WEIGHTS).write_bytes(weights[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a safetensors file, or truncated"):
        bundle.load(saved)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (CONFIG, b" " * (2 << 20), "larger than"),
        (CONFIG, b"[" * 100_000, "not JSON"),
        (CONFIG, b"\xff{}", r"config\.json: not UTF-8"),
        (CONFIG, b"[]", "expected a JSON object"),
        (CARD, b"# caf\xe9", r"README\.md: not UTF-8"),
        ("dict.y.txt", b"one 1\ntwo 1\n", "the target dictionary has 6 entries, but the model embeds 24"),
        ("dict.x.txt", None, r"dict\.x\.txt: no such"),
        (WEIGHTS, None, r"model\.safetensors: no such file"),
        (CONFIG, None, "is this folder a bundle"),
    ],
)
def test_files_that_are_damaged_or_missing_are_named(saved, name, content, message):
    if content is None:
        (saved / name).unlink()
    else:
        (saved / name).write_bytes(content)
    with pytest.raises(FairbeamError, match=message):
        bundle.load(saved)


def test_links_out_of_the_folder_are_refused(saved, tmp_path):
    secret = tmp_path / "secret"
    (saved / CARD).replace(secret)
    (saved / CARD).symlink_to(secret)
    with pytest.raises(CheckpointError, match=r"README\.md: leads out of the bundle's folder"):
        bundle.load(saved)
    (saved / CARD).unlink()
    (saved / "loop").symlink_to("loop")
    assert bundle.load(saved).card == ""


def test_existing_folders_are_replaced_only_if_asked_and_only_bundles(saved, tmp_path):
    other = dataclasses.replace(small_bundle(), card="another")
    with pytest.raises(ConfigError, match="exists already"):
        bundle.save(saved, other)
    assert bundle.load(saved).card != "another"
    bundle.save(saved, other, overwrite=True)
    assert bundle.load(saved).card == "another"

    work = tmp_path / "work"
    work.mkdir()
    assert bundle.load(bundle.save(work, other, overwrite=True)).card == "another"  # an empty folder
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years of work")
    elsewhere = tmp_path / "elsewhere"  # files of the same names, as other libraries have them
    elsewhere.mkdir()
    (elsewhere / CONFIG).write_text('{"model_type": "bert"}')
    (elsewhere / WEIGHTS).write_bytes(b"weights")
    file = tmp_path / "file"
    file.write_text("text")
    for place in (precious, elsewhere, file):
        with pytest.raises(ConfigError, match="replaces a bundle, and nothing else"):
            bundle.save(place, other, overwrite=True)
    assert (precious / "thesis.tex").read_text() == "years of work"
    assert (elsewhere / WEIGHTS).read_bytes() == b"weights"
    assert {path.name for path in tmp_path.iterdir()} == {"model", "work", "precious", "elsewhere", "file"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_save_leaves_everything_as_it_was(saved, monkeypatch, error):
    def fail(self, folder):
        raise error

    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    monkeypatch.setattr(Tokenizer, "save", fail)
    expected = InputError if isinstance(error, OSError) else KeyboardInterrupt
    for name in ("model", "new"):
        with pytest.raises(expected):
            bundle.save(saved.parent / name, small_bundle(), overwrite=True)
    assert [path.name for path in saved.parent.iterdir()] == ["model"]
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_network_of_another_build_comes_back(tmp_path):
    stack = StackConfig(
        layers=2, dim=16, heads=2, head_dim=5, ffn_dim=24, gated=True, bias=False, norm=NormKind.RMS, norm_epsilon=1e-6,
        attention_scale=1.0, scale_features=True, positions=PositionConfig(kind=PositionKind.RELATIVE_BUCKETS),
    )  # fmt: skip
    made = small_bundle()
    config = dataclasses.replace(made.network.config, encoder=stack, decoder=stack)
    made = dataclasses.replace(made, network=EncoderDecoder(config).eval(), family="t5")
    found = bundle.load(bundle.save(tmp_path / "model", made))
    assert found.network.config == config
    assert all(torch.equal(found.network.state_dict()[name], w) for name, w in made.network.state_dict().items())
    for field, value in (("head_dim", 1 << 25), ("key_value_heads", -1), ("head_dim", 0)):
        rewrite_config(tmp_path / "model", **{f"network__decoder__{field}": value})
        with pytest.raises(CheckpointError, match="decoder"):
            bundle.load(tmp_path / "model")
        rewrite_config(
            tmp_path / "model", **{"network__decoder__head_dim": 5, "network__decoder__key_value_heads": None}
        )


def test_configurations_from_before_a_field_existed_are_read(saved):
    new = ("gated", "bias", "head_dim", "key_value_heads", "attention_scale", "norm", "norm_epsilon", "norm_bias",
           "scale_features", "train_padding", "qkv_bias", "attention_output_bias")  # fmt: skip
    config = json.loads((saved / CONFIG).read_text())
    for stack in ("encoder", "decoder"):
        for field in new:
            del config["network"][stack][field]
        for field in ("buckets", "max_distance", "bidirectional", "rotary_base", "rotary_scaling"):
            del config["network"][stack]["positions"][field]
    del config["network"]["dropout"]["features"]
    (saved / CONFIG).write_text(json.dumps(config))
    assert bundle.load(saved).network.config == small_bundle().network.config
