"""mBART's translation task, which stock 0.12 cannot load data for."""

from argparse import Namespace
from typing import Any, Callable

from fairseq.data import Dictionary
from fairseq.tasks.translation_from_pretrained_bart import TranslationFromPretrainedBARTTask

from fairbeam_plugin.patches.patching import mend


def apply() -> None:
    """Put this page's mends in place."""
    mend(TranslationFromPretrainedBARTTask, "__init__", keep_args)


def keep_args(
    stock: Callable, task: TranslationFromPretrainedBARTTask, args: Namespace, source: Dictionary, target: Dictionary
) -> Any:
    """Keep the options as ``args`` too: its methods read them there, and the class below it calls them ``cfg``."""
    task.args = args
    return stock(task, args, source, target)
