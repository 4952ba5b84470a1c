"""mBART (Liu et al., 2020; Tang et al., 2020): BART with the norms before the blocks."""

from dataclasses import replace

from fairbeam.families import bart
from fairbeam.network import NormPlacement

# mBART-25 leaves decoder_start_token_id out: a target begins with its language's symbol, which the caller knows.
FAMILY = replace(
    bart.FAMILY,
    model_type="mbart",
    stack=replace(bart.FAMILY.stack, norm_placement=NormPlacement.PRE, final_norm=True),
    defaults={},
    presets={"large": {"scale_embedding": True}},
)
