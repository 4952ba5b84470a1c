"""Products of integers against NumPy, and what they leave of a network's scores."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairbeam.errors import ConfigError
from fairbeam.network import Activation, EncoderDecoder, EncoderDecoderConfig, Precision, StackConfig
from fairbeam.network.inference import native
from fairbeam.network.inference.quantized_linear import QuantizedLinear, qmax_for
from fairbeam.network.linear import activate

PLACES = st.integers(1, 140)
ROWS = st.integers(1, 60)
KINDS = st.sampled_from(["native int8", "native int16", "int8"])


def as_integers(x: np.ndarray, qmax: int) -> np.ndarray:
    """Each row in whole steps between its lowest and its highest number, as float64 numbers again."""
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    steps, middles = (high - low) / (2 * qmax), (high + low) / 2
    return np.rint((x - middles) / np.where(steps > 0, steps, 1)) * steps + middles


def layer(
    weight: np.ndarray, bias: np.ndarray, kind: str, activation: Activation = Activation.LINEAR
) -> QuantizedLinear:
    if kind.startswith("native") and not native.multiplies_integers():
        pytest.skip("no native products on this processor, or no compiler")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "multiplies_integers", lambda: kind.startswith("native"))
        dtype = torch.int16 if kind.endswith("int16") else torch.int8
        return QuantizedLinear(torch.from_numpy(weight), torch.from_numpy(bias), dtype, activation)


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, inputs=PLACES, outputs=PLACES, seed=st.integers(0, 99), kind=KINDS)
@example(rows=8, inputs=69, outputs=1, seed=28, kind="native int8")
def test_products_are_those_of_integers(rows, inputs, outputs, seed, kind):
    random = np.random.default_rng(seed)
    x, weight = (random.normal(size=shape).astype(np.float32) for shape in ((rows, inputs), (outputs, inputs)))
    x[0] = 3.0  # a row of one number
    bias = random.normal(size=outputs).astype(np.float32)
    made = layer(weight, bias, kind)
    found = made(torch.from_numpy(x))
    scales = np.abs(weight).max(1, keepdims=True) / made.qmax
    expected = as_integers(x.astype(np.float64), made.qmax) @ (np.rint(weight / scales) * scales).T + bias
    # A number may lie halfway between two integers: its row is off by one step of one of them, then.
    steps = ((x.max(1) - x.min(1)) / made.qmax)[:, None] * np.abs(weight).max(1)
    away = np.abs(found.numpy() - expected)
    assert np.all(away <= 1e-4 + 1.01 * steps)
    assert np.count_nonzero((away > 1e-4).any(1)) <= 1 + rows // 20
    assert torch.equal(found, torch.cat([made(row) for row in torch.from_numpy(x).split(1)]))  # whatever else is there


@pytest.mark.parametrize("inputs", [1, 256, 1024, 4096, 16384])
def test_sums_of_the_highest_integers_fit(inputs):
    assert inputs * qmax_for(inputs, torch.int16) ** 2 < 2**31
    weight = np.ones((1, inputs), np.float32)
    x = np.ones((2, inputs), np.float32)
    x[:, : inputs // 2] = -1
    x[1] *= -1
    found = layer(weight, np.zeros(1, np.float32), "native int16")(torch.from_numpy(x))
    assert np.allclose(found.numpy()[:, 0], x.sum(1), atol=1e-2)


@pytest.mark.parametrize("activation", list(Activation))
def test_native_layers_activate_as_torch_does(activation):
    random = np.random.default_rng(0)
    weight, bias = random.normal(size=(37, 24)).astype(np.float32), np.zeros(37, np.float32)
    x = torch.from_numpy(random.normal(size=(11, 24)).astype(np.float32))
    plain, made = layer(weight, bias, "native int16"), layer(weight, bias, "native int16", activation)
    expected = activate(plain(x), activation)
    torch.testing.assert_close(
        made(x) if made.activates else activate(made(x), activation), expected, rtol=1e-5, atol=2e-6
    )


@settings(deadline=None, max_examples=30)
@given(inputs=PLACES, outputs=PLACES, beams=st.integers(1, 4), seed=st.integers(0, 99), kind=KINDS)
def test_what_rounding_took_is_given_back(inputs, outputs, beams, seed, kind):
    if kind.endswith("int16"):
        return
    random = np.random.default_rng(seed)
    x, weight = (random.normal(size=shape).astype(np.float32) for shape in ((3, beams, inputs), (outputs, inputs)))
    made = layer(weight, random.normal(size=outputs).astype(np.float32), kind)
    features, exact = torch.from_numpy(x), torch.from_numpy(weight)
    used = random.integers(1, beams + 1)  # perhaps none of the last beams
    owners, tokens = torch.from_numpy(random.integers(0, (used, outputs), (3, 8, 2))).unbind(2)
    taken = made.output_delta(features, exact, owners, tokens, tokens)
    all_taken = features @ exact.T - (made(features) - made._per_output[2][:outputs])
    torch.testing.assert_close(taken, all_taken[torch.arange(3).unsqueeze(1), owners, tokens], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_a_network_in_integers_scores_nearly_the_same(dtype):
    if dtype is torch.int16 and not native.multiplies_integers():
        pytest.skip("no native products on this processor, or no compiler")
    torch.manual_seed(0)
    stack = StackConfig(layers=2, dim=64, heads=4, ffn_dim=96)
    network = EncoderDecoder(
        EncoderDecoderConfig(source_vocabulary=50, target_vocabulary=50, encoder=stack, decoder=stack)
    )
    source, target = torch.randint(4, 50, (3, 7)), torch.randint(4, 50, (3, 5))
    exact, rounded = (network.for_inference(each)(source, target) for each in (torch.float32, dtype))
    assert 0 < (exact - rounded).abs().max() < 0.1 * exact.std()
    weights = [parameter for parameter in network.for_inference(dtype).encoder.parameters() if parameter.dim() > 1]
    assert sum(weight.numel() for weight in weights) == 0  # one copy is enough


@pytest.mark.parametrize("name", ["int8", "int16"])
def test_integers_are_for_cpus(name):
    if name == "int8" or native.multiplies_integers():
        assert Precision.parse(name).resolve(torch.device("cpu")) is getattr(torch, name)
    with pytest.raises(ConfigError, match=f"--precision {name}: is for CPUs, and the device is cuda:0"):
        Precision.parse(name).resolve(torch.device("cuda:0"))


def test_without_the_library(monkeypatch):
    monkeypatch.setattr(native, "multiplies_integers", lambda: False)
    assert Precision.AUTO.resolve(torch.device("cpu")) is not torch.int8
    with pytest.raises(ConfigError, match="needs a processor with AVX-512 VNNI, and fairbeam installed with a C"):
        Precision.INT16.resolve(torch.device("cpu"))
