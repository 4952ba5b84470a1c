"""BART (Lewis et al., 2020), as Hugging Face's ``BartForConditionalGeneration`` and ``BartModel`` name its weights."""

from fairbeam.families.fairseq.transformer import stack_rows
from fairbeam.families.seq2seq import Seq2SeqFamily
from fairbeam.families.weight_map import same, unsqueezed, with_prefix
from fairbeam.network import NormPlacement, PositionConfig, PositionKind, StackConfig

ROWS = (
    *with_prefix("model.", stack_rows("encoder", "source_embedding")),
    *with_prefix("model.", stack_rows("decoder", "target_embedding")),
    same("head.weight", "lm_head.weight"),
    unsqueezed("head.bias", "final_logits_bias"),
)

FAMILY = Seq2SeqFamily(
    model_type="bart",
    stack=StackConfig(
        norm_placement=NormPlacement.POST,
        embedding_norm=True,
        final_norm=False,
        positions=PositionConfig(kind=PositionKind.LEARNED, offset=2, count_padding=True),
    ),
    rows=ROWS,
    defaults={"decoder_start_token_id": 2},
    presets={
        "base": {
            "d_model": 768,
            **{f"{stack}_layers": 6 for stack in ("encoder", "decoder")},
            **{f"{stack}_attention_heads": 12 for stack in ("encoder", "decoder")},
            **{f"{stack}_ffn_dim": 3072 for stack in ("encoder", "decoder")},
        },
        "large": {},
    },
)
