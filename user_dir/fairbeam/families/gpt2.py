"""GPT-2 (Radford et al., 2019), as Hugging Face's ``GPT2LMHeadModel`` and ``GPT2Model`` name their weights."""

from fairbeam.families.decoder_only import DecoderOnlyFamily
from fairbeam.families.single_stack import GPT_NAMES
from fairbeam.families.weight_map import linear, same, transposed, with_prefix
from fairbeam.network import NormPlacement, PositionConfig, PositionKind, StackConfig

LAYER_ROWS = (
    *transposed("decoder.layers.{i}.self_attention.qkv", "h.{i}.attn.c_attn"),
    *transposed("decoder.layers.{i}.self_attention.output", "h.{i}.attn.c_proj"),
    *linear("decoder.layers.{i}.self_attention_residual.norm", "h.{i}.ln_1"),
    *transposed("decoder.layers.{i}.inner", "h.{i}.mlp.c_fc"),
    *transposed("decoder.layers.{i}.outer", "h.{i}.mlp.c_proj"),
    *linear("decoder.layers.{i}.feed_forward_residual.norm", "h.{i}.ln_2"),
)
UNPREFIXED = frozenset({"lm_head.weight", "lm_head.bias"})

FAMILY = DecoderOnlyFamily(
    model_type="gpt2",
    prefix="transformer.",
    stack=StackConfig(
        norm_placement=NormPlacement.PRE,
        final_norm=True,
        scale_embedding=False,
        positions=PositionConfig(kind=PositionKind.LEARNED, offset=0, count_padding=True),
    ),
    rows=(
        *with_prefix(
            "transformer.",
            (
                same("embedding.weight", "wte.weight"),
                same("embedding.positions.weight", "wpe.weight"),
                *LAYER_ROWS,
                *linear("decoder.final_norm", "ln_f"),
            ),
        ),
        same("head.weight", "lm_head.weight"),
    ),
    names={**GPT_NAMES, "ffn_dim": "n_inner", "activation": "activation_function"},
    defaults={
        "vocab_size": 50257,
        "n_layer": 12,
        "n_embd": 768,
        "n_head": 12,
        "n_inner": None,
        "activation_function": "gelu_new",
        "n_positions": 1024,
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        "pad_token_id": None,
        "tie_word_embeddings": True,
    },
    must_be={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
    unprefixed=UNPREFIXED,
    not_weights=r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",  # the causal mask
    presets={
        "small": {},
        "medium": {"n_embd": 1024, "n_layer": 24, "n_head": 16},
        "large": {"n_embd": 1280, "n_layer": 36, "n_head": 20},
        "xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
    },
)
