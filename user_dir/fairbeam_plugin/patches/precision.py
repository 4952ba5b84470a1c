"""``--bf16`` means bfloat16, on whatever device there is."""

import argparse
from typing import Any, Callable

from fairseq import options

from fairbeam_plugin.patches.patching import mend


def apply() -> None:
    """Put this page's mend in place."""
    mend(options, "parse_args_and_arch", parse_args_and_arch)


def parse_args_and_arch(
    stock: Callable, parser: argparse.ArgumentParser, input_args: Any = None, *args: Any, **kwargs: Any
) -> Any:
    """Ask for a TPU only where the command line does.

    Stock takes ``--bf16`` to imply ``--tpu`` and then fails to import ``torch_xla``.
    """
    parsed = stock(parser, input_args, *args, **kwargs)
    options = parsed[0] if isinstance(parsed, tuple) else parsed
    if getattr(options, "bf16", False):
        asked, _ = parser.parse_known_args(input_args)
        options.tpu = bool(getattr(asked, "tpu", False))
    return parsed
