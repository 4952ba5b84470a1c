"""``--arch fairbeam_from_bundle``: a pretrained model that fairseq trains further."""

from dataclasses import dataclass, field, replace
from typing import Any, Dict, Optional, Tuple

from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import register_model

from fairbeam.errors import ConfigError
from fairbeam.model import generator
from fairbeam.network import LSTM, Generator, build
from fairbeam.network.finetuning import ATTENTION, FinetuningOptions, add_lora_, freeze_, learning_rates
from fairbeam_plugin.models.transformer import FairbeamTransformerModel, dtype_of


@dataclass
class FromBundleConfig(FairseqDataclass):
    """What fine-tuning changes; sizes are the pretrained model's."""

    dropout: Optional[float] = field(
        default=None, metadata={"help": "dropout on embeddings and block outputs; the model's own by default"}
    )
    attention_dropout: Optional[float] = field(
        default=None, metadata={"help": "dropout on attention weights; the model's own by default"}
    )
    activation_dropout: Optional[float] = field(
        default=None, metadata={"help": "dropout after the activation; the model's own by default"}
    )
    freeze: Optional[str] = field(
        default=None,
        metadata={"help": "parameters that stay as they are: beginnings of names, such as encoder,decoder.layers.0"},
    )
    lora_rank: int = field(
        default=0, metadata={"help": "train low-rank changes of frozen weights (LoRA); 0 trains the weights"}
    )
    lora_alpha: float = field(default=16.0, metadata={"help": "the changes are multiplied by this over the rank"})
    lora_targets: str = field(
        default=",".join(ATTENTION), metadata={"help": "linear layers that change: ends of their names"}
    )
    keep_training: Optional[str] = field(
        default=None, metadata={"help": "with --lora-rank: parameters trained all the same, beginnings of their names"}
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "each layer's learning rate is the next one's times this"}
    )
    compute_dtype: ChoiceEnum(["float32", "bfloat16"]) = field(  # type: ignore[valid-type]
        default="float32",
        metadata={"help": "precision of linear layers and attention; master weights and optimizer stay float32"},
    )


@register_model("fairbeam_from_bundle", dataclass=FromBundleConfig)
class FairbeamBundleModel(FairbeamTransformerModel):
    """The network of the bundle that the task was given."""

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "FairbeamBundleModel":
        """The bundle's network with its weights; a checkpoint's replace them afterwards."""
        bundle = getattr(task, "bundle", None)
        if bundle is None:
            raise ConfigError(
                "--arch fairbeam_from_bundle needs --task fairbeam_translation and --bundle, a bundle's folder or one "
                "of Hugging Face"
            )
        network = _with_options(generator(bundle), cfg)
        tuning = tuning_options(cfg)
        add_lora_(network, tuning)
        freeze_(network, tuning)
        rates = learning_rates(network, tuning)
        for name, parameter in network.named_parameters():
            parameter.lr_scale = rates[name]  # type: ignore[attr-defined]
        return cls(network, task.source_dictionary, task.target_dictionary)

    def __init__(self, network: Generator, source: Dictionary, target: Dictionary) -> None:
        super().__init__(network, source, target)  # type: ignore[arg-type]

    def max_positions(self) -> Tuple[int, int]:
        """Longest source and target; one that is read as one sequence with its target has half of the positions."""
        network = self.network
        both = network.max_source_positions, network.max_target_positions
        return (both[1] // 2, both[1] // 2) if self.reads_one_sequence else both

    @property
    def reads_one_sequence(self) -> bool:
        """Whether a decoder alone reads source and target."""
        return not hasattr(self.network, "encoder")


def tuning_options(cfg: Any) -> FinetuningOptions:
    """Ours from fairseq's."""

    def names(value: Optional[str]) -> Tuple[str, ...]:
        return tuple(name.strip() for name in (value or "").split(",") if name.strip())

    return FinetuningOptions(
        freeze=names(cfg.freeze),
        lora_rank=cfg.lora_rank,
        lora_alpha=cfg.lora_alpha,
        lora_targets=names(cfg.lora_targets),
        keep_training=names(cfg.keep_training),
        layer_decay=cfg.layer_decay,
    )


def _with_options(network: Generator, cfg: Any) -> Generator:
    """A trainable copy with other dropout and in another precision."""
    chosen: Dict[str, Any] = {
        "residual": cfg.dropout, "attention": cfg.attention_dropout, "activation": cfg.activation_dropout,
    }  # fmt: skip
    if isinstance(network, LSTM):  # which has one kind, in several places
        if cfg.attention_dropout is not None or cfg.activation_dropout is not None:
            raise ConfigError("--attention-dropout, --activation-dropout: a recurrent network has neither")
        chosen = dict.fromkeys(vars(network.config.dropout), cfg.dropout)
    given = {name: float(value) for name, value in chosen.items() if value is not None}
    config = replace(network.config, dropout=replace(network.config.dropout, **given))
    copied = build(config, dtype_of(cfg))
    copied.load_state_dict(network.state_dict())
    return copied  # type: ignore[return-value]
