"""Warnings of others' making that no user of a fairseq command can act on, silenced one by one."""

import logging
import warnings

# Pattern (matched from the start of the message), category, and why nothing is lost.
SILENCED_WARNINGS = (
    (r"hydra\.experimental\.\w+\(\) is no longer experimental", UserWarning, "a new name for the same"),
    (r"\s*The version_base parameter is not specified", UserWarning, "Hydra 1.1's defaults are right"),
    (r"In 'config': Usage of deprecated keyword in package header", UserWarning, "in fairseq's files"),
    (r"\s*'config' is validated against ConfigStore schema", UserWarning, "as fairseq means it to be"),
    (r"\s*The strict flag in the compose API is deprecated", UserWarning, "it has no effect"),
    (r"'pin_memory' argument is set as true but no accelerator", UserWarning, "fairseq always sets it"),
    (r"`torch\.cuda\.amp\.\w+\(args\.\.\.\)` is deprecated", FutureWarning, "a new name for the same"),
    (r"`broadcast_buffers` is deprecated", FutureWarning, "a new name for the same"),
    (r"Support for mismatched key_padding_mask and attn_mask", UserWarning, "of fairseq's making"),
)

# Logger and the start of the line.
SILENCED_LINES = (
    ("fairseq.tasks.fairseq_task", ("can_reuse_epoch_itr", "reuse_dataloader", "rebuild_batches")),
    ("fairseq.data.iterators", ("grouped total_num_itrs",)),
    ("hydra.core.utils", ("Setting JobRuntime",)),
)


def apply() -> None:
    """Silence what is listed on this page, and nothing else."""
    for pattern, category, _ in SILENCED_WARNINGS:
        warnings.filterwarnings("ignore", pattern, category)
    for name, starts in SILENCED_LINES:
        logger = logging.getLogger(name)
        if not any(isinstance(present, LineFilter) for present in logger.filters):
            logger.addFilter(LineFilter(starts))


class LineFilter(logging.Filter):
    """Drops the lines that report an internal setting; they start with one of ``starts``."""

    def __init__(self, starts: tuple) -> None:
        super().__init__()
        self.starts = starts

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.starts)
