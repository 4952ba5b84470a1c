"""``--arch fairbeam_from_bundle``: pretrained and composed models trained further, decoded and exported."""

import re
from argparse import Namespace
from pathlib import Path

import hub_folders
import pytest
import torch

from fairbeam.errors import ConfigError
from fairbeam.formats import bundle
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam.formats.compose import SequenceOptions, compose, sequence_to_sequence
from fairbeam.formats.registry import read_model
from fairbeam.model import Bundle
from fairbeam.network import LSTM, LSTMConfig
from fairbeam.text import Dictionary, Marks, Tokenizer, Whitespace
from fairbeam.translator import load
from fairbeam_plugin.models.from_bundle import FairbeamBundleModel
from fairbeam_plugin.tasks.bundle_data import TargetLines

pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[2]
TASK = ("--user-dir", ROOT / "user_dir", "--task", "fairbeam_translation", "--cpu", "--num-workers", 0)
TRAIN = (
    "--arch", "fairbeam_from_bundle", "--criterion", "fairbeam_label_smoothed_cross_entropy", "--optimizer", "adam",
    "--lr", "0.002", "--max-tokens", 600, "--dropout", 0.0, "--log-format", "json", "--log-interval", 1,
    "--no-epoch-checkpoints", "--skip-invalid-size-inputs-valid-test",
)  # fmt: skip
DECODE = ("--beam", 3, "--max-len-b", 8, "--skip-invalid-size-inputs-valid-test")


@pytest.fixture(scope="module")
def place(real_data, tmp_path_factory) -> Path:
    """Plain text and, beside it, a composed model, a decoder that reads sources too, and a folder."""
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "data").mkdir()
    for split, count in (("train", 200), ("valid", 40), ("test", 12)):
        for language, names in (("en", ("en", "en_XX")), ("de", ("de", "de_DE"))):
            lines = (real_data / "tatoeba" / f"{split}.{language}").read_text().splitlines()[:count]
            for name in names:
                (folder / "data" / f"{split}.{name}").write_text("".join(f"{line}\n" for line in lines))
    for name in ("bert", "gpt2", "mbart"):
        hub_folders.make(name, folder / name)
    bert, gpt2 = (read_model(folder / name) for name in ("bert", "gpt2"))
    bundle.save(folder / "composed", compose(bert, gpt2))
    bundle.save(folder / "alone", sequence_to_sequence(gpt2, SequenceOptions(prefix_attention=True)))
    return folder


def train(run, place: Path, model: str, out: str, *options: object, languages=("en", "de")) -> list[float]:
    """Losses of the updates."""
    done = run(
        "fairseq-train", place / "data", *TASK, *TRAIN, "-s", languages[0], "-t", languages[1],
        "--bundle", place / model, "--save-dir", place / out, *options,
    )  # fmt: skip
    return [float(value) for value in re.findall(r'train_inner \| .*?"loss": "([\d.]+)"', done.stdout + done.stderr)]


@pytest.fixture(scope="module")
def composed(run, place) -> list[float]:
    return train(run, place, "composed", "tuned", "--max-update", 8)


def hypotheses(output: str) -> dict[int, str]:
    return {int(number): text for number, text in re.findall(r"^D-(\d+)\t[^\t]+\t(.*)$", output, flags=re.MULTILINE)}


def test_a_composed_model_learns_and_every_command_writes_the_same(composed, run, place):
    assert len(composed) == 8
    assert composed[-1] < composed[0]
    model = ("--bundle", place / "composed", "--path", place / "tuned/checkpoint_last.pt", "-s", "en", "-t", "de")
    generated = hypotheses(run("fairseq-generate", place / "data", *TASK, *model, *DECODE).stdout)
    lines = (place / "data/test.en").read_text().splitlines()
    given = "".join(f"{lines[number]}\n" for number in sorted(generated))
    asked = run("fairseq-interactive", place / "data", *TASK, *model, *DECODE, input=given)
    assert list(hypotheses(asked.stdout).values()) == [generated[number] for number in sorted(generated)]
    run("fairbeam", "export", place / "tuned/checkpoint_last.pt", place / "exported", "--beam", 3)
    ours = load(place / "exported", precision="float32", workers=1)
    found = ours.translate([lines[number] for number in sorted(generated)], max_len_b=8, min_len=1)
    assert found == [generated[number] for number in sorted(generated)]


def test_a_decoder_alone_learns_to_translate(run, place):
    losses = train(run, place, "alone", "alone-tuned", "--max-update", 8)
    assert losses[-1] < losses[0]
    tuned = read_model(place / "alone-tuned/checkpoint_last.pt")
    assert tuned.network.config.prefix_attention
    assert tuned.network.config.separator == tuned.target.bos
    assert [len(texts) for texts in load(place / "alone-tuned/checkpoint_last.pt").stream(["A man."], max_len_b=3)] == [
        1
    ]


@pytest.mark.parametrize("marks", Marks)
def test_targets_end_alike_whatever_stands_around_prompts(marks):
    side = Tokenizer(language=None, subwords=Whitespace(), dictionary=Dictionary([("a", 1), ("b", 1)]), marks=marks)
    assert TargetLines(side, side.eos).encode_batch(["a b", ""]) == [[4, 5, 2], [2]]


def test_a_recurrent_bundle_learns(run, place):
    dictionary = Dictionary((f"{letter}", 1) for letter in "abcdefghijklmnopqrstuvwxyz")
    sides = (Tokenizer(language=name, subwords=Whitespace(), dictionary=dictionary) for name in ("en", "de"))
    sizes = dict.fromkeys(("encoder_embedding", "encoder_hidden", "decoder_embedding", "decoder_hidden"), 16)
    config = LSTMConfig(source_vocabulary=30, target_vocabulary=30, output_dim=16, **sizes)
    model = Bundle(**dict(zip(("source", "target"), sides, strict=True)), network=LSTM(config))
    bundle.save(place / "recurrent", model)
    losses = train(run, place, "recurrent", "recurrent-tuned", "--max-update", 4, "--lr", 0.02)
    assert losses[-1] < losses[0]
    tuned = load(place / "recurrent-tuned/checkpoint_last.pt", precision="float32", workers=1)
    assert not torch.equal(tuned.networks[0].head.weight, model.network.head.weight)
    options = Namespace(dropout=0.1, attention_dropout=0.1, activation_dropout=None)
    with pytest.raises(ConfigError, match="--activation-dropout: a recurrent network has neither"):
        FairbeamBundleModel.build_model(options, Namespace(bundle=model))


def test_low_rank_training_of_a_multilingual_folder(run, place):
    languages = ("en_XX", "de_DE")
    options = ("--lora-rank", 2, "--layer-decay", 0.5, "--max-update", 4)
    assert len(train(run, place, "mbart", "lora", *options, languages=languages)) == 4
    saved = checkpoint.read(place / "lora/checkpoint_last.pt")
    before, after = (
        read_model(path).network.state_dict() for path in (place / "mbart", place / "lora/checkpoint_last.pt")
    )
    assert before.keys() == after.keys()
    changed = {name.rsplit(".", 1)[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        name.split(".low_rank.")[0].removeprefix("network.") for name in saved.model if "low_rank" in name
    }


def test_errors_name_what_is_wrong(run, place):
    command = ("fairseq-train", place / "data", *TASK, *TRAIN, "-s", "en", "-t", "de", "--save-dir", place / "none")
    for options, message in (
        (("--bundle", place / "bert"), "the model is an encoder, which writes no text; fairbeam compose"),
        (("--bundle", place / "composed", "--freeze", "x"), "--freeze x: begins no parameter's name"),
    ):
        done = run(*command, *options, check=False)
        assert done.returncode != 0
        assert message in done.stderr
