"""fairseq's ``lstm`` architectures (Luong et al., 2015), as fairseq 0.12 names their weights."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fairbeam.errors import CheckpointError
from fairbeam.families.fairseq.transformer import UnsupportedArchitecture
from fairbeam.families.weight_map import Row, linear, read_weights, same, write_weights
from fairbeam.network.inference.prepare import BaseNetwork
from fairbeam.network.lstm import LSTM, LSTMConfig, LSTMDropout

FAMILY = "fairseq_lstm"

_LUONG: dict[str, Any] = {
    **{
        f"{stack}_{name}": size
        for stack in ("encoder", "decoder")
        for name, size in (("embed_dim", 1000), ("layers", 4))
    },
    "decoder_out_embed_dim": 1000,
    "encoder_dropout_out": 0.0,
    "decoder_dropout_out": 0.0,
}
_WISEMAN: dict[str, Any] = {
    "encoder_embed_dim": 256,
    "decoder_embed_dim": 256,
    "decoder_out_embed_dim": 256,
    "encoder_dropout_in": 0.0,
    "encoder_dropout_out": 0.0,
    "decoder_dropout_in": 0.0,
}
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "lstm": {},
    "lstm_wiseman_iwslt_de_en": _WISEMAN,
    "lstm_luong_wmt_en_de": _LUONG,
}
"""Architecture name → values of options that a checkpoint may leave out."""

NOT_WEIGHTS = re.compile(r"(?!)")
"""Pattern that matches no name: every tensor is a weight."""

_LSTM = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def rows_of(config: LSTMConfig) -> tuple[Row, ...]:
    """Return the weight map."""
    return (
        same("source_embedding.weight", "encoder.embed_tokens.weight"),
        same("target_embedding.weight", "decoder.embed_tokens.weight"),
        *(same(f"encoder.{name}_l{{i}}{way}", f"encoder.lstm.{name}_l{{i}}{way}")
          for name in _LSTM for way in ("", "_reverse")),
        *(same(f"decoder.{{i}}.{name}", f"decoder.layers.{{i}}.{name}") for name in _LSTM),
        *linear("first_hidden", "decoder.encoder_hidden_proj"),
        *linear("first_cell", "decoder.encoder_cell_proj"),
        same("attention_query.weight", "decoder.attention.input_proj.weight"),
        same("attention_output.weight", "decoder.attention.output_proj.weight"),
        *linear("projection", "decoder.additional_fc"),
        *(() if config.tie_output else linear("head", "decoder.fc_out")),
        *((same("head.weight", "decoder.embed_tokens.weight"),) if config.tie_output else ()),
    )  # fmt: skip


def config_from_options(options: Mapping[str, Any], source_vocabulary: int, target_vocabulary: int) -> LSTMConfig:
    """Return the network that fairseq's flat model options describe, missing ones at fairseq's defaults.

    Raises:
        UnsupportedArchitecture: an option asks for what the network cannot do; names it.
    """

    def option(name: str, default: Any) -> Any:
        value = options.get(name)
        return default if value is None else value

    layers = int(option("encoder_layers", 1))
    if int(option("decoder_layers", 1)) != layers:
        raise UnsupportedArchitecture(
            f"fairseq option decoder_layers={options['decoder_layers']} differs from encoder_layers={layers}"
        )
    dropout = float(option("dropout", 0.1))
    embedding = {stack: int(option(f"{stack}_embed_dim", 512)) for stack in ("encoder", "decoder")}
    shared = bool(options.get("share_all_embeddings"))
    return LSTMConfig(
        source_vocabulary=source_vocabulary,
        target_vocabulary=target_vocabulary,
        layers=layers,
        encoder_embedding=embedding["encoder"],
        encoder_hidden=int(option("encoder_hidden_size", embedding["encoder"])),
        bidirectional=bool(options.get("encoder_bidirectional")),
        decoder_embedding=embedding["decoder"],
        decoder_hidden=int(option("decoder_hidden_size", embedding["decoder"])),
        output_dim=int(option("decoder_out_embed_dim", 512)),
        attention=str(option("decoder_attention", "1")).lower() in ("1", "true"),
        share_embeddings=shared,
        tie_output=shared or bool(options.get("share_decoder_input_output_embed")),
        dropout=LSTMDropout(
            **{
                f"{stack}_{long}": float(option(f"{stack}_dropout_{short}", dropout))
                for stack in ("encoder", "decoder")
                for long, short in (("input", "in"), ("output", "out"))
            }
        ),
        max_source_positions=int(option("max_source_positions", 100000)),
        max_target_positions=int(option("max_target_positions", 100000)),
    )


def load_network(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> LSTM:
    """Return the network of an ``lstm`` state dictionary, in float32.

    Raises:
        CheckpointError: the weights do not fit the options.
        UnsupportedArchitecture: there is an adaptive softmax, or an option has no conversion.
    """
    network = LSTM(config_of(options, weights))
    network.load_state_dict(read_weights(rows_of(network.config), weights, network.state_dict(), frozenset()))
    return network


def config_of(options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> LSTMConfig:
    """Return the configuration that options and weights describe together; errors as for ``load_network``."""
    if any(name.startswith("decoder.adaptive_softmax.") for name in weights):
        raise UnsupportedArchitecture(
            "fairseq option criterion='adaptive_loss' (an adaptive softmax) has no conversion"
        )
    try:
        vocabularies = [len(weights[f"{stack}.embed_tokens.weight"]) for stack in ("encoder", "decoder")]
    except KeyError as error:
        raise CheckpointError(f"the checkpoint has no tensor {error}; is it an encoder-decoder?") from None
    return config_from_options(options, *vocabularies)


def save_weights(network: BaseNetwork) -> dict[str, Tensor]:
    """Return fairseq's state dictionary of a network; inverse of ``load_network``.

    Raises:
        CheckpointError: the network is not recurrent.
    """
    if not isinstance(network, LSTM):
        raise CheckpointError(f"family {FAMILY!r}: expected a recurrent network, found a {type(network).__name__}")
    return write_weights(rows_of(network.config), network.state_dict())
