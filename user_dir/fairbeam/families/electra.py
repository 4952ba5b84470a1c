"""ELECTRA (Clark et al., 2020), discriminators and generators: BERT with embeddings of another width, projected."""

from fairbeam.families import bert
from fairbeam.families.encoder_only import EncoderOnlyFamily, HeadSpec
from fairbeam.families.weight_map import linear, with_prefix
from fairbeam.network import Activation

FAMILY = EncoderOnlyFamily(
    model_type="electra",
    prefix="electra.",
    stack=bert.STACK,
    rows=(
        *with_prefix("electra.", bert.ENCODER_ROWS),
        *linear("embedding.projection", "electra.embeddings_project"),
        *bert.symbol_rows(
            "generator_predictions.dense",
            "generator_predictions.LayerNorm",
            "generator_lm_head",
            "generator_lm_head.bias",
        ),
        *linear("token_head.hidden", "discriminator_predictions.dense"),
        *linear("token_head.output", "discriminator_predictions.dense_prediction"),
        *linear("token_head.output", "classifier"),
        *linear("token_head.output", "qa_outputs"),
        *linear("sequence_head.hidden", "classifier.dense"),
        *linear("sequence_head.output", "classifier.out_proj"),
        *linear("sequence_head.hidden", "sequence_summary.summary"),
        *linear("sequence_head.output", "classifier"),
    ),
    names={**bert.FAMILY.names, "embedding_dim": "embedding_size"},
    position_kinds=bert.POSITION_KINDS,
    defaults={
        **bert.DEFAULTS,
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
    heads=(
        HeadSpec(
            place="symbol_head",
            mark="generator_lm_head.bias",
            hidden="generator_predictions.dense.weight",
            activation=Activation.GELU,
            norm=True,
            drops=False,
        ),
        HeadSpec(
            place="token_head",
            mark="discriminator_predictions.dense_prediction.weight",
            hidden="discriminator_predictions.dense.weight",
            drops=False,
        ),
        bert.TAG_HEAD,
        bert.ANSWER_HEAD,
        HeadSpec(
            place="sequence_head",
            mark="classifier.out_proj.weight",
            hidden="classifier.dense.weight",
            activation=Activation.GELU,
            drops_input=True,
        ),
        HeadSpec(
            place="sequence_head",
            mark="classifier.weight",
            hidden="sequence_summary.summary.weight",
            activation=Activation.GELU,
        ),
    ),
    must_be={"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"},
    not_weights=r"electra\.embeddings\.position_ids",
    projection="electra.embeddings_project.weight",
    presets={
        "small": {},
        "base": {
            "embedding_size": 768,
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
        "large": {**bert.LARGE, "embedding_size": 1024},
    },
)
