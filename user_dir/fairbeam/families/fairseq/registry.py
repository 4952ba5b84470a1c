"""Registry of fairseq's architectures, and the symbols that fairseq's tasks add to a model's dictionaries."""

import re
from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from fairbeam.families.fairseq import bart as fairseq_bart
from fairbeam.families.fairseq import language_model as fairseq_lm
from fairbeam.families.fairseq import lstm as fairseq_lstm
from fairbeam.families.fairseq import roberta as fairseq_roberta
from fairbeam.families.fairseq import transformer as fairseq_transformer
from fairbeam.families.fairseq.transformer import UnsupportedArchitecture
from fairbeam.network import AnyConfig, AnyNetwork, DecoderOnlyConfig, EncoderOnlyConfig
from fairbeam.network.inference.prepare import BaseNetwork
from fairbeam.text import Marks


class FairseqFamily(Protocol):
    """A module that reads and writes checkpoints of the models that fairseq registers under one name."""

    @property
    def FAMILY(self) -> str:  # noqa: N802 - a module's constant
        """Name of the family in a bundle."""

    @property
    def ARCHITECTURES(self) -> Mapping[str, Mapping[str, Any]]:  # noqa: N802
        """fairseq's architecture names, and for each the values of options that a checkpoint may leave out."""

    @property
    def NOT_WEIGHTS(self) -> re.Pattern[str]:  # noqa: N802
        """Names of tensors that the network does not use; they are kept for writing the checkpoint again."""

    def config_of(self, options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> AnyConfig:
        """Return the network's configuration; arguments and errors of ``load_network``."""

    def load_network(self, options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> AnyNetwork:
        """Return the network of fairseq's flat model options and state dictionary, in float32.

        Raises:
            CheckpointError: the weights do not fit the options.
            UnsupportedArchitecture: an option has no conversion.
        """

    def save_weights(self, network: BaseNetwork) -> dict[str, Tensor]:
        """Return fairseq's state dictionary of a network; inverse of ``load_network``."""


FAMILIES: tuple[FairseqFamily, ...] = (fairseq_transformer, fairseq_bart, fairseq_lm, fairseq_roberta, fairseq_lstm)


def family_of(architecture: str) -> FairseqFamily:
    """Return the family that reads an architecture.

    Raises:
        UnsupportedArchitecture: there is none; lists the known architectures.
    """
    for family in FAMILIES:
        if architecture in family.ARCHITECTURES:
            return family
    known = ", ".join(sorted(name for family in FAMILIES for name in family.ARCHITECTURES))
    raise UnsupportedArchitecture(f"architecture {architecture!r} has no conversion; known are {known}")


def completed(architecture: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's options, with its architecture's defaults for absent ones."""
    return {**family_of(architecture).ARCHITECTURES[architecture], **options}


def family_of_name(name: str) -> FairseqFamily | None:
    """Return the family of a bundle's name for it; None if there is none."""
    return next((family for family in FAMILIES if name == family.FAMILY), None)


def marks_of(config: AnyConfig) -> Marks:
    """Return the special tokens around a text, as fairseq's tasks for this kind of network make batches."""
    match config:
        case DecoderOnlyConfig():
            return Marks.CONTINUED if config.bos == config.eos else Marks.OPENED
        case EncoderOnlyConfig():
            return Marks.ENCLOSED
    return Marks.ENDED


ONE_DICTIONARY = frozenset({"denoising", "multilingual_denoising"})
"""Tasks whose source and target are one language, with ``dict.txt`` for both."""
_WITH_MASK = frozenset({"denoising", "masked_lm", "multilingual_masked_lm", "sentence_prediction", "sentence_ranking"})
"""Tasks that append the mask token to a dictionary."""


def task_symbols(task: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the symbols that a task appends to the dictionaries in its folder, in order.

    Args:
        task: the task's options, ``_name`` among them.

    Raises:
        UnsupportedArchitecture: it changes texts in a way that has no conversion; names the option.
    """
    name, languages = task.get("_name"), task.get("langs")
    if name in _WITH_MASK:
        return ("<mask>",)
    if name == "multilingual_denoising" and not task.get("add_lang_token"):
        return ("<mask>",)
    if name not in ("translation_from_pretrained_bart", "multilingual_denoising"):
        return ()
    if task.get("prepend_bos"):
        raise UnsupportedArchitecture("fairseq option prepend_bos=True has no conversion")
    if not isinstance(languages, str) or not languages:
        raise UnsupportedArchitecture(f"task {name!r} has langs={languages!r:.80}; expected names with commas between")
    return (*(f"[{language}]" for language in languages.split(",")), "<mask>")
