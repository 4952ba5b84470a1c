"""Memory that training and decoding take, measured on a few short sentences and scaled to the batch asked for.

A model can so be sized on a machine too small to train it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fairbeam.doctor.modules import dummy_tokens
from fairbeam.network import (
    DecoderOnly,
    DecoderOnlyConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderOnly,
    Generator,
    LSTMConfig,
    Seq2Seq,
    build,
)
from fairbeam.network.adaptive import AdaptiveSoftmax
from fairbeam.network.linear import Linear
from fairbeam.network.losses import LossSums, label_smoothed_cross_entropy
from fairbeam.network.lstm import LSTMState

TYPICAL_LENGTH = 32
"""Tokens per sentence in the memory estimates: subwords of news text. Attention's share grows with it."""
_FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Estimated bytes of one training step with Adam, float32 master weights."""

    sentences: int
    length: int
    """Tokens per sentence on either side."""
    weights: int
    gradients: int
    moments: int
    """Adam's running means of the gradient and of its square."""
    activations: int
    """Tensors that the forward pass keeps for the backward pass, for the loss and in low precision too."""

    @property
    def total(self) -> int:
        """Sum of all; temporary buffers of single operations come on top."""
        return self.weights + self.gradients + self.moments + self.activations


@dataclass(frozen=True, kw_only=True)
class DecodingMemory:
    """Estimated bytes of beam search on a batch; each further worker needs ``cache`` and ``scores`` again."""

    sentences: int
    length: int
    """Source tokens per sentence, and decoding steps."""
    beam: int
    weights: int
    """Weights prepared for inference, copies in the layout of the CPU's matrix kernels included."""
    cache: int
    """Keys and values of self- and cross-attention, or an LSTM's states and encoder output."""
    scores: int
    """Float32 log-probabilities of one step."""

    @property
    def total(self) -> int:
        """Sum of all."""
        return self.weights + self.cache + self.scores


def estimate_training(
    config: EncoderDecoderConfig | DecoderOnlyConfig | LSTMConfig,
    max_tokens: int,
    *,
    dtype: torch.dtype = torch.float32,
    length: int = TYPICAL_LENGTH,
) -> TrainingMemory:
    """Return the memory of a training step on ``max_tokens`` tokens per side, in sentences of ``length`` tokens.

    Tensors that autograd saves are a constant and a part proportional to the number of sentences; two small forward
    passes give both. Layers that ``layer_drop`` may skip are counted.

    Args:
        dtype: compute dtype of linear layers and attention.
    """
    stacks = {name: getattr(config, name) for name in ("encoder", "decoder") if hasattr(config, name)}
    whole = replace(config, **{name: replace(stack, layer_drop=0.0) for name, stack in stacks.items()})
    with torch.random.fork_rng(devices=[]):
        network = build(whole, dtype)
        assert not isinstance(network, EncoderOnly)
        sentences, length = _batch_shape(network, max_tokens, length)
        # Not one sentence: torch may then keep views where any larger batch needs copies.
        two, four = (saved_for_backward(network, count, length) for count in (2, 4))
    weights = sum(parameter.numel() for parameter in network.parameters()) * _FLOAT32_BYTES
    per_sentence = (four - two) / 2
    activations = round(two + (sentences - 2) * per_sentence)
    return TrainingMemory(sentences=sentences, length=length, weights=weights, gradients=weights,
                          moments=2 * weights, activations=activations)  # fmt: skip


def saved_for_backward(network: Generator, sentences: int, length: int) -> int:
    """Return the bytes that autograd keeps from the forward to the backward pass of a training step, weights aside.

    Args:
        network: in training mode.
        sentences: number of dummy sentences, each of ``length`` tokens on both sides.
    """
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = dummy_tokens(network, sentences, length)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, _unchanged):
        inputs = (tokens, tokens) if isinstance(network, Seq2Seq) else (tokens,)
        features = network(*inputs, features_only=True).flatten(0, 1)
        # Keep the graph alive: an address that is freed and used again would count for two tensors.
        _graph = _loss(network, features, tokens.flatten())
    return sum(kept.values())


def _loss(network: Generator, features: Tensor, target: Tensor) -> Tensor | LossSums:
    if isinstance(network.head, AdaptiveSoftmax):
        return network.head.negative_log_likelihood(features, target)
    assert isinstance(network.head, Linear)
    weight, pad = network.head.weight, network.config.pad
    return label_smoothed_cross_entropy(features, weight, target, smoothing=0.1, pad=pad, dtype=network.compute_dtype)


@torch.inference_mode()
def estimate_decoding(
    network: Generator,
    max_tokens: int,
    *,
    beam: int = 5,
    dtype: torch.dtype = torch.float32,
    length: int = TYPICAL_LENGTH,
) -> DecodingMemory:
    """Return the memory of beam search on ``max_tokens`` source tokens, in sentences of ``length`` and outputs as long.

    One sentence is decoded to that length; its cache, spare capacity included, is multiplied.

    Args:
        network: is not changed.
        dtype: dtype to decode in.
    """
    ready = network.for_inference(dtype)
    sentences, length = _batch_shape(network, max_tokens, length)
    state: Any = ready.prefill(dummy_tokens(network, 1, length), beam)
    for tokens in dummy_tokens(network, length, beam):
        ready.step(state, tokens[None])
    memory: list[Tensor] = []
    if isinstance(ready, EncoderDecoder):
        remembered = ready.cross_attention_cache(*ready.encode(dummy_tokens(network, 1, length)))
        memory = [tensor for layer in remembered.layers for tensor in layer if tensor is not None]
    elif isinstance(state, LSTMState):
        source = state.encoding
        memory = [source.states, source.padding_mask, source.order, state.hidden, state.cells, state.feed]
    cache = [layer.storage for layer in state.layers]
    return DecodingMemory(
        sentences=sentences, length=length, beam=beam, weights=_inference_bytes(ready),
        cache=sentences * _storage_bytes([*memory, *cache]),
        scores=sentences * beam * network.config.target_vocabulary * _FLOAT32_BYTES,
    )  # fmt: skip


def _batch_shape(network: Generator, max_tokens: int, length: int) -> tuple[int, int]:
    # A prompt and its continuation share the positions.
    targets = network.max_target_positions // (2 if isinstance(network, DecoderOnly) else 1)
    length = max(1, min(length, max_tokens, network.max_source_positions, targets))
    return max_tokens // length, length


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def _storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages behind tensors, each counted once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    sizes: dict[int, int] = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(sizes.values())


def _inference_bytes(network: Generator) -> int:
    # oneDNN's tensors have no storage.
    packed = [getattr(module, "_packed", None) for module in network.modules()]
    copies: int = sum(tensor.numel() * tensor.element_size() for tensor in packed if tensor is not None)
    return _storage_bytes([*network.parameters(), *network.buffers()]) + copies
