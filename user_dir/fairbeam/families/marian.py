"""Marian's Transformers (Junczys-Dowmunt et al., 2018), OPUS-MT's among them, as Hugging Face keeps them."""

from fairbeam.families import bart
from fairbeam.families.seq2seq import Seq2SeqFamily
from fairbeam.families.weight_map import same
from fairbeam.network import NormPlacement, PositionConfig, PositionKind, StackConfig

TABLES = (
    same("source_embedding.positions.table", "model.encoder.embed_positions.weight"),
    same("target_embedding.positions.table", "model.decoder.embed_positions.weight"),
)

FAMILY = Seq2SeqFamily(
    model_type="marian",
    stack=StackConfig(
        norm_placement=NormPlacement.POST,
        embedding_norm=False,
        final_norm=False,
        positions=PositionConfig(kind=PositionKind.SINUSOIDAL_OPEN, offset=0, count_padding=True),
    ),
    rows=bart.ROWS,
    computed_tables=TABLES,
    defaults={
        "vocab_size": 58101,
        "bos_token_id": None,
        "eos_token_id": 0,
        "unk_token_id": 1,
        "pad_token_id": 58100,
        "decoder_start_token_id": 58100,
    },
    presets={
        "base": {
            "d_model": 512,
            **{f"{stack}_layers": 6 for stack in ("encoder", "decoder")},
            **{f"{stack}_attention_heads": 8 for stack in ("encoder", "decoder")},
            **{f"{stack}_ffn_dim": 2048 for stack in ("encoder", "decoder")},
            "activation_function": "swish",
            "scale_embedding": True,
        },
    },
)
