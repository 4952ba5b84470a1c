"""Progress lines of training and decoding, on invented statistics and an invented clock."""

import io
import json
import logging
from collections import OrderedDict

import pytest
from fairseq.data.iterators import CountingIterator
from fairseq.logging import metrics, progress_bar
from rich.console import Console

from fairbeam.errors import ConfigError
from fairbeam_plugin import progress
from fairbeam_plugin.progress import Run, Screen, WatchedBar, duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that is advanced by adding to its only element."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def run(clock):
    return Run(Screen(Console(file=io.StringIO(), width=100)))


def lines(run: Run) -> list[str]:
    return run.screen.console.file.getvalue().splitlines()


def bar(run: Run, batches: int, epoch: int | None = None, prefix: str | None = None, start: int = 0) -> WatchedBar:
    iterator = CountingIterator(iter(range(start, batches)), start=start, total=batches)
    stock = progress_bar.progress_bar(iterator, "json", 100, epoch=epoch, prefix=prefix)
    return WatchedBar(stock, iterator, run, epoch, prefix)


def train_epoch(run: Run, clock: list[float], epoch: int, max_epoch: int, max_update: int = 0, start: int = 0) -> None:
    """Train for 4 updates of 20 s; validate for 10 s at the end."""
    training = bar(run, 4, epoch, start=start)
    training.update_config({"optimization": {"max_epoch": max_epoch, "max_update": max_update}})
    for batch in training:
        with metrics.aggregate("train_inner"):
            metrics.log_scalar("loss", 9.0 - epoch)
        clock[0] += 20
        if batch == 3:
            validation = bar(run, 1, epoch, "valid on 'valid' subset")
            for _ in validation:
                clock[0] += 10
            stats = OrderedDict(loss=8.0 - epoch, bleu=10.0 * epoch)
            validation.print(stats, tag="valid", step=epoch * 4)
    training.print(OrderedDict(loss=9.0 - epoch), tag="train", step=epoch * 4)
    metrics.reset_meters("train_inner")


def test_time_left_counts_validation_and_all_epochs(run, clock):
    for epoch in (1, 2):
        train_epoch(run, clock, epoch, max_epoch=2)
    assert lines(run) == [
        # After 40 s of 2 updates, 6 more take 120 s: validation is not known yet.
        "epoch 1 of 2: loss 8.00, update 2 of 8, 2 min 0 s left",
        "validating: batch 0 of 1",
        "epoch 1 of 2: loss 8.00, valid loss 7.00, valid BLEU 10.00 (1 min 30 s)",
        # 110 s with a validation, 5 of 8 updates.
        "epoch 2 of 2: loss 7.00, update 5 of 8, 1 min 6 s left",
        "epoch 2 of 2: loss 7.00, update 7 of 8, 21 s left",
        "epoch 2 of 2: loss 7.00, valid loss 6.00, valid BLEU 20.00 (1 min 30 s)",
    ]


def test_training_ends_at_an_update_and_begins_where_it_stopped(run, clock):
    train_epoch(run, clock, epoch=3, max_epoch=0, max_update=12, start=2)
    # Updates 10 and 11 come; those of an earlier run have no part in the pace.
    assert lines(run)[1:] == ["epoch 3: loss 6.00, valid loss 5.00, valid BLEU 30.00 (50 s)"]
    text = progress._details("update", 11, 12, run.pace.left(11, 12))
    assert text == "update 11 of 12, 50 s left"


def test_a_validation_within_an_epoch_has_a_line_of_its_own(run):
    training = bar(run, 9, 1)
    training.update_config({"optimization": {"max_epoch": 1, "max_update": 0}})
    next(iter(training))
    validation = bar(run, 1, 1, "valid on 'test' subset")
    list(validation)
    validation.print(OrderedDict(loss=5.25), tag="test", step=500)
    assert lines(run) == ["update 500: test loss 5.25"]


def test_decoding_shows_the_share_of_batches(run, clock):
    for _ in bar(run, 5):
        clock[0] += 31
    assert lines(run) == [f"decoding: batch {n} of 5, {duration(31 * (5 - n))} left" for n in range(1, 5)]


def test_fairseq_logs_what_it_logs_without(run, clock, caplog):
    with caplog.at_level(logging.INFO):
        train_epoch(run, clock, 1, max_epoch=1)
    assert [json.loads(record.message) for record in caplog.records if record.message.startswith("{")] == [
        {"epoch": 1, "valid_loss": "7", "valid_bleu": "10"},
        {"epoch": 1, "train_loss": "8"},
    ]


def test_warnings_are_repeated(run):
    handler = progress.WarningLines(run.screen)
    logger = logging.Logger("any")
    logger.addHandler(handler)
    logger.info("unseen")
    logger.warning("%s is odd [bold]", "x")
    assert lines(run) == ["warning: x is odd [bold]"]


@pytest.mark.parametrize("descriptor", ["yes", "987", "-1"])
def test_what_is_no_open_file_descriptor_is_an_error(descriptor):
    with pytest.raises(ConfigError, match=f"FAIRBEAM_PROGRESS={descriptor}: expected the number of an open file"):
        Screen.on(descriptor)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (3599.7, "1 h 0 min"), (12000, "3 h 20 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
