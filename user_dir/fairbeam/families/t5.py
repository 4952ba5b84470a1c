"""T5 (Raffel et al., 2020) and its version 1.1, which Flan-T5 (Chung et al., 2022) is, as Hugging Face keeps them."""

from dataclasses import replace

from fairbeam.families.seq2seq import Seq2SeqFamily
from fairbeam.families.weight_map import Row, same
from fairbeam.network import Activation, NormKind, NormPlacement, PositionConfig, PositionKind, StackConfig


def _layer_rows(stack: str, *, cross: bool) -> tuple[Row, ...]:
    """One stack's layers. Theirs are lists of blocks, the feed-forward block last."""
    ours, theirs = f"{stack}.layers.{{i}}", f"{stack}.block.{{i}}.layer"
    attention, memory, last = f"{theirs}.0.SelfAttention", f"{theirs}.1.EncDecAttention", f"{theirs}.{1 + cross}"
    inner = f"{last}.DenseReluDense"
    self_rows = (
        Row(f"{ours}.self_attention.qkv.weight", tuple(f"{attention}.{part}.weight" for part in "qkv")),
        same(f"{ours}.self_attention.output.weight", f"{attention}.o.weight"),
        same(f"{ours}.self_attention_residual.norm.weight", f"{theirs}.0.layer_norm.weight"),
    )
    cross_rows = (
        same(f"{ours}.cross_attention.query.weight", f"{memory}.q.weight"),
        Row(f"{ours}.cross_attention.key_value.weight", tuple(f"{memory}.{part}.weight" for part in "kv")),
        same(f"{ours}.cross_attention.output.weight", f"{memory}.o.weight"),
        same(f"{ours}.cross_attention_residual.norm.weight", f"{theirs}.1.layer_norm.weight"),
    )
    return (
        *self_rows,
        *(cross_rows if cross else ()),
        same(f"{ours}.inner.weight", f"{inner}.wi.weight"),
        same(f"{ours}.gate.weight", f"{inner}.wi_0.weight"),
        same(f"{ours}.gated.weight", f"{inner}.wi_1.weight"),
        same(f"{ours}.outer.weight", f"{inner}.wo.weight"),
        same(f"{ours}.feed_forward_residual.norm.weight", f"{last}.layer_norm.weight"),
    )


def _stack_rows(stack: str, embedding: str, *, cross: bool) -> tuple[Row, ...]:
    return (
        same(f"{embedding}.weight", f"{stack}.embed_tokens.weight"),
        same(f"{stack}.relative.weight", f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
        *_layer_rows(stack, cross=cross),
        same(f"{stack}.final_norm.weight", f"{stack}.final_layer_norm.weight"),
    )


STACK = StackConfig(
    bias=False,
    train_padding=True,
    attention_scale=1.0,
    norm=NormKind.RMS,
    norm_placement=NormPlacement.PRE,
    final_norm=True,
    positions=PositionConfig(kind=PositionKind.RELATIVE_BUCKETS, bidirectional=True, count_padding=True),
)

FAMILY = Seq2SeqFamily(
    model_type="t5",
    stack=STACK,
    decoder=replace(STACK, positions=replace(STACK.positions, bidirectional=False)),
    rows=(
        *_stack_rows("encoder", "source_embedding", cross=False),
        *_stack_rows("decoder", "target_embedding", cross=True),
        same("head.weight", "lm_head.weight"),
    ),
    names={
        "encoder_layers": "num_layers",
        "decoder_layers": "num_decoder_layers",
        **{f"{stack}_attention_heads": "num_heads" for stack in ("encoder", "decoder")},
        **{f"{stack}_ffn_dim": "d_ff" for stack in ("encoder", "decoder")},
        **{f"{part}dropout": "dropout_rate" for part in ("", "attention_", "activation_")},
        "head_dim": "d_kv",
        "activation_function": "feed_forward_proj",
        "norm_epsilon": "layer_norm_epsilon",
        "max_position_embeddings": "n_positions",
    },
    gated_activations={"gated-gelu": Activation.GELU_TANH, "gated-silu": Activation.SILU},
    prefix="",
    unused=frozenset({"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"}),
    always_shared=True,
    tied_by_weights=True,
    features_dropout=True,
    defaults={
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_decoder_layers": None,
        "num_heads": 8,
        # Distances have no limit; this is the length that T5 was trained with.
        "n_positions": 512,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
        "scale_decoder_outputs": None,
        "bos_token_id": None,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "unk_token_id": 2,
        "decoder_start_token_id": 0,
    },
    presets={
        "small": {},
        "base": {"d_model": 768, "num_layers": 12, "num_heads": 12, "d_ff": 3072},
        "large": {"d_model": 1024, "num_layers": 24, "num_heads": 16, "d_ff": 4096},
    },
)
