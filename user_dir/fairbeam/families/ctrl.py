"""CTRL (Keskar et al., 2019), as Hugging Face's ``CTRLLMHeadModel`` and ``CTRLModel`` name their weights."""

from fairbeam.families import gpt2
from fairbeam.families.shapes import GPT_NAMES, DecoderOnlyFamily
from fairbeam.families.weight_map import affine, same, under
from fairbeam.network import Activation, NormPlacement, PositionConfig, PositionKind, StackConfig

FAMILY = DecoderOnlyFamily(
    model_type="ctrl",
    prefix="transformer.",
    stack=StackConfig(
        norm_placement=NormPlacement.PRE,
        final_norm=True,
        scale_embedding=True,
        activation=Activation.RELU,
        positions=PositionConfig(kind=PositionKind.SINUSOIDAL_OPEN, offset=0, count_padding=True),
    ),
    rows=(
        *under(
            "transformer.",
            (
                same("embedding.weight", "w.weight"),
                *affine(
                    "decoder.layers.{i}.self_attention.qkv",
                    *(f"h.{{i}}.multi_head_attention.W{part}" for part in "qkv"),
                ),
                *affine("decoder.layers.{i}.self_attention.output", "h.{i}.multi_head_attention.dense"),
                *affine("decoder.layers.{i}.self_attention_residual.norm", "h.{i}.layernorm1"),
                *affine("decoder.layers.{i}.inner", "h.{i}.ffn.0"),
                *affine("decoder.layers.{i}.outer", "h.{i}.ffn.2"),
                *affine("decoder.layers.{i}.feed_forward_residual.norm", "h.{i}.layernorm2"),
                *affine("decoder.final_norm", "layernorm"),
            ),
        ),
        *affine("head", "lm_head"),
    ),
    names={
        **{ours: theirs for ours, theirs in GPT_NAMES.items() if ours != "attention_dropout"},
        "ffn_dim": "dff",
    },
    defaults={
        "vocab_size": 246534,
        "n_layer": 48,
        "n_embd": 1280,
        "n_head": 16,
        "dff": 8192,
        "n_positions": 256,
        "layer_norm_epsilon": 1e-6,
        "resid_pdrop": 0.1,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "tie_word_embeddings": True,
    },
    outside=gpt2.OUTSIDE,
    presets={"large": {}},
)
