"""Networks of fairseq's models: our own, or converted from stock's."""

import dataclasses
from enum import Enum
from typing import Any, Dict, List

from fairseq.models.bart import BARTModel
from fairseq.models.lstm import LSTMModel
from fairseq.models.transformer import TransformerModel, TransformerModelBase
from fairseq.models.transformer_lm import TransformerLanguageModel

from fairbeam.engine_model import check_fusion_dictionary
from fairbeam.families.fairseq import bart as fairseq_bart
from fairbeam.families.fairseq import language_model as fairseq_lm
from fairbeam.families.fairseq import lstm as fairseq_lstm
from fairbeam.families.fairseq import transformer as fairseq_transformer
from fairbeam.families.fairseq.registry import FairseqFamily
from fairbeam.families.fairseq.transformer import UnsupportedArchitecture
from fairbeam.network import DecoderOnly, Generator
from fairbeam_plugin.models.families import FamilyDecoder
from fairbeam_plugin.models.transformer import FairbeamTransformerModel

# By the class itself: subclasses (NAT, …) compute something else with the same weights.
_FAMILIES: Dict[type, FairseqFamily] = {
    TransformerModel: fairseq_transformer,
    TransformerModelBase: fairseq_transformer,
    BARTModel: fairseq_bart,
    LSTMModel: fairseq_lstm,
}


def network_of(model: Any) -> Generator:
    """Return the network of a fairseq model: its own, or converted from a stock one.

    Raises:
        UnsupportedArchitecture: there is no conversion; names the class or the option.
    """
    if isinstance(model, FairbeamTransformerModel):
        return model.network
    family = _FAMILIES.get(type(model))
    if family is None:
        raise UnsupportedArchitecture(f"{type(model).__name__} has no conversion")
    options = _lstm_options(model) if family is fairseq_lstm else _flat_options(model.cfg)
    return family.load_network(options, {name: t.float() for name, t in model.state_dict().items()})


def language_model_of(model: Any, dictionary: Any) -> DecoderOnly:
    """Return the network of a fairseq language model over the symbols of ``dictionary``.

    Raises:
        ConfigError: it has another dictionary.
        UnsupportedArchitecture: there is no conversion.
    """
    known = getattr(model.decoder, "dictionary", dictionary)
    check_fusion_dictionary(symbols_of(known), symbols_of(dictionary))
    if isinstance(model, FamilyDecoder):
        return model.network
    if type(model) is not TransformerLanguageModel:
        raise UnsupportedArchitecture(f"--lm-path: {type(model).__name__} has no conversion")
    options = {**_flat_options(model.decoder.cfg)}
    options["character_embeddings"] = getattr(model.decoder.args, "character_embeddings", False)
    return fairseq_lm.load_network(options, {name: t.float() for name, t in model.state_dict().items()})


def symbols_of(dictionary: Any) -> List[str]:
    """Return the symbols of a fairseq dictionary in the order of their ids."""
    return [dictionary[i] for i in range(len(dictionary))]


def _lstm_options(model: LSTMModel) -> Dict[str, Any]:
    """Return the options that stock's LSTM was built with, which it does not keep."""
    encoder, decoder = model.encoder, model.decoder
    return {
        "encoder_layers": encoder.num_layers,
        "encoder_embed_dim": encoder.embed_tokens.embedding_dim,
        "encoder_hidden_size": encoder.hidden_size,
        "encoder_bidirectional": encoder.bidirectional,
        "decoder_layers": decoder.num_layers,
        "decoder_embed_dim": decoder.embed_tokens.embedding_dim,
        "decoder_hidden_size": decoder.hidden_size,
        "decoder_out_embed_dim": getattr(getattr(decoder, "additional_fc", None), "out_features", decoder.hidden_size),
        "decoder_attention": decoder.attention is not None,
        "share_decoder_input_output_embed": decoder.share_input_output_embed,
        "share_all_embeddings": encoder.embed_tokens is decoder.embed_tokens,
        "max_source_positions": encoder.max_source_positions,
        "max_target_positions": decoder.max_target_positions,
    }


def _flat_options(cfg: Any) -> Dict[str, Any]:
    """Return nested options flat, ``cfg.encoder.embed_dim`` as ``encoder_embed_dim``, as conversions expect."""
    flat: Dict[str, Any] = {}
    for name, value in vars(cfg).items():
        if dataclasses.is_dataclass(value):
            flat.update({f"{name}_{inner}": content for inner, content in vars(value).items()})
        else:
            flat[name] = value.value if isinstance(value, Enum) else value
    return flat
