"""What a person sees of a recipe: stages, a progress bar, times, nothing that only a program can read."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fairseq")

from fairbeam.report import read_training_log

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 3
SETTINGS = {"EPOCHS": str(EPOCHS), "VOCAB": "200", "WARMUP": "4", "MAX_TOKENS": "1200", "AVERAGE": "1", "BEAM": "2"}
ENVIRONMENT = {
    **os.environ,
    **SETTINGS,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "TERM": "xterm",
}
FOR_PROGRAMS = ('{"', "tensorboardX", "| INFO |", "INFO:", "Namespace(", "'_name'", "\x1b", "\r")


def recipe(folder: Path) -> list[str]:
    return [str(ROOT / "scripts/translation.sh"), str(folder / "text"), "en", "de", str(folder / "out")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, run) -> Path:
    """A folder with a text to learn."""
    path = tmp_path_factory.mktemp("recipe")
    run("fairbeam", "demo-corpus", path / "text", "--train", "300", "--valid", "20", "--test", "20")
    return path


@pytest.fixture(scope="module")
def drawn(folder) -> str:
    """What a terminal got of a recipe that was killed in its second epoch."""
    ours, theirs = pty.openpty()
    text = ""
    with subprocess.Popen(
        recipe(folder), stdin=theirs, stdout=theirs, stderr=theirs, env=ENVIRONMENT, start_new_session=True
    ) as process:
        os.close(theirs)
        try:
            while not re.search(r"epoch 1 of 3:[^\n]*\n.*epoch 2 of 3 ", text, re.S):
                text += os.read(ours, 65536).decode(errors="replace")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    os.close(ours)
    return text


@pytest.fixture(scope="module")
def resumed(folder, drawn) -> subprocess.CompletedProcess[str]:
    """The same recipe, run to its end where there is no terminal."""
    command = recipe(folder)
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=600)


def test_a_terminal_gets_one_bar_that_is_redrawn(drawn):
    training = drawn.partition("\ntrain: fairbeam")[2]
    assert len(re.findall(r"\r\x1b\[2Kepoch 1 of 3 .*?update \d+ of \d+", training)) > 1
    assert re.search(r"loss \d+\.\d\d, update ", training)
    assert training.count("\n") <= 4
    assert re.search(r"epoch 1 of 3: loss \d+\.\d\d, valid loss \d+\.\d\d, valid BLEU \d+\.\d\d \(\d+ s\)", training)


def test_lines_are_short_and_for_people(resumed):
    for line in (resumed.stdout + resumed.stderr).splitlines():
        assert len(line) < 240, line
        assert not any(mark in line for mark in FOR_PROGRAMS), line


def test_a_killed_recipe_goes_on_and_tells_the_time_of_each_part(folder, resumed):
    assert "data-bin is there from an earlier run" in resumed.stdout
    assert "going on after an earlier run's last checkpoint" in resumed.stdout
    epochs = re.findall(r"^epoch (\d) of 3: .*valid loss", resumed.stderr, re.M)
    assert epochs == ["2", "3"]
    *_, times = resumed.stdout.splitlines()
    time = r"(\d+ min )?\d+ s"
    assert re.fullmatch(
        rf"Time: prepare {time}, train {time}, decode {time}, score {time}, package {time}; {time} in all", times
    )


def test_the_log_keeps_the_statistics_that_a_report_reads(folder, resumed):
    points = read_training_log(folder / "out/train.log")
    validated = [point.update for point in points if point.valid_loss is not None]
    assert len(validated) == EPOCHS
    assert validated == [validated[0] * epoch for epoch in range(1, EPOCHS + 1)]


def test_a_command_that_fails_shows_the_end_of_its_log(folder, resumed):
    failing = {**ENVIRONMENT, "LR": "quick"}
    done = subprocess.run(recipe(folder), env=failing, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode != 0
    assert f"fairseq-train stopped with exit status {done.returncode}. {folder}/out/train.log ends with:" in done.stderr
    assert "quick" in done.stderr
    assert "decode:" not in done.stdout
