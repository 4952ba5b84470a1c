"""fairseq's ``transformer`` architectures (Vaswani et al., 2017), as fairseq 0.12 names their weights."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fairbeam.errors import CheckpointError
from fairbeam.families.fairseq.legacy import has_final_norm, modern_weights
from fairbeam.families.weight_map import Row, linear, read_weights, same, write_weights
from fairbeam.network import (
    Activation,
    DropoutConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    NormPlacement,
    PositionConfig,
    PositionKind,
    StackConfig,
)
from fairbeam.network.inference.prepare import BaseNetwork

FAMILY = "fairseq_transformer"

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    name: {}
    for name in (
        "transformer",
        "transformer_tiny",
        "transformer_iwslt_de_en",
        "transformer_wmt_en_de",
        "transformer_vaswani_wmt_en_de_big",
        "transformer_vaswani_wmt_en_fr_big",
        "transformer_wmt_en_de_big",
        "transformer_wmt_en_de_big_t2t",
    )
}
"""fairseq's architecture names; their checkpoints leave no option out."""

OWN_PREFIX = "network."
"""Prefix of our network's parameters in a checkpoint of the plugin's model."""

PAD = 1
"""Id of ``<pad>`` in fairseq's dictionaries; position ids start behind it."""

_ACTIVATIONS = {
    "relu": Activation.RELU,
    "relu_squared": Activation.RELU_SQUARED,
    "gelu": Activation.GELU,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_accurate": Activation.GELU_TANH,
    "tanh": Activation.TANH,
    "linear": Activation.LINEAR,
}

# Options of computations that EncoderDecoderConfig cannot express, with the value that turns them off.
_MUST_BE = {
    "adaptive_input": False,
    "adaptive_softmax_cutoff": None,
    "cross_self_attention": False,
    "no_cross_attention": False,
    "char_inputs": False,
    "character_embeddings": False,
    "base_layers": 0,
    "encoder_layers_to_keep": None,
    "decoder_layers_to_keep": None,
    "scale_attn": False,
    "scale_fc": False,
    "scale_heads": False,
    "scale_resids": False,
}


class UnsupportedArchitecture(CheckpointError):  # noqa: N818 - reads as what it is
    """A fairseq model that has no conversion to our network."""


def _layer_rows(stack: str, their_stack: str) -> tuple[Row, ...]:
    ours, theirs = f"{stack}.layers.{{i}}", f"{their_stack}.layers.{{i}}"
    attention = f"{theirs}.self_attn"
    return (
        *linear(f"{ours}.self_attention.qkv", *(f"{attention}.{part}_proj" for part in "qkv")),
        *linear(f"{ours}.self_attention.output", f"{attention}.out_proj"),
        *linear(f"{ours}.self_attention_residual.norm", f"{theirs}.self_attn_layer_norm"),
        *linear(f"{ours}.cross_attention.query", f"{theirs}.encoder_attn.q_proj"),
        *linear(f"{ours}.cross_attention.key_value", *(f"{theirs}.encoder_attn.{part}_proj" for part in "kv")),
        *linear(f"{ours}.cross_attention.output", f"{theirs}.encoder_attn.out_proj"),
        *linear(f"{ours}.cross_attention_residual.norm", f"{theirs}.encoder_attn_layer_norm"),
        *linear(f"{ours}.inner", f"{theirs}.fc1"),
        *linear(f"{ours}.outer", f"{theirs}.fc2"),
        *linear(f"{ours}.feed_forward_residual.norm", f"{theirs}.final_layer_norm"),
    )


def stack_rows(stack: str, embedding: str, theirs: str | None = None) -> tuple[Row, ...]:
    """Return the rows of a stack, whose name is ``theirs`` in fairseq if it is not ours.

    Hugging Face's models that descend from fairseq name their weights alike.
    """
    theirs = theirs or stack
    return (
        same(f"{embedding}.weight", f"{theirs}.embed_tokens.weight"),
        same(f"{embedding}.positions.weight", f"{theirs}.embed_positions.weight"),
        *linear(f"{embedding}.norm", f"{theirs}.layernorm_embedding"),
        *_layer_rows(stack, theirs),
        *linear(f"{stack}.final_norm", f"{theirs}.layer_norm"),
    )


TIED_OUTPUT = "decoder.output_projection.weight"
"""Output projection; checkpoints of earlier releases leave it out if it is tied to the embedding."""

ROWS = (
    *stack_rows("encoder", "source_embedding"),
    *stack_rows("decoder", "target_embedding"),
    same("head.weight", TIED_OUTPUT),
)

NOT_WEIGHTS = re.compile(r"(encoder|decoder)\.(version|embed_positions\.(_float_tensor|weights))")


def config_from_options(
    options: Mapping[str, Any], source_vocabulary: int, target_vocabulary: int
) -> EncoderDecoderConfig:
    """Return the network that fairseq's model options describe.

    Args:
        options: fairseq's flat model options (``encoder_embed_dim``, …), missing ones at fairseq's defaults.
        source_vocabulary: source dictionary size. target_vocabulary: target dictionary size.

    Raises:
        UnsupportedArchitecture: an option asks for what the network cannot do; names it.
    """
    check_supported(options)
    shared = bool(options.get("share_all_embeddings") or options.get("merge_src_tgt_embed"))
    return EncoderDecoderConfig(
        source_vocabulary=source_vocabulary,
        target_vocabulary=target_vocabulary,
        encoder=stack_config(options, "encoder", "max_source_positions"),
        decoder=stack_config(options, "decoder", "max_target_positions"),
        share_embeddings=shared,
        tie_output=shared or bool(options.get("share_decoder_input_output_embed")),
        dropout=dropout_config(options),
    )


def check_supported(options: Mapping[str, Any]) -> None:
    """Refuse options of computations that our network does not have.

    Raises:
        UnsupportedArchitecture: names the option and its value.
    """
    for name, neutral in _MUST_BE.items():
        if (options.get(name) or neutral) != neutral:
            raise UnsupportedArchitecture(f"fairseq option {name}={options[name]!r} has no conversion")


def dropout_config(options: Mapping[str, Any]) -> DropoutConfig:
    """Return the dropout that the options describe."""
    return DropoutConfig(
        residual=float(options.get("dropout") or 0.0),
        attention=float(options.get("attention_dropout") or 0.0),
        activation=float(options.get("activation_dropout") or options.get("relu_dropout") or 0.0),
    )


def activation_of(options: Mapping[str, Any], name: str) -> Activation:
    """Return the activation function that an option names.

    Raises:
        UnsupportedArchitecture: it has no conversion.
    """
    activation = options.get(name) or "relu"
    if activation not in _ACTIVATIONS:
        raise UnsupportedArchitecture(f"fairseq option {name}={activation!r} has no conversion")
    return _ACTIVATIONS[activation]


def stack_config(options: Mapping[str, Any], stack: str, max_positions: str) -> StackConfig:
    """Return one stack; option ``max_positions`` is its longest sequence. Errors as for ``config_from_options``."""

    def option(name: str, default: Any) -> Any:
        value = options.get(f"{stack}_{name}")
        if value is None and name in ("embed_dim", "ffn_embed_dim"):  # the decoder's are the encoder's
            value = options.get(f"encoder_{name}")
        return default if value is None else value

    dim = int(option("embed_dim", 512))
    for name in ("input_dim", "output_dim"):
        if int(option(name, dim)) != dim:
            raise UnsupportedArchitecture(
                f"fairseq option {stack}_{name}={option(name, dim)} differs from {stack}_embed_dim={dim}; "
                "projected embeddings have no conversion"
            )
    if options.get("no_token_positional_embeddings"):
        kind = PositionKind.NONE
    else:
        kind = PositionKind.LEARNED if option("learned_pos", False) else PositionKind.SINUSOIDAL
    pre_norm = bool(option("normalize_before", False))
    return StackConfig(
        layers=int(option("layers", 6)),
        dim=dim,
        heads=int(option("attention_heads", 8)),
        ffn_dim=int(option("ffn_embed_dim", 2048)),
        activation=activation_of(options, "activation_fn"),
        norm_placement=NormPlacement.PRE if pre_norm else NormPlacement.POST,
        positions=PositionConfig(kind=kind, max_positions=int(options.get(max_positions) or 1024), offset=PAD + 1),
        scale_embedding=not options.get("no_scale_embedding"),
        embedding_norm=bool(options.get("layernorm_embedding")),
        final_norm=pre_norm and not (stack == "decoder" and options.get("no_decoder_final_norm")),
        layer_drop=float(option("layerdrop", 0.0)),
    )


def load_network(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> EncoderDecoder:
    """Return the network of a fairseq ``transformer`` state dictionary, in float32.

    Args:
        options: as for ``config_from_options``.
        weights: fairseq's state dictionary (``checkpoint["model"]``), float32 or float16.

    Raises:
        CheckpointError: the weights do not fit the options.
        UnsupportedArchitecture: an option has no conversion.
    """
    network = EncoderDecoder(config_of(options, weights))
    ignored = frozenset(name for name in weights if NOT_WEIGHTS.fullmatch(name))
    state = read_weights(ROWS, modern_weights(weights), network.state_dict(), ignored)
    network.load_state_dict(state)
    return network


def config_of(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> EncoderDecoderConfig:
    """Return the configuration that options and weights describe; arguments and errors as for ``load_network``."""
    try:
        vocabularies = [len(weights[f"{stack}.embed_tokens.weight"]) for stack in ("encoder", "decoder")]
    except KeyError as error:
        raise CheckpointError(f"the checkpoint has no tensor {error}; is it an encoder-decoder Transformer?") from None
    config = config_from_options(options, *vocabularies)

    def as_trained(stack: str, part: StackConfig) -> StackConfig:
        return dataclasses.replace(part, final_norm=part.final_norm and has_final_norm(weights, stack))

    return dataclasses.replace(
        config, encoder=as_trained("encoder", config.encoder), decoder=as_trained("decoder", config.decoder)
    )


def load_trained_network(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> EncoderDecoder:
    """Return the network of a checkpoint of ``--arch fairbeam_transformer``, whose weights have our own names.

    Raises:
        CheckpointError: the weights do not fit the options; lists every name.
    """
    own = {name.removeprefix(OWN_PREFIX): tensor for name, tensor in weights.items()}
    try:
        vocabularies = [len(own[f"{side}_embedding.weight"]) for side in ("source", "target")]
    except KeyError as error:
        raise CheckpointError(f"the checkpoint has no tensor {error}") from None
    network = EncoderDecoder(config_from_options(options, *vocabularies))
    rows = [same(name, name) for name in network.state_dict()]
    network.load_state_dict(read_weights(rows, own, network.state_dict(), frozenset()))
    return network


def save_weights(network: BaseNetwork) -> dict[str, Tensor]:
    """Return fairseq's state dictionary of a network; inverse of ``load_network``."""
    return write_weights(ROWS, network.state_dict())


def options_from_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    """Return fairseq's model options of a network; inverse of ``config_from_options``.

    Raises:
        UnsupportedArchitecture: fairseq's ``transformer`` cannot be told to be such a network; names what differs.
    """
    options: dict[str, Any] = {
        "_name": "transformer",
        "arch": "transformer",
        "share_all_embeddings": config.share_embeddings,
        "share_decoder_input_output_embed": config.tie_output,
        "dropout": config.dropout.residual,
        "attention_dropout": config.dropout.attention,
        "activation_dropout": config.dropout.activation,
        "activation_fn": next((name for name, kind in _ACTIVATIONS.items() if kind is config.encoder.activation), None),
        "no_scale_embedding": not config.encoder.scale_embedding,
        "layernorm_embedding": config.encoder.embedding_norm,
        "no_token_positional_embeddings": config.encoder.positions.kind is PositionKind.NONE,
        "max_source_positions": config.encoder.positions.max_positions,
        "max_target_positions": config.decoder.positions.max_positions,
    }
    for stack, part in (("encoder", config.encoder), ("decoder", config.decoder)):
        pre_norm = part.norm_placement is NormPlacement.PRE
        options |= {
            f"{stack}_embed_dim": part.dim,
            f"{stack}_ffn_embed_dim": part.ffn_dim,
            f"{stack}_layers": part.layers,
            f"{stack}_attention_heads": part.heads,
            f"{stack}_normalize_before": pre_norm,
            f"{stack}_learned_pos": part.positions.kind is PositionKind.LEARNED,
            f"{stack}_layerdrop": part.layer_drop,
        }
        if stack == "decoder":
            options["no_decoder_final_norm"] = pre_norm and not part.final_norm
    again = config_from_options(options, config.source_vocabulary, config.target_vocabulary)
    differing = [
        part.name for part in dataclasses.fields(config) if getattr(again, part.name) != getattr(config, part.name)
    ]
    if differing:
        raise UnsupportedArchitecture(
            f"fairseq's transformer cannot be such a network: {', '.join(differing)} would differ"
        )
    return options
