"""``fairbeam doctor`` on sound and broken installations, data folders, checkpoints and bundles."""

import dataclasses
import re
import shutil

import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from fairbeam.cli.doctor import command
from fairbeam.data.indexed import IndexedWriter
from fairbeam.doctor import environment
from fairbeam.doctor.memory import estimate_decoding
from fairbeam.formats import bundle
from fairbeam.model import Bundle
from fairbeam.network import (
    LSTM,
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderOnly,
    EncoderOnlyConfig,
    LSTMConfig,
    StackConfig,
)
from fairbeam.text import Dictionary, Marks, SentencePieceOptions, Tokenizer, train_sentencepiece

SUBWORDS = train_sentencepiece(["a b c d e f"] * 10, SentencePieceOptions(vocab_size=12))


def doctor(*arguments):
    app = Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


@pytest.fixture
def data_bin(tmp_path):
    folder = tmp_path / "data-bin"
    folder.mkdir()
    for language in ("en", "de"):
        Dictionary([("a", 2), ("b", 1)]).save(folder / f"dict.{language}.txt")
        with IndexedWriter(folder / f"train.en-de.{language}", 100) as writer:
            for sentence in ([4, 2], [5, 4, 2], [2]):
                writer.add(sentence)
    return folder


@pytest.fixture
def model(tmp_path):
    """A bundle and its network."""
    dictionary = Dictionary([("▁a", 2), ("b", 1)])
    stack = StackConfig(layers=1, dim=16, heads=2, ffn_dim=24)
    network = EncoderDecoder(
        EncoderDecoderConfig(source_vocabulary=6, target_vocabulary=6, encoder=stack, decoder=stack)
    )
    source, target = (Tokenizer(language=language, subwords=SUBWORDS, dictionary=dictionary)
                      for language in ("en", "de"))  # fmt: skip
    bundle.save(tmp_path / "model", Bundle(network=network, source=source, target=target))
    return tmp_path / "model", network


def test_installation(monkeypatch):
    monkeypatch.setattr(environment, "is_installed", lambda _: True)
    monkeypatch.setattr(environment, "import_error", lambda _: None)
    done = doctor()
    assert done.exit_code == 0
    assert torch.__version__.split("+")[0] in done.output
    assert re.search(r"import fairseq\W+works", done.output)
    assert re.search(r"--precision auto\W+(float32|bfloat16|int8)", done.output)

    monkeypatch.setattr(environment, "import_error", lambda _: "ImportError: [no such] symbol")
    done = doctor()
    assert done.exit_code == 1
    assert "cannot be imported: ImportError: [no such] symbol" in done.output


def test_data_folder(data_bin):
    done = doctor(data_bin)
    assert (done.exit_code, done.output.split(": ", 1)[1]) == (0, "sound, sentences: train 3\n")
    index = data_bin / "train.en-de.de.idx"
    index.write_bytes(index.read_bytes()[:-3])
    Dictionary([("a", 2)]).save(data_bin / "dict.en.txt")
    done = doctor(data_bin)
    assert done.exit_code == 1
    assert done.output.count("problem:") >= 2
    assert "train.en-de.de" in done.output
    assert "id 5, but" in done.output


def test_bundle(model):
    folder, network = model
    done = doctor(folder, "--max-tokens", "100")
    assert done.exit_code == 0, done.output
    assert "sound, en to de" in done.output
    assert f"{sum(parameter.numel() for parameter in network.parameters()):,}" in done.output
    assert "3 sentences of 32 tokens" in done.output
    for name, _ in network.named_modules():
        assert name in done.output


def test_a_recurrent_bundle_and_an_encoder(model, tmp_path):
    config = LSTMConfig(source_vocabulary=6, target_vocabulary=6, encoder_hidden=8, decoder_hidden=8)
    stored = bundle.load(model[0])
    bundle.save(tmp_path / "recurrent", dataclasses.replace(stored, network=LSTM(config)))
    source = dataclasses.replace(stored.source, language=None, marks=Marks.ENCLOSED)
    encoder = EncoderOnly(EncoderOnlyConfig(vocabulary=6, encoder=stored.network.config.encoder))
    bundle.save(tmp_path / "encoder", Bundle(network=encoder, source=source, target=None))
    done = doctor(tmp_path / "recurrent", tmp_path / "encoder", "--max-tokens", "100")
    assert done.exit_code == 0, done.output
    assert "sound, en to de" in done.output
    assert "sound, any language" in done.output
    assert re.search(r"encoder +\W LSTM +\W 22×8 ", done.output)  # two sentences of eleven tokens
    length, sentences, beam = 32, 3, 5
    units = 8 * (length + 3 * beam) + length  # states of the source and padding, and states, cells, feed of each beam
    memory = estimate_decoding(LSTM(config).eval(), 100)
    assert memory.cache == sentences * (4 * units + 8 * length)  # and where each state's token stood
    assert memory.sentences == sentences


def test_broken_models_and_sound_data_together(model, data_bin, tmp_path):
    folder, network = model
    with torch.no_grad():
        network.head.weight[0, 0] = float("inf")
    diverged = shutil.copytree(folder, tmp_path / "diverged")
    saved = bundle.load(folder)
    bundle.save(diverged, Bundle(network=network, source=saved.source, target=saved.target), overwrite=True)
    (folder / bundle.WEIGHTS).unlink()
    done = doctor(folder, data_bin, diverged)
    assert done.exit_code == 1
    assert "sound, sentences: train 3" in done.output
    assert done.output.count("problem:") == 2
    assert "NaN or infinity in 1 weights, first head.weight" in done.output


def test_usage(tmp_path):
    assert doctor(tmp_path / "nowhere").exit_code == 2
    assert doctor("--max-tokens", "0").exit_code == 2


def test_a_real_checkpoint_and_a_truncated_one(real_models, tmp_path, run):
    folder = real_models / "multi30k-en-de"
    whole = folder / "checkpoint.pt"
    cut = tmp_path / "checkpoint.pt"
    cut.write_bytes(whole.read_bytes()[:100_000])
    done = run("fairbeam", "doctor", whole, cut, "--data", folder, "--max-tokens", "4096", check=False)
    assert done.returncode == 1
    assert "9,421,056" in done.stdout
    assert "decoder.layers.3.cross_attention.key_value" in done.stdout
    assert "128 sentences of 32 tokens" in done.stdout
    assert re.search(rf"problem: {cut}: not a checkpoint, or truncated", done.stdout)
    assert "Traceback" not in done.stderr
