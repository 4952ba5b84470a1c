"""Clusters of symbols against the plain definition (Grave et al., 2017, section 4)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairbeam.errors import ConfigError
from fairbeam.network import (
    AdaptiveConfig,
    DecoderOnly,
    DecoderOnlyConfig,
    EncoderDecoderConfig,
    PositionConfig,
    PositionKind,
    StackConfig,
)

RECURRENT = PositionConfig(kind=PositionKind.RELATIVE_SINUSOIDAL, memory_length=3)


@st.composite
def configs(draw) -> DecoderOnlyConfig:
    """Return configurations of one-layer language models with every kind of clusters."""
    vocabulary = draw(st.integers(5, 30))
    cutoffs = tuple(sorted(draw(st.sets(st.integers(1, vocabulary - 1), max_size=3))))
    tied = tuple(draw(st.booleans()) for _ in range(len(cutoffs) + 1))
    return DecoderOnlyConfig(
        vocabulary=vocabulary,
        decoder=StackConfig(
            layers=1, dim=8, heads=2, ffn_dim=8, embedding_dim=draw(st.sampled_from([None, 9])),
            positions=draw(st.sampled_from([PositionConfig(), RECURRENT])),
        ),
        adaptive=AdaptiveConfig(cutoffs=cutoffs, factor=draw(st.integers(1, 2)), tied_projections=tied),
        tie_output=draw(st.booleans()),
        output_bias=draw(st.booleans()),
    )  # fmt: skip


def plain_log_probabilities(network: DecoderOnly, features: np.ndarray) -> np.ndarray:
    """Return the log probability of every token, for one position's features, by the definition."""
    config, head = network.config, network.head
    bounds = [0, *config.adaptive.cutoffs, config.vocabulary]
    state = {
        name: parameter.detach().double().numpy() for name, parameter in head.named_parameters(remove_duplicate=False)
    }

    def scores(cluster: int) -> np.ndarray:
        rows = slice(*bounds[cluster : cluster + 2])
        one_table = len(head.weights) == 1
        weight = state["weights.0"][rows] if one_table else state[f"weights.{cluster}"]
        bias = np.zeros(len(weight))
        if config.output_bias:
            bias = state["biases.0"][rows] if one_table else state[f"biases.{cluster}"]
        if cluster == 0 and len(bounds) > 2:
            weight = np.concatenate([weight, state["cluster_weight"]])
            rare = len(bounds) - 2
            bias = np.concatenate([bias, state["cluster_bias"] if config.output_bias else np.zeros(rare)])
        projected = features @ state.get(f"projections.{cluster}", np.eye(len(features)))
        powers = np.exp(weight @ projected + bias)
        return powers / powers.sum()

    first = scores(0)
    of_clusters = [first[bounds[1] + cluster - 1] * scores(cluster) for cluster in range(1, len(bounds) - 1)]
    return np.log(np.concatenate([first[: bounds[1]], *of_clusters]))


@settings(max_examples=40, deadline=None)
@given(configs(), st.integers(0, 2**31))
def test_clusters_are_the_plain_definition(config, seed):
    torch.manual_seed(seed)
    network = DecoderOnly(config).eval()
    assert DecoderOnlyConfig.from_dict(config.to_dict()) == config
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    state = network.state_dict()
    tokens = torch.randint(0, config.vocabulary, (2, 6))
    features = network(tokens, features_only=True)
    actual = network(tokens)
    torch.testing.assert_close(actual.exp().sum(-1), torch.ones(2, 6))
    expected = np.stack([plain_log_probabilities(network, row.double().numpy()) for row in features.detach()[0]])
    np.testing.assert_allclose(actual[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    target = torch.randint(0, config.vocabulary, (12,))
    losses = network.head.negative_log_likelihood(features.flatten(0, 1), target)
    torch.testing.assert_close(losses, -actual.flatten(0, 1).gather(1, target[:, None])[:, 0])
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())

    vectors = network.embedding(tokens, torch.zeros(1, 1, dtype=torch.long))
    table, first = [], 0
    for number, weight in enumerate(network.embedding.weights):
        projection = state.get(f"embedding.projections.{number}")
        table.append(weight if projection is None else weight @ projection.T)
        first += len(weight)
    assert first == config.vocabulary
    expected = torch.cat(table)[tokens] * config.decoder.dim**0.5
    if network.embedding.positions is not None:
        expected = expected + network.embedding.positions(torch.zeros(1, 1, dtype=torch.long))
    torch.testing.assert_close(vectors, expected)


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_ties_are_what_they_are_said_to_be(tied):
    adaptive = AdaptiveConfig(cutoffs=(4,), factor=2, tied_projections=(False, tied))
    config = DecoderOnlyConfig(
        vocabulary=9, decoder=StackConfig(layers=1, dim=8, heads=2, ffn_dim=8, positions=RECURRENT),
        adaptive=adaptive, tie_output=tied,
    )  # fmt: skip
    network = DecoderOnly(config).for_inference(torch.bfloat16)
    assert network.head.projections[0] is not network.embedding.projections[0]
    assert (network.head.projections[1] is network.embedding.projections[1]) is tied
    assert (network.head.weights[1] is network.embedding.weights[1]) is tied
    state = network.prefill(torch.tensor([[2, 3, 8]]), 2)
    logits = network.step(state, torch.zeros(1, 2, dtype=torch.long))
    assert network.rounded_head is None  # scores are float32
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(1, 2))


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ({"key_value_heads": 4}, "wants a key for each head, and decoder.key_value_heads is 4; expected 8"),
        ({"dim": 9, "heads": 3}, "decoder.dim is 9; expected an even number"),
        ({"layer_drop": 0.1}, "decoder.layer_drop is 0.1; expected 0"),
        ({"positions": {**vars(RECURRENT), "memory_length": 0}}, "positions.memory_length is 0; expected at least 1"),
        ({"positions": {**vars(RECURRENT), "clamp_length": 0}}, "positions.clamp_length is 0"),
        ({"token_types": 2}, "adaptive embeddings have no types of tokens"),
    ],
)
def test_what_does_not_go_together_is_named(stack, message):
    values = {"vocabulary": 9, "adaptive": {"cutoffs": [4]}, "decoder": {"positions": vars(RECURRENT), **stack}}
    with pytest.raises(ConfigError) as error:
        DecoderOnlyConfig.from_dict(values)
    assert message in str(error.value)


def test_a_memory_is_of_a_decoder_alone_and_of_as_many_sequences():
    recurrent = StackConfig(layers=1, dim=8, heads=2, ffn_dim=8, positions=RECURRENT)
    with pytest.raises(ConfigError, match="whose queries see what is before them"):
        DecoderOnlyConfig(vocabulary=9, decoder=recurrent, separator=0, prefix_attention=True)
    with pytest.raises(ConfigError, match="which only a decoder can have"):
        EncoderDecoderConfig(source_vocabulary=9, target_vocabulary=9, encoder=recurrent)
    with pytest.raises(ConfigError, match="which a decoder behind an encoder cannot have"):
        EncoderDecoderConfig(source_vocabulary=9, target_vocabulary=9, decoder=recurrent)
    network, tokens = DecoderOnly(DecoderOnlyConfig(vocabulary=9, decoder=recurrent)), torch.zeros(2, 3).long()
    with pytest.raises(ConfigError, match="the memory is of 3 sequences; expected 2"):
        network(tokens, memory=network.start_memory(3))
    plain = DecoderOnly(DecoderOnlyConfig(vocabulary=9, decoder=replace(recurrent, positions=PositionConfig())))
    with pytest.raises(ConfigError, match="has no memory of segments"):
        plain(tokens, memory=network.start_memory(2))
