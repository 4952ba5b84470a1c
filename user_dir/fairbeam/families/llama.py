"""Llama (Touvron et al., 2023), as Hugging Face's ``LlamaForCausalLM`` and ``LlamaModel`` name their weights."""

from fairbeam.families.decoder_only import DecoderOnlyFamily
from fairbeam.families.weight_map import linear, same
from fairbeam.network import NormKind, NormPlacement, PositionConfig, PositionKind, StackConfig

STACK = StackConfig(
    bias=False,
    gated=True,
    norm=NormKind.RMS,
    norm_placement=NormPlacement.PRE,
    final_norm=True,
    scale_embedding=False,
    positions=PositionConfig(kind=PositionKind.ROTARY, offset=0, count_padding=True),
)
ROWS = (
    same("embedding.weight", "model.embed_tokens.weight"),
    *linear("decoder.layers.{i}.self_attention.qkv", *(f"model.layers.{{i}}.self_attn.{part}_proj" for part in "qkv")),
    *linear("decoder.layers.{i}.self_attention.output", "model.layers.{i}.self_attn.o_proj"),
    same("decoder.layers.{i}.self_attention_residual.norm.weight", "model.layers.{i}.input_layernorm.weight"),
    *linear("decoder.layers.{i}.gate", "model.layers.{i}.mlp.gate_proj"),
    *linear("decoder.layers.{i}.gated", "model.layers.{i}.mlp.up_proj"),
    *linear("decoder.layers.{i}.outer", "model.layers.{i}.mlp.down_proj"),
    same("decoder.layers.{i}.feed_forward_residual.norm.weight", "model.layers.{i}.post_attention_layernorm.weight"),
    same("decoder.final_norm.weight", "model.norm.weight"),
    same("head.weight", "lm_head.weight"),
)
NAMES = {
    "vocabulary": "vocab_size",
    "layers": "num_hidden_layers",
    "dim": "hidden_size",
    "heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn_dim": "intermediate_size",
    "activation": "hidden_act",
    "max_positions": "max_position_embeddings",
    "norm_epsilon": "rms_norm_eps",
    "attention_dropout": "attention_dropout",
    "pad": "pad_token_id",
    "bos": "bos_token_id",
    "eos": "eos_token_id",
}

FAMILY = DecoderOnlyFamily(
    model_type="llama",
    bare_class="LlamaModel",
    prefix="model.",
    stack=STACK,
    rows=ROWS,
    names={**NAMES, "bias": "mlp_bias", "qkv_bias": "attention_bias", "attention_output_bias": "attention_bias"},
    defaults={
        "vocab_size": 32000,
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "head_dim": None,
        "intermediate_size": 11008,
        "hidden_act": "silu",
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "attention_dropout": 0.0,
        "attention_bias": False,
        "mlp_bias": False,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    },
    unprefixed=frozenset({"lm_head.weight"}),
    not_weights=r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",  # computed
    presets={
        "7b": {},
        "13b": {
            "hidden_size": 5120,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "intermediate_size": 13824,
        },
    },
)
