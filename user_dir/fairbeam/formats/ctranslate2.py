"""Folders for CTranslate2, written through the package's own specification of a Transformer.

The package ``ctranslate2`` is optional and is imported when something is written or decoded.
"""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fairbeam.errors import ConfigError
from fairbeam.files import atomic_folder, check_replaceable
from fairbeam.model import Bundle
from fairbeam.network import (
    Activation,
    EncoderDecoder,
    EncoderDecoderConfig,
    NormKind,
    NormPlacement,
    PositionKind,
    StackConfig,
)
from fairbeam.network.embedding import Embedding
from fairbeam.network.layer import Layer
from fairbeam.network.norm import RMSNorm
from fairbeam.network.stack import Stack
from fairbeam.text import TextSide, Tokenizer

MODEL, CONFIG = "model.bin", "config.json"

_FORBIDDEN = -1e9
"""Bias on the logit of padding, which our search masks and CTranslate2's does not."""

_ACTIVATIONS = {
    Activation.RELU: "RELU",
    Activation.GELU: "GELU",
    Activation.GELU_TANH: "GELUTanh",
    Activation.SILU: "SWISH",
    Activation.TANH: "Tanh",
}
_ABSOLUTE = {PositionKind.SINUSOIDAL, PositionKind.SINUSOIDAL_OPEN, PositionKind.LEARNED, PositionKind.NONE}

# Our modules of a layer and the parts of their specification of one.
_LAYER = (
    ("self_attention.qkv", "self_attention.linear.0"),
    ("self_attention.output", "self_attention.linear.1"),
    ("self_attention_residual.norm", "self_attention.layer_norm"),
    ("cross_attention.query", "attention.linear.0"),
    ("cross_attention.key_value", "attention.linear.1"),
    ("cross_attention.output", "attention.linear.2"),
    ("cross_attention_residual.norm", "attention.layer_norm"),
    ("inner", "ffn.linear_0"),
    ("gate", "ffn.linear_0"),
    ("gated", "ffn.linear_0_noact"),
    ("outer", "ffn.linear_1"),
    ("feed_forward_residual.norm", "ffn.layer_norm"),
)


def is_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder of CTranslate2's."""
    return (path / MODEL).is_file() and (path / CONFIG).is_file()


def library(name: str = "ctranslate2") -> Any:
    """Import a module of the package.

    Raises:
        ConfigError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError("CTranslate2 is not installed; expected: pip install 'fairbeam[ct2]'") from None


def write(folder: Path, model: Bundle, *, overwrite: bool = False) -> None:
    """Write a model's folder: its weights in float32, its vocabularies, and its tokenizer's files beside them.

    Raises:
        ConfigError: ``folder`` exists, and is not one of the kind or is not to be replaced; the model has no
            tokenizer, a target language that has yet to be chosen, or something in it that the specification has no
            place for, which is named.
        InputError: the folder cannot be written.
    """
    check_replaceable(folder, overwrite=overwrite, kind="a folder of CTranslate2's", is_kind=is_folder)
    spec = specification(model)
    with atomic_folder(folder, replace=overwrite) as building:
        spec.save(str(building))
        for side in (model.source, model.target):
            if side is not None:
                side.save(building)


def specification(model: Bundle) -> Any:
    """Return a ``TransformerSpec`` with the model's weights; errors as for ``write``."""
    network = encoder_decoder(model)
    config = network.config
    _check(config)
    specs = library("ctranslate2.specs.transformer_spec")
    source, target = vocabularies(model)
    encoder = specs.TransformerEncoderSpec(**_stack_options(config.encoder))
    decoder = specs.TransformerDecoderSpec(**_stack_options(config.decoder))
    spec = specs.TransformerSpec(encoder, decoder)
    with torch.no_grad():
        _fill_stack(encoder, encoder.embeddings[0], network.source_embedding, network.encoder, config.encoder)
        _fill_stack(decoder, decoder.embeddings, network.target_embedding, network.decoder, config.decoder)
        decoder.projection.weight = _array(network.head.weight)
        bias = torch.zeros(config.target_vocabulary) if network.head.bias is None else network.head.bias.clone()
        if config.pad >= 0:
            bias[config.pad] = _FORBIDDEN
        decoder.projection.bias = _array(bias)
    if config.decoder.scale_features:
        decoder.scale_outputs = np.float32(config.decoder.dim**-0.5)
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    _describe(spec.config, model, source, target)
    spec.validate()
    spec.optimize(quantization=None)
    return spec


def encoder_decoder(model: Bundle) -> EncoderDecoder:
    """Return the network, if it is an encoder-decoder.

    Raises:
        ConfigError: it is of another kind.
    """
    if not isinstance(model.network, EncoderDecoder):
        raise ConfigError(f"a model of family {model.family!r} is no encoder-decoder; ct2: writes those alone")
    return model.network


def vocabularies(model: Bundle) -> tuple[list[str], list[str]]:
    """Return a unique name for every row of the embeddings, source and target.

    Raises:
        ConfigError: the model has no tokenizer.
    """
    config = model.network.config
    if model.source is None or model.target is None:
        raise ConfigError("the model has no tokenizer, and CTranslate2 wants names for ids; expected a tokenizer")
    return _names(model.source, config.source_vocabulary), _names(model.target, config.target_vocabulary)


def closes_itself(model: Bundle) -> bool:
    """Return whether CTranslate2 has to add ``</s>`` to a source: fairseq's pieces come without it."""
    return isinstance(model.source, Tokenizer) and model.source.closing == 1


def _names(side: TextSide, rows: int) -> list[str]:
    known = side.symbols(range(min(rows, len(side))))
    last = {name: row for row, name in enumerate(known)}  # text becomes the later of two rows
    found = [name if name and last[name] == row else f"<unused{row}>" for row, name in enumerate(known)]
    return [*found, *(f"<unused{row}>" for row in range(len(found), rows))]


def _check(config: EncoderDecoderConfig) -> None:
    for name, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        kind, epsilon = stack.positions.kind, config.encoder.norm_epsilon
        both_ways, buckets = stack.positions.bidirectional, kind is PositionKind.RELATIVE_BUCKETS
        pre_norm = stack.norm_placement is NormPlacement.PRE
        wanting = (
            ("activation", stack.activation, stack.activation in _ACTIVATIONS),
            ("positions.kind", kind, kind in _ABSOLUTE or buckets),
            ("positions.bidirectional", both_ways, not buckets or both_ways == (name == "encoder")),
            ("norm_epsilon", stack.norm_epsilon, stack.norm_epsilon == epsilon),
            ("final_norm", stack.final_norm, pre_norm or not stack.final_norm),
            ("key_value_heads", stack.key_value_heads, stack.num_kv_heads == stack.heads),
            ("embedding_dim", stack.embedding_dim, stack.embedding_dim is None),
            ("transform", stack.transform, stack.transform is None),
            ("token_types", stack.token_types, not stack.token_types),
            ("scale_features", stack.scale_features, name == "decoder" or not stack.scale_features),
        )
        for part, value, has_place in wanting:
            if not has_place:
                raise ConfigError(f"network.{name}.{part} is {value}, which CTranslate2 has no place for")


def _stack_options(stack: StackConfig) -> dict[str, Any]:
    activations = library("ctranslate2.specs.common_spec").Activation
    return {
        "num_layers": stack.layers,
        "num_heads": stack.heads,
        "pre_norm": stack.norm_placement is NormPlacement.PRE,
        "no_final_norm": not stack.final_norm,
        "activation": activations[_ACTIVATIONS[stack.activation]],
        "layernorm_embedding": stack.embedding_norm,
        "relative_attention_bias": stack.positions.kind is PositionKind.RELATIVE_BUCKETS,
        "ffn_glu": stack.gated,
        "rms_norm": stack.norm is NormKind.RMS,
        "head_dim": None if stack.head_dim_resolved * stack.heads == stack.dim else stack.head_dim_resolved,
    }


def _fill_stack(spec: Any, embeddings: Any, embedding: Embedding, stack: Stack, config: StackConfig) -> None:
    embeddings.weight = _array(embedding.weight)
    spec.scale_embeddings = embedding.scale
    pairs: list[tuple[Any, nn.Module | None]] = [
        (getattr(spec, "layer_norm", None), stack.final_norm),
        (getattr(spec, "layernorm_embedding", None), embedding.norm),
    ]
    for part, layer in zip(spec.layer, stack.in_order(), strict=True):
        pairs += _layer_pairs(part, layer)
    for part, module in pairs:
        if module is not None:
            _fill(part, module)
    positions = config.positions
    if positions.kind in _ABSOLUTE:
        spec.position_encodings.encodings = _array(_position_table(embedding, config))
    for part in spec.layer:
        if stack.relative is not None:
            part.self_attention.relative_attention_bias = _array(stack.relative.weight)
            part.self_attention.relative_attention_max_distance = np.int32(positions.max_distance)
        if config.attention_scale is not None:
            for attention in (part.self_attention, getattr(part, "attention", None)):
                if attention is not None:
                    attention.queries_scale = np.float32(config.attention_scale)


def _layer_pairs(spec: Any, layer: Layer) -> Iterator[tuple[Any, nn.Module]]:
    modules = dict(layer.named_modules())
    for ours, theirs in _LAYER:
        if ours in modules:
            part = spec
            for name in theirs.split("."):
                part = part[int(name)] if name.isdigit() else getattr(part, name)
            yield part, modules[ours]


def _fill(spec: Any, module: nn.Module) -> None:
    """Fill in the weights of a linear layer or a norm."""
    weight, bias = module.weight, getattr(module, "bias", None)
    assert isinstance(weight, Tensor)
    if not hasattr(spec, "gamma"):
        spec.weight = _array(weight)
        if bias is not None:
            spec.bias = _array(bias)
        return
    spec.gamma = _array(weight)
    if not isinstance(module, RMSNorm):
        spec.beta = _array(torch.zeros_like(weight) if bias is None else bias)


def _position_table(embedding: Embedding, config: StackConfig) -> Tensor:
    """Return the position table from the first position on: zeros for none, where CTranslate2 would add sinusoids."""
    if embedding.positions is None:
        return torch.zeros(config.positions.max_positions, config.dim)
    learned, table = getattr(embedding.positions, "weight", None), getattr(embedding.positions, "table", None)
    found = learned if table is None else table
    assert isinstance(found, Tensor)
    return found[config.positions.offset :]


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _describe(config: Any, model: Bundle, source: Sequence[str], target: Sequence[str]) -> None:
    network, (start, _) = encoder_decoder(model).config, model.decoder_prefix()
    config.decoder_start_token = target[encoder_decoder(model).decoder_start if start is None else start]
    unknown = model.target.unk if model.target is not None and model.target.unk is not None else network.unk
    config.unk_token = target[min(unknown, len(target) - 1)]
    config.bos_token, config.eos_token = target[network.bos], target[network.eos]
    config.add_source_eos = closes_itself(model)
    config.layer_norm_epsilon = network.encoder.norm_epsilon


class Decoded:
    """A folder of CTranslate2's as a model of ids, comparable to the model it was made of."""

    def __init__(self, folder: Path, model: Bundle) -> None:
        """Load the folder; ``model`` gives the names of ids, and whether sources end with ``</s>``."""
        self._translator = library().Translator(
            str(folder), device="cpu", compute_type="float32", inter_threads=1, intra_threads=1
        )
        self._source, self._target = vocabularies(model)
        self._ids = {name: row for row, name in enumerate(self._target)}
        self._closes = closes_itself(model)

    def log_probabilities(self, sources: list[list[int]], targets: list[list[int]]) -> list[list[float]]:
        """Return log-probabilities (nats) of all tokens of targets that end with ``</s>``."""
        found = self._translator.score_batch(
            self._tokens(sources), [[self._target[i] for i in row[:-1]] for row in targets]
        )
        return [each.log_probs for each in found]

    def search(self, sources: list[list[int]], beam: int, longest: int, first: int | None) -> list[list[int]]:
        """Return the best output of each source, without ``</s>``.

        Args:
            sources: rows of ids.
            beam: beam size.
            longest: maximum number of output tokens.
            first: first token of every output, if any.
        """
        found = self._translator.translate_batch(
            self._tokens(sources),
            target_prefix=None if first is None else [[self._target[first]] for _ in sources],
            beam_size=beam,
            min_decoding_length=0,
            max_decoding_length=longest,
            length_penalty=1.0,
        )
        return [[self._ids[token] for token in each.hypotheses[0]] for each in found]

    def _tokens(self, sources: list[list[int]]) -> list[list[str]]:
        return [[self._source[i] for i in (row[:-1] if self._closes else row)] for row in sources]
