"""Sentence pairs encoded from plain text as they are needed, with subwords drawn anew every epoch if asked."""

import random
from typing import Any, List, Optional, Sequence

import numpy as np
import torch
from fairseq.data import Dictionary, LanguagePairDataset

from fairbeam.text import Tokenizer


class EncodedLines(torch.utils.data.Dataset):
    """One side of a corpus as token ids."""

    def __init__(self, lines: Sequence[str], tokenizer: Tokenizer) -> None:
        self.lines = lines
        self.tokenizer = tokenizer
        self._rows: List[torch.Tensor] = []
        self.encode()

    def encode(self) -> None:
        """Encode every line the one usual way."""
        self._take(self.tokenizer.encode_batch(self.lines))

    def sample(self, alpha: float, seed: int) -> None:
        """Encode every line one random way."""
        draw = random.Random(seed)
        self._take([self.tokenizer.sample(line, alpha=alpha, rng=draw) for line in self.lines])

    def _take(self, rows: List[List[int]]) -> None:
        self._rows = [torch.tensor(row) for row in rows]
        self.sizes = np.array([len(row) for row in rows])

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._rows[index]

    def get_original_text(self, index: int) -> str:
        """A line's pieces as they were before unknown ones became ``<unk>``, for ``--replace-unk``."""
        return " ".join(self.tokenizer.subwords.encode(self.lines[index]))

    def __len__(self) -> int:
        return len(self._rows)


class TextPairDataset(LanguagePairDataset):
    """fairseq's pair dataset over lines of text."""

    def __init__(
        self,
        source: EncodedLines,
        target: Optional[EncodedLines],
        source_dictionary: Dictionary,
        target_dictionary: Dictionary,
        alpha: float,
        **options: Any,
    ) -> None:
        """``alpha`` above 0 draws subwords at random (BPE-dropout or unigram sampling) at each ``resample``."""
        self.alpha = alpha
        super().__init__(
            source,
            source.sizes,
            source_dictionary,
            target,
            None if target is None else target.sizes,
            target_dictionary,
            **options,
        )

    def resample(self, seed: int) -> None:
        """Draw the subwords of an epoch."""
        if self.alpha <= 0:
            return
        self.src.sample(self.alpha, 2 * seed)
        self.src_sizes = self.src.sizes
        if self.tgt is not None:
            self.tgt.sample(self.alpha, 2 * seed + 1)
            self.tgt_sizes = self.tgt.sizes
        self.sizes = np.vstack((self.src_sizes, self.tgt_sizes)).T if self.tgt is not None else self.src_sizes
