"""The ``fairbeam`` command itself: help at once, and no import that a command does not need."""

import importlib
import inspect

import pytest

from fairbeam.cli import COMMANDS, _help

PROGRAM = """
import sys
from fairbeam.cli import main
sys.argv[0] = "fairbeam"
try:
    main()
finally:
    print("imported:", *sorted({"torch", "numpy", "pydantic", "transformers"} & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_that_of_the_commands(name):
    assert _help(name) == inspect.getdoc(importlib.import_module(f"fairbeam.cli.{name}").command)


def test_help_lists_all_commands_and_imports_no_library(run):
    done = run("python", "-c", PROGRAM, "--help")
    for name in COMMANDS:
        assert f" {name.replace('_', '-')} " in done.stdout
    assert done.stderr == "imported:\n"


def test_score_needs_no_torch(run, tmp_path):
    (tmp_path / "text").write_text("one two three four\n")
    done = run("python", "-c", PROGRAM, "score", tmp_path / "text", "-i", tmp_path / "text")
    assert "100.0" in done.stdout
    assert "torch" not in done.stderr


def test_an_unknown_command_is_named(run):
    done = run("python", "-c", PROGRAM, "translat", check=False)
    assert done.returncode == 2
    assert "No such command 'translat'" in done.stderr
