"""Transformer-XL (Dai et al., 2019), as Hugging Face's ``TransfoXLLMHeadModel`` named its weights.

Releases of ``transformers`` before 5 had the model. Its first segment remembers vectors of zeros, which queries see.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fairbeam.families.config_reader import ConfigReader
from fairbeam.families.decoder_only import DecoderOnlyFamily
from fairbeam.families.spec import MAX_POSITIONS, MAX_SIZE
from fairbeam.families.weight_map import Row, linear, same
from fairbeam.network import (
    Activation,
    AdaptiveConfig,
    AnyConfig,
    DecoderOnlyConfig,
    DropoutConfig,
    NormPlacement,
    PositionConfig,
    PositionKind,
    StackConfig,
)

_SHARED_BIASES = tuple(
    same(f"decoder.layers.0.self_attention.{ours}", f"transformer.{theirs}")
    for ours, theirs in (("content_bias", "r_w_bias"), ("position_bias", "r_r_bias"))
)


@dataclass(frozen=True, kw_only=True)
class _TransformerXL(DecoderOnlyFamily):
    """Transformer-XL: a segment memory, and an adaptive softmax over clusters of the vocabulary."""

    def rows_for(self, config: AnyConfig, options: Mapping[str, Any]) -> tuple[Row, ...]:
        """Return the weight map; biases that layers share have a second name outside the layers."""
        shared = isinstance(config, DecoderOnlyConfig) and config.decoder.positions.share_biases
        return (*self.rows, *_SHARED_BIASES) if shared else self.rows

    def options(self, config: Mapping[str, Any]) -> ConfigReader:
        """Return the options, defaults filled in; the first releases call ``tie_word_embeddings`` ``tie_weight``."""
        return super().options({"tie_word_embeddings": config.get("tie_weight", True), **config})

    def stack_config(self, options: ConfigReader, pad: int) -> StackConfig:
        """Return the layers that a ``config.json`` describes."""
        stack = super().stack_config(options, pad)
        clamp = options.get("clamp_len")
        return replace(
            stack,
            head_dim=options.size("d_head", MAX_SIZE),
            embedding_dim=None if stack.embedding_dim == stack.dim else stack.embedding_dim,
            norm_placement=NormPlacement.PRE if options.flag("pre_lnorm") else NormPlacement.POST,
            positions=replace(
                stack.positions,
                memory_length=options.size("mem_len", MAX_POSITIONS),
                clamp_length=None if type(clamp) is int and clamp <= 0 else options.size("clamp_len", MAX_POSITIONS),
                same_length=options.flag("same_length"),
                share_biases=not options.flag("untie_r"),
            ),
        )

    def dropout_config(self, options: ConfigReader) -> DropoutConfig:
        """Return dropout in training: one probability for all but attention."""
        dropout = super().dropout_config(options)
        return replace(dropout, activation=dropout.residual, features=dropout.residual)

    def adaptive_config(self, options: ConfigReader) -> AdaptiveConfig:
        """Return the clusters that a ``config.json`` describes."""
        cutoffs = options.read("cutoffs", tuple[int, ...])
        if options.get("tie_projs") is None:
            tied = (False, *(options.flag("proj_share_all_but_first") for _ in cutoffs))
        else:
            tied = options.read("tie_projs", tuple[bool, ...])
        return AdaptiveConfig(cutoffs=cutoffs, factor=options.size("div_val", MAX_SIZE), tied_projections=tied)


FAMILY = _TransformerXL(
    model_type="transfo-xl",
    prefix="transformer.",
    stack=StackConfig(
        activation=Activation.RELU,
        positions=PositionConfig(kind=PositionKind.RELATIVE_SINUSOIDAL, offset=0, count_padding=True, memory_length=1),
    ),
    rows=(
        same("embedding.weights.{i}", "transformer.word_emb.emb_layers.{i}.weight"),
        same("embedding.projections.{i}", "transformer.word_emb.emb_projs.{i}"),
        same("decoder.layers.{i}.self_attention.qkv.weight", "transformer.layers.{i}.dec_attn.qkv_net.weight"),
        same("decoder.layers.{i}.self_attention.output.weight", "transformer.layers.{i}.dec_attn.o_net.weight"),
        same("decoder.layers.{i}.self_attention.positions.weight", "transformer.layers.{i}.dec_attn.r_net.weight"),
        same("decoder.layers.{i}.self_attention.content_bias", "transformer.layers.{i}.dec_attn.r_w_bias"),
        same("decoder.layers.{i}.self_attention.position_bias", "transformer.layers.{i}.dec_attn.r_r_bias"),
        *linear("decoder.layers.{i}.self_attention_residual.norm", "transformer.layers.{i}.dec_attn.layer_norm"),
        *linear("decoder.layers.{i}.inner", "transformer.layers.{i}.pos_ff.CoreNet.0"),
        *linear("decoder.layers.{i}.outer", "transformer.layers.{i}.pos_ff.CoreNet.3"),
        *linear("decoder.layers.{i}.feed_forward_residual.norm", "transformer.layers.{i}.pos_ff.layer_norm"),
        same("head.weights.{i}", "crit.out_layers.{i}.weight"),
        same("head.biases.{i}", "crit.out_layers.{i}.bias"),
        same("head.projections.{i}", "crit.out_projs.{i}"),
        same("head.cluster_weight", "crit.cluster_weight"),
        same("head.cluster_bias", "crit.cluster_bias"),
    ),
    names={
        "vocabulary": "vocab_size",
        "layers": "n_layer",
        "dim": "d_model",
        "heads": "n_head",
        "ffn_dim": "d_inner",
        "embedding_dim": "d_embed",
        "max_positions": "max_position_embeddings",
        "norm_epsilon": "layer_norm_epsilon",
        "residual_dropout": "dropout",
        "attention_dropout": "dropatt",
        "pad": "pad_token_id",
        "bos": "bos_token_id",
        "eos": "eos_token_id",
    },
    defaults={
        "vocab_size": 267735,
        "cutoffs": [20000, 40000, 200000],
        "d_model": 1024,
        "d_embed": 1024,
        "n_head": 16,
        "d_head": 64,
        "d_inner": 4096,
        "div_val": 4,
        "pre_lnorm": False,
        "n_layer": 18,
        "mem_len": 1600,
        "clamp_len": 1000,
        "same_length": True,
        "proj_share_all_but_first": True,
        "tie_projs": None,
        "dropout": 0.1,
        "dropatt": 0.0,
        "untie_r": True,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": MAX_POSITIONS,
        "eos_token_id": 0,
        "bos_token_id": None,
        "pad_token_id": None,
    },
    presets={
        # Dai et al. (2019), section 4.1: the two models of WikiText-103.
        "standard": {
            "d_model": 410,
            "d_embed": 410,
            "n_head": 10,
            "d_head": 41,
            "d_inner": 2100,
            "div_val": 1,
            "n_layer": 16,
            "mem_len": 150,
            "clamp_len": -1,
            "same_length": False,
        },
        "large": {},
    },
    must_be={"attn_type": 0, "adaptive": True},
    not_weights=r"transformer\.pos_emb\.inv_freq",  # rates of the sinusoids
)
