"""mBART (Liu et al., 2020; Tang et al., 2020): BART with pre-norm blocks."""

from dataclasses import replace

from fairbeam.families import bart
from fairbeam.network import NormPlacement

# mBART-25 leaves decoder_start_token_id out: its decoder start token is that of the target language.
FAMILY = replace(
    bart.FAMILY,
    model_type="mbart",
    stack=replace(bart.FAMILY.stack, norm_placement=NormPlacement.PRE, final_norm=True),
    defaults={},
    presets={"large": {"scale_embedding": True}},
)
