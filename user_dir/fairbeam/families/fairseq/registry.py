"""Which page reads which of fairseq's architectures, and what fairseq's tasks add to a model's dictionaries."""

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


class Page(Protocol):
    """A module that reads and writes checkpoints of the models that fairseq registers under one name."""

    @property
    def FAMILY(self) -> str:  # noqa: N802 - a module's constant
        """What a bundle calls such models."""

    @property
    def ARCHITECTURES(self) -> Mapping[str, Mapping[str, Any]]:  # noqa: N802
        """fairseq's names, and the options of each that a checkpoint may leave out."""

    @property
    def NOT_WEIGHTS(self) -> re.Pattern[str]:  # noqa: N802
        """Names of tensors that the network has no use for; they are kept for writing."""

    def config_of(self, options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> AnyConfig:
        """The network's configuration; arguments and errors of ``load_network``."""

    def load_network(self, options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> AnyNetwork:
        """The network of fairseq's flat model options and state dictionary, in float32.

        Raises:
            CheckpointError: the weights do not fit the options.
            UnsupportedArchitecture: an option has no conversion.
        """

    def save_weights(self, network: BaseNetwork) -> dict[str, Tensor]:
        """fairseq's state dictionary of a network: the inverse of ``load_network``."""


PAGES: tuple[Page, ...] = (fairseq_transformer, fairseq_bart, fairseq_lm, fairseq_roberta, fairseq_lstm)


def page_of(architecture: str) -> Page:
    """The page that reads an architecture.

    Raises:
        UnsupportedArchitecture: there is none; lists those that there are.
    """
    for page in PAGES:
        if architecture in page.ARCHITECTURES:
            return page
    known = ", ".join(sorted(name for page in PAGES for name in page.ARCHITECTURES))
    raise UnsupportedArchitecture(f"architecture {architecture!r} has no conversion; known are {known}")


def completed(architecture: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a checkpoint with what its architecture says of those that are absent."""
    return {**page_of(architecture).ARCHITECTURES[architecture], **options}


def page_of_family(family: str) -> Page | None:
    """The page of the models that a bundle calls so, if there is one."""
    return next((page for page in PAGES if family == page.FAMILY), None)


def marks_of(config: AnyConfig) -> Marks:
    """What stands around the texts of a network, as fairseq's tasks for its shape make batches."""
    match config:
        case DecoderOnlyConfig():
            return Marks.CONTINUED if config.bos == config.eos else Marks.OPENED
        case EncoderOnlyConfig():
            return Marks.ENCLOSED
    return Marks.ENDED


ONE_DICTIONARY = frozenset({"denoising", "multilingual_denoising"})
"""Tasks whose source and target are one language, with ``dict.txt`` for both."""
_WITH_MASK = frozenset({"denoising", "masked_lm", "multilingual_masked_lm", "sentence_prediction", "sentence_ranking"})


def task_symbols(task: Mapping[str, Any]) -> tuple[str, ...]:
    """What a task appends to the dictionaries in its folder when it starts, in order.

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
