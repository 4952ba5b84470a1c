"""Products in 8-bit integers against NumPy, and what they leave of a network's scores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairbeam.errors import ConfigError
from fairbeam.network import Network, NetworkConfig, Precision, StackConfig, kernels
from fairbeam.network.int8 import Int8Weight, product

PLACES = st.integers(1, 40)


def by_hand(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Each row and each output in steps of a 127th of its highest number."""
    rows, outputs = np.abs(x).max(1, keepdims=True) / 127, np.abs(weight).max(1, keepdims=True) / 127
    integers = [np.rint(array / np.where(scale > 0, scale, 1)) for array, scale in ((x, rows), (weight, outputs))]
    return (integers[0] @ integers[1].T) * rows * outputs.T + bias


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(1, 6), inputs=PLACES, outputs=PLACES, seed=st.integers(0, 99), compiled=st.booleans())
def test_products_are_those_of_integers(rows, inputs, outputs, seed, compiled):
    random = np.random.default_rng(seed)
    # Multiples of a 127th of a highest number that is there: nothing to be rounded either way.
    x, weight = (random.integers(-127, 128, shape).astype(np.float32) for shape in ((rows, inputs), (outputs, inputs)))
    x[:, 0], weight[:, 0] = 127, -127
    bias = random.normal(size=outputs).astype(np.float32)
    x[:1] = 0 if rows > 1 else x[:1]
    packed = Int8Weight.of(torch.from_numpy(weight * 0.5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "available", lambda: compiled)
        found = product(torch.from_numpy(x), packed, torch.from_numpy(bias), relu=False)
        rectified = product(torch.from_numpy(x), packed, torch.from_numpy(bias), relu=True)
        alone = torch.cat(
            [product(row, packed, torch.from_numpy(bias), relu=False) for row in torch.from_numpy(x).split(1)]
        )
    expected = by_hand(x, weight * 0.5, bias)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(rectified.numpy(), np.maximum(expected, 0), rtol=1e-5, atol=1e-3)
    assert torch.equal(found, alone)  # whatever else is in the batch


def test_a_network_in_integers_scores_nearly_the_same():
    torch.manual_seed(0)
    stack = StackConfig(layers=2, dim=64, heads=4, ffn_dim=96)
    network = Network(NetworkConfig(source_vocabulary=50, target_vocabulary=50, encoder=stack, decoder=stack))
    source, target = torch.randint(4, 50, (3, 7)), torch.randint(4, 50, (3, 5))
    exact, rounded = (network.for_inference(dtype)(source, target) for dtype in (torch.float32, torch.int8))
    assert 0 < (exact - rounded).abs().max() < 0.1 * exact.std()
    weights = [parameter for parameter in network.for_inference(torch.int8).encoder.parameters() if parameter.dim() > 1]
    assert sum(weight.numel() for weight in weights) == 0  # one copy is enough


def test_int8_is_for_cpus():
    assert Precision.parse("int8").resolve(torch.device("cpu")) is torch.int8
    with pytest.raises(ConfigError, match="--precision int8: is for CPUs, and the device is cuda:0"):
        Precision.INT8.resolve(torch.device("cuda:0"))
