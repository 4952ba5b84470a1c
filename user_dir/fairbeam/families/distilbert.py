"""DistilBERT (Sanh et al., 2019): BERT without segments or pooler, its weights under shorter names."""

from fairbeam.families import bert
from fairbeam.families.encoder_only import EncoderOnlyFamily, HeadSpec
from fairbeam.families.weight_map import linear, with_prefix
from fairbeam.network import Activation

LAYER_ROWS = (
    *linear(
        "encoder.layers.{i}.self_attention.qkv",
        *(f"transformer.layer.{{i}}.attention.{part}_lin" for part in "qkv"),
    ),
    *linear("encoder.layers.{i}.self_attention.output", "transformer.layer.{i}.attention.out_lin"),
    *linear("encoder.layers.{i}.self_attention_residual.norm", "transformer.layer.{i}.sa_layer_norm"),
    *linear("encoder.layers.{i}.inner", "transformer.layer.{i}.ffn.lin1"),
    *linear("encoder.layers.{i}.outer", "transformer.layer.{i}.ffn.lin2"),
    *linear("encoder.layers.{i}.feed_forward_residual.norm", "transformer.layer.{i}.output_layer_norm"),
)

FAMILY = EncoderOnlyFamily(
    model_type="distilbert",
    prefix="distilbert.",
    stack=bert.STACK,
    rows=(
        *with_prefix("distilbert.", (*bert.EMBEDDING_ROWS, *LAYER_ROWS)),
        *bert.symbol_rows("vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias"),
        *linear("sequence_head.hidden", "pre_classifier"),
        *linear("sequence_head.output", "classifier"),
        *linear("token_head.output", "classifier"),
        *linear("token_head.output", "qa_outputs"),
    ),
    names={
        "vocabulary": "vocab_size",
        "layers": "n_layers",
        "dim": "dim",
        "heads": "n_heads",
        "ffn_dim": "hidden_dim",
        "activation": "activation",
        "max_positions": "max_position_embeddings",
        "residual_dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "head_dropout": "seq_classif_dropout",
        "pad": "pad_token_id",
    },
    defaults={
        "vocab_size": 30522,
        "n_layers": 6,
        "dim": 768,
        "n_heads": 12,
        "hidden_dim": 3072,
        "activation": "gelu",
        "max_position_embeddings": 512,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    },
    heads=(
        HeadSpec(
            place="symbol_head",
            mark="vocab_projector.bias",
            hidden="vocab_transform.weight",
            norm=True,
            drops=False,
        ),
        HeadSpec(
            place="sequence_head",
            mark="classifier.weight",
            hidden="pre_classifier.weight",
            activation=Activation.RELU,
        ),
        bert.TAG_HEAD,
        bert.ANSWER_HEAD,
    ),
    not_weights=r"distilbert\.embeddings\.position_ids",
    presets={"base": {}},
)
