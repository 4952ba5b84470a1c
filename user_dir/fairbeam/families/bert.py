"""BERT (Devlin et al., 2019), as Hugging Face's ``BertModel`` and its classes with heads name their weights."""

from fairbeam.families.encoder_only import EncoderOnlyFamily, HeadSpec
from fairbeam.families.single_stack import BERT_NAMES
from fairbeam.families.weight_map import Row, linear, same, with_prefix
from fairbeam.network import NormPlacement, PositionConfig, PositionKind, StackConfig

LAYER_ROWS = (
    *linear(
        "encoder.layers.{i}.self_attention.qkv",
        *(f"encoder.layer.{{i}}.attention.self.{part}" for part in ("query", "key", "value")),
    ),
    same(
        "encoder.layers.{i}.self_attention.distances.weight",
        "encoder.layer.{i}.attention.self.distance_embedding.weight",
    ),
    *linear("encoder.layers.{i}.self_attention.output", "encoder.layer.{i}.attention.output.dense"),
    *linear("encoder.layers.{i}.self_attention_residual.norm", "encoder.layer.{i}.attention.output.LayerNorm"),
    *linear("encoder.layers.{i}.inner", "encoder.layer.{i}.intermediate.dense"),
    *linear("encoder.layers.{i}.outer", "encoder.layer.{i}.output.dense"),
    *linear("encoder.layers.{i}.feed_forward_residual.norm", "encoder.layer.{i}.output.LayerNorm"),
)
EMBEDDING_ROWS = (
    same("embedding.weight", "embeddings.word_embeddings.weight"),
    same("embedding.positions.weight", "embeddings.position_embeddings.weight"),
    same("embedding.types", "embeddings.token_type_embeddings.weight"),
    *linear("embedding.norm", "embeddings.LayerNorm"),
)
ENCODER_ROWS = (*EMBEDDING_ROWS, *LAYER_ROWS, *linear("pooler", "pooler.dense"))


def symbol_rows(dense: str, norm: str, output: str, bias: str) -> tuple[Row, ...]:
    """Rows of a masked language model's head, whose output's bias has a second name beside the output."""
    return (
        *linear("symbol_head.hidden", dense),
        *linear("symbol_head.norm", norm),
        *linear("symbol_head.output", output),
        same("symbol_head.output.bias", bias),
    )


STACK = StackConfig(
    norm_placement=NormPlacement.POST,
    embedding_norm=True,
    scale_embedding=False,
    norm_epsilon=1e-12,
    positions=PositionConfig(kind=PositionKind.LEARNED, offset=0, count_padding=True),
)
POSITION_KINDS = {"relative_key": PositionKind.RELATIVE_KEY, "relative_key_query": PositionKind.RELATIVE_KEY_QUERY}
DEFAULTS = {
    "vocab_size": 30522,
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "classifier_dropout": None,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
ANSWER_HEAD = HeadSpec(place="token_head", mark="qa_outputs.weight", drops=False)
"""Scores of each token as the first and as the last of an answer (Devlin et al., 2019, section 4.2)."""
TAG_HEAD = HeadSpec(place="token_head", mark="classifier.weight", classes=("ForTokenClassification",))
POOLED_HEAD = HeadSpec(
    place="sequence_head",
    mark="classifier.weight",
    classes=("ForSequenceClassification", "ForMultipleChoice"),
)

FAMILY = EncoderOnlyFamily(
    model_type="bert",
    prefix="bert.",
    stack=STACK,
    rows=(
        *with_prefix("bert.", ENCODER_ROWS),
        *symbol_rows(
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
            "cls.predictions.decoder",
            "cls.predictions.bias",
        ),
        *linear("sequence_head.output", "cls.seq_relationship"),
        *linear("sequence_head.output", "classifier"),
        *linear("token_head.output", "classifier"),
        *linear("token_head.output", "qa_outputs"),
    ),
    names=BERT_NAMES,
    position_kinds=POSITION_KINDS,
    defaults=DEFAULTS,
    heads=(
        HeadSpec(
            place="symbol_head",
            mark="cls.predictions.bias",
            hidden="cls.predictions.transform.dense.weight",
            norm=True,
            drops=False,
        ),
        HeadSpec(place="sequence_head", mark="cls.seq_relationship.weight", drops=False),
        POOLED_HEAD,
        TAG_HEAD,
        ANSWER_HEAD,
    ),
    pooler="bert.pooler.dense.weight",
    not_weights=r"bert\.embeddings\.position_ids",
    presets={"base": {}, "large": LARGE},
)
