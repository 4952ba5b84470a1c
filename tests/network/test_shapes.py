"""Encoders alone and decoders alone: what no comparison with another implementation shows."""

import dataclasses
import re

import pytest
import torch
from searching import search_with

from fairbeam.errors import ConfigError
from fairbeam.generation import GenerationOptions, SpecialTokenIds
from fairbeam.network import (
    DecoderOnly,
    DecoderOnlyConfig,
    DropoutConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderOnly,
    EncoderOnlyConfig,
    HeadConfig,
    PositionConfig,
    PositionKind,
    StackConfig,
    build,
)
from fairbeam.network.heads import sentence_vectors

STACK = StackConfig(layers=2, dim=32, heads=4, ffn_dim=64)
ENCODER = EncoderOnlyConfig(
    vocabulary=37, encoder=STACK, pooler=True, pad=1, tie_output=True,
    symbol_head=HeadConfig(outputs=37, hidden=32, norm=True), sequence_head=HeadConfig(outputs=2, dropout=0.1),
)  # fmt: skip
DECODER = DecoderOnlyConfig(vocabulary=37, decoder=STACK, pad=1, eos=2)


def tokens(rows: int = 4, length: int = 9) -> torch.Tensor:
    return torch.randint(4, 37, (rows, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("config", "kind"),
    [(ENCODER, EncoderOnly), (DECODER, DecoderOnly),
     (EncoderDecoderConfig(source_vocabulary=9, target_vocabulary=9, encoder=STACK, decoder=STACK), EncoderDecoder)],
)  # fmt: skip
def test_a_configuration_goes_through_json_and_builds_its_shape(config, kind):
    assert type(config).from_dict(config.to_dict()) == config
    assert type(build(config)) is kind


@pytest.mark.parametrize("config", [ENCODER, DECODER])
def test_dropout_is_for_training_and_repeats_with_the_seed(config):
    network = build(config)
    first, second, third = (scores_in_training(network, seed) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    network.eval()
    assert torch.equal(scores(network), scores(network))


def scores_in_training(network, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return scores(network.train())


def scores(network) -> torch.Tensor:
    out = network(tokens())
    return out if isinstance(out, torch.Tensor) else out.symbols


def test_shared_layers_are_one_set_of_weights_with_all_the_gradients():
    torch.manual_seed(0)
    none = DropoutConfig(residual=0.0)
    shared = EncoderOnly(
        EncoderOnlyConfig(
            vocabulary=37, encoder=StackConfig(layers=4, distinct_layers=2, dim=32, heads=4), dropout=none
        )
    )
    apart = EncoderOnly(EncoderOnlyConfig(vocabulary=37, encoder=StackConfig(layers=4, dim=32, heads=4), dropout=none))
    state = shared.state_dict()
    for name, tensor in apart.state_dict().items():
        layer = re.fullmatch(r"(encoder\.layers)\.(\d)\.(.+)", name)
        tensor.copy_(state[f"{layer[1]}.{int(layer[2]) // 2}.{layer[3]}" if layer else name])
    for network in (shared, apart):
        network(tokens()).states.square().mean().backward()
    torch.testing.assert_close(shared(tokens()).states, apart(tokens()).states)
    weights = [layer.inner.weight for layer in apart.encoder.layers]
    torch.testing.assert_close(shared.encoder.layers[1].inner.weight.grad, weights[2].grad + weights[3].grad)


@torch.no_grad()
def test_one_network_as_an_ensemble_of_two_continues_alike():
    torch.manual_seed(0)
    network = DecoderOnly(DECODER).eval()
    options, special = GenerationOptions(beam=3, max_len_b=8), SpecialTokenIds(pad=1, eos=2)
    prefix = torch.full((4, 1), 7)
    one, two = (search_with([network] * count, options, special)(tokens(), prefix=prefix) for count in (1, 2))
    for alone, together in zip(one, two, strict=True):
        assert alone[0].tokens[0] == 7
        assert [h.tokens.tolist() for h in alone] == [h.tokens.tolist() for h in together]


@torch.no_grad()
@pytest.mark.parametrize("pad", [1, -1])
def test_what_is_sampled_depends_on_the_prompt_alone(pad):
    torch.manual_seed(0)
    network = DecoderOnly(dataclasses.replace(DECODER, pad=pad)).eval()
    search = search_with(
        [network], GenerationOptions(beam=2, max_len_b=8, sampling=True), SpecialTokenIds(pad=pad, eos=2)
    )
    prompts = tokens()
    prompts[1, 5:], prompts[2, :4] = pad, pad
    for prompt, together in zip(prompts, search(prompts), strict=True):
        (alone,) = search(prompt[prompt.ne(pad)][None])
        assert [h.tokens.tolist() for h in alone] == [h.tokens.tolist() for h in together]


@torch.no_grad()
@pytest.mark.parametrize("pad", [1, -1])
@pytest.mark.parametrize(
    ("kind", "kept"),
    [("rotary", 4), ("rotary", 2), ("relative_buckets", 4), ("relative_key", 4), ("relative_key_query", 4),
     ("sinusoidal", 1), ("none", 2)],
)  # fmt: skip
def test_every_prompt_has_positions_of_its_own(kind, kept, pad):
    """A sentence alone, without padding, is the reference for the same sentence in a batch."""
    torch.manual_seed(0)
    # Fewer positions than slots: beams share them.
    positions = PositionConfig(
        kind=PositionKind(kind), buckets=8, max_distance=9, bidirectional=False, max_positions=24
    )
    stack = dataclasses.replace(STACK, positions=positions, key_value_heads=kept)
    network = DecoderOnly(dataclasses.replace(DECODER, decoder=stack, pad=pad)).eval()
    for parameter in network.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.2)
    prompts = tokens()
    prompts[1, 5:], prompts[2, :4], prompts[3, 2:5] = pad, pad, pad  # behind, before and within
    together = network(prompts)
    search = search_with([network], GenerationOptions(beam=3, max_len_b=12), SpecialTokenIds(pad=pad, eos=2))
    for prompt, logits, continued in zip(prompts, together, search(prompts), strict=True):
        real = prompt.ne(pad)
        torch.testing.assert_close(logits[real], network(prompt[real][None])[0], rtol=1e-4, atol=1e-4)
        (alone,) = search(prompt[real][None])
        for one, other in zip(alone, continued, strict=True):
            assert one.tokens.tolist() == other.tokens.tolist()
            assert one.score == pytest.approx(other.score, abs=1e-5)
            forced = network(torch.cat([prompt[real], one.tokens])[None])[0, real.sum() - 1 : -1]
            expected = forced.log_softmax(1).gather(1, one.tokens[:, None])[:, 0]
            torch.testing.assert_close(one.positional_scores, expected, rtol=1e-4, atol=1e-4)


def test_sentence_vectors_are_means_of_real_states_of_length_one():
    states, real = torch.randn(2, 3, 4), torch.tensor([[True, True, False], [False, True, False]])
    vectors = sentence_vectors(states, real)
    for vector, mean in zip(vectors, (states[0, :2].mean(0), states[1, 1]), strict=True):
        torch.testing.assert_close(vector, mean / mean.norm())


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: StackConfig(layers=5, distinct_layers=2), r"layers is 5, which distinct_layers \(2\)"),
        (lambda: StackConfig(distinct_layers=0), "distinct_layers"),
        (lambda: StackConfig(token_types=-1), "token_types is -1"),
        (lambda: StackConfig(embedding_dim=0), "embedding_dim is 0"),
        (lambda: EncoderOnlyConfig(vocabulary=9, tie_output=True), "there is nothing to tie"),
        (
            lambda: EncoderOnlyConfig(vocabulary=9, tie_output=True, symbol_head=HeadConfig(outputs=9, hidden=8)),
            "the embedding is 9 x 512 and symbol_head ends with 9 x 8",
        ),
        (
            lambda: DecoderOnlyConfig(vocabulary=9, decoder=StackConfig(embedding_dim=8)),
            "decoder.embedding_dim is 8 and decoder.dim is 512",
        ),
        (lambda: DecoderOnlyConfig(vocabulary=9, decoder=StackConfig(heads=7)), "decoder.heads"),
        (
            lambda: EncoderDecoderConfig(
                source_vocabulary=9, target_vocabulary=9, share_embeddings=True, encoder=StackConfig(embedding_dim=8)
            ),
            "the encoder embeds in 8 dimensions and the decoder in 512",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_named(make, problem):
    with pytest.raises(ConfigError, match=problem):
        make()
