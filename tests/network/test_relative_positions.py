"""Relative positions, grouped keys and norms against plain NumPy."""

import math

import numpy as np
import pytest
import torch

from fairbeam.network import PositionConfig, PositionKind, StackConfig
from fairbeam.network.attention import SelfAttention, expand_for_group
from fairbeam.network.cache import slot_steps
from fairbeam.network.dropout import Dropout, MaskSource
from fairbeam.network.norm import LayerNorm, RMSNorm
from fairbeam.network.positions import PositionIds, RelativeBuckets, Rotary, distance_buckets, distances


def bucket_of(ahead: int, buckets: int, max_distance: int, bidirectional: bool) -> int:
    """Return the bucket of a single distance, by search among bucket edges instead of a logarithm."""
    first, distance = 0, max(-ahead, 0)
    if bidirectional:
        buckets //= 2
        first, distance = (buckets if ahead > 0 else 0), abs(ahead)
    near = buckets // 2
    if distance < near:
        return first + distance
    far = buckets - near
    edges = [near * (max_distance / near) ** (number / far) for number in range(far)]
    return first + near + sum(distance >= edge - 1e-6 for edge in edges) - 1


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 7), (20, 50)])
def test_distances_fall_into_their_buckets(buckets, max_distance, bidirectional):
    config = PositionConfig(
        kind=PositionKind.RELATIVE_BUCKETS, buckets=buckets, max_distance=max_distance, bidirectional=bidirectional
    )
    ahead = range(-300, 301)
    found = distance_buckets(torch.tensor(ahead), config).tolist()
    wanted = [bucket_of(distance, buckets, max_distance, bidirectional) for distance in ahead]
    differ = [(d, f, w) for d, f, w in zip(ahead, found, wanted, strict=True) if f != w]
    # float32 logarithms round down at some of the exact edges, as the published models' do
    assert all(w - f == 1 and bucket_of(d + (1 if d < 0 else -1), buckets, max_distance, bidirectional) == f
               for d, f, w in differ)  # fmt: skip
    assert len(differ) <= 4


def test_biases_are_looked_up_by_head():
    config = PositionConfig(kind=PositionKind.RELATIVE_BUCKETS, buckets=8, max_distance=9)
    module = RelativeBuckets(config, 3)
    queries, keys = torch.tensor([0, 4]), torch.tensor([0, 1, 1, 7])
    found = module(PositionIds(queries, keys).relative_positions())
    assert found.shape == (3, 2, 4)
    each = module(PositionIds(torch.stack([queries, queries + 3]), torch.stack([keys, keys + 3])).relative_positions())
    assert torch.equal(each, torch.stack([found, found]))
    for head in range(3):
        for q, query in enumerate(queries.tolist()):
            for k, key in enumerate(keys.tolist()):
                assert found[head, q, k] == module.weight[bucket_of(key - query, 8, 9, True), head]


def test_rotation_is_a_product_of_complex_numbers():
    numbers, width = np.array([0, 1, 5, 1000]), 8
    x = np.random.default_rng(0).normal(size=(2, 3, 4, width))
    pairs = x[..., : width // 2] + 1j * x[..., width // 2 :]
    turned = pairs * np.exp(1j * numbers[:, None] * 100.0 ** (-2 * np.arange(width // 2) / width))
    module = Rotary(PositionConfig(kind=PositionKind.ROTARY, rotary_base=100.0), width)
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    for given in (torch.from_numpy(numbers), torch.from_numpy(numbers).expand(2, -1)):
        np.testing.assert_allclose(module(given).rotate(torch.from_numpy(x).float()), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", [PositionKind.RELATIVE_KEY, PositionKind.RELATIVE_KEY_QUERY])
def test_vectors_of_distances_stand_beside_keys(kind, masked):
    """The reference gathers one vector per pair of query and key and multiplies them one by one."""
    torch.manual_seed(0)
    positions = PositionConfig(kind=kind, max_positions=9)
    config = StackConfig(dim=12, heads=2, attention_scale=0.7, positions=positions)
    attention = SelfAttention(config, Dropout(0.0, MaskSource()))
    table = attention.distances.weight
    assert table.shape == (17, 6)
    x = torch.randn(2, 5, 12, requires_grad=True)
    places = PositionIds(
        torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]), torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]])
    )
    mask = torch.zeros(4, 1, 5)
    mask[2:, :, :2] = float("-inf")
    found = attention(x, mask if masked else None, None, distances(places.relative_positions(), 2, 5, config))

    query, keys, values = (part.unflatten(2, (2, 6)) for part in attention.qkv(x).split(12, dim=2))  # (.., heads, 6)
    scores = torch.zeros(2, 2, 5, 5)
    for row, head, q, k in np.ndindex(2, 2, 5, 5):
        vector = table[places.queries[row, q] - places.keys[row, k] + 8]
        beside = keys[row, k, head] + vector
        scores[row, head, q, k] = query[row, q, head] @ beside
        if kind is PositionKind.RELATIVE_KEY_QUERY:
            scores[row, head, q, k] = scores[row, head, q, k] + vector @ keys[row, k, head]
    weights = (scores * 0.7 + (mask.view(2, 2, 1, 5) if masked else 0)).softmax(3)
    expected = attention.output(torch.einsum("bhqk,bkhd->bqhd", weights, values).flatten(2))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    wrt = [x, *attention.parameters()]
    slopes = (torch.autograd.grad(out.square().sum(), wrt, retain_graph=True) for out in (found, expected))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_slots_know_their_step():
    assert slot_steps(1, 1, torch.device("cpu")).tolist() == [0]
    assert slot_steps(7, 3, torch.device("cpu")).tolist() == [0, 1, 1, 1, 2, 2, 2]


@torch.no_grad()
@pytest.mark.parametrize("kept", [1, 2, 4])
def test_groups_of_heads_share_keys_and_values(kept):
    torch.manual_seed(0)
    config = StackConfig(dim=12, heads=4, head_dim=6, key_value_heads=kept)
    attention = SelfAttention(config, Dropout(0.0, MaskSource()))
    x = torch.randn(2, 5, 12)
    causal = torch.full((5, 5), float("-inf")).triu(1)
    found = attention(x, expand_for_group(causal, 4 // kept))
    projected = attention.qkv(x).numpy()
    query, keys, values = np.split(projected, [24, 24 + 6 * kept], axis=2)
    heads = []
    for head in range(4):
        own, shared = slice(6 * head, 6 * head + 6), slice(6 * (head * kept // 4), 6 * (head * kept // 4) + 6)
        scores = query[..., own] @ keys[..., shared].transpose(0, 2, 1) / math.sqrt(6) + causal.numpy()
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ values[..., shared])
    expected = attention.output(torch.from_numpy(np.concatenate(heads, axis=2)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_norms():
    x = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)
    mean_square = (x * x).mean(-1, keepdims=True)
    rms, layer = RMSNorm(7, 0.25), LayerNorm(7, 0.25, bias=False)
    for norm in (rms, layer):
        norm.weight.copy_(torch.arange(7.0))
    np.testing.assert_allclose(rms(torch.from_numpy(x)), x / np.sqrt(mean_square + 0.25) * np.arange(7), rtol=1e-5)
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.25) * np.arange(7)
    np.testing.assert_allclose(layer(torch.from_numpy(x)), expected, rtol=1e-4, atol=1e-6)
