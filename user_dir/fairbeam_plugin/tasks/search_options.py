"""Options of our search that fairseq's commands do not have; they become options of the task."""

import dataclasses
from typing import Any, Dict, FrozenSet, List, Optional, Tuple

from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.configs import CommonConfig, GenerationConfig

from fairbeam.errors import OptionName, command_line
from fairbeam.generation import GenerationOptions
from fairbeam.generation.option_fields import TASK, Option, options_from

# Options of fairseq's generation that its commands, or this task, act on whatever the generator is.
_NOT_OF_GENERATORS = frozenset(
    {
        "lm_path", "no_beamable_mm", "no_early_stop", "no_seed_provided", "prefix_size", "print_alignment",
        "replace_unk", "retain_dropout_modules", "sacrebleu", "score_reference",
    }
)  # fmt: skip


def _names(kind: type) -> FrozenSet[str]:
    return frozenset(field.name for field in dataclasses.fields(kind))


def task_fields(kind: type) -> List[Tuple[str, Any, Any]]:
    """Return the options of a dataclass that fairseq does not have itself, as fields of a task's configuration.

    None stands for an option's default. Numbers between commas stand for a tuple, and texts for choices.
    """
    known = _names(GenerationConfig) | _names(CommonConfig)
    return [
        (name, _type(one), dataclasses.field(default=None, metadata={"help": one.help(command_line)}))
        for name, one in options_from(kind, TASK).items()
        if name not in known
    ]


def _type(one: Option) -> Any:
    """Return a type that fairseq's parser and OmegaConf understand."""
    return Optional[one.type] if one.type in (int, float, bool) else Optional[str]


DerivedOptions = dataclasses.make_dataclass("DerivedOptions", task_fields(GenerationOptions), bases=(FairseqDataclass,))
DerivedOptions.__module__ = __name__  # so that it can be pickled
DerivedOptions.__doc__ = "Fields of ``GenerationOptions`` that fairseq's generation lacks; None is their default."


def _option(text: str) -> Any:
    return dataclasses.field(default=None, metadata={"help": text})


@dataclasses.dataclass
class SearchOptions(DerivedOptions):  # type: ignore[misc, valid-type]
    """Options of our search that fairseq's commands do not have."""

    channel_model: Optional[str] = _option(
        "model that translates back, with any tokenizer, for noisy-channel reranking of the --beam hypotheses"
    )
    lm_model: Optional[str] = _option(
        "language model with any tokenizer, for reranking of the --beam hypotheses (--lm-path is for shallow fusion)"
    )
    draft_model: Optional[str] = _option(
        "smaller model with the same dictionaries, for speculative decoding with --beam 1"
    )
    allowed_outputs_file: Optional[str] = _option("file of the only outputs that are possible, a line each")
    constraints_file: Optional[str] = _option(
        "phrases that outputs must contain, a line for each sentence of --gen-subset, phrases separated by tabs, "
        "alternatives by |||; in any order unless --constraints ordered is given"
    )


def stock_only_options(args: Any) -> List[str]:
    """Return the options of ``args`` that only stock's generator knows, as they are written on a command line."""
    ours = _names(GenerationOptions) | _NOT_OF_GENERATORS
    defaults: Dict[str, Any] = {field.name: field.default for field in dataclasses.fields(GenerationConfig)}
    return [
        command_line(OptionName(name))
        for name, default in defaults.items()
        if name not in ours and getattr(args, name, default) not in (default, None)
    ]


def own_options(task: Any) -> List[OptionName]:
    """Return the options of a task that are given and that only our generator knows."""
    names = (field.name for field in dataclasses.fields(SearchOptions) if field.name != "_name")
    return [OptionName(name) for name in names if getattr(task, name, None) not in (None, False)]
