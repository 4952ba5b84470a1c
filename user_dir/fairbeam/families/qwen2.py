"""Qwen2 (Yang et al., 2024): Llama with biases of the query, key and value projections."""

from dataclasses import replace

from fairbeam.families import llama

FAMILY = replace(
    llama.FAMILY,
    model_type="qwen2",
    bare_class="Qwen2Model",
    stack=replace(llama.STACK, qkv_bias=True),
    names=llama.NAMES,
    defaults={
        **llama.FAMILY.defaults,
        "vocab_size": 151936,
        "num_key_value_heads": 32,
        "intermediate_size": 22016,
        "max_position_embeddings": 32768,
        "bos_token_id": None,
        "eos_token_id": None,
    },
    must_be={"use_sliding_window": False},
    presets={
        "0_5b": {
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "tie_word_embeddings": True,
        },
        "7b": {
            "hidden_size": 3584,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "intermediate_size": 18944,
        },
    },
)
