"""``fairseq-generate`` that says how long its whole loop over the batches took.

Its own timer covers the calls of the search alone, and so neither what is printed between them nor what is decoded
meanwhile.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any

from fairseq.logging import progress_bar
from fairseq_cli import generate


class Timed:
    """Batches that say how long all of them took, when they are exhausted."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self.n = getattr(batches, "n", 0)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        started = time.perf_counter()
        yield from self._batches
        print(f"Loop over batches took {time.perf_counter() - started:.3f}s", file=sys.stderr, flush=True)


def main() -> None:
    """As ``fairseq-generate``, with its arguments."""
    usual = progress_bar.progress_bar
    progress_bar.progress_bar = lambda batches, **options: usual(Timed(batches), **options)
    generate.cli_main()


if __name__ == "__main__":
    main()
