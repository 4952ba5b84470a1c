"""The locked versions: all that is needed is among them, and nothing that holds for one machine alone."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("lock", ROOT / "scripts/lock.py")
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)


def test_every_requirement_is_locked_at_a_version_that_fits():
    pytest.importorskip("fairseq")
    assert list(lock.unsatisfied()) == []


def test_a_requirement_that_is_not_locked_is_named(tmp_path, monkeypatch):
    lines = lock.LOCK.read_text().splitlines()
    short = tmp_path / "constraints.txt"
    short.write_text("\n".join(line for line in lines if not line.startswith(("rich==", "markdown-it-py=="))))
    monkeypatch.setattr(lock, "LOCK", short)
    problems = list(lock.unsatisfied())
    assert "fairbeam requires rich>=13; constraints.txt has no such package" in problems
    short.write_text("rich==1.0\n")
    assert "fairbeam requires rich>=13; constraints.txt has 1.0" in list(lock.unsatisfied())
    assert "constraints.txt has rich==1.0; installed is " in "".join(lock.unlocked())


def test_the_lock_keeps_the_pins_and_holds_for_every_machine():
    assert lock.read(lock.PINS).items() <= lock.read(lock.LOCK).items()
    packages = [line for line in lock.LOCK.read_text().splitlines() if not line.startswith("#")]
    assert len(packages) > 60
    for line in packages:
        name, equals, version = line.partition("==")
        assert equals, line
        assert (name, version) == (lock.canonicalize_name(name), lock.public(version))
        assert not set("@:/;* ") & set(line), line
