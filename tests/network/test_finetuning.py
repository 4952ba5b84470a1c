"""What fine-tuning changes: low-rank changes, frozen parameters, rates by layer."""

import pytest
import torch

from fairbeam.errors import ConfigError
from fairbeam.network import DecoderOnly, DecoderOnlyConfig, EncoderDecoder, EncoderDecoderConfig, StackConfig
from fairbeam.network.finetuning import FinetuningOptions, add_lora_, freeze_, learning_rates, merge_lora_

STACK = StackConfig(layers=3, dim=16, heads=2, ffn_dim=24)
SOURCE, TARGET = torch.tensor([[5, 6, 7, 2], [8, 9, 2, 1]]), torch.tensor([[2, 5, 6], [2, 7, 8]])


def network() -> EncoderDecoder:
    torch.manual_seed(0)
    return EncoderDecoder(
        EncoderDecoderConfig(source_vocabulary=20, target_vocabulary=20, encoder=STACK, decoder=STACK)
    ).eval()


def trained(options: FinetuningOptions) -> tuple[EncoderDecoder, set[str]]:
    """Return a network after two updates, and the names of the parameters that changed."""
    tuned = network()
    add_lora_(tuned, options)
    freeze_(tuned, options)
    before = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # one of the two factors begins at 0 and keeps the other from moving
        optimizer.zero_grad()
        tuned(SOURCE, TARGET).square().mean().backward()
        optimizer.step()
    return tuned, {name for name, tensor in tuned.state_dict().items() if not torch.equal(tensor, before[name])}


def test_low_rank_changes_begin_with_none_and_merge_into_the_weights():
    options = FinetuningOptions(lora_rank=2, lora_alpha=8)
    plain, fresh = network(), network()
    add_lora_(fresh, options)
    torch.testing.assert_close(fresh(SOURCE, TARGET), plain(SOURCE, TARGET), rtol=0, atol=0)
    tuned, changed = trained(options)
    assert changed
    assert all(".low_rank." in name for name in changed)
    assert {name.split(".")[4] for name in changed} == {"qkv", "output", "query", "key_value"}
    expected = tuned(SOURCE, TARGET)
    layer = tuned.decoder.layers[1].self_attention.qkv
    by_hand = layer.weight + 8 / 2 * layer.low_rank.up @ layer.low_rank.down
    ready = tuned.for_inference(torch.float32)
    merge_lora_(tuned)
    assert torch.allclose(layer.weight, by_hand)
    assert tuned.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(tuned(SOURCE, TARGET), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ready(SOURCE, TARGET), expected, rtol=1e-5, atol=1e-5)


def test_targets_and_what_is_trained_all_the_same():
    options = FinetuningOptions(lora_rank=1, lora_targets=("inner",), keep_training=("decoder.layers.0.outer", "head"))
    _, changed = trained(options)
    changed = {name for name in changed if ".low_rank." not in name}
    assert changed == {"decoder.layers.0.outer.weight", "decoder.layers.0.outer.bias", "head.weight"}


def test_frozen_parameters_stay():
    _, changed = trained(FinetuningOptions(freeze=("encoder", "source_embedding", "decoder.layers.1")))
    assert {name.split(".")[0] for name in changed} == {"decoder", "target_embedding", "head"}
    assert not any(name.startswith("decoder.layers.1.") for name in changed)


def test_lower_layers_learn_more_slowly():
    rates = learning_rates(network(), FinetuningOptions(layer_decay=0.5))
    assert rates["encoder.layers.2.inner.weight"] == rates["head.weight"] == 1.0
    assert rates["decoder.layers.1.cross_attention.query.bias"] == 0.5
    assert rates["source_embedding.weight"] == 0.125
    alone = DecoderOnly(DecoderOnlyConfig(vocabulary=20, decoder=STACK))
    assert learning_rates(alone, FinetuningOptions(layer_decay=0.5))["embedding.weight"] == 0.125


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ("encodr",)}, "--freeze encodr: begins no parameter's name; the network has source_embedding"),
        ({"lora_rank": 1, "lora_targets": ("quer",)}, "--lora-targets quer: no linear layer's name ends so"),
        ({"lora_rank": -1}, "--lora-rank -1: must be at least 0"),
        ({"lora_rank": 1, "lora_alpha": 0}, "--lora-alpha 0: must be greater than 0"),
        ({"layer_decay": 1.5}, "--layer-decay 1.5: must be above 0 and at most 1"),
        ({"keep_training": ("head",)}, "--keep-training makes sense only with --lora-rank"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        trained(FinetuningOptions(**options))
