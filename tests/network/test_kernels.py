"""The compiled attention of a decoding step against torch's operations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairbeam.network import Network, NetworkConfig, StackConfig, kernels
from fairbeam.network.cache import KeyValues, Projected, Slots

pytest.importorskip("numba")
SIZES = st.integers(1, 4)


@settings(deadline=None, max_examples=40)
@given(batch=SIZES, beams=SIZES, heads=SIZES, width=st.integers(1, 9), steps=st.integers(1, 7), seed=st.integers(0, 99))
def test_beams_attend_to_their_own_histories(batch, beams, heads, width, steps, seed):
    draw = torch.Generator().manual_seed(seed)
    cache = KeyValues.empty(batch, heads, width, torch.zeros(0), capacity=beams)
    past = 1 + (steps - 1) * beams
    cache.append(torch.randn(2, batch, heads, past, width, generator=draw))
    projected = torch.randn(batch, beams, 3 * heads * width, generator=draw)
    slots = torch.randint(0, past, (batch, beams, steps + 1), generator=draw)
    slots[:, :, -1] = past + torch.arange(beams)
    rows = torch.randperm(batch, generator=draw)
    found = kernels.attend_to_slots(projected, cache, Slots(slots.int(), rows), heads=heads, scale=0.3)

    query, key, value = projected.view(batch, beams, 3, heads, width).unbind(2)
    keys, values = cache.storage[:, rows, :, : cache.length]
    assert cache.length == past + beams
    torch.testing.assert_close(keys[:, :, past:], key.transpose(1, 2))
    torch.testing.assert_close(values[:, :, past:], value.transpose(1, 2))
    for sentence in range(batch):
        for beam in range(beams):
            own = slots[sentence, beam]
            scores = torch.einsum("hd,hsd->hs", query[sentence, beam], keys[sentence][:, own]) * 0.3
            mean = torch.einsum("hs,hsd->hd", scores.softmax(1), values[sentence][:, own])
            torch.testing.assert_close(found[sentence, beam], mean.flatten(), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    batch=SIZES, queries=SIZES, heads=SIZES, width=st.integers(1, 9), length=st.integers(1, 9), seed=st.integers(0, 99)
)
def test_queries_attend_to_the_source(batch, queries, heads, width, length, seed):
    draw = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, queries, heads * width, generator=draw)
    keys, values = torch.randn(2, batch * heads, length, width, generator=draw)
    closed = torch.rand(batch, 1, length, generator=draw) < 0.4
    closed[:, :, 0] = False
    mask = torch.zeros(batch, 1, length).masked_fill(closed, float("-inf")).repeat_interleave(heads, dim=0)
    rows = torch.randperm(batch, generator=draw)[: max(1, batch - 1)]
    query = query[: len(rows)]
    for added in (None, mask):
        found = kernels.attend_to_source(query, Projected(keys, values, rows), added, heads=heads, scale=0.3)
        apart = query.view(len(rows), queries, heads, width).transpose(1, 2)
        kept = [tensor.unflatten(0, (batch, heads))[rows] for tensor in (keys, values, mask)]
        weights = (apart @ kept[0].mT * 0.3 + (0 if added is None else kept[2])).softmax(-1)
        together = (weights @ kept[1]).transpose(1, 2).flatten(2)
        torch.testing.assert_close(found, together, rtol=1e-5, atol=1e-5)


def test_steps_are_the_same_with_and_without(monkeypatch):
    torch.manual_seed(0)
    stack = StackConfig(layers=2, dim=24, heads=3, ffn_dim=32)
    network = Network(NetworkConfig(source_vocabulary=30, target_vocabulary=30, encoder=stack, decoder=stack))
    compiled = network.for_inference(torch.float32)
    monkeypatch.setattr(kernels, "available", lambda: False)
    plain = network.for_inference(torch.float32)
    assert (compiled.compiled, plain.compiled) == (True, False)
    draw = torch.Generator().manual_seed(1)
    source = torch.randint(4, 30, (4, 9), generator=draw)
    source[1, 5:] = 1
    states = [one.prefill(source, 3) for one in (compiled, plain)]
    tokens = torch.full((4, 3), 2)
    for step in range(8):
        found, expected = (one.step(state, tokens) for one, state in zip((compiled, plain), states, strict=True))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        tokens = torch.randint(4, 30, tokens.shape, generator=draw)
        parents = torch.randint(0, 3, tokens.shape, generator=draw)
        for state in states:
            state.reorder(parents)
            if step == 4:
                state.select(torch.tensor([0, 1, 3]))
        tokens = tokens[[0, 1, 3]] if step == 4 else tokens


def test_a_numba_that_cannot_be_imported_is_done_without(monkeypatch, caplog):
    def refuse(name):
        raise ImportError("Numba needs another NumPy")

    monkeypatch.setattr(kernels.importlib, "import_module", refuse)
    kernels.available.cache_clear()
    assert not kernels.available()
    assert "decoding is slower: Numba needs another NumPy" in caplog.text
    kernels.available.cache_clear()
