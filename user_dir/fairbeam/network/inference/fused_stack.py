"""Layers as the compiled loops run them in one call: what calls and small tensors cost between their parts is saved.

They compute what ``Layer.forward`` does, for the layers that most models have: plain attention, layer norms, a
feed-forward block without a gate, and linear layers in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor

from fairbeam.network.attention import SelfAttention
from fairbeam.network.cache import BeamSlots, CrossAttentionCache, CrossKeyValues, KeyValues
from fairbeam.network.decoder_state import DecoderState
from fairbeam.network.inference import native
from fairbeam.network.inference.quantized_linear import QuantizedLinear, symbols
from fairbeam.network.linear import Linear

if TYPE_CHECKING:
    from fairbeam.network.embedding import Embedding
    from fairbeam.network.layer import Layer
    from fairbeam.network.norm import LayerNorm

_HEAD_WIDTHS = {16, 32, 64, 80, 96, 128}
"""Of which attention is written in whole vectors."""


class Hypotheses(NamedTuple):
    """Those of a batch, as a search in one call continues them."""

    tokens: Tensor
    """(batch, beams, room) long, the start symbol first."""
    totals: Tensor
    """(batch, beams) float32: the log probability of each."""
    history: Tensor
    """(batch, beams, room - 1) float32: the totals after each token."""
    ignored: Tensor
    """(batch, beams) bool: places left empty because too few could go on."""
    filled: int
    """How many tokens there are, the start symbol included."""


class Scorer:
    """What surrounds the layers: vectors of tokens and places before them, a norm and scores of symbols behind."""

    def __init__(
        self, embedding: Embedding, norm: LayerNorm | None, head: QuantizedLinear, exact: Tensor, offset: int, last: int
    ) -> None:
        """Tensors must outlive it and not change.

        Args:
            embedding: of which ``plain_table`` is there.
            norm: behind the layers.
            head: a whole layer of bytes.
            exact: what it was rounded from.
            offset: the row of ``plain_table`` for the first token.
            last: the last position; later tokens get its vector.
        """
        assert embedding.plain_table is not None
        assert head.compiled is not None
        self._norm = None if norm is None else _norm(norm)
        self._kept = embedding.weight, embedding.plain_table, exact, norm, head
        self.addresses = (
            *(tensor.data_ptr() for tensor in self._kept[:3]),
            None if self._norm is None else native.address(self._norm),
            native.address(head.compiled),
        )
        """As ``native.Search`` begins."""
        self.offset, self.last, self.scale = offset, last, embedding.scale

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # it never changes, and holds addresses


class FusedStack:
    """Layers for inference; their modules must outlive them and not change."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        """Layers for all of which ``compilable`` holds."""
        self._structures = [_structure(layer) for layer in layers]
        self._layers = native.pointers(*map(native.address, self._structures))
        self._places: tuple[Any, Tensor, tuple[Any, ...]] | None = None
        """Where the memory and the caches of the latest step are, and their addresses; the next step has the same."""

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # it never changes, and holds addresses

    def step(self, x: Tensor, caches: Sequence[KeyValues], slots: BeamSlots, memory: CrossAttentionCache) -> Tensor:
        """The latest tokens of all beams, (batch, beams, dim) float32 to the same; ``caches`` grow."""
        out = x.clone(memory_format=torch.contiguous_format)
        numbers = slots.table.contiguous()
        starts = [0 if slots.starts is not None else cache.reserve(x.size(1)) for cache in caches]
        step = self._step(caches, slots.rows, memory, x.size(1))
        step.slots, step.steps, step.start = numbers.data_ptr(), numbers.size(2), starts[0]
        step.starts = None if slots.starts is None else slots.starts.data_ptr()
        native.function("decoder_layers")(out.data_ptr(), native.address(self._layers), native.address(step))
        return out

    def search(
        self,
        state: DecoderState,
        scorer: Scorer,
        hypotheses: Hypotheses,
        closed: Sequence[int],
        eos: int,
        most: int,
        narrowed: native.Narrowed | None = None,
    ) -> tuple[int, tuple[Tensor, Tensor, Tensor]]:
        """Steps of beam search until one of a sentence's first candidates ends.

        Args:
            state: of which ``may_go_ahead`` holds; steps are added.
            scorer: what embeds tokens and scores symbols.
            hypotheses: changed in place: they are continued at all steps but the last.
            closed: symbols that may not follow.
            eos: the symbol that ends.
            most: steps at most.
            narrowed: says which symbols tokens and scores are, where they are columns.

        Returns:
            How many steps were made, and totals, parents and tokens of the last one's candidates, each
            (batch, 2 beams), the best first.
        """
        assert state.memory is not None
        batch, beams, room = hypotheses.tokens.shape
        begun = state.steps
        most, histories = state.open_ahead(most)
        sums = hypotheses.totals.new_empty(batch, 2 * beams)
        parents, tokens = (hypotheses.tokens.new_empty(batch, 2 * beams) for _ in range(2))
        columns = symbols(tuple(closed))
        search = native.Search(
            *scorer.addresses, None if narrowed is None else native.address(narrowed),
            *(tensor.data_ptr() for tensor in hypotheses[:-1]), histories.data_ptr(), columns.data_ptr(),
            sums.data_ptr(), parents.data_ptr(), tokens.data_ptr(),
            room, hypotheses.filled, len(closed), eos, most,
            begun + scorer.offset, scorer.last + scorer.offset, scorer.scale,
        )  # fmt: skip
        step = self._step(state.layers, state.rows, state.memory, beams)
        step.steps = begun
        made = native.function("search")(native.address(self._layers), native.address(step), native.address(search))
        state.close_ahead(made, histories)
        return made, (sums, parents, tokens)

    def _step(self, caches: Sequence[KeyValues], rows: Tensor, memory: CrossAttentionCache, beams: int) -> native.Step:
        """What a step reads, but for its slots."""
        _, sentences, _, capacity, _ = caches[0].storage.shape
        kept: Any = memory.layers
        if self._places is None or self._places[0] is not kept or self._places[1] is not caches[0].storage:
            arrays = (
                native.pointers(*(cache.storage.data_ptr() for cache in caches)),
                native.pointers(*(layer.keys.data_ptr() for layer in kept)),
                native.pointers(*(layer.values.data_ptr() for layer in kept)),
            )
            self._places = kept, caches[0].storage, arrays
        return native.Step(
            *map(native.address, self._places[2]), None, rows.data_ptr(), kept[0].rows.data_ptr(), None,
            None if memory.mask is None else memory.mask.data_ptr(),
            len(caches), len(rows), beams, sentences, capacity, 0, 0, kept[0].keys.size(1),
        )  # fmt: skip

    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Whole sequences, (batch, length, dim) float32 to the same; ``mask`` is (batch * heads, 1, length)."""
        out = x.clone(memory_format=torch.contiguous_format)
        batch, length, _ = out.shape
        numbers = torch.arange(batch)
        native.function("encoder_layers")(
            out.data_ptr(), native.address(self._layers), None if mask is None else mask.data_ptr(),
            numbers.data_ptr(), len(self._structures), batch, length,
        )  # fmt: skip
        return out


def compilable(layer: Layer) -> bool:
    """Whether the loops have all parts of a layer that is packed for inference."""
    attention, crossed = layer.self_attention, getattr(layer, "cross_attention", None)
    if layer.is_gated or type(attention) is not SelfAttention or attention.distances is not None:
        return False
    linears: list[Linear] = [attention.qkv, attention.output, layer.inner, layer.outer]
    residuals = [layer.self_attention_residual, layer.feed_forward_residual]
    if crossed is not None:
        linears += [crossed.query, crossed.output]
        residuals.append(layer.cross_attention_residual)
    return (
        attention.group == 1
        and attention.output.inputs // attention.heads in _HEAD_WIDTHS
        and all(residual.normalises_layers for residual in residuals)
        and all(linear.integers is not None and linear.integers.whole for linear in linears)
    )


def readable(memory: CrossAttentionCache | None) -> bool:
    """Whether the loops can read what the encoder left."""
    first = None if memory is None else memory.layers[0]
    return isinstance(first, CrossKeyValues) and first.rows is not None


def _structure(layer: Layer) -> native.Layer:
    attention = layer.self_attention
    linears = {"qkv": attention.qkv, "output": attention.output, "inner": layer.inner, "outer": layer.outer}
    norms = {"self_norm": layer.self_attention_residual, "feed_forward_norm": layer.feed_forward_residual}
    scales = {"self_scale": attention.scale}
    if hasattr(layer, "cross_attention"):
        crossed = layer.cross_attention
        linears |= {"query": crossed.query, "cross_output": crossed.output}
        norms |= {"cross_norm": layer.cross_attention_residual}
        scales |= {"cross_scale": crossed.scale}
    addresses: dict[str, Any] = {}
    for name, linear in linears.items():
        assert linear.integers is not None
        assert linear.integers.compiled is not None
        addresses[name] = native.address(linear.integers.compiled)
    return native.Layer(
        **addresses,
        **{name: _norm(residual.norm) for name, residual in norms.items()},
        **scales,
        heads=attention.heads,
        width=attention.output.inputs // attention.heads,
        norm_before=layer.self_attention_residual.before,
    )


def _norm(norm: Any) -> native.Norm:
    bias = None if norm.bias is None else norm.bias.data_ptr()
    return native.Norm(norm.weight.data_ptr(), bias, norm.epsilon)
