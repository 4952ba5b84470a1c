"""``fairbeam translate`` as it is used: pipes, files, and input that cannot be used."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fairbeam import bundle, checkpoint
from fairbeam.bundle import Bundle
from fairbeam.cli import translate
from fairbeam.errors import CheckpointError, ConfigError, InputError
from fairbeam.network import Network, NetworkConfig, PositionConfig, StackConfig
from fairbeam.text import Dictionary, Tokenizer, Whitespace
from fairbeam.translator import TooLong, Translation, Translator

SENTENCES = ["w1 w2 w3", "", "w4 w5", "w6"]
TEXT = "".join(f"{sentence}\n" for sentence in SENTENCES)


@pytest.fixture(scope="module")
def made():
    dictionary = Dictionary((f"w{i}", 1) for i in range(20))
    torch.manual_seed(0)
    stack = StackConfig(layers=1, dim=16, heads=2, ffn_dim=24, positions=PositionConfig(max_positions=30))
    size = len(dictionary)
    network = Network(NetworkConfig(source_vocabulary=size, target_vocabulary=size, encoder=stack, decoder=stack))
    with torch.no_grad():
        network.head.weight *= 4
    source, target = (Tokenizer(language=side, subwords=Whitespace(), dictionary=dictionary) for side in "ab")
    return Bundle(network=network.eval(), source=source, target=target)


@pytest.fixture(scope="module")
def model(tmp_path_factory, made):
    return bundle.save(tmp_path_factory.mktemp("models") / "tiny", made)


@pytest.fixture(scope="module")
def expected(made):
    return Translator([made], precision="float32", workers=1).translate(SENTENCES)


@pytest.fixture
def call(model, tmp_path):
    """Run the command's function on a text; returns the output file."""

    def run_command(text: str | bytes = TEXT, output: Path | None = None, models=(), **options) -> Path:
        (tmp_path / "in").write_bytes(text.encode() if isinstance(text, str) else text)
        options = {
            "input_file": tmp_path / "in",
            "precision": "float32",
            "workers": 1,
            "quiet": True,
            **options,
        }
        translate.command([*models] or [model], output=output or tmp_path / "out", **options)
        return tmp_path / "out"

    return run_command


def lines(texts: list[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def test_a_line_out_for_a_line_in(run, model, expected):
    done = run("fairbeam", "translate", model, "--precision", "float32", input=TEXT)
    assert done.stdout == lines(expected)
    assert done.stderr == ""
    assert len({*expected}) > 2
    assert expected[1] == ""


def test_translations_come_before_the_input_ends(model, expected):
    command = [
        Path(sys.executable).parent / "fairbeam",
        "translate",
        model,
        "--precision",
        "float32",
        "--buffer-size",
        "1",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, bufsize=1, **pipes) as process:
        try:
            for sentence, translation in zip(SENTENCES[2:], expected[2:], strict=True):
                process.stdin.write(f"{sentence}\n")
                process.stdin.flush()
                assert process.stdout.readline() == f"{translation}\n"  # a hang is caught by the test's time limit
            rest, errors = process.communicate()
        finally:
            process.kill()
    assert (rest, errors, process.returncode) == ("", "", 0)


def test_input_and_output_files(call, expected, tmp_path):
    assert call().read_text() == lines(expected)
    assert call(TEXT.removesuffix("\n").replace("\n", "\r\n")).read_text() == lines(expected)
    assert call("").read_text() == ""
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_samples_repeat_with_the_seed_and_alternatives_differ(call):
    first, again, other = (call(sampling=True, beam=2, nbest=2, seed=seed).read_text() for seed in (4, 4, 5))
    assert first == again != other
    diverse = call(beam=4, nbest=4, diverse_beam_groups=4, diverse_beam_strength=50.0).read_text().splitlines()
    assert len({line.split(" ")[0] for line in diverse[:4]}) == 4


def test_nbest_and_scores(call, made):
    out = call(nbest=2, scores=True, beam=4).read_text().splitlines()
    assert len(out) == 2 * len(SENTENCES)
    found = Translator([made], precision="float32", workers=1).stream(SENTENCES, nbest=2, beam=4)
    assert out == [f"{t.score:.4f}\t{t.text}" for pair in found for t in pair]
    assert out[2:4] == ["0.0000\t"] * 2


def test_a_line_break_inside_a_translation_is_no_new_line():
    assert translate._line(Translation("a\nb", -1.0, (), ()), False) == "a b\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (b"w1\nw2 \xe9\n", {"buffer_size": 1}, r"in, line 2: not valid UTF-8 \(byte 0xe9 at column 4\)"),
        ("w1\n" + "w2 " * 40, {"buffer_size": 1}, "sentence 2 has 41 tokens, but the model reads at most 30"),
    ],
)
def test_an_error_halfway_leaves_what_was_done_and_no_output(call, expected, tmp_path, text, options, message):
    (tmp_path / "out").write_text("older\n")
    with pytest.raises(InputError, match=rf"{message}.*What was done is in .*out\.partial"):
        call(text, **options)
    assert (tmp_path / "out").read_text() == "older\n"
    assert len((tmp_path / "out.partial").read_text().splitlines()) == 1


def test_long_sentences_can_be_skipped(call, expected):
    out = call(f"{'w2 ' * 40}\n{TEXT}", too_long=TooLong.SKIP)
    assert out.read_text() == lines(["", *expected])


def test_impossible_options_are_refused_before_a_file_is_made(call, tmp_path):
    with pytest.raises(ConfigError, match="--nbest 9 is greater than --beam 5"):
        call(nbest=9)
    with pytest.raises(ConfigError, match="--buffer-size 0"):
        call(buffer_size=0)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_places_that_cannot_be_written_or_read_are_named(call, tmp_path):
    for output in (tmp_path / "nowhere" / "out", tmp_path):
        with pytest.raises(InputError, match=str(output)):
            call(output=output)
    with pytest.raises(InputError, match="missing: no such file"):
        call(input_file=tmp_path / "missing")
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_device_is_written_to_and_not_replaced(call, expected, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        call(output=pipe)
        assert reader.communicate()[0] == lines(expected)
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to stand for a full disk")
def test_a_full_disk_is_one_line(model):
    command = [Path(sys.executable).parent / "fairbeam", "translate", model]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, input=TEXT, text=True, stdout=full, stderr=subprocess.PIPE, env=environment, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "error: standard output: cannot be written (No space left on device)\n"


class Attack:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_malicious_checkpoint_is_refused_and_does_nothing(call, tmp_path):
    hostile, trace = tmp_path / "hostile.pt", tmp_path / "trace"
    torch.save({"model": {}, "cfg": Attack(trace)}, hostile)
    with pytest.raises(CheckpointError, match=r"hostile\.pt: refused, because reading it would call .*open"):
        call(models=[hostile])
    assert {path.name for path in tmp_path.iterdir()} == {"in", "hostile.pt"}


def test_models_that_cannot_be_read_are_named(call, tmp_path):
    whole = tmp_path / "whole.pt"
    cfg = {"model": argparse.Namespace(_name="fconv"), "task": {"_name": "translation"}}
    checkpoint.write(whole, {"args": None, "cfg": cfg, "model": {"weight": torch.ones(500)}})
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(whole.read_bytes()[:1000])
    text = tmp_path / "text.pt"
    text.write_text("no checkpoint")
    for path, message in (
        (truncated, "truncated"), (text, "not a checkpoint"), (whole, "'fconv' has no conversion"),
        (tmp_path / "absent.pt", "No such file"),
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match=message) as caught:
            call(models=[path])
        assert path.name in str(caught.value) or path is whole


def test_missing_dictionaries_are_asked_for(call, real_models, tmp_path):
    alone = tmp_path / "checkpoint.pt"
    stored = real_models / "multi30k-en-de"
    alone.symlink_to(stored / "checkpoint.pt")
    with pytest.raises(InputError, match=r"no dictionaries .*; name the folder that holds them with --data"):
        call(models=[alone])
    out = call("A man sleeps.\n", models=[alone], data=stored)
    assert "schläft" in out.read_text()
    one_left = tmp_path / "one"
    one_left.mkdir()
    shutil.copy(stored / "dict.en.txt", one_left)
    with pytest.raises(InputError, match="give --source-lang and --target-lang"):
        call(models=[alone], data=one_left)
