"""Output projections of networks for inference: rounded ones with the weights they were rounded from, native ones."""

import copy
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.errors import ConfigError
from fairbeam.network.adaptive import AdaptiveSoftmax
from fairbeam.network.decoder_state import DecoderState
from fairbeam.network.inference import structs
from fairbeam.network.inference.prepare import BaseNetwork
from fairbeam.network.inference.quantized_linear import qmax_for
from fairbeam.network.inference.shortlist_head import ShortlistHead
from fairbeam.network.linear import Linear


@dataclass(frozen=True)
class RoundedHead:
    """An output projection in less than float32, with the weight it was rounded from.

    A bfloat16 product rounds logits of 10 to steps of 1/16, wider than many a gap between the best tokens.
    """

    layer: Linear
    exact_weight: Tensor
    """(vocabulary, dim) float32."""
    exact_bias: Tensor | None
    """(vocabulary,) float32."""
    token_ids: Tensor | None = None
    """(columns,) token ids of the layer's outputs; None if outputs are ids."""

    @property
    def needs_logits(self) -> bool:
        """Whether ``logit_delta`` reads the logits that were computed: integer layers know what they rounded."""
        return not self.layer.in_integers

    def logit_delta(self, features: Tensor, logits: Tensor | None, rows: Tensor, outputs: Tensor) -> Tensor:
        """Return exact minus computed logits of a few outputs.

        Args:
            features: (batch, beams, dim) inputs of the projection; one beam if all are equal.
            logits: (batch, beams, outputs) that the projection computed, if ``needs_logits``.
            rows: (batch, count), the beam of each.
            outputs: (batch, count), the projection's output.

        Returns:
            (batch, count) float32.
        """
        ids = outputs if self.token_ids is None else self.token_ids[outputs]
        if self.layer.integers is not None:
            return self.layer.integers.output_delta(features, self.exact_weight, rows, outputs, ids)
        assert logits is not None
        sentences = torch.arange(len(rows), device=rows.device).unsqueeze(1)
        features = features.expand(-1, logits.size(1), -1)
        exact = (F.embedding(ids, self.exact_weight) * features[sentences, rows]).sum(-1)
        if self.exact_bias is not None:
            exact = exact + self.exact_bias[ids]
        return exact - logits[sentences, rows, outputs]


class NativeHead:
    """An 8-bit output projection as the native library reads it."""

    def __init__(self, rounded: RoundedHead, head: Linear | ShortlistHead) -> None:
        """Take a projection that ``supports`` accepts."""
        assert rounded.layer.integers is not None
        assert rounded.layer.integers.struct is not None
        self._kept = rounded, head  # their tensors must outlive the struct
        self.struct = structs.OutputProjection(
            layer=rounded.layer.integers.struct.address, exact_weight=rounded.exact_weight.data_ptr()
        )

    @staticmethod
    def supports(rounded: RoundedHead | None, head: nn.Module) -> bool:
        """Return whether the native library computes this projection and what it was rounded from."""
        if rounded is None or not isinstance(head, Linear | ShortlistHead):
            return False
        if isinstance(head, ShortlistHead) and not head.fully_native:
            return False
        layer = rounded.layer.integers
        return layer is not None and layer.fully_native and layer.qmax == qmax_for(layer.inputs, torch.int8)

    def shortlist_columns(self, added: Tensor | None) -> structs.ShortlistColumns | None:
        """Return the columns of a shortlist's projection; None without a shortlist.

        ``added``: (batch, 1, columns) float32, added to the logits; it must outlive the struct.
        """
        rounded, head = self._kept
        if not isinstance(head, ShortlistHead):
            return None
        assert added is not None
        assert rounded.token_ids is not None
        assert head.tail_moments.integers is not None
        assert head.tail_moments.integers.struct is not None
        return structs.ShortlistColumns(
            token_ids=rounded.token_ids.data_ptr(),
            added=added.data_ptr(),
            tail_moments=head.tail_moments.integers.struct.address,
        )

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self  # it never changes, and holds addresses


class DecodingNetwork(BaseNetwork):
    """Base class of networks that predict the next token."""

    head: Linear | AdaptiveSoftmax | ShortlistHead
    has_head: bool = True
    rewinds: bool = False
    """Whether ``forward_block`` runs several tokens of a sentence at a time, and overwrites tokens that were run."""
    rounded_head: RoundedHead | None = None
    """The output projection of a network for inference in less than float32."""
    native_head: NativeHead | None = None
    """The same if the native library computes it."""
    _tied: bool = False
    """Whether the output projection of a network for inference is an embedding."""

    def for_inference(self, dtype: torch.dtype) -> Self:
        network = super().for_inference(dtype)
        if not self.has_head or not isinstance(self.head, Linear):
            return network
        network._tied = self.head.weight is self._output_embedding()
        if dtype != torch.float32:
            exact = (network._output_embedding() if network._tied else self.head.weight).detach()
            bias = None if self.head.bias is None else self.head.bias.detach()
            assert isinstance(network.head, Linear)
            network._set_rounded_head(RoundedHead(network.head, exact.contiguous(), bias))
        return network

    def with_head(self, head: ShortlistHead, layer: Linear, token_ids: Tensor) -> Self:
        """Return this network with another output projection; all else is shared.

        Args:
            head: the projection.
            layer: the part of it that computes logits.
            token_ids: (columns,) the tokens of the logits.
        """
        other = copy.copy(self)
        other._modules = {**self._modules, "head": head}
        if (rounded := self.rounded_head) is not None:
            other._set_rounded_head(RoundedHead(layer, rounded.exact_weight, rounded.exact_bias, token_ids))
        return other

    def _set_rounded_head(self, rounded: RoundedHead) -> None:
        self.rounded_head = rounded
        head: Any = self.head
        self.native_head = NativeHead(rounded, head) if NativeHead.supports(rounded, head) else None

    def output_projection(self) -> tuple[Tensor, Tensor | None]:
        """Return weight (vocabulary, dim) and bias of the output projection, as exact as they are kept.

        Raises:
            ConfigError: the output is an adaptive softmax, or there is none.
        """
        if not self.has_head or not isinstance(self.head, Linear):
            raise ConfigError("the model has no plain output projection; expected one, to score a part of its symbols")
        if self.rounded_head is not None:
            return self.rounded_head.exact_weight, self.rounded_head.exact_bias
        return self._output_embedding() if self._tied else self.head.unpacked(), self.head.bias

    def features_of_step(self, state: Any, tokens: Tensor) -> Tensor:
        """Return the output projection's input at a step, (batch, beams, dim), of one beam where all are equal."""
        raise NotImplementedError

    def _packed_dtype(self, linear: Linear, dtype: torch.dtype) -> torch.dtype:
        # The best tokens' logits are corrected (RoundedHead), so that the output projection may have 8 bits.
        return torch.int8 if dtype is torch.int16 and linear is self.head else dtype

    def _scores(self, state: DecoderState, features: Tensor) -> Tensor:
        """Return float32 logits (batch, beams, vocabulary) of the decoder's features of the latest tokens."""
        logits = self.head(features).float()
        needed = self.rounded_head is not None and self.rounded_head.needs_logits
        state.latest = features, logits if needed else None
        return logits.expand(-1, state.beams, -1)

    @property
    def _output(self) -> Linear:
        """The layer that computes logits."""
        layer = self.head.selected if isinstance(self.head, ShortlistHead) else self.head
        assert isinstance(layer, Linear)
        return layer

    def _output_embedding(self) -> Tensor:
        """Return the embedding that a tied output projection shares."""
        raise NotImplementedError
