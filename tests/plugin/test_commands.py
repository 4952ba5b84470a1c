"""fairseq's own commands with ``--user-dir``, as a user would run them, on stock tasks and architectures."""

import argparse
import math
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sacrebleu
import torch

from fairbeam.formats import fairseq_checkpoint as checkpoint

ROOT = Path(__file__).resolve().parents[2]
USER_DIR = ("--user-dir", ROOT / "user_dir")
WORDS = ("cat", "dog", "bird", "tree", "house", "car", "man", "sun", "sea", "road")
LINES = {"train": 403, "valid": 33, "test": 100, "test1": 1, "test2": 1001}

SIZES = ("embed-dim", 16), ("ffn-embed-dim", 32), ("layers", 1), ("attention-heads", 2)
TINY_DECODER = [part for name, size in SIZES for part in (f"--decoder-{name}", size)]
TINY = [*TINY_DECODER, *(part for name, size in SIZES for part in (f"--encoder-{name}", size))]
OPTIMIZER = ("--optimizer", "adam", "--lr", "0.01", "--max-tokens", "400", "--cpu", "--seed", "7")
TRAIN = ("--task", "translation", "--arch", "transformer", *TINY, *OPTIMIZER)
DECODE = ("--beam", "2", "--max-len-b", "12", "--cpu")


def fairseq_run(run, name, *arguments, **options):
    """Run ``fairseq-NAME`` with the user-dir; no warning may show."""
    done = run(f"fairseq-{name}", *arguments, *USER_DIR, **options)
    assert "Warning" not in done.stderr, done.stderr
    return done


def sentences(seed: int, count: int) -> list[list[int]]:
    generator = random.Random(seed)
    return [generator.choices(range(len(WORDS)), k=generator.randint(2, 9)) for _ in range(count)]


@pytest.fixture(scope="module")
def corpus(run, tmp_path_factory) -> Path:
    """Text, and its ``bin`` folder: the target has the source's words spelt backwards."""
    folder = tmp_path_factory.mktemp("corpus")
    for seed, (split, count) in enumerate(LINES.items()):
        lines = [" ".join(WORDS[word] for word in sentence) for sentence in sentences(seed, count)]
        (folder / f"{split}.en").write_text("".join(f"{line}\n" for line in lines))
        (folder / f"{split}.de").write_text(
            "".join(" ".join(word[::-1] for word in line.split()) + "\n" for line in lines)
        )
    tests = ",".join(str(folder / split) for split in ("test", "test1", "test2"))
    done = fairseq_run(
        run, "preprocess", "-s", "en", "-t", "de", "--trainpref", folder / "train",
        "--validpref", folder / "valid", "--testpref", tests, "--destdir", folder / "bin",
    )  # fmt: skip
    assert f"train.en: {LINES['train']} sents" in done.stderr
    return folder


@pytest.fixture(scope="module")
def trained(run, corpus, tmp_path_factory):
    """Two epochs with ``--eval-bleu``, then a third by resuming: the folder and the two commands' output."""
    folder = tmp_path_factory.mktemp("trained")
    command = (
        corpus / "bin", *TRAIN, "--save-dir", folder, "--eval-bleu", "--eval-bleu-remove-bpe",
        "--eval-bleu-args", '{"beam": 1, "max_len_b": 12}', "--patience", "9",
    )  # fmt: skip
    first = fairseq_run(run, "train", *command, "--max-epoch", "2")
    second = fairseq_run(run, "train", *command, "--max-epoch", "3")
    return folder, first.stdout, second.stdout


def stats(log: str, tag: str) -> list[dict[str, float]]:
    """The numbers of the log lines ``| tag | epoch 001 | loss 3.2 | …``."""
    lines = (line for line in log.splitlines() if f"| {tag} |" in line)
    pairs = (re.findall(r"\| (\w+) ([\d.e+-]+)", line) for line in lines)
    return [{name: float(value) for name, value in line} for line in pairs]


def hypotheses(output: str) -> dict[int, str]:
    found = re.findall(r"^H-(\d+)\t\S+\t(.*)$", output, re.MULTILINE)
    assert len({number for number, _ in found}) == len(found)
    return {int(number): text for number, text in found}


def test_training_sees_every_pair_and_resumes(trained):
    folder, first, second = trained
    epochs = stats(first, "train") + stats(second, "train")
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert "(epoch 3 @ " in second  # what it resumed from
    updates = epochs[0]["num_updates"]
    assert [epoch["num_updates"] for epoch in epochs] == [updates, 2 * updates, 3 * updates]
    for epoch in epochs:
        assert round(epoch["bsz"] * updates) == pytest.approx(LINES["train"], abs=0.5)
    assert epochs[0]["loss"] > epochs[1]["loss"] > epochs[2]["loss"]
    assert checkpoint.read(folder / "checkpoint_last.pt").num_updates == 3 * updates


def test_generate_scores_sacrebleu_on_every_sentence(run, corpus, trained):
    done = fairseq_run(
        run, "generate", corpus / "bin", "--path", trained[0] / "checkpoint_best.pt", "--gen-subset", "test2",
        "--scoring", "sacrebleu", *DECODE,
    )  # fmt: skip
    found = hypotheses(done.stdout)
    assert sorted(found) == list(range(LINES["test2"]))
    references = (corpus / "test2.de").read_text().splitlines()
    expected = sacrebleu.corpus_bleu([found[i] for i in range(len(found))], [references])
    assert f"Generate test2 with beam=2: {expected.format()}" in done.stdout


def test_generate_scores_chrf_on_every_sentence(run, corpus, trained):
    path = trained[0] / "checkpoint_last.pt"
    done = fairseq_run(run, "generate", corpus / "bin", "--path", path, "--scoring", "chrf", *DECODE)
    found = hypotheses(done.stdout)
    assert sorted(found) == list(range(LINES["test"]))
    references = (corpus / "test.de").read_text().splitlines()
    expected = sacrebleu.corpus_chrf([found[i] for i in range(len(found))], [references])
    assert f"Generate test with beam=2: {expected.format()}" in done.stdout


def test_interactive_gives_one_hypothesis_for_each_line(run, corpus, trained):
    lines = (corpus / "test2.en").read_text().splitlines()[:7]
    done = fairseq_run(
        run, "interactive", corpus / "bin", "--path", trained[0] / "checkpoint_last.pt", *DECODE,
        "-s", "en", "-t", "de", "--buffer-size", "100", input="".join(f"{line}\n" for line in lines),
    )  # fmt: skip
    assert sorted(hypotheses(done.stdout)) == list(range(7))


def test_validate_gives_the_loss_that_training_logged(run, corpus, trained):
    folder, _, log = trained
    done = fairseq_run(
        run, "validate", corpus / "bin", "--path", folder / "checkpoint_last.pt", "--task", "translation",
        "--valid-subset", "valid", "--max-tokens", "400", "--cpu",
    )  # fmt: skip
    (found,), (logged,) = stats(done.stdout, "valid"), stats(log, "valid")
    assert found["loss"] == logged["loss"]
    assert found["bleu"] == logged["bleu"]


def test_language_model_trains_and_evaluates_every_word(run, corpus, tmp_path):
    data, model = tmp_path / "bin", tmp_path / "model"
    splits = ("train", "valid", "test")
    texts = [part for split in splits for part in (f"--{split}pref", corpus / f"{split}.en")]
    fairseq_run(run, "preprocess", "--only-source", *texts, "--destdir", data)
    task = ("--task", "language_modeling", "--tokens-per-sample", "32", "--sample-break-mode", "eos")
    done = fairseq_run(
        run, "train", data, *task, "--arch", "transformer_lm", *TINY_DECODER, *OPTIMIZER, "--max-epoch", "2",
        "--save-dir", model, "--no-epoch-checkpoints",
    )  # fmt: skip
    losses = [epoch["loss"] for epoch in stats(done.stdout, "valid")]
    assert losses[1] < losses[0] < math.log2(len(WORDS) + 6) + 1
    done = fairseq_run(run, "eval-lm", data, *task, "--path", model / "checkpoint_last.pt", "--cpu")
    words = sum(len(line.split()) + 1 for line in (corpus / "test.en").read_text().splitlines())
    assert f"Evaluated {words} tokens" in done.stderr
    loss = float(re.search(r"Loss \(base 2\): ([\d.]+)", done.stderr)[1])
    assert loss == pytest.approx(losses[1], rel=0.1)


def test_bfloat16_trains_resumes_and_decodes_on_the_cpu(run, corpus, tmp_path):
    command = (corpus / "bin", *TRAIN, "--bf16", "--save-dir", tmp_path, "--no-epoch-checkpoints")
    epochs = []
    for last in ("1", "2"):
        epochs += stats(fairseq_run(run, "train", *command, "--max-epoch", last).stdout, "train")
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert epochs[1]["loss"] < epochs[0]["loss"]
    path = tmp_path / "checkpoint_last.pt"
    for weight in checkpoint.read(path).model.values():  # saved as float32, trained as bfloat16
        assert torch.equal(weight, weight.bfloat16().float())
    done = fairseq_run(run, "generate", corpus / "bin", "--path", path, "--bf16", *DECODE)
    assert len(hypotheses(done.stdout)) == LINES["test"]


def test_hydra_train_makes_a_checkpoint_that_decodes(run, corpus, tmp_path):
    (tmp_path / "tiny.yaml").write_text(f"""\
common: {{user_dir: {ROOT / "user_dir"}, cpu: true, bf16: true}}
task: {{_name: translation, data: {corpus / "bin"}}}
model:
  _name: transformer
  encoder: {{embed_dim: 16, ffn_embed_dim: 32, layers: 1, attention_heads: 2}}
  decoder: {{embed_dim: 16, ffn_embed_dim: 32, layers: 1, attention_heads: 2}}
criterion: {{_name: cross_entropy}}
optimizer: {{_name: adam}}
lr_scheduler: {{_name: fixed}}
dataset: {{max_tokens: 400}}
optimization: {{max_epoch: 1, lr: [0.01]}}
checkpoint: {{save_dir: {tmp_path / "model"}, no_epoch_checkpoints: true}}
""")
    where = ("--config-dir", tmp_path, "--config-name", "tiny", f"hydra.run.dir={tmp_path / 'run'}")
    done = run("fairseq-hydra-train", *where)
    # Hydra composes its configuration, and comments on fairseq's, before it knows of a user-dir.
    assert not re.search(r"/(torch|fairseq|numpy|omegaconf)/.*Warning", done.stderr)
    path = tmp_path / "model" / "checkpoint_last.pt"
    assert checkpoint.read(path).config["encoder"]["layers"] == 1
    done = fairseq_run(run, "generate", corpus / "bin", "--path", path, "--gen-subset", "test1", *DECODE)
    assert list(hypotheses(done.stdout)) == [0]


def test_averaged_checkpoint_decodes(run, corpus, trained, tmp_path):
    mean = tmp_path / "mean.pt"
    run("fairbeam", "average", mean, "--dir", trained[0], "--last", "3")
    weights = [checkpoint.read(trained[0] / f"checkpoint{epoch}.pt").model for epoch in (1, 2, 3)]
    name = "decoder.layers.0.fc1.weight"
    expected = torch.stack([weight[name] for weight in weights]).double().mean(0)
    torch.testing.assert_close(checkpoint.read(mean).model[name].double(), expected, rtol=1e-6, atol=1e-7)
    done = fairseq_run(run, "generate", corpus / "bin", "--path", mean, *DECODE)
    assert len(hypotheses(done.stdout)) == LINES["test"]


def test_resuming_keeps_the_patience_counter(run, corpus, trained, tmp_path):
    state = checkpoint.load(trained[0] / "checkpoint_last.pt")
    logged = stats(trained[2], "valid")[-1]["loss"]
    assert state["extra_state"]["early_stopping"] == {"best": logged, "num_runs": 0}
    state["extra_state"]["early_stopping"] = {"best": 0.0, "num_runs": 1}
    checkpoint.write(tmp_path / "checkpoint_last.pt", state)
    options = ("--max-epoch", "9", "--patience", "2", "--save-dir", tmp_path, "--no-epoch-checkpoints")
    done = fairseq_run(run, "train", corpus / "bin", *TRAIN, *options)
    assert "early stop since valid performance hasn't improved for last 2 runs" in done.stdout
    assert [epoch["epoch"] for epoch in stats(done.stdout, "train")] == [4]


@pytest.fixture(scope="module")
def resumable(corpus):
    """The training command that the tests of killing and resuming share, less its folder."""
    return (
        corpus / "bin", *TRAIN, "--max-epoch", "4", "--save-interval-updates", "4", "--dropout", "0.3",
        "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "5", "--clip-norm", "1",
    )  # fmt: skip


def train_until(path: Path, command) -> None:
    """Run fairseq-train and kill it as soon as ``path`` is there."""
    arguments = [str(part) for part in ("--save-dir", path.parent, *command, *USER_DIR)]
    executable = Path(sys.executable).parent / "fairseq-train"
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen([executable, *arguments], stdout=subprocess.DEVNULL, env=environment) as process:
        deadline = time.monotonic() + 120
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert path.exists()


def test_a_run_killed_in_two_epochs_ends_as_one_that_was_not(run, resumable, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    log = fairseq_run(run, "train", *resumable, "--save-dir", whole).stdout
    updates = int(stats(log, "train")[0]["num_updates"])
    assert updates > 6
    for epoch in (1, 3):
        first_save = (updates * (epoch - 1) // 4 + 1) * 4
        train_until(killed / f"checkpoint_{epoch}_{first_save}.pt", resumable)
        assert not (killed / f"checkpoint{epoch}.pt").exists()
    fairseq_run(run, "train", *resumable, "--save-dir", killed)

    expected, found = (checkpoint.load(folder / "checkpoint_last.pt") for folder in (whole, killed))
    assert found["optimizer_history"][-1]["num_updates"] == 4 * updates
    for name, tensor in expected["model"].items():
        assert torch.equal(found["model"][name], tensor), name
    moments, found_moments = (state["last_optimizer_state"]["state"] for state in (expected, found))
    for key, moment in moments.items():
        assert torch.equal(found_moments[key]["exp_avg"], moment["exp_avg"])
    assert not list(killed.glob(".*.tmp"))


def test_torchrun_shares_one_training_among_processes(run, corpus, trained, tmp_path):
    shutil.copy(trained[0] / "checkpoint_last.pt", tmp_path)
    launcher = ("--standalone", "--nproc-per-node", "2", Path(sys.executable).parent / "fairseq-train")
    options = ("--max-epoch", "4", "--save-dir", tmp_path, "--no-epoch-checkpoints", *USER_DIR)
    done = run("torchrun", *launcher, corpus / "bin", *TRAIN, *options)
    before, after = stats(trained[2], "train")[-1], *stats(done.stdout, "train")
    assert after["epoch"] == 4
    updates = after["num_updates"] - before["num_updates"]
    assert updates <= before["num_updates"] / 3 / 2 + 1  # two processes take half the steps
    assert round(after["bsz"] * updates) == pytest.approx(LINES["train"], abs=0.5)
    assert after["loss"] < before["loss"]


class Attack:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def refused(run, corpus, path, *options) -> str:
    done = run("fairseq-generate", corpus / "bin", "--path", path, *DECODE, *options, *USER_DIR, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_generate_refuses_a_malicious_pickle(run, corpus, trained, tmp_path):
    target = tmp_path / "attacked"
    state = checkpoint.load(trained[0] / "checkpoint_last.pt")
    torch.save({**state, "task_state": Attack(target)}, tmp_path / "evil.pt")
    message = refused(run, corpus, tmp_path / "evil.pt")
    assert re.search(r"error: .*evil\.pt: refused.*io\.open", message)
    assert not target.exists()


@pytest.mark.parametrize(
    ("arch", "option", "message"),
    [
        ("transformer", "adaptive_softmax_cutoff", "not a literal"),
        ("wav2vec2", "conv_feature_layers", "architecture 'wav2vec2'"),
    ],
)
def test_generate_refuses_a_malicious_option(run, corpus, trained, tmp_path, monkeypatch, arch, option, message):
    monkeypatch.chdir(tmp_path)
    state = checkpoint.load(trained[0] / "checkpoint_last.pt")
    hostile = {"arch": arch, "_name": arch, option: "open('attacked', 'w')"}
    model = argparse.Namespace(**{**vars(state["cfg"]["model"]), **hostile})
    checkpoint.write(tmp_path / "evil.pt", {**state, "cfg": {**state["cfg"], "model": model}})
    assert message in refused(run, corpus, tmp_path / "evil.pt")
    assert not (tmp_path / "attacked").exists()
