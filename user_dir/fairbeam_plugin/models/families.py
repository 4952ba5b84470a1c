"""``--arch fairbeam_FAMILY_SIZE``: published sizes of every family, trained from scratch.

Encoder-decoders go with ``--task fairbeam_translation``, encoders with fairseq's ``masked_lm``, decoders with its
``language_modeling``.
"""

from argparse import Namespace
from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Optional, Tuple

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import (
    FairseqEncoderModel,
    FairseqLanguageModel,
    register_model,
    register_model_architecture,
)
from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.families.presets import Vocabularies, config_for_training, parse_overrides, sizes
from fairbeam.network import AnyConfig, DecoderOnly, EncoderDecoderConfig, EncoderOnly, EncoderOnlyConfig, build
from fairbeam_plugin.models.transformer import FairbeamTransformerModel, NetworkDecoder, NetworkEncoder, dtype_of


@dataclass
class FamilyConfig(FairseqDataclass):
    """Which network, and what of it differs."""

    family: str = field(default="", metadata={"help": "set by --arch"})
    family_size: str = field(default="", metadata={"help": "set by --arch"})
    config_overrides: str = field(
        default="",
        metadata={"help": "options that differ, as the family's config.json names them: n_embd=256,n_layer=4"},
    )
    dropout: Optional[float] = field(
        default=None, metadata={"help": "dropout on embeddings and block outputs; the family's own by default"}
    )
    attention_dropout: Optional[float] = field(
        default=None, metadata={"help": "dropout on attention weights; the family's own by default"}
    )
    compute_dtype: ChoiceEnum(["float32", "bfloat16"]) = field(  # type: ignore[valid-type]
        default="float32",
        metadata={"help": "precision of linear layers and attention; master weights and optimizer stay float32"},
    )


def network_config(cfg: Any, source: Dictionary, target: Dictionary) -> AnyConfig:
    """The network that ``--arch`` and its options describe, for these dictionaries."""
    vocabularies = Vocabularies(
        source=len(source),
        target=len(target),
        joined=source == target,
        bos=source.bos(),
        pad=source.pad(),
        eos=source.eos(),
        unk=source.unk(),
    )
    config = config_for_training(cfg.family, cfg.family_size, parse_overrides(cfg.config_overrides), vocabularies)
    chosen = {"residual": cfg.dropout, "attention": cfg.attention_dropout}
    given = {name: float(value) for name, value in chosen.items() if value is not None}
    return replace(config, dropout=replace(config.dropout, **given))


@register_model("fairbeam_encoder_decoder", dataclass=FamilyConfig)
class FamilyEncoderDecoder(FairbeamTransformerModel):
    """An encoder-decoder of a family."""

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "FamilyEncoderDecoder":
        """A model with fresh weights for the task's dictionaries."""
        source, target = task.source_dictionary, task.target_dictionary
        return cls(build(network_config(cfg, source, target), dtype_of(cfg)), source, target)  # type: ignore[arg-type]


@register_model("fairbeam_encoder", dataclass=FamilyConfig)
class FamilyEncoder(FairseqEncoderModel):
    """An encoder of a family with its masked language model's head."""

    def __init__(self, network: EncoderOnly, dictionary: Dictionary) -> None:
        super().__init__(NetworkEncoder(dictionary, network))  # type: ignore[arg-type]
        self.network = network

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "FamilyEncoder":
        """A model with fresh weights for the task's dictionary."""
        dictionary = task.source_dictionary
        return cls(build(network_config(cfg, dictionary, dictionary), dtype_of(cfg)), dictionary)  # type: ignore[arg-type]

    def forward(
        self, src_tokens: Tensor, masked_tokens: Optional[Tensor] = None, **unused: Any
    ) -> Tuple[Tensor, Dict[str, Any]]:
        """Scores of symbols: (masked, vocabulary) where tokens are masked, (batch, length, vocabulary) without them."""
        states = self.network.encode(src_tokens)
        if self.network.symbol_head is None:
            raise ConfigError("the network has no masked language model's head")
        return self.network.symbol_head(states if masked_tokens is None else states[masked_tokens]), {}

    def max_positions(self) -> int:
        """Longest sequence in tokens."""
        return self.network.max_source_positions


class _Decoder(NetworkDecoder):
    """The decoder as fairseq asks for one without an encoder."""

    def forward(
        self, prev_output_tokens: Tensor, features_only: bool = False, **unused: Any
    ) -> Tuple[Tensor, Dict[str, Any]]:
        return self._network[0](prev_output_tokens, features_only=features_only), {}


@register_model("fairbeam_decoder", dataclass=FamilyConfig)
class FamilyDecoder(FairseqLanguageModel):
    """A decoder of a family."""

    def __init__(self, network: DecoderOnly, dictionary: Dictionary) -> None:
        super().__init__(_Decoder(dictionary, network))  # type: ignore[arg-type]
        self.network = network

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "FamilyDecoder":
        """A model with fresh weights for the task's dictionary."""
        dictionary = task.source_dictionary
        return cls(build(network_config(cfg, dictionary, dictionary), dtype_of(cfg)), dictionary)  # type: ignore[arg-type]

    @property
    def compute_dtype(self) -> torch.dtype:
        """What the linear layers compute in."""
        return self.network.compute_dtype


def _models() -> List[Tuple[str, str, str]]:
    """(fairseq's model, family, size) of every architecture."""
    vocabularies = Vocabularies(source=99, target=99, joined=True, bos=0, pad=1, eos=2, unk=3)
    names = {EncoderDecoderConfig: "fairbeam_encoder_decoder", EncoderOnlyConfig: "fairbeam_encoder"}
    described = [(family, size, config_for_training(family, size, {}, vocabularies)) for family, size in sizes()]
    return [(names.get(type(config), "fairbeam_decoder"), family, size) for family, size, config in described]


def _register(model: str, family: str, size: str) -> None:
    def fill(args: Namespace) -> None:
        args.family, args.family_size = family, size

    register_model_architecture(model, f"fairbeam_{family.replace('-', '_')}_{size}")(fill)


for _names in _models():
    _register(*_names)
