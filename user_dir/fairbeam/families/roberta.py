"""RoBERTa (Liu et al., 2019): BERT whose position ids skip padding, without a pooler before its classifier."""

from dataclasses import replace

from fairbeam.families import bert
from fairbeam.families.encoder_only import EncoderOnlyFamily, HeadSpec
from fairbeam.families.weight_map import linear, with_prefix
from fairbeam.network import Activation, PositionConfig, PositionKind

FAMILY = EncoderOnlyFamily(
    model_type="roberta",
    prefix="roberta.",
    stack=replace(bert.STACK, positions=PositionConfig(kind=PositionKind.LEARNED, count_padding=False)),
    rows=(
        *with_prefix("roberta.", bert.ENCODER_ROWS),
        *bert.symbol_rows("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias"),
        *linear("sequence_head.hidden", "classifier.dense"),
        *linear("sequence_head.output", "classifier.out_proj"),
        *linear("sequence_head.output", "classifier"),
        *linear("token_head.output", "classifier"),
        *linear("token_head.output", "qa_outputs"),
    ),
    names=bert.FAMILY.names,
    position_kinds=bert.POSITION_KINDS,
    defaults={**bert.DEFAULTS, "vocab_size": 50265, "pad_token_id": 1},
    heads=(
        HeadSpec(
            place="symbol_head",
            mark="lm_head.bias",
            hidden="lm_head.dense.weight",
            activation=Activation.GELU,
            norm=True,
            drops=False,
        ),
        HeadSpec(
            place="sequence_head",
            mark="classifier.out_proj.weight",
            hidden="classifier.dense.weight",
            activation=Activation.TANH,
            drops_input=True,
        ),
        replace(bert.POOLED_HEAD, classes=("ForMultipleChoice",)),
        bert.TAG_HEAD,
        bert.ANSWER_HEAD,
    ),
    pooler="roberta.pooler.dense.weight",
    not_weights=r"roberta\.embeddings\.position_ids",
    presets={size: {**options, "max_position_embeddings": 514} for size, options in bert.FAMILY.presets.items()},
)
