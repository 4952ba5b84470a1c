"""Each mend of stock fairseq, and what it mends."""

import argparse
import ast
import importlib
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import fairseq
import fairseq_cli.train
import numpy as np
import pytest
import sacrebleu
import torch
from fairseq import checkpoint_utils, models, options
from fairseq.data import Dictionary, FairseqDataset, data_utils
from fairseq.file_io import PathManager
from hypothesis import given
from hypothesis import strategies as st

from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam_plugin import patches
from fairbeam_plugin.patches import configuration, errors, quiet, resuming
from fairbeam_plugin.patches.patching import mend


def test_mends_are_applied_once():
    before = checkpoint_utils.load_checkpoint_to_cpu, data_utils.batch_by_size, PathManager.copy
    filters = len(warnings.filters)
    patches.apply()
    assert before == (checkpoint_utils.load_checkpoint_to_cpu, data_utils.batch_by_size, PathManager.copy)
    assert len(warnings.filters) == filters
    assert not hasattr(before[1].__wrapped__, "fairbeam_mends")


def test_two_mends_of_one_function_are_both_applied():
    owner = SimpleNamespace(double=lambda x: 2 * x)

    def add_one(stock, x):
        return stock(x) + 1

    def negate(stock, x):
        return -stock(x)

    for mended in (add_one, negate, add_one):
        mend(owner, "double", mended)
    assert owner.double(5) == -11


# Exits with the number of writes that failed; a limit on the size of files stands in for the disk.
FULL_DISK = """
import resource, sys
import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from fairbeam.errors import FairbeamError
import fairbeam_plugin

folder, failed = sys.argv[1], 0
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
for attempt in (
    lambda: PathManager.copy(f"{folder}/large.pt", f"{folder}/checkpoint_last.pt", overwrite=True),
    lambda: checkpoint_utils.torch_persistent_save({"w": torch.zeros(1_000_000)}, f"{folder}/checkpoint_last.pt"),
    lambda: checkpoint_utils.torch_persistent_save({"w": torch.zeros(1_000_000)}, f"{folder}/new.pt"),
):
    try:
        attempt()
    except FairbeamError:
        failed += 1
sys.exit(failed)
"""


class TestBatches:
    @given(
        lengths=st.lists(st.integers(1, 50), max_size=100),
        max_tokens=st.integers(50, 500),
        max_sentences=st.none() | st.integers(1, 20),
        multiple=st.sampled_from([1, 2, 8]),
        as_vector=st.booleans(),
    )
    def test_each_sentence_is_in_one_batch(self, lengths, max_tokens, max_sentences, multiple, as_vector):
        sizes = np.array(lengths, dtype=np.int64)
        order = np.argsort(sizes, kind="stable")
        batches = data_utils.batch_by_size(
            order,
            num_tokens_fn=lambda index: sizes[index],
            num_tokens_vec=sizes[order] if as_vector else None,
            max_tokens=max_tokens,
            max_sentences=max_sentences,
            required_batch_size_multiple=multiple,
        )
        assert [index for batch in batches for index in batch] == order.tolist()
        for batch in batches:
            assert len(batch) * max(sizes[batch]) <= max_tokens
            assert len(batch) <= (max_sentences or len(batch))

    @pytest.mark.parametrize("count", [1, 7, 100, 1001])
    def test_stock_loses_what_the_mend_keeps(self, count):
        class Sentences(FairseqDataset):
            def __len__(self):
                return count

            def num_tokens(self, index):
                return 10

        arguments = {"max_tokens": 640, "required_batch_size_multiple": 8}
        kept = Sentences().batch_by_size(np.arange(count), **arguments)
        stock = data_utils.batch_by_size.__wrapped__(
            np.arange(count), Sentences().num_tokens, max_tokens=640, required_batch_size_multiple=8
        )
        assert sum(map(len, kept)) == count
        assert sum(map(len, stock)) == count - count % 8


class TestConfiguration:
    @pytest.mark.parametrize(
        "expression",
        [
            "(0.9, 0.98)",
            "[(512, 3)] * 20",
            "[(512, 3)] * 9 + [(1024, 3)] * 4 + 2 * [(2048, 1)]",
            "[1e-30, 1e-3]",
            "(None, None)",
            "[(512, 10, 5)] + [(512, 3, 2)] * 4",
            "False",
            "-1",
            "3 - 5",
            "{'a': (1, -2.5), 'b': {3}}",
        ],
    )
    def test_literals_mean_what_they_mean_in_python(self, expression):
        assert configuration.evaluate_literal(expression) == eval(expression)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(),
            lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
        )
    )
    def test_any_literal_survives(self, value):
        assert configuration.evaluate_literal(repr(value)) == value

    @pytest.mark.parametrize(
        "expression",
        [
            "open('attacked', 'w')",
            "__import__('os').system('touch attacked')",
            "[open('attacked', 'w')] * 2",
            "(lambda: 0)()",
            "2 ** 9999999999",
            "[0] * 99999999",
            "'a' * 99999999 + 'b'",
            "[0] * 300 * 300 * 300",
            "x",
            "[1] + 2",
            "",
            "(" * 5000,
            "1" * 10000,
        ],
    )
    def test_anything_else_is_refused_and_not_run(self, expression, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError, match="not a literal"):
            configuration.evaluate_literal(expression)
        assert not list(tmp_path.iterdir())

    @pytest.mark.filterwarnings("ignore:invalid escape sequence")
    def test_no_stock_module_is_left_with_the_real_eval(self):
        root = Path(fairseq.__file__).parent
        evaluating = set()
        for path in root.rglob("*.py"):
            relative = path.relative_to(root.parent)
            if "examples" in relative.parts or "benchmark" in relative.parts:
                continue
            calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
            if any(isinstance(call.func, ast.Name) and call.func.id in ("eval", "exec") for call in calls):
                evaluating.add(".".join(relative.with_suffix("").parts))
        assert evaluating == set(configuration.EVALUATING_MODULES)
        for name in evaluating:
            assert importlib.import_module(name).eval is configuration.evaluate_literal

    @pytest.mark.parametrize(
        ("arch", "option"),
        [
            ("transformer", "adaptive_softmax_cutoff"),
            ("transformer", "encoder_xformers_att_config"),
            ("fconv", "encoder_layers"),
            ("lstm", "decoder_attention"),
        ],
    )
    def test_hostile_option_of_an_admitted_architecture_does_nothing(self, arch, option, tmp_path):
        target = tmp_path / "attacked"
        options = argparse.Namespace(arch=arch, _name=arch, **{option: f"open({str(target)!r}, 'w')"})
        dictionary = Dictionary()
        task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
        with pytest.raises(ConfigError, match="not a literal"):
            models.build_model(options, task, from_checkpoint=True)
        assert not target.exists()

    def test_only_known_architectures_are_built_from_a_checkpoint(self, monkeypatch):
        for name in ("transformer_iwslt_de_en", "transformer_lm", "bart_large", "roberta", "lstm", "fconv"):
            configuration.check_architecture(name)
        for name in ("wav2vec2", "hubert", "s2t_transformer", "no_such_model", None, ["transformer"]):
            with pytest.raises(CheckpointError, match=re.escape(str(name))):
                configuration.check_architecture(name)


class TestCheckpoints:
    @pytest.fixture
    def state(self) -> dict:
        model = argparse.Namespace(_name="transformer", arch="transformer", dropout=0.1, activation_fn="relu")
        return {
            "args": None,
            "cfg": {"model": model, "task": {"_name": "translation", "data": "old"}, "common": {"seed": 1}},
            "model": {"weight": torch.arange(4.0)},
            "optimizer_history": [{"num_updates": 5, "optimizer_name": "Adam", "lr_scheduler_state": {}}],
            "extra_state": {"train_iterator": {"epoch": 2}, "_bleu_counts": np.array([3, 1])},
        }

    def test_loading_gives_what_stock_gives(self, state, tmp_path):
        path = str(tmp_path / "model.pt")
        torch.save(state, path)
        overrides = {"data": "new", "dropout": 0.5}
        found = checkpoint_utils.load_checkpoint_to_cpu(path, overrides)
        with checkpoint.safe_reading(path):
            expected = checkpoint_utils.load_checkpoint_to_cpu.__wrapped__(path, overrides)
        assert found["cfg"] == expected["cfg"]
        assert found["cfg"].task.data == "new"
        assert found["cfg"].model.dropout == 0.5
        assert found.keys() == expected.keys()
        assert torch.equal(found["model"]["weight"], state["model"]["weight"])

    def test_loading_an_old_checkpoint_converts_its_args(self, state, tmp_path):
        path = str(tmp_path / "old.pt")
        args = argparse.Namespace(arch="transformer", task="translation", data="old", lr=0.1, criterion="ctc")
        torch.save({**state, "args": args, "cfg": None}, path)
        found = checkpoint_utils.load_checkpoint_to_cpu(path, {"data": "new"})
        assert found["cfg"].task.data == "new"
        assert found["args"].lr == [0.1]

    def test_a_file_that_is_no_training_checkpoint_is_named(self, tmp_path):
        path = str(tmp_path / "weights.pt")
        torch.save({"model": {"w": torch.zeros(1)}}, path)
        with pytest.raises(CheckpointError, match=r"weights\.pt: lacks 'best_loss'"):
            checkpoint_utils.load_checkpoint_to_cpu(path)

    def test_averaged_weights_load(self, state, tmp_path):
        path = str(tmp_path / "ema.pt")
        state["extra_state"]["ema"] = {"weight": torch.ones(4)}
        torch.save(state, path)
        assert torch.equal(checkpoint_utils.load_ema_from_checkpoint(path)["model"]["weight"], torch.ones(4))

    def test_a_kill_during_the_copy_leaves_a_whole_checkpoint(self, tmp_path):
        last = str(tmp_path / "checkpoint_last.pt")
        sources = []
        for value in (0.0, 1.0):
            sources.append(str(tmp_path / f"checkpoint{value:.0f}.pt"))
            state = {"model": {"w": torch.full((2_000_000,), value)}}
            checkpoint_utils.torch_persistent_save(state, sources[-1])
        PathManager.copy(sources[0], last, overwrite=True)
        random.seed(1)
        seen, strays = set(), 0
        for _ in range(25):
            child = os.fork()
            if child == 0:
                while True:
                    for source in sources:
                        PathManager.copy(source, last, overwrite=True)
            time.sleep(random.uniform(0.005, 0.05))
            os.kill(child, signal.SIGKILL)
            assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
            weight = checkpoint.load(last)["model"]["w"]
            assert weight.min() == weight.max()
            seen.add(weight[0].item())
            strays += len(list(tmp_path.glob(".*.tmp")))
        assert seen == {0.0, 1.0}
        assert strays, "no kill hit the middle of a copy; the test proves nothing"

    def test_resuming_removes_what_a_kill_left_behind(self, tmp_path):
        stray = tmp_path / ".checkpoint_last.pt.abc123.tmp"
        stray.touch()
        (tmp_path / "checkpoint_last.pt").touch()
        trainer = SimpleNamespace(
            data_parallel_rank=0, cfg=SimpleNamespace(checkpoint=SimpleNamespace(save_dir=str(tmp_path)))
        )
        patches.checkpoints.load_checkpoint(lambda *_: None, trainer)
        assert os.listdir(tmp_path) == ["checkpoint_last.pt"]

    def test_a_full_disk_leaves_the_old_files_and_no_others(self, tmp_path):
        old = str(tmp_path / "checkpoint_last.pt")
        checkpoint_utils.torch_persistent_save({"model": {"w": torch.zeros(10)}}, old)
        (tmp_path / "large.pt").write_bytes(bytes(2_000_000))
        # A process of its own: a fork of this one would inherit locks that torch's threads hold.
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", FULL_DISK, tmp_path], check=False)
        assert done.returncode == 3
        assert sorted(os.listdir(tmp_path)) == ["checkpoint_last.pt", "large.pt"]
        assert checkpoint.load(old)["model"]["w"].numel() == 10


class TestResuming:
    def test_the_patience_counter_is_saved_and_restored(self, monkeypatch):
        counter = fairseq_cli.train.should_stop_early
        cfg = SimpleNamespace(checkpoint=SimpleNamespace(patience=3, maximize_best_checkpoint_metric=False))
        for name in ("best", "num_runs"):
            monkeypatch.setattr(counter, name, None, raising=False)
            monkeypatch.delattr(counter, name)
        assert [counter(cfg, loss) for loss in (2.0, 1.0, 1.5)] == [False] * 3
        saved = resuming.save_checkpoint(lambda trainer, filename, extra: extra, None, "x.pt", {})
        del counter.best, counter.num_runs

        resuming.load_checkpoint(lambda *_, **__: saved, None, "x.pt", reset_optimizer=True)
        assert not hasattr(counter, "best")
        resuming.load_checkpoint(lambda *_, **__: saved, None, "x.pt")
        assert [counter(cfg, loss) for loss in (1.4, 1.3)] == [False, True]

    def test_a_checkpoint_without_a_counter_loads(self):
        assert resuming.load_checkpoint(lambda *_, **__: None, None, "x.pt") is None

    def test_training_iterators_are_never_kept(self):
        passed = resuming.get_train_iterator(
            lambda trainer, epoch, **options: (epoch, options), None, 3, disable_iterator_cache=False
        )
        assert passed == (3, {"disable_iterator_cache": True})


@pytest.mark.parametrize(
    ("flags", "bf16", "tpu"),
    [
        ([], False, False),
        (["--bf16"], True, False),
        (["--memory-efficient-bf16"], True, False),
        (["--bf16", "--tpu"], True, True),
        (["--tpu"], False, True),
    ],
)
def test_bf16_asks_for_no_tpu(flags, bf16, tpu):
    arguments = ["data", "--arch", "transformer", "--task", "translation", *flags]
    parsed = options.parse_args_and_arch(options.get_training_parser(), arguments)
    assert (parsed.bf16, parsed.tpu) == (bf16, tpu)


def test_chrf_scorer_agrees_with_sacrebleu():
    from fairseq.scoring.chrf import ChrFScorer

    scorer = ChrFScorer(None)
    pairs = [("the cat sat", "the cat sat"), ("a dog barked loudly", "one dog barks")]
    for reference, hypothesis in pairs:
        scorer.add_string(reference, hypothesis)
    references, hypotheses = zip(*pairs, strict=True)
    assert scorer.score() == sacrebleu.corpus_chrf(list(hypotheses), [list(references)]).score


def test_a_user_error_is_one_line_and_others_keep_their_traceback(capsys):
    assert sys.excepthook is errors.show_error
    errors.show_error(CheckpointError, CheckpointError("model.pt: truncated"), None)
    assert capsys.readouterr().err == "error: model.pt: truncated\n"
    errors.show_error(ValueError, ValueError("a bug"), None)
    assert "ValueError: a bug" in capsys.readouterr().err


def test_only_the_listed_warnings_are_silenced():
    with pytest.warns(UserWarning, match="a warning of the user's"):
        warnings.warn("a warning of the user's", UserWarning, stacklevel=1)
    with warnings.catch_warnings(record=True) as caught:
        quiet.apply()
        warnings.warn("'pin_memory' argument is set as true but no accelerator", UserWarning, stacklevel=1)
    assert not caught


def test_numpy_is_itself_elsewhere():
    assert data_utils.np.int is int
    assert data_utils.np.array is np.array
    assert not hasattr(np, "int")


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_adam_in_one_pass_is_stock_adam(weight_decay):
    from fairseq.optim.adam import Adam

    def train(step) -> tuple[list[torch.Tensor], dict]:
        torch.manual_seed(1)
        parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((7, 5), (3,))]
        optimizer = Adam(parameters, lr=1e-2, betas=(0.9, 0.98), eps=1e-4, weight_decay=weight_decay)
        for number in range(6):
            for place, parameter in enumerate(parameters):
                parameter.grad = torch.randn_like(parameter) if place == 0 or number % 2 else None
            step(optimizer)
        return parameters, optimizer.state_dict()

    ours, our_state = train(Adam.step)
    theirs, their_state = train(Adam.step.__wrapped__)
    assert Adam.step.fairbeam_mends
    for mine, stock in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, stock, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(our_state, their_state, rtol=1e-6, atol=1e-7)
