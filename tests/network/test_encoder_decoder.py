"""The network against fairseq's own Transformer, and its two ways of decoding against each other."""

import pytest
import stock_models
import torch

from fairbeam.families.fairseq.transformer import save_weights
from fairbeam.network import (
    Activation,
    DropoutConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    NormKind,
    NormPlacement,
    PositionConfig,
    PositionKind,
    StackConfig,
)
from fairbeam.network.cache import AbsorbedKeyValues
from fairbeam.network.losses import label_smoothed_cross_entropy

PAD, EOS = 1, 2
SIZES = {"embed_dim": 24, "ffn_embed_dim": 40, "layers": 2, "attention_heads": 3}
VARIANTS = {
    "post-norm, shared": {"share_all_embeddings": True},
    "pre-norm, learned positions": {
        "encoder_normalize_before": True, "decoder_normalize_before": True,
        "encoder_learned_pos": True, "decoder_learned_pos": True, "share_decoder_input_output_embed": True,
    },
    "pre-norm decoder alone, no final norm": {"decoder_normalize_before": True, "no_decoder_final_norm": True},
    "embedding norm, unscaled, no positions": {
        "layernorm_embedding": True, "no_scale_embedding": True, "no_token_positional_embeddings": True,
    },
    **{f"activation {name}": {"activation_fn": name} for name in ("relu", "gelu", "gelu_accurate", "tanh", "linear")},
    **{name: {"arch": name} for name in ("bart_large", "mbart_base", "mbart_base_wmt20")},
    "mbart as it was trained": {
        "arch": "mbart_large", "encoder_normalize_before": True, "decoder_normalize_before": True,
    },
    "unequal stacks": {"encoder_layers": 1, "decoder_layers": 3, "encoder_embed_dim": 16, "encoder_attention_heads": 2},
}  # fmt: skip


def options_of(variant: str) -> dict:
    sizes = {f"{stack}_{name}": value for stack in ("encoder", "decoder") for name, value in SIZES.items()}
    return {
        "arch": "transformer",
        **sizes,
        "dropout": 0.0,
        "max_source_positions": 64,
        "max_target_positions": 64,
        **VARIANTS[variant],
    }


def batch(left_pad: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Make sources of several lengths, padded on one side, and previous target tokens, padded on the right."""
    generator = torch.Generator().manual_seed(2)
    source = torch.randint(4, 37, (5, 9), generator=generator)
    target = torch.randint(4, 37, (5, 7), generator=generator)
    source[:, -1], target[:, 0] = EOS, EOS
    for row, missing in enumerate((0, 2, 4, 1, 7)):
        if missing:
            source[row, :missing] = PAD
            if not left_pad:
                source[row] = source[row].roll(-missing)
            target[row, 7 - min(missing, 5) :] = PAD
    return source, target


# Stock mixes a boolean padding mask with an additive causal one.
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
@pytest.mark.parametrize("left_pad", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_and_gradients_equal_fairseq(variant, left_pad):
    options = options_of(variant)
    theirs = stock_models.build(options)
    ours = stock_models.load_network(options, theirs.state_dict())
    source, target = batch(left_pad)
    real = target.ne(PAD)
    expected = theirs(source, source.ne(PAD).sum(1), target)[0]
    actual = ours.eval()(source, target)
    torch.testing.assert_close(actual[real], expected[real], rtol=1e-5, atol=2e-5)

    expected[real].square().mean().backward()
    actual[real].square().mean().backward()
    stock_models.assert_same_gradients(ours, options, theirs)


@pytest.mark.parametrize("variant", ["post-norm, shared", "unequal stacks", "bart_large"])
def test_weights_come_back_as_they_were(variant):
    options = options_of(variant)
    theirs = stock_models.build(options).state_dict()
    back = save_weights(stock_models.load_network(options, theirs))
    assert {name for name in theirs if not name.endswith("version")} == back.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in back)


def small_network(seed: int = 0, **config) -> EncoderDecoder:
    torch.manual_seed(seed)
    stack = StackConfig(layers=2, dim=32, heads=4, ffn_dim=64)
    sizes = {"source_vocabulary": 37, "target_vocabulary": 37, "encoder": stack, "decoder": stack, **config}
    return EncoderDecoder(EncoderDecoderConfig(**sizes)).eval()


def stacks(bidirectional: bool = True, **options) -> dict[str, StackConfig]:
    """Make an encoder and a decoder with these options; relative buckets are bidirectional in the encoder only."""
    positions = PositionConfig(kind=options.pop("kind"), buckets=8, max_distance=9)
    stack = StackConfig(layers=2, dim=32, heads=4, ffn_dim=64, positions=positions, **options)
    one_way = StackConfig(**{**vars(stack), "positions": PositionConfig(**{**vars(positions), "bidirectional": False})})
    return {"encoder": stack, "decoder": one_way}


MODERN = {
    "rms norm, gated, unscaled attention, buckets": {
        "kind": PositionKind.RELATIVE_BUCKETS, "norm": NormKind.RMS, "norm_placement": NormPlacement.PRE,
        "final_norm": True, "gated": True, "activation": Activation.GELU_TANH, "bias": False, "head_dim": 6,
        "attention_scale": 1.0, "scale_features": True, "scale_embedding": False,
    },
    "rotary, grouped keys": {
        "kind": PositionKind.ROTARY, "key_value_heads": 2, "norm": NormKind.RMS, "gated": True,
        "activation": Activation.SILU, "head_dim": 10, "bias": False,
    },
    "rotary": {"kind": PositionKind.ROTARY},
    "vectors of distances": {"kind": PositionKind.RELATIVE_KEY_QUERY, "attention_scale": 0.5},
    "one head of keys, norms without bias": {
        "kind": PositionKind.SINUSOIDAL, "key_value_heads": 1, "norm_bias": False, "norm_epsilon": 1e-3,
    },
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("case", ["plain", "packed", "packed, projections absorbed"])
@pytest.mark.parametrize("variant", ["usual", *MODERN])
def test_steps_with_reordered_beams_equal_teacher_forcing(variant, case):
    """However beams are reordered, a step attends to exactly the tokens of its own history."""
    network = small_network(**({} if variant == "usual" else stacks(**MODERN[variant])))
    for parameter in network.parameters():  # biases too
        parameter.add_(torch.randn(parameter.shape) * 0.1)
    decoder = network if case == "plain" else network.for_inference(torch.float32)
    source, _ = batch(left_pad=False)
    if case == "packed, projections absorbed":  # two sentences of four tokens, one padded, are narrow enough
        source = source[:2, :4].clone()
        source[1] = torch.tensor([7, EOS, PAD, PAD])
    sentences, beams = len(source), 3
    generator = torch.Generator().manual_seed(3)
    state = decoder.prefill(source, beams)
    assert isinstance(state.memory.layers[0], AbsorbedKeyValues) == (case == "packed, projections absorbed")
    tokens = torch.full((sentences, beams, 1), EOS)
    rows = torch.arange(sentences)
    for step in range(24):  # exceeds the initial capacity
        logits = decoder.step(state, tokens[:, :, -1])
        for beam in range(beams):
            forced = network(source[rows], tokens[:, beam])[:, -1]
            torch.testing.assert_close(logits[:, beam], forced, rtol=1e-4, atol=1e-4)
        parents = torch.randint(0, beams, (len(rows), beams), generator=generator)
        chosen = torch.randint(4, 37, (len(rows), beams, 1), generator=generator)
        tokens = torch.cat([tokens.gather(1, parents[:, :, None].expand(-1, -1, step + 1)), chosen], dim=2)
        state.reorder(parents)
        if step in (5, 11):  # a sentence finishes and is dropped
            kept = torch.tensor([row for row in range(len(rows)) if row != 1])
            state.select(kept)
            tokens, rows = tokens[kept], rows[kept]


@torch.no_grad()
def test_bfloat16_stays_close_to_float32():
    network = small_network()
    source, target = batch(left_pad=False)
    exact, rough = network(source, target), network.for_inference(torch.bfloat16)(source, target)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_rounding_is_what_separates_rough_logits_from_exact_ones(tied):
    network = small_network(tie_output=tied)
    weight = network.head.weight.detach().clone()
    decoder = network.for_inference(torch.bfloat16)
    source, _ = batch(left_pad=False)
    state = decoder.prefill(source, 3)
    latest = torch.full((len(source), 3), EOS)
    for _ in range(3):
        rough = decoder.step(state, latest)
        places = rough.flatten(1).topk(4).indices
        beams, tokens = places // 37, places % 37
        features = state.latest[0].expand(-1, 3, -1)
        exact = (features @ weight.T).flatten(1).gather(1, places)
        found = rough.flatten(1).gather(1, places)
        corrected = found + decoder.rounded_head.logit_delta(state.latest[0], rough, beams, tokens)
        torch.testing.assert_close(corrected, exact, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(found, exact, rtol=1e-5, atol=1e-5)
        latest = tokens[:, :3]
        state.reorder(torch.tensor([[2, 0, 1]]).expand(len(source), -1))
    assert network.for_inference(torch.float32).rounded_head is None


@torch.no_grad()
def test_alignments_are_the_attention_of_the_last_layer():
    network = small_network()
    source, target = batch(left_pad=False)
    weights = network.alignments(source, target)
    assert weights.shape == (*target.shape, source.size(1))
    torch.testing.assert_close(weights.sum(-1), torch.ones(target.shape))
    assert not weights[source.eq(PAD)[:, None].expand_as(weights)].any()


def test_layers_are_dropped_in_training_only():
    stack = StackConfig(layers=4, dim=32, heads=4, ffn_dim=64, layer_drop=0.5)
    network = small_network(encoder=stack, decoder=stack)
    source, target = batch(left_pad=False)
    assert torch.equal(network(source, target), network(source, target))
    network.train()
    torch.manual_seed(1)
    assert not torch.equal(network(source, target), network(source, target))


@torch.no_grad()
@pytest.mark.parametrize("variant", MODERN)
def test_alignments_and_padding_on_either_side_with_relative_positions(variant):
    network = small_network(**stacks(**MODERN[variant]))
    (right, target), (left, _) = batch(left_pad=False), batch(left_pad=True)
    torch.testing.assert_close(network(left, target), network(right, target), rtol=1e-4, atol=1e-5)
    weights = network.alignments(right, target)
    last = network.decoder.layers[-1].cross_attention
    seen = []
    last.register_forward_hook(
        lambda module, inputs, output: seen.append(module.weights(inputs[0], inputs[1].keys, inputs[2]))
    )
    network(right, target)
    torch.testing.assert_close(weights, seen[0])


@pytest.mark.parametrize("variant", MODERN)
def test_ten_updates_lower_the_loss(variant):
    network = small_network(dropout=DropoutConfig(residual=0.1, attention=0.1, activation=0.1, features=0.1),
                            share_embeddings=True, tie_output=True, **stacks(**MODERN[variant])).train()  # fmt: skip
    adam = torch.optim.Adam(network.parameters(), lr=3e-3)
    source, target = batch(left_pad=False)
    losses = []
    for _ in range(10):
        features = network(source, target[:, :-1], features_only=True)
        sums = label_smoothed_cross_entropy(
            features.flatten(0, 1), network.head.weight, target[:, 1:].flatten(), smoothing=0.1, pad=PAD
        )
        adam.zero_grad()
        sums.loss.backward()
        adam.step()
        losses.append(sums.loss.item())
    assert losses[-1] < 0.95 * losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


@torch.no_grad()
def test_features_are_what_the_output_projection_reads():
    network = small_network(**stacks(**next(iter(MODERN.values()))))
    source, target = batch(left_pad=False)
    features = network(source, target, features_only=True)
    torch.testing.assert_close(features @ network.head.weight.T, network(source, target))
