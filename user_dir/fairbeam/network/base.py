"""What networks of every shape have in common: the precision they compute in, and scores that decoding can trust."""

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.errors import ConfigError
from fairbeam.network.adaptive import AdaptiveSoftmax
from fairbeam.network.attention import CrossAttention, SelfAttention
from fairbeam.network.decoder_state import DecoderState
from fairbeam.network.heads import ShortlistHead
from fairbeam.network.inference import native
from fairbeam.network.inference.fused_stack import Hypotheses, Scorer
from fairbeam.network.inference.quantized_linear import qmax_for
from fairbeam.network.linear import Linear
from fairbeam.network.stack import Stack


class BaseNetwork(nn.Module):
    """Linear layers and attention compute in ``compute_dtype``; the residual stream, the norms and the weights are
    float32 (the weights until ``for_inference``)."""

    compute_dtype: torch.dtype
    attention_dtype: torch.dtype
    compiled: bool = False
    """Whether decoding steps attend through ``ops``."""

    def for_inference(self, dtype: torch.dtype) -> Self:
        """An untrainable copy with weights in ``dtype``, laid out for the machine's matrix kernels.

        int8 and int16 are for CPUs: ``Precision.resolve`` refuses them elsewhere.
        """
        network = copy.deepcopy(self).eval().requires_grad_(False)
        # MKL's small float32 products beat oneDNN's in bfloat16, which compiles a kernel for every length.
        computing = torch.float32 if dtype in (torch.int8, torch.int16) else dtype
        network._set_compute_dtype(computing, torch.float32 if self._on_cpu() else dtype)
        linears = [module for module in network.modules() if isinstance(module, Linear)]
        if self._on_cpu():
            network.compiled = native.available()
            for module in network.modules():
                if isinstance(module, CrossAttention) and computing is dtype:
                    module.keep_exact_()
        for linear in linears:
            linear.pack_(network._packed_in(linear, dtype))
        for module in network.modules():
            if isinstance(module, Stack):
                module.compile_()
        return network

    def _packed_in(self, linear: Linear, dtype: torch.dtype) -> torch.dtype:
        """What a layer is packed in where the network is asked for ``dtype``."""
        return dtype

    def _set_compute_dtype(self, dtype: torch.dtype, attention_dtype: torch.dtype) -> None:
        self.compute_dtype, self.attention_dtype = dtype, attention_dtype
        for module in self.modules():
            if isinstance(module, Linear):
                module.compute_dtype = dtype
            elif isinstance(module, SelfAttention | CrossAttention):
                module.attention_dtype = attention_dtype

    def _on_cpu(self) -> bool:
        return next(self.parameters()).device.type == "cpu"


class DecodingNetwork(BaseNetwork):
    """A network that predicts the next token."""

    head: Linear | AdaptiveSoftmax | ShortlistHead
    has_head: bool = True
    rewinds: bool = False
    """Whether ``read`` takes several tokens of a sentence at a time, and goes back behind tokens it has read."""
    _exact_head: Tensor | None = None
    _exact_bias: Tensor | None = None
    _columns: Tensor | None = None
    """(columns,) the symbols that the output projection scores, if not all in their order."""
    _tied: bool = False
    """Whether the output projection of a network for inference is an embedding."""
    _scorer: Scorer | None = None
    """What surrounds the layers, where a whole step runs in one call."""

    def for_inference(self, dtype: torch.dtype) -> Self:
        network = super().for_inference(dtype)
        if not self.has_head or not isinstance(self.head, Linear):
            return network
        network._tied = self.head.weight is self._output_embedding()
        if dtype != torch.float32:
            network._exact_head = (network._output_embedding() if network._tied else self.head.weight).detach()
            network._exact_bias = None if self.head.bias is None else self.head.bias.detach()
        return network

    def _packed_in(self, linear: Linear, dtype: torch.dtype) -> torch.dtype:
        # Of the output projection, ``rounding`` gives back what 8 bits take from the symbols that count.
        return torch.int8 if dtype is torch.int16 and linear is self.head else dtype

    def output_projection(self) -> tuple[Tensor, Tensor | None]:
        """Weight (vocabulary, dim) and bias of the output projection, as exact as they are kept.

        Raises:
            ConfigError: the output is an adaptive softmax, or there is none.
        """
        if not self.has_head or not isinstance(self.head, Linear):
            raise ConfigError("the model has no plain output projection; expected one, to score a part of its symbols")
        if self._exact_head is not None:
            return self._exact_head, self._exact_bias
        return self._output_embedding() if self._tied else self.head.unpacked(), self.head.bias

    def with_head(self, head: nn.Module, symbols: Tensor) -> Self:
        """This network with another output projection, whose columns are ``symbols``, (n,) ids; all else is shared."""
        other = copy.copy(self)
        other._modules = {**self._modules, "head": head}
        other._columns, other._scorer = symbols, None
        return other

    def rounding(self, state: DecoderState, beams: Tensor, tokens: Tensor) -> Tensor | None:
        """What rounding took from the logits of the step just made, for a few tokens of a few beams.

        A bfloat16 product rounds logits of 10 to steps of 1/16, wider than many a gap between the best tokens.

        Args:
            state: what ``step`` left.
            beams: (batch, count) numbers of beams.
            tokens: (batch, count) ids.

        Returns:
            Float32 (batch, count) to be added to the logits; None where they are float32 already.
        """
        if state.latest is None or self._exact_head is None:
            return None
        ids = tokens if self._columns is None else self._columns[tokens]
        if state.latest[1] is None:
            return self._output.rounding(state.latest[0], self._exact_head, beams, tokens, ids)
        features, logits = (tensor.expand(-1, state.beams, -1) for tensor in state.latest if tensor is not None)
        sentences = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        exact = (F.embedding(ids, self._exact_head) * features[sentences, beams]).sum(-1)
        if self._exact_bias is not None:
            exact = exact + self._exact_bias[ids]
        return exact - logits[sentences, beams, tokens]

    def best_continuations(
        self,
        state: DecoderState,
        tokens: Tensor,
        totals: Tensor,
        closed: Sequence[int],
        count: int,
        added: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A step, the scores of what may follow, and the search among them, if ``scores_in_one_call``.

        Args:
            state, tokens: as for ``step``.
            totals: (batch, beams).
            closed: columns of scores that may not follow.
            count: continuations of each sentence.
            added: (batch, 1, columns) to scores of a part of all symbols.

        Returns:
            Totals, parents and tokens of the best continuations, each (batch, count).
        """
        assert self._output.integers is not None
        assert self._exact_head is not None
        features = self.features_of_step(state, tokens)
        return self._output.integers.best_continuations(
            features, self._exact_head, totals[:, : features.size(1)], closed, count, self._narrowed(added)
        )

    def search(
        self,
        state: Any,
        hypotheses: Hypotheses,
        closed: Sequence[int],
        eos: int,
        most: int,
        added: Tensor | None = None,
    ) -> tuple[int, tuple[Tensor, Tensor, Tensor]] | None:
        """Several steps of beam search in one call, see ``FusedStack``; None where that cannot be.

        ``added`` as for ``best_continuations``; tokens are columns then.
        """
        return None

    def features_of_step(self, state: Any, tokens: Tensor) -> Tensor:
        """What a step's scores are made of, (batch, beams, dim), of one beam where all are one."""
        raise NotImplementedError

    def _narrowed(self, added: Tensor | None) -> native.Narrowed | None:
        """What compiled loops must know of scores of a part of all symbols."""
        if added is None:
            return None
        assert isinstance(self.head, ShortlistHead)
        assert self._columns is not None
        return self.head.compiled(self._columns, added)

    @property
    def scores_in_one_call(self) -> bool:
        """Whether ``best_continuations`` can be had."""
        if not self.has_head or not isinstance(self.head, Linear | ShortlistHead) or self._exact_head is None:
            return False
        if isinstance(self.head, ShortlistHead) and not self.head.whole:
            return False
        head = self._output.integers
        return head is not None and head.whole and head.most == qmax_for(head.inputs, torch.int8)

    def _scores(self, state: DecoderState, features: Tensor) -> Tensor:
        """Float32 logits (batch, beams, vocabulary) of what the decoder made of the latest tokens."""
        logits = self.head(features).float()
        needed = self._exact_head is not None and not self._output.in_integers
        state.latest = features, logits if needed else None
        return logits.expand(-1, state.beams, -1)

    @property
    def _output(self) -> Linear:
        """The layer that scores symbols."""
        layer = self.head.few if isinstance(self.head, ShortlistHead) else self.head
        assert isinstance(layer, Linear)
        return layer

    def _output_embedding(self) -> Tensor:
        """The embedding that a tied output projection is."""
        raise NotImplementedError
