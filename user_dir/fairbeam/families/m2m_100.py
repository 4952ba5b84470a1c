"""M2M-100 (Fan et al., 2021) and NLLB-200's dense models (NLLB Team, 2022), as Hugging Face names their weights."""

from fairbeam.families import bart
from fairbeam.families.seq2seq import Seq2SeqFamily
from fairbeam.families.weight_map import same
from fairbeam.network import NormPlacement, PositionConfig, PositionKind, StackConfig

FAMILY = Seq2SeqFamily(
    model_type="m2m_100",
    stack=StackConfig(
        norm_placement=NormPlacement.PRE,
        embedding_norm=False,
        final_norm=True,
        positions=PositionConfig(kind=PositionKind.SINUSOIDAL, count_padding=False),
    ),
    rows=tuple(row for row in bart.ROWS if row.ours != "head.bias"),
    computed_tables=(
        same("source_embedding.positions.table", "model.encoder.embed_positions.weights"),
        same("target_embedding.positions.table", "model.decoder.embed_positions.weights"),
    ),
    defaults={
        "vocab_size": 128112,
        "activation_function": "relu",
        "scale_embedding": True,
        "attention_dropout": 0.1,
        "encoder_layerdrop": 0.05,
        "decoder_layerdrop": 0.05,
        "decoder_start_token_id": 2,
    },
    presets={"418m": {}},
)
