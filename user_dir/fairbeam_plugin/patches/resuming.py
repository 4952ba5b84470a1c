"""A run that was killed and restarted ends as if it had not been."""

import sys
from typing import Any, Callable, Dict, Optional

from fairseq.trainer import Trainer

from fairbeam_plugin.patches.patching import mend

_STATE_KEY = "early_stopping"


def apply() -> None:
    """Put this page's mends in place."""
    mend(Trainer, "get_train_iterator", get_train_iterator)
    mend(Trainer, "save_checkpoint", save_checkpoint)
    mend(Trainer, "load_checkpoint", load_checkpoint)


def get_train_iterator(stock: Callable, trainer: Trainer, *args: Any, **kwargs: Any) -> Any:
    """Make each epoch's batches afresh from ``seed + epoch``.

    Stock makes them from the epoch in which the process started and keeps them, so a restarted run trains on
    other batches than one that was not killed. Data-loading workers, which stock keeps too, start anew with
    their dataset set to the right epoch.
    """
    return stock(trainer, *args, **{**kwargs, "disable_iterator_cache": True})


def save_checkpoint(stock: Callable, trainer: Trainer, filename: str, extra_state: Dict[str, Any]) -> Any:
    """Save how long the validation score has not improved, for ``--patience``; stock starts counting anew."""
    counter = _patience_counter()
    if hasattr(counter, "best"):
        state = {"best": float(counter.best), "num_runs": int(counter.num_runs)}
        extra_state = {**extra_state, _STATE_KEY: state}
    return stock(trainer, filename, extra_state)


def load_checkpoint(
    stock: Callable,
    trainer: Trainer,
    filename: str,
    reset_optimizer: bool = False,
    reset_lr_scheduler: bool = False,
    optimizer_overrides: Optional[Dict[str, Any]] = None,
    reset_meters: bool = False,
) -> Any:
    """Restore what `save_checkpoint` added, under the conditions on which stock restores the best score."""
    extra_state = stock(
        trainer, filename, reset_optimizer, reset_lr_scheduler, optimizer_overrides, reset_meters=reset_meters
    )
    saved, counter = (extra_state or {}).get(_STATE_KEY), _patience_counter()
    if saved and counter and not reset_optimizer and not reset_meters:
        counter.best, counter.num_runs = saved["best"], saved["num_runs"]
    return extra_state


def _patience_counter() -> Any:
    """The function of fairseq-train that counts, in attributes of its own; None outside training."""
    return getattr(sys.modules.get("fairseq_cli.train"), "should_stop_early", None)
