"""What networks of every shape have in common: the precision they compute in, and scores that decoding can trust."""

import copy
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairbeam.network import int8, kernels
from fairbeam.network.adaptive import AdaptiveSoftmax
from fairbeam.network.attention import CrossAttention, SelfAttention
from fairbeam.network.cache import DecoderState
from fairbeam.network.linear import Linear


class BaseNetwork(nn.Module):
    """Linear layers and attention compute in ``compute_dtype``; the residual stream, the norms and the weights are
    float32 (the weights until ``for_inference``)."""

    compute_dtype: torch.dtype
    attention_dtype: torch.dtype
    compiled: bool = False
    """Whether decoding steps attend through ``kernels``."""

    def for_inference(self, dtype: torch.dtype) -> Self:
        """An untrainable copy with weights in ``dtype``, laid out for the machine's matrix kernels.

        Raises nothing for int8 on an accelerator, where there is no such product: ``Precision.resolve`` does.
        """
        network = copy.deepcopy(self).eval().requires_grad_(False)
        # MKL's small float32 products beat oneDNN's in bfloat16, which compiles a kernel for every length.
        computing = torch.float32 if dtype is torch.int8 else dtype
        network._set_compute_dtype(computing, torch.float32 if self._on_cpu() else dtype)
        linears = [module for module in network.modules() if isinstance(module, Linear)]
        if self._on_cpu():
            network.compiled = kernels.available()
            for module in network.modules():
                if isinstance(module, CrossAttention):
                    module.keep_exact_()
            if network.compiled:
                kernels.prepare()
                int8.prepare()
        for linear in linears:
            linear.pack_(dtype)
        return network

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

    head: Linear | AdaptiveSoftmax
    has_head: bool = True
    _exact_head: Tensor | None = None
    _exact_bias: Tensor | None = None

    def for_inference(self, dtype: torch.dtype) -> Self:
        network = super().for_inference(dtype)
        if self.has_head and dtype != torch.float32 and isinstance(self.head, Linear):
            tied = self.head.weight is self._output_embedding()
            network._exact_head = (network._output_embedding() if tied else self.head.weight).detach()
            network._exact_bias = None if self.head.bias is None else self.head.bias.detach()
        return network

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
        features, logits = (tensor.expand(-1, state.beams, -1) for tensor in state.latest)
        sentences = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        exact = (F.embedding(tokens, self._exact_head) * features[sentences, beams]).sum(-1)
        if self._exact_bias is not None:
            exact = exact + self._exact_bias[tokens]
        return exact - logits[sentences, beams, tokens]

    def _scores(self, state: DecoderState, features: Tensor) -> Tensor:
        """Float32 logits (batch, beams, vocabulary) of what the decoder made of the latest tokens."""
        logits = self.head(features).float()
        state.latest = features, logits
        return logits.expand(-1, state.beams, -1)

    def _output_embedding(self) -> Tensor:
        """The embedding that a tied output projection is."""
        raise NotImplementedError
