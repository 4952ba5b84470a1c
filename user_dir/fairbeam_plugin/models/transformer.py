"""``--arch fairbeam_transformer`` and its sizes: the engine's network behind fairseq's model interface."""

from argparse import Namespace
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import (
    FairseqDecoder,
    FairseqEncoder,
    FairseqEncoderDecoderModel,
    register_model,
    register_model_architecture,
)
from fairseq.utils import get_available_activation_fns
from torch import Tensor

from fairbeam.families.fairseq.transformer import config_from_options
from fairbeam.network import EncoderDecoder


@dataclass
class FairbeamTransformerConfig(FairseqDataclass):
    """Every size and choice of the network, under the names that fairseq's ``transformer`` gives them."""

    activation_fn: ChoiceEnum(get_available_activation_fns()) = field(  # type: ignore[valid-type]
        default="relu", metadata={"help": "activation function of the feed-forward blocks"}
    )
    dropout: float = field(default=0.1, metadata={"help": "dropout on embeddings and block outputs"})
    attention_dropout: float = field(default=0.0, metadata={"help": "dropout on attention weights"})
    activation_dropout: float = field(default=0.0, metadata={"help": "dropout after the activation"})
    encoder_embed_dim: int = field(default=512, metadata={"help": "encoder width"})
    encoder_ffn_embed_dim: int = field(default=2048, metadata={"help": "encoder feed-forward width"})
    encoder_layers: int = field(default=6, metadata={"help": "encoder layers"})
    encoder_attention_heads: int = field(default=8, metadata={"help": "encoder attention heads"})
    encoder_normalize_before: bool = field(default=False, metadata={"help": "pre-norm encoder"})
    encoder_learned_pos: bool = field(default=False, metadata={"help": "learned encoder positions"})
    encoder_layerdrop: float = field(default=0.0, metadata={"help": "LayerDrop probability, encoder"})
    decoder_embed_dim: int = field(default=512, metadata={"help": "decoder width"})
    decoder_ffn_embed_dim: int = field(default=2048, metadata={"help": "decoder feed-forward width"})
    decoder_layers: int = field(default=6, metadata={"help": "decoder layers"})
    decoder_attention_heads: int = field(default=8, metadata={"help": "decoder attention heads"})
    decoder_normalize_before: bool = field(default=False, metadata={"help": "pre-norm decoder"})
    decoder_learned_pos: bool = field(default=False, metadata={"help": "learned decoder positions"})
    decoder_layerdrop: float = field(default=0.0, metadata={"help": "LayerDrop probability, decoder"})
    share_all_embeddings: bool = field(
        default=False, metadata={"help": "one matrix for source, target and output; needs a joined dictionary"}
    )
    share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "one matrix for target embeddings and output"}
    )
    no_token_positional_embeddings: bool = field(default=False, metadata={"help": "no positions"})
    no_scale_embedding: bool = field(default=False, metadata={"help": "don't scale embeddings"})
    layernorm_embedding: bool = field(default=False, metadata={"help": "layer norm on embeddings"})
    no_decoder_final_norm: bool = field(default=False, metadata={"help": "no norm after a pre-norm decoder"})
    max_source_positions: int = field(default=1024, metadata={"help": "longest source in tokens"})
    max_target_positions: int = field(default=1024, metadata={"help": "longest target in tokens"})
    compute_dtype: ChoiceEnum(["float32", "bfloat16"]) = field(  # type: ignore[valid-type]
        default="float32",
        metadata={"help": "precision of linear layers and attention; master weights and optimizer stay float32"},
    )


def model_options(cfg: Any) -> Dict[str, Any]:
    """All options of a model, from fairseq's namespace or configuration, missing ones at their defaults."""
    values = vars(cfg) if isinstance(cfg, Namespace) else cfg
    given = {option.name: values.get(option.name, option.default) for option in fields(FairbeamTransformerConfig)}
    return {name: value.value if isinstance(value, Enum) else value for name, value in given.items()}


def dtype_of(cfg: Any) -> torch.dtype:
    """What ``--compute-dtype`` says."""
    dtype: torch.dtype = getattr(torch, str(getattr(cfg.compute_dtype, "value", cfg.compute_dtype)))
    return dtype


class NetworkEncoder(FairseqEncoder):
    """The encoder as stock's generator asks for it. Owns no parameters: they are the model's."""

    def __init__(self, dictionary: Dictionary, network: EncoderDecoder) -> None:
        super().__init__(dictionary)
        self._network = (network,)  # a tuple, so that torch doesn't register the network here too

    def forward(
        self, src_tokens: Tensor, src_lengths: Optional[Tensor] = None, **unused: Any
    ) -> Dict[str, List[Tensor]]:
        """Only the source itself: the decoder encodes again, since stock's generator is the slow way anyway."""
        return {"src_tokens": [src_tokens]}

    def reorder_encoder_out(self, encoder_out: Dict[str, List[Tensor]], new_order: Tensor) -> Dict[str, List[Tensor]]:
        return {"src_tokens": [encoder_out["src_tokens"][0].index_select(0, new_order)]}

    def max_positions(self) -> int:
        return self._network[0].max_source_positions


class NetworkDecoder(FairseqDecoder):
    """The decoder as stock's generator asks for it; computes the whole prefix at every step."""

    def __init__(self, dictionary: Dictionary, network: EncoderDecoder) -> None:
        super().__init__(dictionary)
        self._network = (network,)

    @property
    def output_projection(self) -> torch.nn.Module:
        """The layer from features to logits."""
        return self._network[0].head

    def forward(
        self, prev_output_tokens: Tensor, encoder_out: Optional[Dict[str, List[Tensor]]] = None, **unused: Any
    ) -> Tuple[Tensor, Dict[str, Any]]:
        assert encoder_out is not None
        source = encoder_out["src_tokens"][0]
        network = self._network[0]
        logits = network(source, prev_output_tokens)
        looks = [network.alignments(source, prev_output_tokens)] if isinstance(network, EncoderDecoder) else [None]
        return logits, {"attn": looks}

    def max_positions(self) -> int:
        return self._network[0].max_target_positions


@register_model("fairbeam_transformer", dataclass=FairbeamTransformerConfig)
class FairbeamTransformerModel(FairseqEncoderDecoderModel):
    """The engine's encoder-decoder network, trained by fairseq."""

    def __init__(self, network: EncoderDecoder, source: Dictionary, target: Dictionary) -> None:
        super().__init__(NetworkEncoder(source, network), NetworkDecoder(target, network))
        self.network = network

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "FairbeamTransformerModel":
        """A model with fresh weights for the task's dictionaries."""
        options = model_options(cfg)
        source, target = task.source_dictionary, task.target_dictionary
        if options["share_all_embeddings"] and source != target:
            raise ValueError("--share-all-embeddings requires a joined dictionary")
        config = config_from_options(options, len(source), len(target))
        return cls(EncoderDecoder(config, getattr(torch, options["compute_dtype"])), source, target)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        prev_output_tokens: Tensor,
        features_only: bool = False,
        **unused: Any,
    ) -> Tuple[Tensor, Dict[str, Any]]:
        """Teacher forcing: logits (batch, target, vocabulary), or features (batch, target, dim)."""
        return self.network(src_tokens, prev_output_tokens, features_only=features_only), {}

    @property
    def compute_dtype(self) -> torch.dtype:
        """What the linear layers compute in."""
        return self.network.compute_dtype


def _size(layers: int, dim: int, ffn_dim: int, heads: int, **others: Any) -> Dict[str, Any]:
    sizes = {"layers": layers, "embed_dim": dim, "ffn_embed_dim": ffn_dim, "attention_heads": heads}
    return {**{f"{stack}_{name}": value for stack in ("encoder", "decoder") for name, value in sizes.items()}, **others}


PRESETS = {
    # 4 + 4 layers of 256: what the recipes for small corpora use
    "fairbeam_transformer_tiny": _size(4, 256, 1024, 4),
    # fairseq's transformer_iwslt_de_en
    "fairbeam_transformer_iwslt": _size(6, 512, 1024, 4),
    # Vaswani et al. (2017), table 3
    "fairbeam_transformer_base": _size(6, 512, 2048, 8),
    "fairbeam_transformer_big": _size(6, 1024, 4096, 16, dropout=0.3),
}


def _register_preset(name: str, options: Dict[str, Any]) -> None:
    def fill(args: Namespace) -> None:
        for option, value in options.items():
            setattr(args, option, getattr(args, option, value))

    register_model_architecture("fairbeam_transformer", name)(fill)


for _name, _options in PRESETS.items():
    _register_preset(_name, _options)
