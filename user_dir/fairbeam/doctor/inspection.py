"""Facts for ``fairbeam doctor``: the software, the machine, a network's modules, and the memory it takes.

Everything here measures and returns values; nothing is printed. Memory is measured on a few short sentences
and scaled to the batch asked for, so that a model can be sized on a machine too small to train it.
"""

import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from fairbeam.data.databin import DataBin
from fairbeam.data.indexed import IndexedReader
from fairbeam.doctor.machine import processor
from fairbeam.network import (
    AnyNetwork,
    DecoderOnly,
    DecoderOnlyConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderOnly,
    Generator,
    LSTMConfig,
    Precision,
    Seq2Seq,
    build,
    has_fast_bfloat16,
    tune_memory,
)
from fairbeam.network.adaptive import AdaptiveSoftmax
from fairbeam.network.inference import native
from fairbeam.network.linear import Linear
from fairbeam.network.losses import LossSums, label_smoothed_cross_entropy
from fairbeam.network.lstm import LSTMState

PACKAGES = (
    "fairbeam", "torch", "numpy", "sentencepiece", "sacrebleu", "safetensors",
    "fairseq", "fairseq-fixed", "omegaconf", "hydra-core", "transformers",
)  # fmt: skip
TYPICAL_LENGTH = 32
"""Tokens a sentence has in the memory estimates: subwords of news text. Attention's share grows with it."""

_CPU_FEATURES = ("avx2", "avx512", "avx512_bf16", "vnni", "amx_tile", "amx_fp16", "arm_sve")
_FIRST_WORD = 4  # fairseq's dictionaries begin with four special symbols
_FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One CUDA device."""

    name: str
    memory: int
    """Bytes in all."""
    fast_bfloat16: bool


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is to compute with."""

    processor: str
    cores: int
    """Cores this process may use, which a container can make fewer than there are."""
    threads: int
    """Threads of one torch operation."""
    features: tuple[str, ...]
    """Instruction sets that torch finds, of those that matter to matrix products."""
    fast_bfloat16: bool
    """Whether the CPU multiplies bfloat16 natively."""
    compiled_loops: bool
    """Whether fairbeam was installed with its compiled loops of decoding."""
    compiled_integers: bool
    """Whether they multiply integers on this CPU."""
    memory: int
    """Bytes of main memory this process may use, 0 where the system does not say."""
    tunable_allocator: bool
    """Whether ``tune_memory`` has an effect: glibc's allocator, not replaced through ``LD_PRELOAD``."""
    gpus: tuple[Gpu, ...]

    def automatic_dtype(self, device: str = "cpu") -> torch.dtype:
        """What ``--precision auto`` computes in on ``device``."""
        return Precision.AUTO.resolve(torch.device(device))


@dataclass(frozen=True, kw_only=True)
class ModuleRow:
    """One module of a network, as the dummy input passed through it."""

    name: str
    kind: str
    outputs: tuple[tuple[int, ...], ...]
    """Distinct shapes of its output tensors; empty where ``forward`` was not called."""
    parameters: int
    """Parameters of the module and those below it; a tied weight counts at the first module that holds it."""


@dataclass(frozen=True, kw_only=True)
class NetworkTable:
    """A network module by module."""

    batch: int
    source: int
    """Source tokens of each dummy sentence; ``target`` alike."""
    target: int | None
    rows: tuple[ModuleRow, ...]
    parameters: int
    """Distinct parameters, tied weights once."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Estimated bytes of one training step with Adam, float32 master weights."""

    sentences: int
    length: int
    """Tokens of each sentence on either side."""
    weights: int
    gradients: int
    moments: int
    """Adam's running means of the gradient and of its square."""
    activations: int
    """What the forward pass keeps for the backward pass: the loss and low-precision weights included."""

    @property
    def total(self) -> int:
        """All of them; what one operation needs for a moment comes on top."""
        return self.weights + self.gradients + self.moments + self.activations


@dataclass(frozen=True, kw_only=True)
class DecodingMemory:
    """Estimated bytes of beam search on a batch; each further worker takes ``cache`` and ``scores`` again."""

    sentences: int
    length: int
    """Source tokens of a sentence, and steps decoded."""
    beam: int
    weights: int
    """Prepared for inference: with the copies laid out for the CPU's matrix kernels."""
    cache: int
    """Keys and values of self- and cross-attention, or a recurrent network's states and source."""
    scores: int
    """Float32 log probabilities of one step."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.cache + self.scores


def versions() -> dict[str, str]:
    """Versions of python and of those ``PACKAGES`` that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def import_error(module: str, timeout: float = 300) -> str | None:
    """Why ``import module`` fails in a fresh interpreter, the error's last line; None where it works.

    A subprocess, because an import can crash the interpreter or leave it changed.
    """
    command = [sys.executable, "-P", "-c", f"import {module}"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:.0f} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"the interpreter exited with status {done.returncode}"


def is_installed(module: str) -> bool:
    """Whether there is a top-level module of this name; does not import it."""
    return importlib.util.find_spec(module) is not None


def machine() -> Machine:
    """Describe this machine."""
    return Machine(
        processor=processor(),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        features=tuple(name for name in _CPU_FEATURES if _has_feature(name)),
        fast_bfloat16=has_fast_bfloat16(torch.device("cpu")),
        compiled_loops=native.available(),
        compiled_integers=native.multiplies_integers(),
        memory=_main_memory(),
        tunable_allocator=tune_memory(),
        gpus=tuple(_gpu(number) for number in range(torch.cuda.device_count())),
    )


def split_sizes(folder: str | Path) -> dict[str, int]:
    """Sentences of each split of a sound data folder.

    Raises:
        InputError: the folder is not a data folder, or an index is malformed.
    """
    return {stream.split: len(IndexedReader(stream.prefix)) for stream in DataBin.open(folder).streams}


def describe_network(network: AnyNetwork) -> NetworkTable:
    """Pass a dummy batch through ``network`` and note what comes out of each module.

    Source and target differ in length, so that shapes tell which is which.
    """
    batch = 2
    source = min(11, network.max_source_positions)
    target = min(13, network.max_target_positions) if isinstance(network, Seq2Seq) else None
    shapes: dict[nn.Module, dict[tuple[int, ...], None]] = {}

    def note(module: nn.Module, _: object, output: object) -> None:
        outputs: Iterable[object] = output if isinstance(output, tuple) else (output,)
        tensors = (part.data if isinstance(part, PackedSequence) else part for part in outputs)  # tokens alone
        found = {tuple(part.shape): None for part in tensors if isinstance(part, Tensor)}
        shapes.setdefault(module, {}).update(found)

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    was_training = network.training
    try:
        with torch.inference_mode():
            network.eval()(*(_tokens(network, batch, length) for length in (source, target) if length))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    counts = {name: parameter.numel() for name, parameter in network.named_parameters()}
    rows = tuple(
        ModuleRow(
            name=name, kind=type(module).__name__, outputs=tuple(shapes.get(module, ())),
            parameters=sum(count for parameter, count in counts.items() if parameter.startswith(f"{name}.")),
        )
        for name, module in network.named_modules() if name
    )  # fmt: skip
    return NetworkTable(batch=batch, source=source, target=target, rows=rows, parameters=sum(counts.values()))


def broken_weights(network: AnyNetwork) -> list[str]:
    """Names of the weights that hold NaN or infinity, as a training run that diverged leaves them."""
    return [name for name, weight in network.named_parameters() if not bool(weight.isfinite().all())]


def estimate_training(
    config: EncoderDecoderConfig | DecoderOnlyConfig | LSTMConfig,
    max_tokens: int,
    *,
    dtype: torch.dtype = torch.float32,
    length: int = TYPICAL_LENGTH,
) -> TrainingMemory:
    """Memory of a training step on ``max_tokens`` tokens a side, in sentences of ``length`` tokens.

    What autograd saves is a constant and a part proportional to the number of sentences; two small forward
    passes give both. Layers that ``layer_drop`` may skip are counted.

    Args:
        dtype: what linear layers and attention compute in.
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
    """Bytes that autograd keeps from the forward to the backward pass of a training step, weights aside.

    Args:
        network: in training mode.
        sentences: dummy sentences, each of ``length`` tokens on both sides.
    """
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = _tokens(network, sentences, length)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, _unchanged):
        inputs = (tokens, tokens) if isinstance(network, Seq2Seq) else (tokens,)
        features = network(*inputs, features_only=True).flatten(0, 1)
        # The graph is bound to a name, so that no address is freed and counted for two tensors.
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
    """Memory of beam search on ``max_tokens`` source tokens: sentences of ``length`` that decode to as many.

    One sentence is decoded to that length and its cache, spare capacity included, multiplied.

    Args:
        network: not changed. dtype: what it is made to decode in.
    """
    ready = network.for_inference(dtype)
    sentences, length = _batch_shape(network, max_tokens, length)
    state: Any = ready.prefill(_tokens(network, 1, length), beam)
    for tokens in _tokens(network, length, beam):
        ready.step(state, tokens[None])
    memory: list[Tensor] = []
    if isinstance(ready, EncoderDecoder):
        remembered = ready.cross_attention_cache(*ready.encode(_tokens(network, 1, length)))
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
    # A prompt and what continues it share the positions.
    targets = network.max_target_positions // (2 if isinstance(network, DecoderOnly) else 1)
    length = max(1, min(length, max_tokens, network.max_source_positions, targets))
    return max_tokens // length, length


def _tokens(network: AnyNetwork | Generator, batch: int, length: int) -> Tensor:
    """Dummy ids (batch, length) that either vocabulary has, without padding."""
    config = network.config
    words = min(config.source_vocabulary, config.target_vocabulary)
    ids = torch.arange(batch * length, device=next(network.parameters()).device) % max(1, words - _FIRST_WORD)
    return (ids + min(_FIRST_WORD, words - 1)).view(batch, length)


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def _storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages behind some tensors, each once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    sizes: dict[int, int] = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(sizes.values())


def _inference_bytes(network: Generator) -> int:
    # oneDNN's tensors have no storage to ask.
    packed = [getattr(module, "_packed", None) for module in network.modules()]
    copies: int = sum(tensor.numel() * tensor.element_size() for tensor in packed if tensor is not None)
    return _storage_bytes([*network.parameters(), *network.buffers()]) + copies


def _has_feature(name: str) -> bool:
    # The questions are private in torch and come and go with its versions.
    asked: Callable[[], bool] | None = getattr(torch.cpu, f"_is_{name}_supported", None)
    return asked is not None and bool(asked())


def _main_memory() -> int:
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's share; "max" where there is no limit
    try:
        return min(installed, int(limit.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return installed


def _gpu(number: int) -> Gpu:
    properties = torch.cuda.get_device_properties(number)
    return Gpu(name=properties.name, memory=properties.total_memory,
               fast_bfloat16=has_fast_bfloat16(torch.device("cuda", number)))  # fmt: skip
