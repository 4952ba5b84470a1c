"""``fairbeam compose`` as a user runs it: a bundle that translates, and options that make no sense."""

from pathlib import Path

import pytest

import fairbeam
from fairbeam.cli.compose import command
from fairbeam.demo.grammar import corpus
from fairbeam.errors import ConfigError
from fairbeam.formats import bundle
from fairbeam.formats.compose import CrossAttentionStart

ENVIRONMENT = {"PYTHONPATH": str(Path(fairbeam.__file__).parent.parent), "COLUMNS": "200"}
TEXT = "".join(f"{source}\n" for source, _ in corpus(3, seed=3))


@pytest.fixture
def folder(tmp_path) -> Path:
    pytest.importorskip("transformers")
    import hub_folders

    for name in ("bert", "gpt2"):
        hub_folders.make(name, tmp_path / name)
    return tmp_path


def fairbeam_command(run, *arguments, **options):
    program = "import sys; from fairbeam.cli import main; sys.argv[0] = 'fairbeam'; main()"
    return run("python", "-c", program, *arguments, env=ENVIRONMENT, **options)


def test_two_folders_become_a_bundle_that_translates(folder, run):
    out, encoder, decoder = folder / "out", ("--encoder", folder / "bert"), ("--decoder", folder / "gpt2")
    line = ("compose", out, *encoder, *decoder, "--cross-attention", "copied", "--seed", 3)
    assert fairbeam_command(run, *line).stdout == f"{out}\n"
    assert bundle.load(out).family == "composed"
    translate = ("translate", out, "--precision", "float32", "--workers", 1, "--max-len-b", 5)
    assert fairbeam_command(run, *translate, input=TEXT).stdout.count("\n") == 3
    refused = fairbeam_command(run, *line, "--prefix-attention", check=False)
    assert refused.returncode == 2
    assert refused.stderr.split("error: ")[-1] == "--prefix-attention makes sense only without --encoder\n"
    with pytest.raises(ConfigError, match="exists already"):
        command(out, folder / "gpt2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": True}, "--share makes sense only with --encoder"),
        ({"seed": 1}, "--seed makes sense only with --encoder"),
        ({"cross_attention": CrossAttentionStart.FRESH}, "--cross-attention makes sense only with --encoder"),
        ({"encoder": Path("x"), "separator": "</s>"}, "--separator makes sense only without --encoder"),
    ],
)
def test_options_of_the_other_kind_are_named_before_anything_is_read(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        command(tmp_path / "out", tmp_path / "none", **options)
