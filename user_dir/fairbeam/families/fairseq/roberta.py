"""fairseq's ``roberta`` architectures (Liu et al., 2019): its ``transformer``'s encoder alone, with a masked language
model's head and named classifiers."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fairbeam.errors import CheckpointError
from fairbeam.families.fairseq.legacy import modern_weights
from fairbeam.families.fairseq.transformer import (
    PAD,
    UnsupportedArchitecture,
    activation_of,
    check_supported,
    dropout_config,
    stack_config,
    stack_rows,
)
from fairbeam.families.weight_map import Row, linear, read_weights, write_weights
from fairbeam.network import EncoderOnly, EncoderOnlyConfig, HeadConfig
from fairbeam.network.inference.prepare import BaseNetwork

FAMILY = "fairseq_roberta"
HEAD = "sentence_classification_head"
"""Name of the classifier of fairseq's ``sentence_prediction``."""


def _sizes(layers: int, dim: int, heads: int) -> dict[str, Any]:
    sizes = {"layers": layers, "embed_dim": dim, "ffn_embed_dim": 4 * dim, "attention_heads": heads}
    return {
        **{f"encoder_{name}": value for name, value in sizes.items()},
        "encoder_learned_pos": True,
        "layernorm_embedding": True,
        "no_scale_embedding": True,
        "activation_fn": "gelu",
        "pooler_activation_fn": "tanh",
        "dropout": 0.1,
        "attention_dropout": 0.1,
    }


_BASE = _sizes(12, 768, 12)
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "roberta": _BASE,
    "roberta_base": _BASE,
    "roberta_prenorm": _BASE | {"layernorm_embedding": False, "encoder_normalize_before": True},
    "roberta_large": _sizes(24, 1024, 16),
    "xlm": _sizes(16, 1280, 16),
}
"""Architecture name → values of options that a checkpoint may leave out."""

_STACK, _HEADS = "encoder.sentence_encoder", "classification_heads."
NOT_WEIGHTS = re.compile(
    rf"{re.escape(_STACK)}\.(version|embed_positions\.(_float_tensor|weights))|{_HEADS[:-1]}\.(?!{HEAD}\.).+"
)


def rows_of(head: str) -> tuple[Row, ...]:
    """Return the weight map with the classifier of this name."""
    return (
        *stack_rows("encoder", "embedding", _STACK),
        *linear("symbol_head.hidden", "encoder.lm_head.dense"),
        *linear("symbol_head.norm", "encoder.lm_head.layer_norm"),
        *linear("symbol_head.output", "encoder.lm_head"),
        *linear("sequence_head.hidden", f"{_HEADS}{head}.dense"),
        *linear("sequence_head.output", f"{_HEADS}{head}.out_proj"),
    )


def load_network(options: Mapping[str, Any], weights: Mapping[str, Tensor], head: str = HEAD) -> EncoderOnly:
    """Return the network of a ``roberta`` state dictionary, in float32.

    Args:
        options: fairseq's flat model options.
        weights: fairseq's state dictionary.
        head: the classifier that becomes the network's ``sequence_head``, if there is one of this name; others are
            left out.

    Raises:
        CheckpointError: the weights do not fit the options.
        UnsupportedArchitecture: an option has no conversion.
    """
    weights = modern_names(weights)
    network = EncoderOnly(config_of(options, weights, head))
    others = (name for name in weights if name.startswith(_HEADS) and not name.startswith(f"{_HEADS}{head}."))
    ignored = {*others, *(name for name in weights if re.match(rf"{_STACK}\.(version|embed_positions\._)", name))}
    network.load_state_dict(read_weights(rows_of(head), weights, network.state_dict(), frozenset(ignored)))
    return network


def modern_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dictionary under the names of fairseq 0.12; earlier releases call the encoder a decoder."""
    renamed = {
        re.sub(r"^decoder\.", "encoder.", name).replace(".emb_layer_norm.", ".layernorm_embedding."): tensor
        for name, tensor in weights.items()
    }
    return modern_weights(renamed)


def config_of(options: Mapping[str, Any], weights: Mapping[str, Tensor], head: str = HEAD) -> EncoderOnlyConfig:
    """Return the configuration that options and weights of today's names describe together; arguments and errors as for
    ``load_network``."""
    if f"{_STACK}.embed_tokens.weight" not in weights:
        raise CheckpointError(f"the checkpoint has no tensor '{_STACK}.embed_tokens.weight'; is it a RoBERTa?")
    vocabulary = len(weights[f"{_STACK}.embed_tokens.weight"])
    check_supported(options)
    longest = options.get("max_positions") or options.get("tokens_per_sample") or 512
    stack = stack_config({**options, "max_source_positions": longest}, "encoder", "max_source_positions")
    symbols = HeadConfig(
        outputs=vocabulary, hidden=stack.dim, activation=activation_of(options, "activation_fn"), norm=True
    )
    return EncoderOnlyConfig(
        vocabulary=vocabulary,
        encoder=stack,
        symbol_head=symbols if "encoder.lm_head.bias" in weights else None,
        sequence_head=_classifier(options, weights, f"{_HEADS}{head}"),
        tie_output="encoder.lm_head.bias" in weights and not options.get("untie_weights_roberta"),
        dropout=dropout_config(options),
        pad=PAD,
    )


def _classifier(options: Mapping[str, Any], weights: Mapping[str, Tensor], head: str) -> HeadConfig | None:
    if not any(name.startswith(f"{head}.") for name in weights):
        return None
    if options.get("spectral_norm_classification_head"):
        raise UnsupportedArchitecture("fairseq option spectral_norm_classification_head=True has no conversion")
    try:
        outputs, hidden = (len(weights[f"{head}.{layer}.weight"]) for layer in ("out_proj", "dense"))
    except KeyError as error:
        raise CheckpointError(f"the checkpoint has no tensor {error}") from None
    dropout = float(options.get("pooler_dropout") or 0.0)
    return HeadConfig(
        outputs=outputs,
        hidden=hidden,
        activation=activation_of(options, "pooler_activation_fn"),
        input_dropout=dropout,
        dropout=dropout,
    )


def save_weights(network: BaseNetwork, head: str = HEAD) -> dict[str, Tensor]:
    """Return fairseq's state dictionary of a network; inverse of ``load_network``."""
    return write_weights(rows_of(head), network.state_dict())
