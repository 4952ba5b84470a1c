"""Checkpoints of earlier fairseq releases: the same weights under the names they had give the same logits."""

import copy
import re

import pytest
import torch

from fairbeam.errors import CheckpointError
from fairbeam.families.fairseq.legacy import modern_weights
from fairbeam.families.fairseq.transformer import load_network, save_weights
from fairbeam.network import EncoderDecoder, EncoderDecoderConfig, NormPlacement, StackConfig

SIZES = {"embed_dim": 24, "ffn_embed_dim": 40, "layers": 2, "attention_heads": 3}
OPTIONS = {
    **{f"{stack}_{name}": value for stack in ("encoder", "decoder") for name, value in SIZES.items()},
    "encoder_normalize_before": True,
    "decoder_normalize_before": True,
}
NUMBERS = {
    "encoder": {"self_attn_layer_norm": 0, "final_layer_norm": 1},
    "decoder": {"self_attn_layer_norm": 0, "encoder_attn_layer_norm": 1, "final_layer_norm": 2},
}


def modern_checkpoint(tied: bool, final_norm: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    stack = StackConfig(layers=2, dim=24, heads=3, ffn_dim=40, norm_placement=NormPlacement.PRE, final_norm=final_norm)
    sizes = {"source_vocabulary": 31, "target_vocabulary": 31, "encoder": stack, "decoder": stack}
    network = EncoderDecoder(EncoderDecoderConfig(**sizes, tie_output=tied))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    version = torch.tensor([3.0 if final_norm else 1.0])
    return {**save_weights(network), "encoder.version": version, "decoder.version": version}


def aged(weights: dict[str, torch.Tensor], tied: bool) -> dict[str, torch.Tensor]:
    """The names of fairseq's first releases."""
    old = {}
    for name, tensor in weights.items():
        if norm := re.fullmatch(r"(encoder|decoder)(\.layers\.\d\.)(\w+_layer_norm)(\..+)", name):
            stack, layer, kind, rest = norm.groups()
            name = f"{stack}{layer}layer_norms.{NUMBERS[stack][kind]}{rest}"
        if part := re.fullmatch(r"(.+\.)([qkv])_proj\.(weight|bias)", name):
            before, letter, kind = part.groups()
            if letter == "q":
                old[f"{before}in_proj_{kind}"] = torch.cat([weights[f"{before}{each}_proj.{kind}"] for each in "qkv"])
            continue
        if name == "decoder.output_projection.weight":
            if tied:
                continue
            name = "decoder.embed_out"
        old[name] = tensor
    return old


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_old_names_give_the_same_logits(tied, final_norm, counted):
    weights = modern_checkpoint(tied, final_norm)
    if not counted:
        weights = {name: tensor for name, tensor in weights.items() if not name.endswith("version")}
    options = {**OPTIONS, "share_decoder_input_output_embed": tied}
    old = aged(weights, tied)
    assert not final_norm or any("in_proj_weight" in name for name in old)
    source, target = torch.randint(4, 31, (3, 6)), torch.randint(4, 31, (3, 5))
    expected = load_network(options, weights).eval()
    actual = load_network(options, old).eval()
    assert actual.config.decoder.final_norm is final_norm
    assert torch.equal(actual(source, target), expected(source, target))


def test_modern_names_stay():
    weights = modern_checkpoint(tied=False, final_norm=True)
    assert modern_weights(weights).keys() == weights.keys()


def test_a_missing_norm_is_still_named():
    weights = aged(modern_checkpoint(tied=True, final_norm=True), tied=True)
    broken = copy.copy(weights)
    del broken["encoder.layers.0.layer_norms.1.weight"]
    with pytest.raises(CheckpointError, match=r"missing encoder\.layers\.0\.final_layer_norm\.weight"):
        load_network({**OPTIONS, "share_decoder_input_output_embed": True}, broken)
