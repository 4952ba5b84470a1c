"""fairseq's ``transformer_lm`` architectures: a decoder alone, named as the ``transformer``'s decoder is."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fairbeam.errors import CheckpointError
from fairbeam.families.fairseq import transformer as fairseq_transformer
from fairbeam.families.fairseq.legacy import has_final_norm, modern_weights
from fairbeam.families.fairseq.transformer import PAD, check_supported, dropout_config, stack_config, stack_rows
from fairbeam.families.weight_map import read_weights, same, write_weights
from fairbeam.network import DecoderOnly, DecoderOnlyConfig
from fairbeam.network.inference.prepare import BaseNetwork

FAMILY = "fairseq_lm"

_BOS, _EOS = 0, 2
_COMMON: dict[str, Any] = {"decoder_normalize_before": True, "dropout": 0.1}


def _sizes(layers: int, dim: int, heads: int, **others: Any) -> dict[str, Any]:
    sizes = {"layers": layers, "embed_dim": dim, "ffn_embed_dim": 4 * dim, "attention_heads": heads}
    return {**_COMMON, **{f"decoder_{name}": value for name, value in sizes.items()}, **others}


def _gpt(layers: int, dim: int, heads: int, **others: Any) -> dict[str, Any]:
    return _sizes(layers, dim, heads, activation_fn="gelu", attention_dropout=0.1, **others)


def _gpt3(layers: int, dim: int, heads: int) -> dict[str, Any]:
    learned = {"decoder_learned_pos": True, "share_decoder_input_output_embed": True}
    return _gpt(layers, dim, heads, **learned) | {"dropout": 0.0, "attention_dropout": 0.0}


_WIKI103 = _sizes(
    16, 1024, 8,
    dropout=0.3, attention_dropout=0.1, activation_dropout=0.1, no_decoder_final_norm=True,
    adaptive_input=True, adaptive_softmax_cutoff="20000,60000",
)  # fmt: skip
_GBW = _sizes(12, 512, 16, decoder_ffn_embed_dim=4096, attention_dropout=0.1, no_decoder_final_norm=True)

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "transformer_lm": {},
    "transformer_lm_big": _sizes(12, 1024, 16),
    "transformer_lm_wiki103": _WIKI103,
    "transformer_lm_baevski_wiki103": _WIKI103,
    "transformer_lm_gbw": _GBW,
    "transformer_lm_baevski_gbw": _GBW,
    "transformer_lm_gpt": _gpt(12, 768, 12),
    "transformer_lm_gpt2_small": _gpt(24, 1024, 16),
    "transformer_lm_gpt2_tiny": _gpt(2, 64, 1) | {"decoder_ffn_embed_dim": 64},
    "transformer_lm_gpt2_medium": _gpt(36, 1280, 20),
    "transformer_lm_gpt2_big": _gpt(48, 1600, 25),
    "transformer_lm_gpt2_big_wide": _gpt(24, 2048, 32),
    "transformer_lm_gpt2_bigger": _gpt(48, 2048, 32),
    "transformer_lm_gpt3_small": _gpt3(12, 768, 12),
    "transformer_lm_gpt3_medium": _gpt3(24, 1024, 16),
    "transformer_lm_gpt3_large": _gpt3(24, 1536, 16),
    "transformer_lm_gpt3_xl": _gpt3(24, 2048, 32),
    "transformer_lm_gpt3_2_7": _gpt3(32, 2560, 32),
    "transformer_lm_gpt3_6_7": _gpt3(32, 4096, 32),
    "transformer_lm_gpt3_13": _gpt3(40, 5120, 40),
    "transformer_lm_gpt3_175": _gpt3(96, 12288, 96),
}
"""Architecture name → values of options that a checkpoint may leave out."""

ROWS = (*stack_rows("decoder", "embedding"), same("head.weight", fairseq_transformer.TIED_OUTPUT))
NOT_WEIGHTS = fairseq_transformer.NOT_WEIGHTS


def config_from_options(options: Mapping[str, Any], vocabulary: int) -> DecoderOnlyConfig:
    """Return the network that fairseq's flat model options describe.

    Raises:
        UnsupportedArchitecture: an option asks for what the network cannot do (adaptive inputs and softmax, embeddings
            of characters, …); names it.
    """
    check_supported(options)
    longest = options.get("max_target_positions") or options.get("tokens_per_sample")
    return DecoderOnlyConfig(
        vocabulary=vocabulary,
        decoder=stack_config({**options, "max_target_positions": longest}, "decoder", "max_target_positions"),
        tie_output=bool(options.get("share_decoder_input_output_embed")),
        dropout=dropout_config(options),
        bos=_BOS if options.get("add_bos_token") else _EOS,  # a text follows the end of the last
        pad=PAD,
        eos=_EOS,
    )


def load_network(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> DecoderOnly:
    """Return the network of a ``transformer_lm`` state dictionary, in float32.

    Raises:
        CheckpointError: the weights do not fit the options.
        UnsupportedArchitecture: an option has no conversion.
    """
    network = DecoderOnly(config_of(options, weights))
    ignored = frozenset(name for name in weights if NOT_WEIGHTS.fullmatch(name))
    network.load_state_dict(read_weights(ROWS, modern_weights(weights), network.state_dict(), ignored))
    return network


def config_of(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> DecoderOnlyConfig:
    """Return the configuration that options and weights describe together; errors as for ``load_network``."""
    check_supported(options)  # an adaptive input has no embed_tokens, and is the better reason
    if "decoder.embed_tokens.weight" not in weights:
        raise CheckpointError("the checkpoint has no tensor 'decoder.embed_tokens.weight'; is it a language model?")
    config = config_from_options(options, len(weights["decoder.embed_tokens.weight"]))
    final_norm = config.decoder.final_norm and has_final_norm(weights, "decoder")
    return dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, final_norm=final_norm))


def save_weights(network: BaseNetwork) -> dict[str, Tensor]:
    """Return fairseq's state dictionary of a network; inverse of ``load_network``."""
    return write_weights(ROWS, network.state_dict())
