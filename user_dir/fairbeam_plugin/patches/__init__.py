"""Mends of what stock fairseq 0.12.3.1 gets wrong on today's Python and torch.

Each mend replaces one function at run time and gives its reason in its docstring; fairseq's installed files
are never edited. ``--user-dir`` imports the plugin before a command parses its options, so the mends hold for
all of fairseq's commands; they hold in spawned workers too, which import the user-dir again.
"""

from fairbeam_plugin.patches import (
    adam,
    batches,
    checkpoints,
    configuration,
    distributed,
    errors,
    learning_rates,
    mbart,
    numpy_names,
    precision,
    quiet,
    repeats,
    resuming,
    scoring,
)

_PARTS = (
    quiet,
    repeats,
    errors,
    learning_rates,
    numpy_names,
    configuration,
    checkpoints,
    batches,
    resuming,
    precision,
    distributed,
    scoring,
    adam,
    mbart,
    learning_rates,
)


def apply() -> None:
    """Put every mend in place. Calling it again changes nothing."""
    for part in _PARTS:
        part.apply()
