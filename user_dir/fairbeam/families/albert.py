"""ALBERT (Lan et al., 2020): BERT whose layers share weights, with embeddings of another width, projected."""

from fairbeam.families import bert
from fairbeam.families.encoder_only import EncoderOnlyFamily, HeadSpec
from fairbeam.families.weight_map import linear, with_prefix

_LAYER = "encoder.albert_layer_groups.{i}.albert_layers.0"
LAYER_ROWS = (
    *linear(
        "encoder.layers.{i}.self_attention.qkv", *(f"{_LAYER}.attention.{part}" for part in ("query", "key", "value"))
    ),
    *linear("encoder.layers.{i}.self_attention.output", f"{_LAYER}.attention.dense"),
    *linear("encoder.layers.{i}.self_attention_residual.norm", f"{_LAYER}.attention.LayerNorm"),
    *linear("encoder.layers.{i}.inner", f"{_LAYER}.ffn"),
    *linear("encoder.layers.{i}.outer", f"{_LAYER}.ffn_output"),
    *linear("encoder.layers.{i}.feed_forward_residual.norm", f"{_LAYER}.full_layer_layer_norm"),
)

FAMILY = EncoderOnlyFamily(
    model_type="albert",
    prefix="albert.",
    stack=bert.STACK,
    rows=(
        *with_prefix("albert.", (*bert.EMBEDDING_ROWS, *LAYER_ROWS, *linear("pooler", "pooler"))),
        *linear("embedding.projection", "albert.encoder.embedding_hidden_mapping_in"),
        *bert.symbol_rows("predictions.dense", "predictions.LayerNorm", "predictions.decoder", "predictions.bias"),
        *linear("sequence_head.output", "sop_classifier.classifier"),
        *linear("sequence_head.output", "classifier"),
        *linear("token_head.output", "classifier"),
        *linear("token_head.output", "qa_outputs"),
    ),
    names={
        **bert.FAMILY.names,
        "embedding_dim": "embedding_size",
        "distinct_layers": "num_hidden_groups",
        "head_dropout": "classifier_dropout_prob",
    },
    defaults={
        **bert.DEFAULTS,
        "vocab_size": 30000,
        "embedding_size": 128,
        "hidden_size": 4096,
        "num_hidden_groups": 1,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.1,
    },
    must_be={"inner_group_num": 1},
    heads=(
        HeadSpec(
            place="symbol_head", mark="predictions.bias", hidden="predictions.dense.weight", norm=True, drops=False
        ),
        HeadSpec(place="sequence_head", mark="sop_classifier.classifier.weight"),
        bert.POOLED_HEAD,
        bert.TAG_HEAD,
        bert.ANSWER_HEAD,
    ),
    pooler="albert.pooler.weight",
    not_weights=r"albert\.embeddings\.position_ids",
    presets={
        "base": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
        "large": bert.LARGE,
        "xlarge": {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 8192},
        "xxlarge": {},
    },
)
