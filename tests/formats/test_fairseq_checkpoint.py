"""Reading, writing and averaging fairseq checkpoints, hostile and damaged ones among them."""

import argparse
import collections
import io
import os
import pickle
import resource
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairbeam.errors import CheckpointError
from fairbeam.formats import fairseq_checkpoint as checkpoint


def stock_state(**changes) -> dict:
    """A checkpoint as fairseq 0.12 writes it for an architecture without a dataclass."""
    weight = torch.arange(6.0).reshape(2, 3)
    state = {
        "args": None,
        "cfg": {
            "model": argparse.Namespace(_name="transformer", arch="tiny", encoder_layers=2, lr=[0.1]),
            "task": {"_name": "translation", "source_lang": "en"},
        },
        "model": {"encoder.weight": weight, "decoder.weight": weight, "step": torch.tensor(3)},
        "optimizer_history": [{"num_updates": 132}],
        "last_optimizer_state": {"exp_avg": torch.ones(2)},
        "extra_state": {"_bleu_counts": np.array([1, 2]), "best": np.float64(8.75)},
    }
    return {**state, **changes}


def saved(path: Path, **changes) -> Path:
    torch.save(stock_state(**changes), path)
    return path


class Attack:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_read_returns_plain_data_and_exact_tensors(tmp_path, zip_format):
    path = tmp_path / "model.pt"
    torch.save(stock_state(), path, _use_new_zipfile_serialization=zip_format)
    found = checkpoint.read(path)
    assert found.architecture == "transformer"
    assert found.config == {"_name": "transformer", "arch": "tiny", "encoder_layers": 2, "lr": [0.1]}
    assert found.task == {"_name": "translation", "source_lang": "en"}
    assert found.num_updates == 132
    assert torch.equal(found.model["encoder.weight"], torch.arange(6.0).reshape(2, 3))
    assert found.model["decoder.weight"].data_ptr() == found.model["encoder.weight"].data_ptr()
    assert "last_optimizer_state" not in found.extra
    assert found.extra["extra_state"]["best"] == 8.75


def test_read_returns_tensors_that_survive_the_file(tmp_path):
    path = saved(tmp_path / "model.pt")
    found = checkpoint.read(path)
    path.write_bytes(b"")
    assert found.model["encoder.weight"].sum() == 15


def test_read_old_checkpoint_with_args(tmp_path):
    args = argparse.Namespace(arch="transformer_iwslt_de_en", task="translation", encoder_layers=6)
    found = checkpoint.read(saved(tmp_path / "old.pt", args=args, cfg=None))
    assert (found.architecture, found.task["_name"]) == ("transformer_iwslt_de_en", "translation")
    assert found.config["encoder_layers"] == 6


def test_read_configuration_saved_as_omegaconf_nodes(tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    plain = {"model": {"_name": "transformer", "layers": [1, 2.5, "x", True, None]}, "task": {"_name": "t"}}
    found = checkpoint.read(saved(tmp_path / "hydra.pt", cfg=omegaconf.OmegaConf.create(plain)))
    assert found.config == plain["model"]


def test_real_checkpoint(real_models):
    found = checkpoint.read(real_models / "multi30k-en-de" / "checkpoint.pt")
    assert found.architecture == "transformer"
    assert found.config["encoder_layers"] == 4
    vocabulary, width = found.model["encoder.embed_tokens.weight"].shape
    assert width == found.config["encoder_embed_dim"] == 256
    assert found.model["decoder.output_projection.weight"].shape == (vocabulary, width)


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_malicious_pickle_is_refused_by_name_and_not_run(tmp_path, zip_format):
    target = tmp_path / "attacked"
    path = tmp_path / "evil.pt"
    torch.save(stock_state(extra_state=Attack(target)), path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(CheckpointError, match=r"evil\.pt: refused.* io\.open,.*FAIRBEAM_TRUST_CHECKPOINTS=1"):
        checkpoint.read(path)
    assert not target.exists()


def test_environment_variable_trusts_what_the_allow_list_refuses(tmp_path, monkeypatch):
    path = saved(tmp_path / "odd.pt", extra_state=collections.deque([1]))
    with pytest.raises(CheckpointError, match=r"collections\.deque"):
        checkpoint.read(path)
    monkeypatch.setenv(checkpoint.TRUST_VARIABLE, "1")
    assert checkpoint.read(path).extra["extra_state"] == collections.deque([1])
    monkeypatch.setenv(checkpoint.TRUST_VARIABLE, "0")
    assert not checkpoint.trusted()


def test_torch_environment_variable_does_not_disarm_the_allow_list(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    target = tmp_path / "attacked"
    with pytest.raises(CheckpointError, match="refused"):
        checkpoint.read(saved(tmp_path / "evil.pt", extra_state=Attack(target)))
    assert not target.exists()


def test_every_truncation_is_a_checkpoint_error(tmp_path):
    whole = saved(tmp_path / "whole.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for length in [0, 1, 3, 4, 100, *range(200, len(whole), 487), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.pt"):
            checkpoint.read(path)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random.pt"
    path.write_bytes(pickle.PROTO + b"\x02" + data)
    with pytest.raises(CheckpointError):
        checkpoint.read(path)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pt.*No such file"):
        checkpoint.read(tmp_path / "nowhere.pt")
    with pytest.raises(CheckpointError, match="Is a directory"):
        checkpoint.read(tmp_path)


def test_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    big = io.BytesIO()
    torch.save(stock_state(model={"w": torch.zeros(50_000_000)}), big)
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(big) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert bomb.stat().st_size < 1_000_000
    with pytest.raises(CheckpointError, match="compressed"):
        checkpoint.read(bomb)


def test_overlapping_members_are_refused(tmp_path):
    path = saved(tmp_path / "overlap.pt", model={"w": torch.zeros(1000)})
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        claimed = len(data).to_bytes(4, "little")
        directory = archive.start_dir
    for start in _directory_entries(data, directory):
        data[start + 20 : start + 28] = claimed + claimed
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="more than the file's"):
        checkpoint.read(path)


def _directory_entries(data: bytes, start: int):
    while (start := data.find(b"PK\x01\x02", start)) >= 0:
        yield start
        start += 4


def test_tensor_larger_than_what_is_stored_for_it_is_refused(tmp_path):
    huge = torch.zeros(1).expand(10**12)
    with pytest.raises(CheckpointError, match=r"'w' has shape \(1000000000000,\)"):
        checkpoint.read(saved(tmp_path / "huge.pt", model={"w": huge}))


class TestHostileConfiguration:
    def read(self, tmp_path, **options):
        model = argparse.Namespace(_name="transformer")
        vars(model).update(options)
        return checkpoint.read(saved(tmp_path / "hostile.pt", cfg={"model": model, "task": {}}))

    def test_option_that_contains_itself(self, tmp_path):
        loop: list = []
        loop.append(loop)
        with pytest.raises(CheckpointError, match="contains itself"):
            self.read(tmp_path, layers=loop)

    def test_exponentially_shared_lists_stay_shared(self, tmp_path):
        value: list = [1]
        for _ in range(100):
            value = [value, value]
        layers = self.read(tmp_path, layers=value).config["layers"]
        assert layers[0] is layers[1]

    def test_names_that_are_not_strings(self, tmp_path):
        model = argparse.Namespace()
        vars(model)[7] = 1  # type: ignore[index]
        with pytest.raises(CheckpointError, match="name is 7"):
            checkpoint.read(saved(tmp_path / "hostile.pt", cfg={"model": model}))

    def test_objects_and_missing_architectures(self, tmp_path):
        with pytest.raises(CheckpointError, match="is a Tensor"):
            self.read(tmp_path, layers=torch.zeros(3))
        with pytest.raises(CheckpointError, match="architecture"):
            self.read(tmp_path, _name=["transformer"])
        with pytest.raises(CheckpointError, match="neither cfg nor args"):
            checkpoint.read(saved(tmp_path / "none.pt", cfg=None))
        with pytest.raises(CheckpointError, match="model entry 'x' is a int"):
            checkpoint.read(saved(tmp_path / "int.pt", model={"x": 1}))

    def test_strings_are_never_evaluated(self, tmp_path):
        target = tmp_path / "attacked"
        code = f"open({str(target)!r}, 'w')"
        assert self.read(tmp_path, decoder_layers=code).config["decoder_layers"] == code
        assert not target.exists()


def test_threads_may_read_at_the_same_time(tmp_path):
    path = saved(tmp_path / "model.pt")
    failures = []

    def work():
        try:
            for _ in range(20):
                checkpoint.read(path)
        except CheckpointError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_write_then_read_gives_the_same(tmp_path):
    path = tmp_path / "folder" / "model.pt"
    checkpoint.write(path, stock_state())
    assert checkpoint.read(path).num_updates == 132
    assert os.listdir(path.parent) == ["model.pt"]


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = saved(tmp_path / "model.pt")
    old = path.read_bytes()
    # A limit on the size of files stands in for a full disk; it holds for the whole process, so use another.
    script = (
        "import sys, torch; from fairbeam.formats import fairseq_checkpoint as checkpoint\n"
        "from fairbeam.errors import InputError\n"
        "try: checkpoint.write(sys.argv[1], {'model': {'w': torch.zeros(1_000_000)}})\n"
        "except InputError as error: print(error); sys.exit(3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path],
        env={**os.environ, "PYTHONPATH": str(Path(checkpoint.__file__).parents[2])},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert f"{path}: cannot be written" in done.stdout
    assert "File too large" in done.stdout
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["model.pt"]


class TestAverage:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_is_the_mean_rounded_once(self, tmp_path, dtype):
        torch.manual_seed(1)
        weights = [torch.randn(50, 7, dtype=dtype) for _ in range(5)]
        models = [{"w": weight, "n": torch.tensor(i)} for i, weight in enumerate(weights)]
        paths = [saved(tmp_path / f"{i}.pt", model=model) for i, model in enumerate(models)]
        mean = checkpoint.average(paths)["model"]
        exact = np.mean([weight.double().numpy() for weight in weights], axis=0)
        error = np.abs(mean["w"].double().numpy() - exact).max()
        assert mean["w"].dtype == dtype
        assert error <= torch.finfo(dtype).eps * np.abs(exact).max()
        assert mean["n"] == 0

    def test_keeps_the_first_checkpoints_options_and_drops_the_optimizer(self, tmp_path):
        first = saved(tmp_path / "1.pt")
        other = saved(tmp_path / "2.pt", optimizer_history=[{"num_updates": 5}])
        state = checkpoint.average([first, other])
        assert "last_optimizer_state" not in state
        checkpoint.write(tmp_path / "mean.pt", state)
        assert checkpoint.read(tmp_path / "mean.pt").num_updates == 132

    def test_names_what_differs(self, tmp_path):
        first = saved(tmp_path / "1.pt", model={"a": torch.zeros(2)})
        more = saved(tmp_path / "2.pt", model={"a": torch.zeros(2), "b": torch.zeros(2)})
        with pytest.raises(CheckpointError, match=r"'b' is only in .*2\.pt"):
            checkpoint.average([first, more])
        wider = saved(tmp_path / "3.pt", model={"a": torch.zeros(3)})
        with pytest.raises(CheckpointError, match=r"'a' has shape \(2,\) in .* but \(3,\) in .*3\.pt"):
            checkpoint.average([first, wider])
        with pytest.raises(CheckpointError, match="no checkpoints"):
            checkpoint.average([])
