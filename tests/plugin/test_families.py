"""Every family through ``fairseq-train``: ten updates on real text lower the loss."""

import json
import shutil
import statistics
from pathlib import Path

import pytest
import torch

from fairbeam.families.presets import Vocabularies, config_for_training, sizes
from fairbeam.families.registry import FAMILIES
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam.network import DecoderOnlyConfig, EncoderDecoderConfig, EncoderOnlyConfig

ROOT = Path(__file__).resolve().parents[2]
LINES = 400
PAIR = ",".join(f"{stack}_{part}" for stack in ("encoder", "decoder") for part in
                ("layers=1", "attention_heads=2", "ffn_dim=48"))  # fmt: skip
BERT = "hidden_size=32,num_hidden_layers=1,num_attention_heads=2,intermediate_size=48"
GPT = "n_embd=32,n_layer=1,n_head=2"
TINY = {
    **dict.fromkeys(("bart", "mbart", "marian", "pegasus", "m2m_100"), f"d_model=32,{PAIR}"),
    **dict.fromkeys(("t5", "mt5"), "d_model=32,num_layers=1,num_heads=2,d_kv=16,d_ff=48"),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), BERT),
    **dict.fromkeys(("electra", "albert"), f"{BERT},embedding_size=16"),
    "distilbert": "dim=32,n_layers=1,n_heads=2,hidden_dim=48",
    **dict.fromkeys(("gpt2", "openai-gpt"), GPT),
    "ctrl": f"{GPT},dff=48",
    **dict.fromkeys(("llama", "mistral", "qwen2"), f"{BERT},num_key_value_heads=1"),
    "transfo-xl": "d_model=32,d_embed=32,n_head=2,d_head=16,d_inner=48,n_layer=1,mem_len=8",
}
"""What makes each family small, in its own words."""
PAIRS = ("--task", "fairbeam_translation", "--criterion", "fairbeam_label_smoothed_cross_entropy")
TASKS = {
    EncoderDecoderConfig: PAIRS,
    EncoderOnlyConfig: ("--task", "masked_lm", "--criterion", "masked_lm", "--sample-break-mode", "eos"),
    DecoderOnlyConfig: ("--task", "language_modeling", "--criterion", "cross_entropy", "--sample-break-mode", "eos"),
}
# One process, since importing fairseq takes longer than ten updates.
TRAIN_ALL = """
import json, logging, sys
from fairseq_cli.train import cli_main

class Losses(logging.Handler):
    def emit(self, record):
        if record.name == "train_inner":
            found.append(float(json.loads(record.getMessage())["loss"]))

logging.getLogger().addHandler(Losses())
commands, out = sys.argv[1:]
losses = {}
for name, command in json.load(open(commands)).items():
    found = losses[name] = []
    sys.argv = ["fairseq-train", *command]
    cli_main()
json.dump(losses, open(out, "w"))
"""


@pytest.fixture(scope="module")
def data(real_data, run, tmp_path_factory) -> Path:
    """Pairs, and their English alone."""
    folder = tmp_path_factory.mktemp("families")
    for split in ("train", "valid"):
        for language in ("en", "de"):
            lines = (real_data / "tatoeba" / f"{split}.{language}").read_text().splitlines()[:LINES]
            (folder / f"{split}.{language}").write_text("".join(f"{line}\n" for line in lines))
    run("fairbeam", "prepare", folder, "en", "de", folder / "pairs", "--vocab-size", 200)
    (folder / "english").mkdir()
    shutil.copy(folder / "pairs/dict.en.txt", folder / "english/dict.txt")
    for split in ("train", "valid"):
        for end in ("bin", "idx"):
            shutil.copy(folder / f"pairs/{split}.en-de.en.{end}", folder / f"english/{split}.{end}")
    return folder


def arguments(family: str, size: str, data: Path) -> list[object]:
    vocabularies = Vocabularies(source=99, target=99, joined=True, bos=0, pad=1, eos=2, unk=3)
    shape = type(config_for_training(family, size, {}, vocabularies))
    name = f"{family.replace('-', '_')}_{size}"
    return [
        data / ("pairs" if shape is EncoderDecoderConfig else "english"),
        "--user-dir", ROOT / "user_dir", *TASKS[shape],
        "--arch", f"fairbeam_{name}", "--config-overrides", TINY[family], "--optimizer", "adam", "--lr", "0.003",
        "--max-tokens", 800, "--max-update", 10, "--save-dir", data / name, "--log-format", "json",
        "--log-interval", 1, "--cpu", "--disable-validation", "--num-workers", 0,
        "--no-epoch-checkpoints", "--dropout", 0.0, "--seed", 3,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def losses(data, run) -> dict[str, list[float]]:
    """Of each update, by family."""
    smallest = dict(reversed(sizes()))
    commands = {family: [str(part) for part in arguments(family, size, data)] for family, size in smallest.items()}
    (data / "commands.json").write_text(json.dumps(commands))
    (data / "train.py").write_text(TRAIN_ALL)
    run("python", data / "train.py", data / "commands.json", data / "losses.json")
    return json.loads((data / "losses.json").read_text())


def test_every_family_has_a_size_and_is_trained_here():
    assert {family for family, _ in sizes()} == set(FAMILIES) - {"encoder-decoder"} == set(TINY)


@pytest.mark.parametrize("family", TINY)
def test_ten_updates_lower_the_loss(family, losses, data):
    found = losses[family]
    assert len(found) == 10
    assert statistics.mean(found[-3:]) < 0.985 * found[0]
    (folder,) = data.glob(f"{family.replace('-', '_')}_*")
    state = checkpoint.read(folder / "checkpoint_last.pt")
    assert all(bool(tensor.isfinite().all()) for tensor in state.model.values() if torch.is_floating_point(tensor))
