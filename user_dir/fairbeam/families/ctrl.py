"""CTRL (Keskar et al., 2019), as Hugging Face's ``CTRLLMHeadModel`` and ``CTRLModel`` name their weights."""

from fairbeam.families import gpt2
from fairbeam.families.decoder_only import DecoderOnlyFamily
from fairbeam.families.single_stack import GPT_NAMES
from fairbeam.families.weight_map import linear, same, with_prefix
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
        *with_prefix(
            "transformer.",
            (
                same("embedding.weight", "w.weight"),
                *linear(
                    "decoder.layers.{i}.self_attention.qkv",
                    *(f"h.{{i}}.multi_head_attention.W{part}" for part in "qkv"),
                ),
                *linear("decoder.layers.{i}.self_attention.output", "h.{i}.multi_head_attention.dense"),
                *linear("decoder.layers.{i}.self_attention_residual.norm", "h.{i}.layernorm1"),
                *linear("decoder.layers.{i}.inner", "h.{i}.ffn.0"),
                *linear("decoder.layers.{i}.outer", "h.{i}.ffn.2"),
                *linear("decoder.layers.{i}.feed_forward_residual.norm", "h.{i}.layernorm2"),
                *linear("decoder.final_norm", "layernorm"),
            ),
        ),
        *linear("head", "lm_head"),
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
    unprefixed=gpt2.UNPREFIXED,
    presets={"large": {}},
)
