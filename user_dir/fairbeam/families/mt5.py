"""mT5 (Xue et al., 2021): T5's version 1.1 over many languages."""

from dataclasses import replace

from fairbeam.families import t5

FAMILY = replace(
    t5.FAMILY,
    model_type="mt5",
    defaults={
        **t5.FAMILY.defaults,
        "vocab_size": 250112,
        "d_ff": 1024,
        "num_layers": 8,
        "num_heads": 6,
        "feed_forward_proj": "gated-gelu",
        "scale_decoder_outputs": False,
    },
    presets={
        "small": {},
        "base": {"d_model": 768, "num_layers": 12, "num_heads": 12, "d_ff": 2048},
        "large": {"d_model": 1024, "num_layers": 24, "num_heads": 16, "d_ff": 2816},
    },
)
