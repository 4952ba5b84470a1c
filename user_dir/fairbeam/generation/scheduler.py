"""Which sentences are decoded when: the longest first, and new ones as soon as others have made room."""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from fairbeam.data.batching import BatchLimits

_SHARE = 8
"""New sentences come when one of so many places is free: a few at a time cost many prefills, many leave places empty.
"""

Claim = Callable[[int], int]
"""Given a count, the first of so many numbers that nobody else has or gets; they ascend."""


class Scheduler:
    """One worker's view of a window of sentences, of which every worker takes as many as it has room for."""

    def __init__(self, lengths: Sequence[int], limits: BatchLimits, claim: Claim, workers: int = 1) -> None:
        """
        Args:
            lengths: source tokens of each sentence of the window.
            limits: what the batch may hold at any time: sentences, and sentences times the longest of them.
            claim: gives this worker places in the order of decoding.
            workers: how many take from this window; none takes more than its share at once.
        """
        self._lengths = lengths
        self._order = np.argsort([-length for length in lengths], kind="stable").tolist()
        # Neighbours in length are decoded together: they waste little on padding, and stragglers begin early.
        self._places = max(1, min(limits.max_sentences or len(lengths), -(-len(lengths) // workers)))
        self._limits = limits
        self._claim = claim
        self._claimed: deque[int] = deque()
        self._over = False

    def admit(self, running: Sequence[int]) -> list[int]:
        """The sentences that join now, by their places in the window.

        Args:
            running: the sentences that are being decoded.

        Returns:
            None where too little room is left, or nobody is waiting. A sentence that no batch has room for is decoded
            alone.
        """
        room = self._room(running)
        if running and room * _SHARE < len(running) + room:
            return []
        return [self._claimed.popleft() for _ in range(room)]

    def _room(self, running: Sequence[int]) -> int:
        """How many of those that come next fit in beside those that run."""
        width = max((self._lengths[sentence] for sentence in running), default=0)
        count = 0
        while len(running) + count < self._places and self._fetch(count):
            width = max(width, self._lengths[self._claimed[count]])
            if not self._limits.fit(len(running) + count + 1, width) and (running or count):
                break
            count += 1
        return count

    def _fetch(self, held: int) -> bool:
        """Whether more than ``held`` sentences are claimed; claims some if there are any."""
        if held == len(self._claimed) and not self._over:
            wanted = -(-self._places // _SHARE)
            first = self._claim(wanted)
            self._claimed += self._order[first : first + wanted]
            self._over = first + wanted >= len(self._order)
        return held < len(self._claimed)
