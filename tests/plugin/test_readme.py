"""Run every command of the README as it stands there, on small files in an empty folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = ("make", "source", "scripts/", "fairseq-", "fairbeam ", "python ", "pytest ")
TINY = {"EPOCHS": "1", "VOCAB": "200", "WARMUP": "4", "MAX_TOKENS": "600", "AVERAGE": "1", "BEAM": "2"}
NOT_HERE = {
    "make test": "it is what runs this test",
    "make install TORCH_INDEX=URL": "it installs, which the tests must not do to their own environment",
    "source .venv/bin/activate": "the tests' environment is active",
    "pytest tests/plugin/test_stock_parity.py": "it is a part of the suite",
    "pytest tests/plugin -k lost": "it is a part of the suite",
}
"""Commands that another part of the suite runs."""
LONG = {"make demo", "scripts/summarization.sh DATA document summary OUT"}
BENCH = "python scripts/bench/bench.py "


def commands() -> list[str]:
    """Return the commands of the code blocks and of the code spans, without comments."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.S | re.M)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.S | re.M))
    found = [line for line in [*lines, *spans] if line.startswith(PROGRAMS)]
    return list(dict.fromkeys(found))


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder`` with the tests' environment first on the path; fail with its output."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with what the README's table says one may have, under its names; it begins with the first row's."""
    path = tmp_path_factory.mktemp("readme")
    for name in ("scripts", "user_dir", "Makefile"):
        (path / name).symlink_to(ROOT / name)
    shell("fairbeam demo-corpus DATA --train 400 --valid 20 --test 20 --seed 1", path)
    shell("scripts/translation.sh DATA en de OUT", path, **TINY)
    shutil.copy(path / "OUT/checkpoints/averaged.pt", path / "OLD.pt")
    shutil.copytree(path / "OUT/data-bin", path / "DATA-BIN")
    shutil.copy(path / "DATA/test.en", path / "input.txt")
    shutil.copy(path / "DATA/test.de", path / "reference.txt")
    shutil.copy(path / "OUT/test.de.hyp", path / "hypotheses.txt")
    return path


def test_the_translation_recipe_leaves_what_its_page_says(folder):
    out = folder / "OUT"
    assert (out / "report.html").stat().st_size > 10_000
    assert len((out / "test.de.hyp").read_text().splitlines()) == 20
    assert {"model.safetensors", "config.json", "README.md"} <= {path.name for path in (out / "model").iterdir()}


@pytest.mark.parametrize(
    "command", [c for c in commands() if c.startswith(("fairseq-", "fairbeam ")) and "FOLDER" not in c]
)
def test_commands_of_the_table(folder, command):
    done = shell(command, folder)
    lines = done.stdout.splitlines()
    if command.startswith("fairbeam translate"):
        assert len(lines) == 20
    elif command.startswith("fairseq-generate"):
        assert sum(line.startswith("H-") for line in lines) == 20 * 1
    else:
        assert lines or "convert" in command
    if "bundle:NEW" in command:
        assert (folder / "NEW/model.safetensors").is_file()


def test_a_hugging_face_folder_is_translated(folder):
    pytest.importorskip("transformers")
    import hub_folders

    hub_folders.make("marian", folder / "FOLDER")
    (command,) = [command for command in commands() if "FOLDER" in command]
    assert len(shell(command, folder).stdout.splitlines()) == 20


def test_the_python_lines(folder):
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.S | re.M)
    if not (folder / "NEW").is_dir():
        shell("fairbeam convert fairseq:OLD.pt bundle:NEW --data DATA-BIN", folder)
    *lines, last = block.strip().splitlines()
    program = "\n".join([*lines, f"(text,) = {last}", "assert isinstance(text, str)"])
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, timeout=300)


def test_every_command_is_run_somewhere():
    here = [c for c in commands() if c.startswith(("fairseq-", "fairbeam ", BENCH))]
    known = {*here, *NOT_HERE, *LONG, "scripts/translation.sh DATA en de OUT"}
    assert set(commands()) == known


def test_commands_that_run_tests_name_tests_that_exist():
    for command in commands():
        if command.startswith("pytest "):
            shell(f"{command} --collect-only -q -p no:cacheprovider", ROOT)


@pytest.mark.slow
def test_the_summarization_recipe(folder):
    for split in ("train", "valid", "test"):
        shutil.copy(folder / f"DATA/{split}.en", folder / f"DATA/{split}.document")
        shutil.copy(folder / f"DATA/{split}.de", folder / f"DATA/{split}.summary")
    shell("scripts/summarization.sh DATA document summary SUMMARIES", folder, **TINY)
    assert (folder / "SUMMARIES/report.html").is_file()


@pytest.mark.slow
def test_the_demo(folder):
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("make demo installs into .venv, and the tests run in another environment")
    out = folder / "demo"
    shell(f"make demo OUT={out}", ROOT, **TINY, PAIRS="300")
    assert (out / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands() if c.startswith(BENCH)])
def test_the_bench(real_data, real_models, command):
    short = re.sub(r"--updates \d+", "--updates 4", command)
    short = re.sub(r"--single-sentences \d+", "--single-sentences 4", short)
    assert "x" in shell(f"{short} --rounds 1", ROOT).stdout
