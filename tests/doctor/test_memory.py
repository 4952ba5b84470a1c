"""What doctor measures, against direct counts."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from fairbeam.doctor import environment
from fairbeam.doctor.machine import describe_machine
from fairbeam.doctor.memory import estimate_decoding, estimate_training
from fairbeam.doctor.modules import broken_weights, describe_network
from fairbeam.network import DropoutConfig, EncoderDecoder, EncoderDecoderConfig, NormPlacement, StackConfig

STACK = StackConfig(layers=2, dim=32, heads=4, ffn_dim=64)
POST_NORM = EncoderDecoderConfig(source_vocabulary=53, target_vocabulary=53, encoder=STACK, decoder=STACK,
                          share_embeddings=True, tie_output=True)  # fmt: skip
PRE_STACK = replace(STACK, norm_placement=NormPlacement.PRE, final_norm=True, layer_drop=0.5)
PRE_NORM = EncoderDecoderConfig(source_vocabulary=40, target_vocabulary=61, encoder=PRE_STACK, decoder=PRE_STACK,
                         dropout=DropoutConfig(residual=0.3, attention=0.1, activation=0.1))  # fmt: skip
CONFIGS = pytest.mark.parametrize("config", [POST_NORM, PRE_NORM], ids=["post-norm, tied", "pre-norm"])


@CONFIGS
def test_modules_account_for_every_parameter(config):
    network = EncoderDecoder(config).train()
    table = describe_network(network)
    assert table.parameters == sum(parameter.numel() for parameter in network.parameters())
    top = [row for row in table.rows if "." not in row.name]
    assert sum(row.parameters for row in top) == table.parameters
    assert [row.name for row in table.rows] == [name for name, _ in network.named_modules() if name]
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_module_shapes():
    table = describe_network(EncoderDecoder(PRE_NORM))
    shapes = {row.name: row.outputs for row in table.rows}
    batch, source, target = table.batch, table.source, table.target
    assert shapes["encoder"] == ((batch, source, 32),)
    assert shapes["decoder.layers.1.cross_attention.key_value"] == ((batch, source, 64),)
    assert shapes["decoder.layers.1.cross_attention.dropout"] == ((batch * 4, target, source),)
    assert shapes["head"] == ((batch, target, 61),)
    assert shapes["encoder.layers"] == ()  # a list, not called


def directly_saved(config, dtype, sentences, length):
    """Bytes that autograd saves for the whole batch up to the features, plus the loss's in closed form."""
    network = EncoderDecoder(replace(config, encoder=replace(config.encoder, layer_drop=0.0),
                              decoder=replace(config.decoder, layer_drop=0.0)), dtype)  # fmt: skip
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    saved = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    source, target = torch.randint(4, 40, (2, sentences, length))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        features = network(source, target, features_only=True)
    assert features.requires_grad
    loss = sentences * length * config.decoder.dim * dtype.itemsize  # the gradient of the features
    loss += network.head.weight.numel() * 4
    return sum(saved.values()) + loss


@CONFIGS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_memory_is_what_the_whole_batch_saves(config, dtype):
    estimate = estimate_training(config, 1500, dtype=dtype, length=24)
    assert (estimate.sentences, estimate.length) == (62, 24)
    assert estimate.activations == pytest.approx(directly_saved(config, dtype, 62, 24), rel=0.02)
    parameters = sum(parameter.numel() for parameter in EncoderDecoder(config).parameters())
    assert (estimate.weights, estimate.gradients, estimate.moments) == (
        4 * parameters, 4 * parameters, 8 * parameters,
    )  # fmt: skip
    assert estimate.total == 16 * parameters + estimate.activations


def test_estimates_leave_random_numbers_and_the_network_alone():
    network = EncoderDecoder(POST_NORM).train()
    weight = network.head.weight.detach().clone()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    estimate_training(POST_NORM, 64)
    estimate_decoding(network, 64)
    assert torch.equal(torch.rand(4), expected)
    assert network.training
    assert torch.equal(network.head.weight, weight)
    assert network.head.weight is network.target_embedding.weight


@CONFIGS
def test_decoding_memory_covers_every_key_and_value(config):
    beam, length, dim, layers = 5, 24, 32, 2
    low, high = (estimate_decoding(EncoderDecoder(config), 1500, beam=beam, dtype=dtype, length=length)
                 for dtype in (torch.bfloat16, torch.float32))  # fmt: skip
    assert (high.sentences, high.length, high.beam) == (62, 24, 5)
    filled = 2 * layers * dim * length * (1 + beam) * 62 * 4  # cross-attention once, self-attention by beam
    assert filled <= high.cache <= 2 * filled  # capacity grows by doubling
    assert low.cache == high.cache  # on a CPU attention is float32 in every precision
    assert high.scores == 62 * beam * config.target_vocabulary * 4
    assert low.weights < high.weights


def test_batches_smaller_than_a_sentence_shorten_it():
    for max_tokens in (1, 5):
        estimate = estimate_training(POST_NORM, max_tokens)
        assert (estimate.sentences, estimate.length) == (1, max_tokens)
        assert estimate_decoding(EncoderDecoder(POST_NORM), max_tokens).cache > 0


def test_broken_weights_are_named():
    network = EncoderDecoder(POST_NORM)
    assert broken_weights(network) == []
    with torch.no_grad():
        network.encoder.layers[1].inner.bias[3] = float("nan")
    assert broken_weights(network) == ["encoder.layers.1.inner.bias"]


def test_import_error_is_the_last_line(tmp_path, monkeypatch):
    noisy = "import sys\nsys.stderr.write('noise\\n')\nraise OSError('no library')\n"
    (tmp_path / "broken_package.py").write_text(noisy)
    (tmp_path / "crashing_package.py").write_text("import os\nos._exit(7)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert environment.import_error("broken_package") == "OSError: no library"
    assert environment.import_error("crashing_package") == "the interpreter exited with status 7"
    assert environment.import_error("json") is None
    monkeypatch.setattr(subprocess, "run", lambda *_, **options: _time_out(options["timeout"]))
    assert environment.import_error("json", timeout=3) == "no answer within 3 s"


def _time_out(seconds):
    raise subprocess.TimeoutExpired("python", seconds)


def test_machine(monkeypatch):
    found = describe_machine()
    assert found.cores >= 1
    assert found.threads == torch.get_num_threads()
    floating = torch.bfloat16 if found.fast_bfloat16 else torch.float32
    assert found.automatic_dtype() is (torch.int8 if found.integer_kernels else floating)
    if sys.platform.startswith("linux"):
        assert found.memory > 2**28
    monkeypatch.setenv("LD_PRELOAD", "libtcmalloc.so")
    assert not describe_machine().tunable_allocator
    assert environment.versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
