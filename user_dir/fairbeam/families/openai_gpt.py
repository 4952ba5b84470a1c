"""GPT (Radford et al., 2018): GPT-2 with post-norm blocks."""

from dataclasses import replace

from fairbeam.families import gpt2
from fairbeam.families.single_stack import GPT_NAMES
from fairbeam.families.weight_map import same, with_prefix
from fairbeam.network import NormPlacement

FAMILY = replace(
    gpt2.FAMILY,
    model_type="openai-gpt",
    stack=replace(gpt2.FAMILY.stack, norm_placement=NormPlacement.POST, final_norm=False),
    rows=(
        *with_prefix(
            "transformer.",
            (
                same("embedding.weight", "tokens_embed.weight"),
                same("embedding.positions.weight", "positions_embed.weight"),
                *gpt2.LAYER_ROWS,
            ),
        ),
        same("head.weight", "lm_head.weight"),
    ),
    names={**GPT_NAMES, "activation": "afn"},
    defaults={
        **gpt2.FAMILY.defaults,
        "vocab_size": 40478,
        "afn": "gelu",
        "n_positions": 512,
        "bos_token_id": None,
        "eos_token_id": None,
    },
    activations={"gelu": "gelu_new"},
    must_be={},
    not_weights=r"transformer\.(position_ids|h\.\d+\.attn\.bias)",
    presets={"base": {}},
)
