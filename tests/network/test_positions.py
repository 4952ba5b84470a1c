"""Position schemes against plain formulas."""

import numpy as np
import pytest
import torch

from fairbeam.errors import ConfigError
from fairbeam.network import PositionConfig, PositionKind
from fairbeam.network.positions import position_ids, sinusoids


@pytest.mark.parametrize("dim", [8, 24, 25])
def test_open_sinusoids_are_the_papers_sines_before_its_cosines(dim):
    angles = np.arange(2000)[:, None] / 10000.0 ** (2 * (np.arange(dim) // 2) / dim)
    expected = np.concatenate([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=1)
    actual = sinusoids(2000, dim, PositionKind.SINUSOIDAL_OPEN)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-7)


def test_positions_are_columns_or_real_tokens():
    mask = torch.tensor([[True, True, False], [False, True, True]])
    tokens = position_ids(mask, PositionConfig(offset=2))
    assert tokens.tolist() == [[2, 3, 1], [1, 2, 3]]
    columns = position_ids(mask, PositionConfig(offset=0, count_padding=True))
    assert columns.expand(2, -1).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_padding_needs_a_number_where_it_is_not_counted():
    with pytest.raises(ConfigError, match=r"positions\.offset is 0 and positions\.count_padding is false"):
        PositionConfig(offset=0)
