"""``make bench``: our decoding and training against others', interleaved, medians of several rounds.

Decoding: the Multi30k test set with one stock checkpoint, through ``fairseq-generate`` with stock's task and with
ours (the whole loop over batches, start-up and loading left out), and through ``fairbeam.load``, Hugging Face's
``generate`` and CTranslate2 in its compute types and arrangements of workers and threads (``peers.py``); in batches of
64 and one sentence at a time, beam 5 and greedy. Training: the same model, options and batch limit through
``fairseq-train``. Run it with nothing else running.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
USER_DIR = ("--user-dir", ROOT / "user_dir")
DATA = Path(os.environ.get("FAIRBEAM_DATA") or ROOT.parent / "shared" / "data") / "multi30k"
MODEL = Path(os.environ.get("FAIRBEAM_MODELS") or ROOT.parent / "shared" / "models") / "multi30k-en-de"


@dataclass(frozen=True)
class Contender:
    """One way to do the same work."""

    name: str
    command: tuple[object, ...]


def run(*command: object) -> str:
    """What an installed command prints; stops the bench if it fails."""
    name, *arguments = map(str, command)
    done = subprocess.run([str(BIN / name), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def interleave(contenders: list[Contender], rounds: int, measure: Callable[[str], float]) -> dict[str, list[float]]:
    """Measure each contender once in every round, in turn."""
    figures: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for contender in contenders:
            started = time.perf_counter()
            figures[contender.name].append(measure(run(*contender.command)))
            wall = time.perf_counter() - started
            figure = figures[contender.name][-1]
            print(f"  round {number + 1}: {contender.name:34} {figure:9.2f}  (command {wall:.0f} s)", flush=True)
    return figures


def report(title: str, unit: str, figures: dict[str, list[float]]) -> None:
    """A table of medians and of ratios to the first contender; figures are rates, more is better."""
    base = statistics.median(next(iter(figures.values())))
    print(f"\n{title}\n\n| contender | {unit} (median of {len(next(iter(figures.values())))}) | ratio |\n|---|---|---|")
    for name, values in figures.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.1f} ({min(values):.1f} to {max(values):.1f}) | {median / base:.2f} |")
    print(flush=True)


def prepare(folder: Path, lines: int | None) -> Path:
    """The test set (or its beginning) as a data-bin of the shared model's subwords and dictionary, with a shortlist."""
    out = folder / f"bin{lines or ''}"
    if out.exists():
        return out
    for split, count in (("train", None), ("test", lines)):
        for language in ("en", "de"):
            text = (DATA / f"{split}.{language}").read_text(encoding="utf-8").splitlines()[:count]
            (folder / f"{split}.{language}").write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    run(
        "fairbeam",
        "prepare",
        folder,
        "en",
        "de",
        out,
        "--spm-model",
        MODEL / "spm.model",
        "--dict",
        MODEL / "dict.en.txt",
    )
    return out


@dataclass(frozen=True)
class Model:
    """A stock checkpoint with its dictionaries and subwords beside it, and the text it decodes."""

    checkpoint: Path
    text: Path
    """Folder of ``test.en`` and ``test.de``."""

    @property
    def subwords(self) -> Path:
        """The SentencePiece model."""
        return self.checkpoint.parent / "spm.model"


def peers(folder: Path, model: Model, batch_size: int, beam: int, lines: int | None) -> list[Contender]:
    """``fairbeam.load``, and those other engines that are installed."""
    for language in ("en", "de"):
        text = (model.text / f"test.{language}").read_text(encoding="utf-8").splitlines()[:lines]
        (folder / f"peers.{language}").write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    common = ("--source", folder / "peers.en", "--reference", folder / "peers.de", "--spm-model", model.subwords,
              "--batch-size", batch_size, "--beam", beam)  # fmt: skip

    def engine(name: str, label: str, *options: object) -> Contender:
        return Contender(label, ("python", Path(__file__).with_name("peers.py"), name, *common, *options))

    contenders = [
        engine("fairbeam", f"fairbeam.load, {precision}", "--checkpoint", model.checkpoint, "--precision", precision)
        for precision in ("float32", "auto", "int16")
    ]
    if find_spec("transformers"):
        contenders.append(engine("hugging-face", "Hugging Face, float32", "--checkpoint", model.checkpoint))
    if find_spec("ctranslate2"):
        converted = folder / f"ct2-{model.checkpoint.parent.name}"
        if not converted.exists():
            run("fairbeam", "convert", model.checkpoint, f"ct2:{converted}", "-s", "en", "-t", "de")
        # One sentence keeps one worker busy.
        for workers, threads in ((2, 1), (1, 2)) if batch_size > 1 else ((1, 1), (1, 2)):
            for compute in ("float32", "int8"):
                label = f"CTranslate2, {compute}, {workers} x {threads} threads"
                options = ("--folder", converted, "--compute-type", compute, "--workers", workers)
                contenders.append(engine("ctranslate2", label, *options, "--threads", threads))
    return contenders


def report_scores(contenders: list[Contender], outputs: list[str]) -> None:
    """BLEU of each contender, of its first round."""
    for contender, output in zip(contenders, outputs, strict=False):
        score = re.search(r"BLEU\S* = ([\d.]+)", output)
        print(f"{contender.name}: {score[0] if score else 'no score'}")


def rate(output: str) -> float:
    """Sentences a second, as the commands print them; of ``fairseq-generate`` the whole loop counts."""
    found = re.search(r"Translated ([\d,]+) sentences .*in ([\d.]+)s", output)
    assert found, output[-2000:]
    loop = re.search(r"Loop over batches took ([\d.]+)s", output)
    return int(found[1].replace(",", "")) / float(loop[1] if loop else found[2])


def decode(
    folder: Path, batch_size: int, rounds: int, lines: int | None, *, beam: int = 5, shortlist: bool = False
) -> None:
    """Sentences a second: the whole loop of ``fairseq-generate``, and the peers.

    ``shortlist``: measure ours with a vocabulary shortlist against ours without, instead of against others.
    """
    command = ("python", Path(__file__).with_name("generate.py"), prepare(folder, lines), *USER_DIR,
               "-s", "en", "-t", "de", "--path", MODEL / "checkpoint.pt",
               "--beam", beam, "--batch-size", batch_size, "--no-progress-bar")  # fmt: skip
    ours = (*command, "--task", "fairbeam_translation")
    contenders = [
        Contender("stock fairseq, float32", (*command, "--task", "translation")),
        Contender("fairbeam, float32", (*ours, "--precision", "float32")),
        Contender("fairbeam, auto", (*ours, "--precision", "auto")),
        *([] if shortlist else peers(folder, Model(MODEL / "checkpoint.pt", DATA), batch_size, beam, lines)),
    ]
    if shortlist:
        contenders = [
            Contender(f"{contender.name}{', shortlist' if extra else ''}", (*contender.command, *extra))
            for contender in contenders[1:3]
            for extra in ((), ("--shortlist",))
        ]
    outputs: list[str] = []

    def measure(output: str) -> float:
        outputs.append(output)
        return rate(output)

    figures = interleave(contenders, rounds, measure)
    report(
        f"Decoding {lines or 1000} sentences of Multi30k, beam {beam}, batches of {batch_size}", "sentences/s", figures
    )
    report_scores(contenders, outputs)


def base(folder: Path, checkpoint: Path, rounds: int) -> None:
    """CTranslate2 and ours on a model of another size, and Tatoeba's test set."""
    contenders = [
        contender
        for contender in peers(folder, Model(checkpoint, DATA.parent / "tatoeba"), 64, 5, None)
        if "hugging-face" not in contender.command  # it is given networks whose norms are behind the blocks alone
    ]
    outputs: list[str] = []

    def measure(output: str) -> float:
        outputs.append(output)
        return rate(output)

    report(f"Decoding Tatoeba's test set with {checkpoint}", "sentences/s", interleave(contenders, rounds, measure))
    report_scores(contenders, outputs)


def train(folder: Path, rounds: int, updates: int, float32: bool) -> None:
    """Target words a second of ``fairseq-train``, and the validation loss after the last update.

    ``float32``: measure our float32 too, beside stock's and our bfloat16.
    """
    data = folder / "train-bin"
    run("fairbeam", "prepare", DATA, "en", "de", data)
    sizes = [part for stack in ("encoder", "decoder") for name, value in
             (("layers", 4), ("embed-dim", 256), ("ffn-embed-dim", 1024), ("attention-heads", 4))
             for part in (f"--{stack}-{name}", value)]  # fmt: skip
    common = (
        "fairseq-train", data, *USER_DIR, *sizes, "--share-all-embeddings", "--dropout", 0.2, "--optimizer", "adam",
        "--adam-betas", "(0.9, 0.98)", "--lr", "1e-3", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", 100,
        "--label-smoothing", 0.1, "--max-tokens", 4096, "--max-update", updates, "--no-progress-bar",
        "--log-interval", 20, "--save-dir", folder / "checkpoints", "--no-save", "--log-format", "simple",
    )  # fmt: skip
    ours = ("--task", "fairbeam_translation", "--arch", "fairbeam_transformer",
            "--criterion", "fairbeam_label_smoothed_cross_entropy")  # fmt: skip
    contenders = [
        Contender("stock fairseq, float32", (*common, "--task", "translation", "--arch", "transformer",
                                             "--criterion", "label_smoothed_cross_entropy")),
        Contender("fairbeam, float32", (*common, *ours)),
        Contender("fairbeam, bfloat16", (*common, *ours, "--compute-dtype", "bfloat16")),
    ]  # fmt: skip
    if not float32:
        del contenders[1]
    losses: dict[str, list[float]] = defaultdict(list)

    def rate(output: str) -> float:
        losses["all"].append(float(re.search(r"valid on 'valid' subset \| loss ([\d.]+)", output)[1]))
        rates = [float(value) for value in re.findall(r"train_inner \|.* wps=([\d.]+)", output)]
        return statistics.median(rates[1:])  # the first interval warms up

    figures = interleave(contenders, rounds, rate)
    report(f"Training 9.4 M parameters on Multi30k, --max-tokens 4096, {updates} updates", "target words/s", figures)
    for place, contender in enumerate(contenders):
        print(
            f"{contender.name}: validation loss {statistics.median(losses['all'][place :: len(contenders)]):.3f} bits"
        )


def main() -> None:
    """Parse the command line and run the benches asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "benches", nargs="*", default=["batch", "single", "train"], help="batch, single, train, shortlist"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=200, help="training updates in a round")
    parser.add_argument("--float32", action="store_true", help="train in our float32 too")
    parser.add_argument("--base", type=Path, help="another checkpoint, en-de, to measure on Tatoeba, too")
    parser.add_argument("--single-sentences", type=int, default=200, help="sentences decoded one at a time")
    args = parser.parse_args()
    if not (DATA.is_dir() and MODEL.is_dir()):
        sys.exit(f"{DATA} or {MODEL} is absent; set FAIRBEAM_DATA and FAIRBEAM_MODELS")
    folder = Path(tempfile.mkdtemp(prefix="fairbeam-bench-"))
    try:
        if "batch" in args.benches:
            decode(folder, 64, args.rounds, None)
        if "single" in args.benches:
            decode(folder, 1, args.rounds, args.single_sentences)
            decode(folder, 1, args.rounds, args.single_sentences, beam=1)
        if args.base:
            base(folder, args.base, args.rounds)
        if "shortlist" in args.benches:
            decode(folder, 64, args.rounds, None, shortlist=True)
            decode(folder, 1, args.rounds, args.single_sentences, shortlist=True)
        if "train" in args.benches:
            train(folder, args.rounds, args.updates, args.float32)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
