"""Which libraries are loaded, which are refused, and what is said about it."""

import functools
import inspect
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fairbeam.errors import ConfigError
from fairbeam.network.inference import native
from fairbeam.network.inference.source_hash import source_hash

needs_library = pytest.mark.skipif(not native.available(), reason="fairbeam was installed without a C++ compiler")


@pytest.fixture
def load(monkeypatch, caplog):
    """Load a library anew; what it says is in ``caplog``."""
    monkeypatch.setattr(native, "library", functools.cache(inspect.unwrap(native.library)))
    caplog.set_level(logging.INFO)
    return native.library


def test_a_library_that_cannot_be_loaded_is_done_without(load, monkeypatch, tmp_path, caplog):
    broken = tmp_path / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    monkeypatch.delenv("FAIRBEAM_NATIVE_LIBRARY", raising=False)
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    assert load() is None
    assert "it was installed without a C++ compiler; decoding is slower" in caplog.text
    broken.write_bytes(b"no library")
    load.cache_clear()
    assert load() is None
    assert f"{broken} cannot be loaded, so decoding is slower" in caplog.text


@needs_library
@pytest.mark.parametrize("kept", [64, 1000, 100_000])
def test_a_truncated_library_is_refused(load, monkeypatch, tmp_path, caplog, kept):
    cut = tmp_path / "cut.so"
    cut.write_bytes(native.library_path().read_bytes()[:kept])
    monkeypatch.setenv("FAIRBEAM_NATIVE_LIBRARY", str(cut))
    assert load() is None
    assert f"{cut} cannot be loaded, so decoding is slower" in caplog.text


@needs_library
def test_a_library_from_other_sources_is_refused_in_one_line(load, monkeypatch, tmp_path, caplog):
    path = native.library_path()
    shutil.copytree(Path(native.__file__).with_name("csrc"), tmp_path / "csrc")
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    monkeypatch.setenv("FAIRBEAM_NATIVE_LIBRARY", str(path))
    assert load() is not None
    with (tmp_path / "csrc" / "math.h").open("a") as header:
        header.write("// changed\n")
    load.cache_clear()
    caplog.clear()
    assert load() is None
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} was built from other sources, so decoding is slower; {native._REBUILD}"
    ]


@needs_library
@pytest.mark.parametrize(
    "fields",
    [
        (*native.pointers("bias weight"), *native.floats("epsilon")),
        (*native.pointers("weight bias"), *native.counts("epsilon")),
        native.pointers("weight bias"),
    ],
)
def test_a_library_with_another_layout_is_refused(load, monkeypatch, fields, caplog):
    monkeypatch.setattr(native.Struct, "declared", [*native.Struct.declared])
    type("Norm", (native.Struct,), {"_fields_": fields})
    assert load() is None
    assert "lays Norm out in another way, so decoding is slower; rebuild it" in caplog.text


@needs_library
def test_every_struct_of_the_library_is_declared():
    from fairbeam.generation.search import beam_ops, native_steps  # noqa: F401

    declared = {struct.__name__: struct.layout() for struct in native.Struct.declared}
    assert {name: declared[name] for name in native._layouts(native.library())} == native._layouts(native.library())


def test_no_library_may_be_asked_for(load, monkeypatch):
    monkeypatch.setenv("FAIRBEAM_NATIVE_LIBRARY", "")
    assert load() is None


def test_unknown_instruction_sets_are_refused(load, monkeypatch):
    monkeypatch.setenv("FAIRBEAM_CPU_ISA", "mmx")
    with pytest.raises(ConfigError, match="FAIRBEAM_CPU_ISA=mmx: expected one of baseline, avx2, avx512, vnni"):
        load()


@needs_library
def test_instruction_sets_can_be_turned_off():
    program = "from fairbeam.network.inference import native; print(native.available(), native.multiplies_integers())"
    environment = {**os.environ, "FAIRBEAM_CPU_ISA": "avx2", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_the_hash_is_of_names_and_contents(tmp_path):
    hashes = set()
    for name, content in (("a.h", "x"), ("b.h", "x"), ("b.h", "xy"), ("a.cpp", "")):
        (tmp_path / name).write_text(content)
        hashes.add(source_hash(tmp_path))
    (tmp_path / "notes.txt").write_text("no source")
    assert len(hashes) == 4
    assert source_hash(tmp_path) in hashes
