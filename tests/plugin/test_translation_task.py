"""``--task fairbeam_translation`` through fairseq's commands: scores, resume, counts, fallbacks, errors."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fairbeam.demo.grammar import split_corpus
from fairbeam.formats import fairseq_checkpoint as checkpoint

ROOT = Path(__file__).resolve().parents[2]
TASK = ("--user-dir", ROOT / "user_dir", "--task", "fairbeam_translation")
CRITERION = ("--criterion", "fairbeam_label_smoothed_cross_entropy", "--label-smoothing", "0.1")
SIZES = [
    part
    for stack in ("encoder", "decoder")
    for name, value in (("layers", 1), ("embed-dim", 32), ("ffn-embed-dim", 64), ("attention-heads", 2))
    for part in (f"--{stack}-{name}", value)
]
OPTIMIZER = ("--optimizer", "adam", "--lr", "0.01", "--cpu", "--seed", "7", "--max-tokens", "600")
TRAIN = (*TASK, "--arch", "fairbeam_transformer", *SIZES, "--share-all-embeddings", *CRITERION, *OPTIMIZER)
DECODE = ("--beam", "2", "--max-len-b", "20", "--cpu", "--no-progress-bar")


def write_lines(path: Path, lines) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@pytest.fixture(scope="module")
def corpus(run, tmp_path_factory) -> Path:
    """Demo text in ``text``; its data-bin in ``bin``."""
    folder = tmp_path_factory.mktemp("task")
    (folder / "text").mkdir()
    split = split_corpus(300, 25, 40, seed=5)
    for name in ("train", "valid", "test"):
        for side, language in enumerate(("en", "de")):
            write_lines(folder / "text" / f"{name}.{language}", [pair[side] for pair in getattr(split, name)])
    run("fairbeam", "prepare", folder / "text", "en", "de", folder / "bin", "--vocab-size", "400")
    return folder


@pytest.fixture(scope="module")
def trained(run, corpus) -> tuple[Path, str]:
    """A model after a few epochs: its checkpoint, and what training logged."""
    done = run("fairseq-train", corpus / "bin", *TRAIN, "--save-dir", corpus / "trained", "--max-epoch", 12,
               "--validate-interval", 6, "--eval-bleu", "--eval-bleu-args", '{"beam": 2, "max_len_b": 20}',
               "--log-format", "json", "--no-epoch-checkpoints")  # fmt: skip
    assert "Warning" not in done.stderr, done.stderr
    return corpus / "trained" / "checkpoint_last.pt", done.stdout


def hypotheses(output: str, kind: str = "D") -> list[str]:
    """Best hypotheses in source order; every sentence once."""
    found = {int(n): text for n, text in re.findall(rf"^{kind}-(\d+)\t\S+\t(.*)$", output, re.MULTILINE)}
    assert sorted(found) == list(range(len(found)))
    return [found[n] for n in range(len(found))]


def logged(output: str, tag: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in re.findall(rf"\| {tag} \| (\{{.*\}})", output)]


def test_training_learns_and_sees_every_pair(trained):
    epochs = logged(trained[1], "train")
    assert float(epochs[-1]["train_loss"]) < 0.75 * float(epochs[0]["train_loss"])
    updates = int(epochs[0]["train_num_updates"])
    assert round(float(epochs[0]["train_bsz"]) * updates) == 300
    padding = [float(share) for share in re.findall(r"([\d.]+) % of positions are padding", trained[1])]
    assert padding
    assert max(padding) < 15  # 300 pairs are too few to batch closely


def test_one_number(run, corpus, trained, tmp_path):
    """Training's log, fairseq-generate, fairbeam score and sacrebleu give the same BLEU of the same subset."""
    checkpoint_path, log = trained
    reference = corpus / "text" / "valid.de"
    done = run("fairseq-generate", corpus / "bin", *TASK, "--path", checkpoint_path, "--gen-subset", "valid", *DECODE)
    line = re.search(r"^Generate valid with beam=2: BLEU\|(\S+) = ([\d.]+) .*\(raw references\)$", done.stdout, re.M)
    assert line, done.stdout[-500:]
    assert line[1].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    write_lines(tmp_path / "hyp", hypotheses(done.stdout))
    scored = run("fairbeam", "score", reference, "-i", tmp_path / "hyp", "-b", "-w", 2).stdout.strip()
    official = run("sacrebleu", reference, "-i", tmp_path / "hyp", "-b", "-w", 2).stdout.strip()
    in_training = f"{float(logged(log, 'valid')[-1]['valid_bleu']):.2f}"
    assert line[2] == scored == official == in_training
    assert float(scored) > 0.1


def test_validate_gives_training_numbers(run, corpus, trained):
    done = run("fairseq-validate", corpus / "bin", *TASK, "--path", trained[0], "--valid-subset", "valid",
               "--max-tokens", 600, "--log-format", "json", "--cpu")  # fmt: skip
    found, expected = logged(done.stdout, "valid")[-1], logged(trained[1], "valid")[-1]
    assert found["valid_loss"] == expected["valid_loss"]
    assert float(found["valid_bleu"]) == float(expected["valid_bleu"])


def test_a_transcript_in_plain_text_alone(run, corpus, trained, tmp_path):
    """A folder of text, dictionaries and a subword model does as well as a data-bin."""
    for name in ("dict.en.txt", "dict.de.txt", "spm.model"):
        shutil.copy(corpus / "bin" / name, tmp_path)
    for language in ("en", "de"):
        shutil.copy(corpus / "text" / f"test.{language}", tmp_path)
    command = ("fairseq-generate", *TASK, "--path", trained[0], *DECODE, "-s", "en", "-t", "de")
    from_text, from_bin = run(*command, tmp_path).stdout, run(*command, corpus / "bin").stdout
    assert hypotheses(from_text) == hypotheses(from_bin)
    assert re.search(r"^Generate test .*", from_text, re.M)[0] == re.search(r"^Generate test .*", from_bin, re.M)[0]


@pytest.mark.parametrize("count", [1, 7, 100, 1001])
def test_no_sentence_is_lost(run, corpus, trained, tmp_path, count):
    lines = [*(corpus / "text" / "train.en").read_text().splitlines(), ""] * 4
    write_lines(tmp_path / "test.en", lines[:count])
    for name in ("dict.en.txt", "dict.de.txt", "spm.model"):
        shutil.copy(corpus / "bin" / name, tmp_path)
    command = ("--path", trained[0], "-s", "en", "-t", "de", *DECODE, "--beam", "1", "--max-len-b", "3")
    generated = run("fairseq-generate", tmp_path, *TASK, *command).stdout
    typed = run("fairseq-interactive", tmp_path, *TASK, *command, "--buffer-size", 2000, "--batch-size", 64,
                input=(tmp_path / "test.en").read_text()).stdout  # fmt: skip
    translated = run("fairbeam", "translate", trained[0], "--data", tmp_path, "--precision", "float32", "--beam", 1,
                     "--max-len-b", 3, input=(tmp_path / "test.en").read_text()).stdout.splitlines()  # fmt: skip
    assert len(hypotheses(generated)) == len(translated) == count
    assert hypotheses(typed) == hypotheses(generated)
    assert [text for text, line in zip(translated, lines, strict=False) if line] == [
        text for text, line in zip(hypotheses(generated), lines, strict=False) if line
    ]


def train_until(path: Path, command) -> None:
    """Train and kill the process as soon as ``path`` is there."""
    executable = Path(sys.executable).parent / "fairseq-train"
    arguments = [str(part) for part in (executable, "--save-dir", path.parent, *command)]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env=environment) as process:
        deadline = time.monotonic() + 120
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert path.exists()


@pytest.mark.parametrize(
    "options",
    [("--compute-dtype", "float32"), ("--compute-dtype", "bfloat16")],
    ids=["float32", "bfloat16"],
)
def test_a_killed_run_ends_as_one_that_was_not(run, corpus, tmp_path, options):
    command = (corpus / "bin", *TRAIN, "--max-epoch", 3, "--dropout", "0.3", "--save-interval-updates", 2, *options)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    log = run("fairseq-train", *command, "--save-dir", whole, "--log-format", "json").stdout
    ends = [int(epoch["train_num_updates"]) for epoch in logged(log, "train")]
    assert min(ends[0], ends[2] - ends[1]) > 3
    train_until(killed / "checkpoint_1_2.pt", command)
    train_until(killed / f"checkpoint_3_{ends[1] // 2 * 2 + 2}.pt", command)
    run("fairseq-train", *command, "--save-dir", killed)
    expected, found = (checkpoint.read(folder / "checkpoint_last.pt") for folder in (whole, killed))
    assert found.num_updates == expected.num_updates == ends[2]
    assert all(torch.equal(found.model[name], expected.model[name]) for name in expected.model)


def test_subwords_are_drawn_anew_every_epoch(run, corpus, tmp_path):
    command = ("fairseq-train", corpus / "bin", *TRAIN, "--max-epoch", 2, "--no-save", "--log-format", "json")
    usual, sampled = (run(*command, "--subword-sampling", alpha).stdout for alpha in ("0", "0.2"))
    words = [
        [float(epoch["train_wpb"]) * int(epoch["train_num_updates"]) for epoch in logged(log, "train")[:1]]
        for log in (usual, sampled)
    ]
    assert words[1][0] > 1.02 * words[0][0]  # dropped merges make more pieces
    assert logged(sampled, "valid")


@pytest.mark.parametrize(
    ("options", "notice"),
    [
        (("--retain-dropout",), "--retain-dropout"),
    ],
)
def test_what_we_lack_runs_on_stock_with_a_notice(run, corpus, trained, options, notice):
    done = run("fairseq-generate", corpus / "bin", *TASK, "--path", trained[0], *DECODE, *options)
    notices = [line for line in (done.stdout + done.stderr).splitlines() if "fairseq's own generator" in line]
    assert len(notices) == 1
    assert notice in notices[0]
    assert len(hypotheses(done.stdout)) == 40


def test_samples_are_our_own_and_repeat_with_the_seed(run, corpus, trained):
    command = ("fairseq-generate", corpus / "bin", *TASK, "--path", trained[0], *DECODE,
               "--sampling", "--sampling-topp", "0.9", "--nbest", "2")  # fmt: skip
    one, again, other = (run(*command, "--seed", seed, *extra) for seed, extra in
                         ((1, ()), (1, ("--batch-size", "7")), (2, ())))  # fmt: skip
    assert "fairseq's own generator" not in one.stdout + one.stderr
    assert hypotheses(one.stdout) == hypotheses(again.stdout) != hypotheses(other.stdout)


def test_stock_generator_decodes_our_model_alike(run, corpus, trained):
    """The model behind stock's interface is the same model: an option that changes nothing shows it."""
    ours = run("fairseq-generate", corpus / "bin", *TASK, "--path", trained[0], *DECODE)
    stock = run("fairseq-generate", corpus / "bin", *TASK, "--path", trained[0], *DECODE, "--print-alignment", "soft")
    assert hypotheses(ours.stdout) == hypotheses(stock.stdout)


def test_our_criterion_trains_a_stock_model_as_stock_does(run, corpus, tmp_path):
    command = ("fairseq-train", corpus / "bin", *TASK, "--arch", "transformer", *SIZES, *OPTIMIZER, "--max-epoch", 1,
               "--dropout", 0, "--label-smoothing", "0.1", "--no-save", "--log-format", "json")  # fmt: skip
    losses = [
        float(
            logged(run(*command, "--criterion", f"{prefix}label_smoothed_cross_entropy").stdout, "valid")[0][
                "valid_loss"
            ]
        )
        for prefix in ("", "fairbeam_")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)


def test_old_data_is_scored_on_what_it_decodes_to(run, corpus, trained, tmp_path):
    """A data-bin of fairseq-preprocess has no raw text, and the line says so."""
    old = tmp_path / "old"
    shutil.copytree(corpus / "bin", old, ignore=shutil.ignore_patterns("raw", "fairbeam.json", "spm.model"))
    done = run("fairseq-generate", old, *TASK, "--path", trained[0], *DECODE, "--remove-bpe", "sentencepiece")
    line = re.search(r"^Generate test with beam=2: BLEU\|.*$", done.stdout, re.M)[0]
    assert "references as the data decodes; no raw text was kept" in line


def test_errors_are_one_line(run, corpus, trained, tmp_path):
    def error_of(*command) -> str:
        done = run(*command, check=False)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr.strip().splitlines()[-1]

    # dictionaries of another model
    other = tmp_path / "other"
    shutil.copytree(corpus / "bin", other)
    for language in ("en", "de"):
        with (other / f"dict.{language}.txt").open("a") as stream:
            stream.write("".join(f"extra{n} 1\n" for n in range(8)))
    message = error_of("fairseq-generate", other, *TASK, "--path", trained[0], *DECODE)
    assert re.search(r"has \d+ rows, but .*dict\.en\.txt has \d+ entries", message)

    # a sentence longer than the positions
    long = tmp_path / "long"
    long.mkdir()
    for name in ("dict.en.txt", "dict.de.txt", "spm.model"):
        shutil.copy(corpus / "bin" / name, long)
    write_lines(long / "test.en", ["The dog sleeps.", "dog " * 1500, "The cat sleeps."])
    command = ("fairseq-generate", long, *TASK, "--path", trained[0], *DECODE, "-s", "en", "-t", "de")
    assert re.search(r"sentence 2 has \d+ source", error_of(*command))
    skipped = run(*command, "--skip-invalid-size-inputs-valid-test")
    assert re.findall(r"^D-(\d+)", skipped.stdout, re.M) == ["0", "2"]
    assert "1 sentences are longer than" in skipped.stdout + skipped.stderr

    # an impossible option
    message = error_of("fairseq-generate", corpus / "bin", *TASK, "--path", trained[0], "--nbest", 9, "--cpu")
    assert "--nbest 9 is greater than --beam 5" in message
