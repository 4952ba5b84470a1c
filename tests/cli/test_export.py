"""``fairbeam export``: a fairseq checkpoint becomes a bundle that translates the same."""

import argparse

import pytest
import torch

import fairbeam
from fairbeam.cli.export import command
from fairbeam.errors import CheckpointError, ConfigError, InputError
from fairbeam.families.fairseq.transformer import config_from_options, save_weights
from fairbeam.formats import bundle
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.network import EncoderDecoder
from fairbeam.text import Dictionary

SENTENCES = ["w1 w2 w3", "", "w9 w8"]


@pytest.fixture
def trained(tmp_path):
    """A stock checkpoint with random weights, and its dictionaries beside it."""
    dictionary = Dictionary((f"w{i}", 1) for i in range(20))
    sizes = {"embed_dim": 16, "ffn_embed_dim": 24, "layers": 1, "attention_heads": 2}
    options = {f"{stack}_{name}": size for stack in ("encoder", "decoder") for name, size in sizes.items()}
    torch.manual_seed(0)
    network = EncoderDecoder(config_from_options(options, len(dictionary), len(dictionary)))
    for language in ("aa", "bb"):
        dictionary.save(tmp_path / f"dict.{language}.txt")
    path = tmp_path / "checkpoint_best.pt"
    cfg = {"model": argparse.Namespace(_name="transformer", **options), "task": {"_name": "translation"}}
    checkpoint.write(path, {"args": None, "cfg": cfg, "model": save_weights(network)})
    return path


def test_a_bundle_translates_as_its_checkpoint(trained, tmp_path, capsys):
    out = tmp_path / "out" / "model"
    command(trained, out, source_lang="aa", target_lang="bb", beam=3, lenpen=0.5)
    assert capsys.readouterr().out == f"{out}\n"
    made, stock = (fairbeam.load(path, precision="float32", workers=1) for path in (out, trained))
    assert made.translate(SENTENCES) == stock.translate(SENTENCES, beam=3, lenpen=0.5)
    with pytest.raises(ConfigError, match="exists already"):
        command(trained, out, source_lang="aa", target_lang="bb")
    command(trained, out, source_lang="bb", target_lang="aa", beam=2, overwrite=True)
    again = bundle.load(out)
    assert (again.source.language, again.target.language, again.generation.beam) == ("bb", "aa", 2)


def test_the_direction_must_be_known(trained, tmp_path):
    with pytest.raises(InputError, match=r"which language is the source.*aa, bb; give --source-lang and --target-lang"):
        command(trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    # As fairseq-preprocess names its files, the folder itself says which.
    (tmp_path / "train.bb-aa.bb.idx").touch()
    command(trained, tmp_path / "out")
    assert bundle.load(tmp_path / "out").source.language == "bb"


def test_the_card_gets_the_scores_of_a_test_set(trained, tmp_path):
    source, reference = tmp_path / "test.aa", tmp_path / "test.bb"
    source.write_text("w1 w2\nw3\n")
    reference.write_text("w4 w5\nw6\n")
    command(trained, tmp_path / "out", source_lang="aa", target_lang="bb", test=(source, reference))
    card = (tmp_path / "out" / bundle.CARD).read_text()
    assert "Scores on test.aa (2 lines)" in card
    assert "BLEU|" in card
    assert "chrF2|" in card
    assert all(t.dtype == torch.float32 for t in bundle.load(tmp_path / "out").network.state_dict().values())


def test_dictionaries_that_are_missing_or_of_another_model_are_refused(trained, tmp_path):
    languages = {"source_lang": "aa", "target_lang": "bb"}
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match=r"no dictionaries .* --data"):
        command(trained, tmp_path / "out", data=empty, **languages)
    Dictionary((f"w{i}", 1) for i in range(21)).save(tmp_path / "dict.bb.txt")
    with pytest.raises(CheckpointError, match="the target dictionary has 25 entries, but the model embeds 24"):
        command(trained, tmp_path / "out", **languages)
    assert not (tmp_path / "out").exists()


def test_the_real_model_survives_export(real_models, tmp_path):
    path = real_models / "multi30k-en-de" / "checkpoint.pt"
    command(path, tmp_path / "en-de", source_lang="en", target_lang="de")
    sentences = ["A man sleeps.", "Two dogs are playing in the snow.", ""]
    files = ModelFiles(source_lang="en", target_lang="de")
    made = fairbeam.load(tmp_path / "en-de", precision="float32", workers=1)
    stock = fairbeam.load(path, precision="float32", workers=1, files=files)
    assert made.translate(sentences) == stock.translate(sentences)
    assert {f.name for f in (tmp_path / "en-de").iterdir()} == {
        bundle.CONFIG, bundle.WEIGHTS, bundle.CARD, "origin.json", "origin.safetensors",
        "dict.en.txt", "dict.de.txt", "spm.model",
    }  # fmt: skip
