"""Mistral (Jiang et al., 2023): Llama with sliding-window attention and grouped-query attention."""

from dataclasses import replace

from fairbeam.families import llama

FAMILY = replace(
    llama.FAMILY,
    model_type="mistral",
    bare_class="MistralModel",
    names={**llama.NAMES, "window": "sliding_window"},
    defaults={
        **llama.FAMILY.defaults,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    presets={"7b": {}},
)
