"""PEGASUS (Zhang et al., 2020): Marian's positions and pre-norm blocks."""

from dataclasses import replace

from fairbeam.families import marian
from fairbeam.network import NormPlacement

FAMILY = replace(
    marian.FAMILY,
    model_type="pegasus",
    stack=replace(marian.FAMILY.stack, norm_placement=NormPlacement.PRE, final_norm=True),
    defaults={
        "bos_token_id": None,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "unk_token_id": 105,
        "decoder_start_token_id": 0,
    },
    presets={
        "large": {
            **{f"{stack}_layers": 16 for stack in ("encoder", "decoder")},
            "activation_function": "relu",
            "scale_embedding": True,
        },
    },
)
