"""Conversions: each form into each other that can hold the model, and the proof that is made of it."""

import argparse
import dataclasses
import itertools
from pathlib import Path

import hub_folders
import numpy as np
import pytest
import stock_models
import torch
from safetensors.torch import load_file, save_file

import fairbeam
from fairbeam.data.lexical_shortlist import SHORTLIST, Shortlist
from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.families.fairseq.registry import completed, family_of, task_symbols
from fairbeam.families.fairseq.transformer import config_from_options, options_from_config, save_weights
from fairbeam.formats import bundle
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam.formats.convert import compare, convert, pairs
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.formats.registry import Format, Location, locate, read_model
from fairbeam.network import EncoderDecoder
from fairbeam.text import Dictionary

FILES = ModelFiles(source_lang="aa", target_lang="bb")
SIZES = {"embed_dim": 16, "ffn_embed_dim": 24, "layers": 2, "attention_heads": 2}
OPTIONS = {f"{stack}_{name}": size for stack in ("encoder", "decoder") for name, size in SIZES.items()}
LOAD_WITH_STOCK = """
import sys, torch
import fairbeam_plugin
from fairseq import checkpoint_utils
path, data, out = sys.argv[1:]
models, cfg, task = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides={"data": data})
source, previous = torch.tensor([[5, 6, 7, 2], [8, 9, 2, 1]]), torch.tensor([[2, 5, 6], [2, 7, 8]])
with torch.no_grad():
    logits, _ = models[0].eval()(source, torch.tensor([4, 3]), previous)
torch.save((logits, {name: tensor for name, tensor in models[0].state_dict().items()}), out)
"""


def stock(folder: Path, dtype: torch.dtype = torch.float32, **options) -> Path:
    """A checkpoint as fairseq writes it, random weights, dictionaries beside it."""
    folder.mkdir()
    dictionary = Dictionary((f"w{i}", 1) for i in range(20))
    arch, task = options.pop("arch", "transformer"), options.pop("task", {})
    options = {"_name": arch, "arch": arch, "task": "translation", **OPTIONS, **options}
    torch.manual_seed(0)
    size = len(dictionary.extended(task_symbols(task)))
    network = EncoderDecoder(config_from_options(completed(arch, options), size, size))
    weights = {name: tensor.to(dtype) for name, tensor in save_weights(network).items()}
    for stack in ("encoder", "decoder"):
        weights[f"{stack}.version"] = torch.tensor([3.0]).to(dtype)
        if not arch.startswith("bart"):  # whose positions are learned
            weights[f"{stack}.embed_positions._float_tensor"] = torch.zeros(1, dtype=dtype)
    if arch.startswith("bart"):  # a classifier beside the text, and no second name of the tied output
        del weights["decoder.output_projection.weight"]
        weights["classification_heads.mnli.out_proj.weight"] = torch.randn(3, 16).to(dtype)
        weights["classification_heads.mnli.dense.weight"] = torch.randn(16, 16).to(dtype)
    for name in ("dict.txt",) if task else ("dict.aa.txt", "dict.bb.txt"):
        dictionary.save(folder / name)
    path = folder / "checkpoint_best.pt"
    cfg = {
        "model": argparse.Namespace(**options),
        "task": {"_name": "translation", "data": "data-bin", "left_pad_source": True, **task},
    }
    checkpoint.write(path, {"args": None, "cfg": cfg, "model": weights})
    return path


DECODER = {f"decoder_{name}": size for name, size in SIZES.items()} | {"tokens_per_sample": 12, "decoder_layers": 1}
WIDTHS = {"criterion": "cross_entropy", "max_target_positions": 8, **dict.fromkeys(
    ("encoder_embed_dim", "decoder_embed_dim", "decoder_out_embed_dim"), 12)}  # fmt: skip
OTHERS = {
    "language model": ({"arch": "transformer_lm_gpt", **DECODER}, "language_modeling"),
    "language model behind <s>": ({"arch": "transformer_lm_gpt3_small", "add_bos_token": True, **DECODER},
                                  "language_modeling"),
    "roberta": ({"arch": "roberta_base", "max_positions": 40, "load_checkpoint_heads": True, **OPTIONS}, "masked_lm"),
    "lstm": ({"arch": "lstm", **WIDTHS, "decoder_out_embed_dim": 8, "encoder_bidirectional": True}, "translation"),
    "lstm, one matrix": ({"arch": "lstm_wiseman_iwslt_de_en", "share_all_embeddings": True, **WIDTHS}, "translation"),
}  # fmt: skip
LOAD_OTHERS_WITH_STOCK = """
import sys, torch, fairbeam_plugin
from fairseq import checkpoint_utils
for path, data in zip(sys.argv[1::2], sys.argv[2::2]):
    models, _, _ = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides={"data": data})
    torch.save(dict(models[0].state_dict()), path + ".state")
"""


@pytest.mark.parametrize("name", [*hub_folders.MODELS, *hub_folders.ALONE])
def test_there_and_back_through_a_bundle(name, tmp_path):
    pytest.importorskip("transformers")
    hub_folders.make(name, tmp_path / "a")
    forms = (Format.HUGGING_FACE, Format.BUNDLE, Format.HUGGING_FACE)
    places = [Location(form, tmp_path / path) for form, path in zip(forms, "abc", strict=True)]
    for source, result in itertools.pairwise(places):
        parity = convert(source, result)
        assert parity.passed
        assert (parity.differing, parity.random_difference, parity.text_difference) == ((), 0, 0)
    for path in (tmp_path / "a").iterdir():
        if path.name != "model.safetensors":
            assert (tmp_path / "c" / path.name).read_bytes() == path.read_bytes()
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in "ac")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {}),
        (torch.float16, {"share_all_embeddings": True}),
        (torch.float16, {"arch": "bart_base"}),
        (torch.float32, {"encoder_normalize_before": True, "decoder_normalize_before": True, "activation_fn": "gelu"}),
    ],
)
def test_a_fairseq_checkpoint_comes_back_and_loads_in_stock(dtype, options, tmp_path, run):
    path = stock(tmp_path / "a", dtype, **options)
    parities = [
        convert(Location(Format.FAIRSEQ, path), Location(Format.BUNDLE, tmp_path / "b"), files=FILES),
        convert(Location(Format.BUNDLE, tmp_path / "b"), Location(Format.FAIRSEQ, tmp_path / "c/model.pt")),
    ]
    assert all(parity.passed and not parity.differing for parity in parities)
    before, after = (checkpoint.read(file) for file in (path, tmp_path / "c/model.pt"))
    assert list(before.model) == list(after.model)
    assert all(after.model[k].dtype == v.dtype and torch.equal(after.model[k], v) for k, v in before.model.items())
    assert after.config == before.config
    assert after.task == {**before.task, "source_lang": "aa", "target_lang": "bb"}
    assert (tmp_path / "c/dict.aa.txt").read_text() == (tmp_path / "a/dict.aa.txt").read_text()
    pytest.importorskip("fairseq")
    (tmp_path / "load.py").write_text(LOAD_WITH_STOCK)
    environment = {"PYTHONPATH": str(Path(fairbeam.__file__).parent.parent)}
    run("python", tmp_path / "load.py", tmp_path / "c/model.pt", tmp_path / "c", tmp_path / "out", env=environment)
    logits, state = torch.load(tmp_path / "out")
    assert all(torch.equal(state[name], tensor.to(state[name].dtype)) for name, tensor in before.model.items()
               if "_float_tensor" not in name and "classification" not in name)  # fmt: skip
    network = read_model(tmp_path / "c/model.pt", FILES).network
    source, previous = torch.tensor([[5, 6, 7, 2], [8, 9, 2, 1]]), torch.tensor([[2, 5, 6], [2, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(network(source, previous), logits.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "task",
    [{"_name": "denoising"}, {"_name": "multilingual_denoising", "add_lang_token": True, "langs": "target,other"}],
)
def test_a_pretrained_bart_comes_back_with_its_one_dictionary(task, tmp_path):
    path = stock(tmp_path / "a", arch="bart_large", task=task)
    there, back = Location(Format.BUNDLE, tmp_path / "b"), Location(Format.FAIRSEQ, tmp_path / "c/model.pt")
    assert convert(Location(Format.FAIRSEQ, path), there).passed
    assert convert(there, back).passed
    before, after = checkpoint.read(path), checkpoint.read(back.path)
    assert list(before.model) == list(after.model)
    assert all(torch.equal(after.model[name], tensor) for name, tensor in before.model.items())
    assert (after.config, after.task) == (before.config, before.task)
    assert (tmp_path / "c/dict.txt").read_bytes() == (tmp_path / "a/dict.txt").read_bytes()
    assert not list((tmp_path / "c").glob("dict.*.txt"))
    model = read_model(there.path)
    symbols = ("[target]", "[other]", "<mask>") if "langs" in task else ("<mask>",)
    assert model.target.symbols(range(24, 24 + len(symbols))) == list(symbols)
    assert model.target.encode("w1 w2") == ([5, 6, 2, 24] if "langs" in task else [5, 6, 2])
    assert model.network.config.eos == model.target.last == (24 if "langs" in task else 2)
    assert model.target.decode([5, 6, 2, 24]).startswith("w1 w2")
    with pytest.raises(CheckpointError, match=r"prepend_bos=True has no conversion"):
        task_symbols({"_name": "translation_from_pretrained_bart", "langs": "a", "prepend_bos": True})
    with pytest.raises(CheckpointError, match=r"'fconv' has no conversion; known are bart, bart_base, .*transformer"):
        family_of("fconv")


def test_models_of_other_shapes_come_back_and_load_in_stock(tmp_path, run):
    written = []
    for number, (options, task) in enumerate(OTHERS.values()):
        theirs = stock_models.build(options)
        if task == "masked_lm":
            theirs.register_classification_head("sentence_classification_head", num_classes=3, inner_dim=10)
            theirs.register_classification_head("mnli", num_classes=2)
        dictionaries = ("dict.aa.txt", "dict.bb.txt") if task == "translation" else ("dict.txt",)
        folder = tmp_path / str(number)
        path = stock_models.write_checkpoint(folder, theirs.half(), options, {"_name": task}, *dictionaries)
        there, back = Location(Format.BUNDLE, folder / "b"), Location(Format.FAIRSEQ, folder / "c/model.pt")
        for parity in (convert(Location(Format.FAIRSEQ, path), there, files=FILES), convert(there, back)):
            assert parity.passed
            assert (parity.differing, parity.random_difference, parity.text_difference) == ((), 0, 0)
            assert parity.greedy_agrees is (None if task == "masked_lm" else True)
        before, after = checkpoint.read(path), checkpoint.read(back.path)
        assert list(before.model) == list(after.model)
        assert all(after.model[k].dtype == v.dtype and torch.equal(after.model[k], v) for k, v in before.model.items())
        languages = {"source_lang": "aa", "target_lang": "bb"} if task == "translation" else {}
        assert (after.config, after.task) == (before.config, {**before.task, **languages})
        assert all((folder / "c" / name).read_text() == (folder / name).read_text() for name in dictionaries)
        model = read_model(there.path)
        opening, closing = {"masked_lm": ([0], [2]), "translation": ([], [2])}.get(task, ([2], []))
        if "add_bos_token" in options:
            opening = [0]
        assert model.source.encode("w1 w2") == [*opening, 5, 6, *closing]
        assert model.source.decode([0, 5, 6, 2]) == "w1 w2"
        assert (model.target is None) == (task == "masked_lm")
        bundle.save(folder / "d", dataclasses.replace(model, origin=None))
        with pytest.raises(ConfigError, match=r"without the options it was read with \(origin\.json\)"):
            convert(Location(Format.BUNDLE, folder / "d"), Location(Format.FAIRSEQ, folder / "e/model.pt"))
        options = {**before.config, "decoder_layers": 3, "encoder_layers": 3}
        origin = dataclasses.replace(model.origin, config={"model": options, "task": before.task})
        bundle.save(folder / "d", dataclasses.replace(model, origin=origin), overwrite=True)
        with pytest.raises(CheckpointError, match=r"origin\.json: its options describe another (en|de|lay)"):
            convert(Location(Format.BUNDLE, folder / "d"), Location(Format.FAIRSEQ, folder / "e/model.pt"))
        written += [back.path, back.path.parent]
    (tmp_path / "load.py").write_text(LOAD_OTHERS_WITH_STOCK)
    run("python", tmp_path / "load.py", *written, env={"PYTHONPATH": str(Path(fairbeam.__file__).parent.parent)})
    for path in written[::2]:
        loaded, weights = torch.load(f"{path}.state"), checkpoint.read(path).model
        assert loaded.keys() == weights.keys()
        assert all(torch.equal(loaded[name], weight.to(loaded[name].dtype)) for name, weight in weights.items())


def test_a_bundle_without_origin_becomes_a_checkpoint(tmp_path):
    path = stock(tmp_path / "a", encoder_normalize_before=True, decoder_normalize_before=True)
    config = read_model(path, FILES).network.config
    rows, words = config.source_vocabulary, config.target_vocabulary
    listed = Shortlist(np.arange(rows + 1), np.arange(rows) % words, np.arange(4, 9), words)
    listed.save(path.with_name(SHORTLIST))
    model = dataclasses.replace(read_model(path, FILES), origin=None)
    bundle.save(tmp_path / "b", model)
    assert convert(locate(str(tmp_path / "b"), new=False), locate(f"{tmp_path}/c/model.pt", new=True)).passed
    assert read_model(tmp_path / "c" / "model.pt", FILES).shortlist == listed
    options = options_from_config(config)
    assert config_from_options(options, config.source_vocabulary, config.target_vocabulary) == config


def test_what_does_not_fit_is_refused(tmp_path):
    pytest.importorskip("transformers")
    hub_folders.make("bart", tmp_path / "bart")
    path = stock(tmp_path / "fairseq")
    bart, trained = Location(Format.HUGGING_FACE, tmp_path / "bart"), Location(Format.FAIRSEQ, path)
    with pytest.raises(ConfigError, match=r"family 'bart' does not fit into a fairseq checkpoint"):
        convert(bart, Location(Format.FAIRSEQ, tmp_path / "out.pt"))
    with pytest.raises(ConfigError, match=r"family 'fairseq_transformer' did not come from a Hugging Face folder"):
        convert(trained, Location(Format.HUGGING_FACE, tmp_path / "out"), files=FILES)
    for result in (Location(Format.HUGGING_FACE, tmp_path / "bart"), Location(Format.BUNDLE, tmp_path / "bart")):
        with pytest.raises(ConfigError, match="exists already"):
            convert(bart, result)
    with pytest.raises(ConfigError, match="replaces a bundle, and nothing else"):
        convert(bart, Location(Format.BUNDLE, tmp_path / "bart"), overwrite=True)
    with pytest.raises(ConfigError, match=r"checkpoint_best\.pt: exists already"):
        convert(trained, trained, files=FILES)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Dictionary([("other", 1)]).save(elsewhere / "dict.aa.txt")
    with pytest.raises(ConfigError, match=r"dict\.aa\.txt: exists already and is another model's"):
        convert(trained, Location(Format.FAIRSEQ, elsewhere / "new.pt"), files=FILES)
    assert {entry.name for entry in elsewhere.iterdir()} == {"dict.aa.txt"}
    assert {entry.name for entry in tmp_path.iterdir()} == {"bart", "fairseq", "elsewhere"}
    tensors = load_file(tmp_path / "bart/model.safetensors")
    tensors["more"] = tensors.pop("model.encoder.layers.0.fc1.bias")
    save_file(tensors, tmp_path / "bart/model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing model\.encoder\.layers\.0\.fc1\.bias; unexpected more"):
        convert(bart, Location(Format.BUNDLE, tmp_path / "out"))


def test_a_model_that_changed_on_the_way_is_seen(tmp_path):
    path = stock(tmp_path / "a")
    model, again = (read_model(path, FILES) for _ in range(2))
    here = Location(Format.FAIRSEQ, path)
    assert compare(here, model, here, again).passed
    with torch.no_grad():
        again.network.encoder.layers[0].inner.bias[0] += 1
    parity = compare(here, model, here, again)
    assert parity.differing == ("encoder.layers.0.inner.bias",)
    assert not parity.passed
    assert parity.random_difference > 1e-3
    text = dataclasses.replace(model.source, dictionary=Dictionary((f"v{i}", 1) for i in range(20)))
    with torch.no_grad():
        again.network.encoder.layers[0].inner.bias[0] = float("nan")
    assert compare(here, model, here, dataclasses.replace(again, source=text)).random_difference == float("inf")


def test_paths_are_what_they_say_or_what_is_there(tmp_path):
    path = stock(tmp_path / "a")
    bundle.save(tmp_path / "b", read_model(path, FILES))
    assert locate(str(path), new=False) == Location(Format.FAIRSEQ, path)
    assert locate(str(tmp_path / "b"), new=False) == Location(Format.BUNDLE, tmp_path / "b")
    assert locate("hf:x:y", new=False) == Location(Format.HUGGING_FACE, Path("x:y"))
    assert locate("x.pt", new=True).format is Format.FAIRSEQ
    assert locate("x", new=True).format is Format.BUNDLE
    found = pairs(["fairseq:x.pt", "y", "y", "hf:z"])
    assert [source.format for source, _ in found] == [Format.FAIRSEQ, Format.BUNDLE]
    for texts, message in (
        ([], "0 paths; expected pairs"),
        (["a", "b", "c"], "3 paths; expected pairs"),
        (["hf:a", "b", "hf:c", "bundle:b"], "b: named as a result twice"),
        (["hf:a", "hf:a"], "a: is the source and the result"),
        (["hf:", "a"], "no path behind the prefix"),
        (["nowhere", "a"], "nowhere: neither a bundle, a Hugging Face folder nor a checkpoint"),
    ):
        with pytest.raises(ConfigError, match=message):
            pairs(texts)
