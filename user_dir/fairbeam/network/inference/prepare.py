"""Networks in training precision and their copies for inference."""

import copy
from typing import Self

import torch
from torch import nn

from fairbeam.network.attention import CrossAttention, SelfAttention
from fairbeam.network.inference import native
from fairbeam.network.linear import Linear
from fairbeam.network.stack import Stack


class BaseNetwork(nn.Module):
    """Base class of networks.

    Linear layers and attention compute in ``compute_dtype``; the residual stream, the norms and the weights are float32
    (the weights until ``for_inference``).
    """

    compute_dtype: torch.dtype
    attention_dtype: torch.dtype
    attends_natively: bool = False
    """Whether decoding steps attend through the native library."""

    def for_inference(self, dtype: torch.dtype) -> Self:
        """Return an untrainable copy with weights in ``dtype``, laid out for the machine's matrix kernels.

        int8 and int16 are for CPUs: ``Precision.resolve`` refuses them elsewhere.
        """
        network = copy.deepcopy(self).eval().requires_grad_(False)
        # MKL's small float32 products beat oneDNN's in bfloat16, which compiles a kernel for every length.
        computing = torch.float32 if dtype in (torch.int8, torch.int16) else dtype
        network._set_compute_dtype(computing, torch.float32 if self._on_cpu() else dtype)
        linears = [module for module in network.modules() if isinstance(module, Linear)]
        if self._on_cpu():
            network.attends_natively = native.available()
            for module in network.modules():
                if isinstance(module, CrossAttention) and computing is dtype:
                    module.keep_exact_()
        for linear in linears:
            linear.pack_(network._packed_dtype(linear, dtype))
        for module in network.modules():
            if isinstance(module, Stack):
                module.fuse_()
        return network

    def _packed_dtype(self, linear: Linear, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of a layer's weight in a network for inference in ``dtype``."""
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
