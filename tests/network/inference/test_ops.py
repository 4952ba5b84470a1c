"""Native kernels against torch's operations."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from native_paths import WAYS, library

from fairbeam.network import Activation, EncoderDecoder, EncoderDecoderConfig, NormPlacement, StackConfig
from fairbeam.network.cache import BeamSlots, CrossKeyValues, KeyValues
from fairbeam.network.inference import native, ops

if not native.available():
    pytest.skip("fairbeam was installed without a C++ compiler", allow_module_level=True)
SIZES = st.integers(1, 4)
WIDTHS = st.sampled_from([1, 3, 9, 16, 24, 32, 64, 80, 96, 128])


@settings(deadline=None, max_examples=40)
@given(batch=SIZES, beams=SIZES, heads=SIZES, width=WIDTHS, steps=st.integers(1, 7), seed=st.integers(0, 99))
def test_beams_attend_to_their_own_histories(batch, beams, heads, width, steps, seed):
    draw = torch.Generator().manual_seed(seed)
    cache = KeyValues.empty(batch, heads, width, torch.zeros(0), capacity=beams)
    past = 1 + (steps - 1) * beams
    cache.append(torch.randn(2, batch, heads, past, width, generator=draw))
    projected = torch.randn(batch, beams, 3 * heads * width, generator=draw)
    slots = torch.randint(0, past, (batch, beams, steps + 1), generator=draw)
    slots[:, :, -1] = past + torch.arange(beams)
    rows = torch.randperm(batch, generator=draw)
    found = ops.attend_to_slots(projected, cache, BeamSlots(slots.int(), rows), heads=heads, scale=0.3)

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
@given(batch=SIZES, queries=SIZES, heads=SIZES, width=WIDTHS, length=st.integers(1, 9), seed=st.integers(0, 99))
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
        found = ops.attend_to_source(query, CrossKeyValues(keys, values, rows), added, heads=heads, scale=0.3)
        apart = query.view(len(rows), queries, heads, width).transpose(1, 2)
        kept = [tensor.unflatten(0, (batch, heads))[rows] for tensor in (keys, values, mask)]
        weights = (apart @ kept[0].mT * 0.3 + (0 if added is None else kept[2])).softmax(-1)
        together = (weights @ kept[1]).transpose(1, 2).flatten(2)
        torch.testing.assert_close(found, together, rtol=1e-5, atol=1e-5)


def steps(network: EncoderDecoder) -> list[torch.Tensor]:
    """Scores of eight steps of beams that are reordered, and one of which leaves."""
    draw = torch.Generator().manual_seed(1)
    source = torch.randint(4, 30, (4, 9), generator=draw)
    source[1, 5:] = 1
    state, tokens, scores = network.prefill(source, 3), torch.full((4, 3), 2), []
    for step in range(8):
        scores.append(network.step(state, tokens))
        tokens = torch.randint(4, 30, tokens.shape, generator=draw)
        state.reorder(torch.randint(0, 3, tokens.shape, generator=draw))
        if step == 4:
            state.select(torch.tensor([0, 1, 3]))
            tokens = tokens[[0, 1, 3]]
    return scores


@torch.no_grad()
def test_steps_are_the_same_with_and_without(monkeypatch):
    torch.manual_seed(0)
    stack = StackConfig(layers=2, dim=24, heads=3, ffn_dim=32)
    network = EncoderDecoder(
        EncoderDecoderConfig(source_vocabulary=30, target_vocabulary=30, encoder=stack, decoder=stack)
    )
    with_library = network.for_inference(torch.float32)
    assert with_library.attends_natively
    found = steps(with_library)
    monkeypatch.setattr(native, "library", lambda: None)
    plain = network.for_inference(torch.float32)
    assert not plain.attends_natively
    for mine, theirs in zip(found, steps(plain), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(rows=SIZES, width=st.integers(1, 200), seed=st.integers(0, 99))
def test_rows_are_normalised(rows, width, seed):
    draw = torch.Generator().manual_seed(seed)
    x, block = torch.randn(2, rows, width, generator=draw) * 3
    gain, bias = torch.randn(2, width, generator=draw)
    for shift in (None, bias):
        expected = F.layer_norm(x + block, (width,), gain, shift, 1e-5)
        for there in WAYS:
            with library(there):
                found = ops.add_norm(x, block, gain, shift, 1e-5)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    scores = torch.cat([x, block]) * 20
    scores[0, : width - 1] = float("-inf")
    for there in WAYS:
        with library(there):
            found = ops.log_softmax(scores.clone(), may_overwrite=True)
        torch.testing.assert_close(found, scores.log_softmax(1), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not native.multiplies_integers(), reason="this processor does not multiply integers")
@pytest.mark.parametrize("placement", list(NormPlacement))
@pytest.mark.parametrize("activation", [Activation.RELU, Activation.GELU])
def test_layers_in_one_call_are_those_one_by_one(placement, activation):
    torch.manual_seed(0)
    stack = StackConfig(layers=3, dim=64, heads=2, ffn_dim=80, norm_placement=placement, activation=activation)
    network = EncoderDecoder(
        EncoderDecoderConfig(source_vocabulary=30, target_vocabulary=30, encoder=stack, decoder=stack)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    together, apart = network.for_inference(torch.int16), network.for_inference(torch.int16)
    assert together.encoder.fused
    assert together.decoder.fused
    for part in (apart.encoder, apart.decoder):
        part._fused = None
    source = torch.randint(4, 30, (4, 9))
    source[1, 5:] = 1
    with torch.no_grad():
        states = [one.prefill(source, 3) for one in (together, apart)]
        tokens = torch.full((4, 3), 2)
        for step in range(5):
            for one, state in zip((together, apart), states, strict=True):
                one.step(state, tokens)
            found, expected = (state.latest[0] for state in states)
            # A last digit may tip an integer.
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=3e-3 * float(expected.std()))
            tokens, parents = torch.randint(4, 30, tokens.shape), torch.randint(0, 3, tokens.shape)
            for state in states:
                state.reorder(parents)
                if step == 2:
                    state.select(torch.tensor([0, 1, 3]))
            tokens = tokens[[0, 1, 3]] if step == 2 else tokens
