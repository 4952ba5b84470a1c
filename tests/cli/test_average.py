"""``fairbeam average``, by its own options and by those of fairseq's script."""

import pytest
import torch

from fairbeam.cli.average import Series, command, last_checkpoints
from fairbeam.errors import ConfigError, InputError
from fairbeam.formats import fairseq_checkpoint as checkpoint


@pytest.fixture
def folder(tmp_path):
    """Four epochs of three updates; each checkpoint's one parameter is its number of updates."""
    for update in range(1, 13):
        epoch = (update + 2) // 3
        state = {"model": {"w": torch.tensor([float(update)])}}
        checkpoint.write(tmp_path / f"checkpoint_{epoch}_{update}.pt", state)
        checkpoint.write(tmp_path / f"checkpoint{epoch}.pt", state)  # the last of the epoch stays
    for other in ("checkpoint_last.pt", "checkpoint_best.pt", "checkpoint5.pt.tmp", ".checkpoint9.pt.x.tmp"):
        (tmp_path / other).write_bytes(b"")
    return tmp_path


def names(paths):
    return [path.name for path in paths]


def test_last_checkpoints_counts_by_number_not_by_name(folder):
    assert names(last_checkpoints(folder, 2, Series.EPOCH)) == ["checkpoint4.pt", "checkpoint3.pt"]
    assert names(last_checkpoints(folder, 3, Series.UPDATE)) == [
        "checkpoint_4_12.pt",
        "checkpoint_4_11.pt",
        "checkpoint_4_10.pt",
    ]
    assert names(last_checkpoints(folder, 1, Series.UPDATE, upper_bound=9)) == ["checkpoint_3_9.pt"]


def test_last_checkpoints_says_how_many_there_are(folder):
    with pytest.raises(InputError, match=r"holds 2 epoch checkpoints up to epoch 2; asked for the last 3"):
        last_checkpoints(folder, 3, Series.EPOCH, upper_bound=2)
    with pytest.raises(InputError, match="no such folder"):
        last_checkpoints(folder / "nowhere", 1, Series.EPOCH)
    with pytest.raises(InputError, match="asked for the last 0"):
        last_checkpoints(folder, 0, Series.EPOCH)


@pytest.mark.parametrize(
    ("options", "mean"),
    [
        (("{out}", "{dir}/checkpoint1.pt", "{dir}/checkpoint2.pt"), 4.5),
        (("{out}", "--dir", "{dir}", "--last", "2"), 10.5),
        (("{out}", "--dir", "{dir}", "--last", "2", "--by", "update", "--upper-bound", "9"), 8.5),
        (("--inputs", "{dir}/checkpoint1.pt", "{dir}/checkpoint2.pt", "--output", "{out}"), 4.5),
        (("--inputs", "{dir}", "--num-epoch-checkpoints", "3", "--output", "{out}"), 9.0),
        (("--inputs", "{dir}", "--num-update-checkpoints", "2", "--output", "{out}"), 11.5),
    ],
)
def test_command(folder, run, options, mean):
    out = folder / "mean.pt"
    run("fairbeam", "average", *(option.format(dir=folder, out=out) for option in options))
    assert checkpoint.load(out)["model"]["w"].item() == mean


def test_command_refuses_contradictions(folder):
    out, one = folder / "mean.pt", folder / "checkpoint1.pt"
    for arguments, message in (
        ({}, "file to write is missing"),
        ({"files": [out]}, "nothing to average"),
        ({"files": [out], "folder": folder}, "go together"),
        ({"files": [out, one], "last": 2, "folder": folder}, "not both"),
    ):
        with pytest.raises(ConfigError, match=message):
            command(**arguments)
    assert not out.exists()


def test_command_shows_one_line_for_a_bad_checkpoint(folder, run):
    done = run("fairbeam", "average", folder / "mean.pt", folder / "checkpoint_last.pt", check=False)
    assert done.returncode == 2
    assert "checkpoint_last.pt" in done.stderr
    assert "Traceback" not in done.stderr
