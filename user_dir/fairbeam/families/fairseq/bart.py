"""fairseq's ``bart`` and ``mbart`` architectures (Lewis et al., 2020; Liu et al., 2020): its ``transformer`` with other
defaults, and classifiers, which generation does not use."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fairbeam.families.fairseq import transformer as fairseq_transformer
from fairbeam.network import EncoderDecoder

FAMILY = "fairseq_bart"

_COMMON: dict[str, Any] = {
    "encoder_learned_pos": True,
    "decoder_learned_pos": True,
    "share_decoder_input_output_embed": True,
    "share_all_embeddings": True,
    "no_scale_embedding": True,
    "layernorm_embedding": True,
    "activation_fn": "gelu",
    "dropout": 0.1,
}


def _sizes(layers: int, dim: int, heads: int) -> dict[str, Any]:
    stack = {"layers": layers, "embed_dim": dim, "ffn_embed_dim": 4 * dim, "attention_heads": heads}
    return {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in stack.items()}


_LARGE, _BASE = _COMMON | _sizes(12, 1024, 16), _COMMON | _sizes(6, 768, 12)

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "bart": _LARGE,
    "bart_large": _LARGE,
    "bart_base": _BASE,
    "mbart_large": _LARGE | {"no_scale_embedding": False},
    "mbart_base": _BASE | {"no_scale_embedding": False},
    "mbart_base_wmt20": _BASE | {"no_scale_embedding": False, "layernorm_embedding": False},
}
"""Architecture name → values of options that a checkpoint may leave out."""

_HEADS = "classification_heads."
NOT_WEIGHTS = re.compile(rf"{fairseq_transformer.NOT_WEIGHTS.pattern}|{re.escape(_HEADS)}.+")

config_from_options = fairseq_transformer.config_from_options
config_of = fairseq_transformer.config_of
save_weights = fairseq_transformer.save_weights


def load_network(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> EncoderDecoder:
    """Return the network of a state dictionary; arguments and errors as in ``fairseq_transformer``."""
    text = {name: tensor for name, tensor in weights.items() if not name.startswith(_HEADS)}
    return fairseq_transformer.load_network(options, text)
