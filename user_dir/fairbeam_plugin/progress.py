"""Progress of training and decoding for a person to watch, beside fairseq's log.

``FAIRBEAM_PROGRESS=N`` turns it on and names the file descriptor to draw on, for instance 2 for stderr. On a terminal
that is one redrawn bar with the loss and the time left, and a line for each epoch; elsewhere a short line every
half minute and for each epoch. What fairseq logs, and where, stays as it is: redirect it to a file, which
``fairbeam report`` can read.
"""

import atexit
import logging
import os
import time
from typing import Any, Callable, Dict, Iterator, Mapping, Optional

from fairseq.logging import metrics, progress_bar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fairbeam.errors import ConfigError
from fairbeam_plugin.patches.patching import mend

VARIABLE = "FAIRBEAM_PROGRESS"
REDRAW_SECONDS = 0.25
LINE_SECONDS = 30.0  # between lines where nothing can be redrawn
MEASURED_SECONDS = 3.0  # before this much has passed, no time left is given


def apply() -> None:
    """Show progress if the environment asks for it."""
    if os.environ.get(VARIABLE):
        install(Screen.on(os.environ[VARIABLE]))


def install(screen: "Screen") -> None:
    """Report the batches and statistics of fairseq's progress bars, and logged warnings, on ``screen``."""
    run = Run(screen)

    def build(stock: Callable, iterator: Any, log_format: Optional[str] = None, *args: Any, **options: Any) -> Any:
        # Two bars cannot be redrawn on one terminal.
        bar = stock(iterator, "json" if log_format in (None, "tqdm") else log_format, *args, **options)
        is_other_worker = progress_bar.logger.getEffectiveLevel() > logging.INFO  # of a training in several processes
        return bar if is_other_worker else WatchedBar(bar, iterator, run, options.get("epoch"), options.get("prefix"))

    mend(progress_bar, "progress_bar", build)
    logging.getLogger().addHandler(WarningLines(screen))
    atexit.register(screen.close)


class WarningLines(logging.Handler):
    """Log handler that repeats warnings and errors on the screen."""

    def __init__(self, screen: "Screen") -> None:
        super().__init__(logging.WARNING)
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self.screen.line(f"{record.levelname.lower()}: {record.getMessage()}")


class Screen:
    """Terminal or file that a person watches: finished lines, below them one line of status."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.redraws = console.is_terminal and not console.is_dumb_terminal
        self._bar: Optional[Progress] = None
        self._task = TaskID(0)
        self._shown = time.monotonic()

    @classmethod
    def on(cls, descriptor: str) -> "Screen":
        """Return a screen that writes to an open file descriptor, given as text.

        Raises:
            ConfigError: it is not the number of a file descriptor that is open for writing.
        """
        try:
            stream = os.fdopen(os.dup(int(descriptor)), "w", encoding="utf-8")
        except (ValueError, OSError) as error:
            raise ConfigError(f"{VARIABLE}={descriptor}: expected the number of an open file descriptor") from error
        return cls(Console(file=stream))

    def line(self, text: str) -> None:
        """Write a line that stays."""
        self.console.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)
        self.console.file.flush()

    def status(self, label: str, share: Optional[float], text: str) -> None:
        """Show how far the work is; calls that follow each other too closely are passed over.

        Args:
            label: the work, in a word or two.
            share: the part of it that is done, 0 to 1; None if nobody knows how much there is.
            text: details.
        """
        if time.monotonic() - self._shown < (REDRAW_SECONDS if self.redraws else LINE_SECONDS):
            return
        self._shown = time.monotonic()
        if not self.redraws:
            self.line(f"{label}: {text}")
            return
        if self._bar is None:
            columns = ("{task.description}", BarColumn(bar_width=20), TextColumn("{task.fields[text]}", markup=False))
            self._bar = Progress(*columns, console=self.console, auto_refresh=False, transient=True)
            self._task = self._bar.add_task(label, text=text)
            self._bar.start()
        # A total of 1 makes a share; without a total the bar pulses.
        total = None if share is None else 1.0
        self._bar.update(self._task, description=label, total=total, completed=share or 0.0, text=text)
        self._bar.refresh()

    def close(self) -> None:
        """Remove the line of status."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Pace:
    """Time left, from the time that the work of this process took so far, validation included."""

    def __init__(self) -> None:
        self._started: Optional[float] = None
        self._from = 0.0

    def left(self, done: float, total: Optional[float]) -> Optional[float]:
        """Return the seconds until ``done`` reaches ``total``, in one unit of work; None while that is unknown."""
        now = time.monotonic()
        if self._started is None:
            self._started, self._from = now, done
        seconds = now - self._started
        if total is None or done <= self._from or seconds < MEASURED_SECONDS:
            return None
        return max(total - done, 0.0) * seconds / (done - self._from)


class Run:
    """State of a command that outlives its bars: fairseq makes one for each epoch and one for each validation."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.pace = Pace()
        self.epoch: Optional[WatchedBar] = None  # of the epoch that is being trained
        self.validation: Dict[str, str] = {}  # latest statistics by subset, as text


class WatchedBar(progress_bar.BaseProgressBar):
    """Wrapper around one of fairseq's progress bars that also reports to a screen."""

    def __init__(
        self, wrapped_bar: Any, iterable: Any, run: Run, epoch: Optional[int] = None, prefix: Optional[str] = None
    ) -> None:
        super().__init__(iterable, epoch, prefix)
        self.wrapped_bar = wrapped_bar
        self.run = run
        self.subset = prefix
        self.batches = len(iterable)
        self.done = self.n
        self.started = time.monotonic()
        self.last_epoch: Optional[int] = None
        self.last_update: Optional[int] = None

    def update_config(self, config: Dict[str, Any]) -> None:
        """Take the end of training from the configuration; fairseq gives it to the bars of training alone."""
        self.last_epoch = config["optimization"]["max_epoch"] or None
        self.last_update = config["optimization"]["max_update"] or None
        self.run.epoch = self
        self.run.validation.clear()
        self.wrapped_bar.update_config(config)

    def __iter__(self) -> Iterator[Any]:
        show = self._show_updates if self.run.epoch is self else self._show_batches(Pace())
        try:
            for batch in self.wrapped_bar:
                show()
                yield batch
                self.done += 1
        finally:
            if self.run.epoch in (self, None):
                self.run.screen.close()

    def log(self, stats: Mapping[str, Any], tag: Optional[str] = None, step: Optional[int] = None) -> None:
        self.wrapped_bar.log(stats, tag=tag, step=step)

    def print(self, stats: Mapping[str, Any], tag: Optional[str] = None, step: Optional[int] = None) -> None:
        """Write the statistics of an epoch, or of a validation within one, on a line of their own."""
        self.wrapped_bar.print(stats, tag=tag, step=step)
        epoch = self.run.epoch
        if epoch is self:
            self.run.epoch = None
            found = ", ".join([f"loss {_number(stats, 'loss')}", *self.run.validation.values()])
            spent = duration(time.monotonic() - self.started)
            self.run.screen.line(f"epoch {self.epoch}{_of(self.last_epoch)}: {found} ({spent})")
        elif tag is not None and "loss" in stats:
            bleu = f", {tag} BLEU {_number(stats, 'bleu')}" if "bleu" in stats else ""
            self.run.validation[tag] = found = f"{tag} loss {_number(stats, 'loss')}{bleu}"
            if epoch is None or epoch.done + 1 < epoch.batches:  # at its end, the epoch's own line says so
                self.run.screen.line(f"{f'update {step:,}: ' if step else ''}{found}")

    def _show_batches(self, pace: Pace) -> Callable[[], None]:
        """Return a function that shows the share of batches that is done, in decoding or validation."""
        label = "decoding" if self.subset is None else "validating"

        def show() -> None:
            left = pace.left(self.done, self.batches)
            text = _details("batch", self.done, self.batches, left)
            self.run.screen.status(label, self.done / self.batches, text)

        return show

    def _show_updates(self) -> None:
        """Show the share of updates that is done, of all epochs, with the loss since fairseq last logged it."""
        assert self.epoch is not None
        done = (self.epoch - 1) * self.batches + self.done  # as if all epochs had as many updates
        ends = [self.last_epoch and self.last_epoch * self.batches, self.last_update]
        last = min((end for end in ends if end), default=None)
        text = _details("update", done, last, self.run.pace.left(done, last))
        meter = metrics.get_meter("train_inner", "loss")
        if meter is not None and meter.smoothed_value is not None:
            text = f"loss {float(meter.smoothed_value):.2f}, {text}"
        self.run.screen.status(f"epoch {self.epoch}{_of(self.last_epoch)}", None if last is None else done / last, text)


def duration(seconds: float) -> str:
    """Return a time as a person says it: ``45 s``, ``2 min 5 s``, ``3 h 20 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _details(unit: str, done: int, total: Optional[int], left: Optional[float]) -> str:
    """Return for instance ``update 40 of 1,300, 2 min 5 s left``."""
    return f"{unit} {done:,}{_of(total)}{'' if left is None else f', {duration(left)} left'}"


def _of(total: Optional[int]) -> str:
    return "" if total is None else f" of {total:,}"


def _number(stats: Mapping[str, Any], name: str) -> str:
    """Return a statistic with two digits; fairseq's own formatting reads its kinds of meters."""
    value = progress_bar.format_stat(stats[name]) if name in stats else None
    try:
        return f"{float(value):.2f}"
    except (TypeError, ValueError):
        return "?"
