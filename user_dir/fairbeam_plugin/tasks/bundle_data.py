"""A bundle's vocabularies and tokenizers behind fairseq's interfaces of dictionaries, codecs and datasets."""

from dataclasses import replace
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import torch
from fairseq.data import Dictionary, LanguagePairDataset

from fairbeam.model import Bundle, special_ids
from fairbeam.network import pad_batch
from fairbeam.text import Marks, TextSide, Tokenizer


class BundleDictionary(Dictionary):
    """The symbols of one side, under the ids that the model knows them by."""

    def __init__(self, model: Bundle, side: TextSide, rows: int) -> None:
        """``rows`` of the embedding, which may be more than there are symbols."""
        special = special_ids(model)
        super().__init__()
        self.side = side
        self.symbols = side.symbols(range(min(len(side), rows)))
        self.symbols += [f"<{number}>" for number in range(len(self.symbols), rows)]
        self.count = [1] * rows
        self.indices = {symbol: number for number, symbol in enumerate(self.symbols)}
        self.bos_index, self.pad_index, self.eos_index, self.unk_index = (
            special.bos, special.pad, special.eos, special.unk,
        )  # fmt: skip
        self.bos_word, self.pad_word, self.eos_word, self.unk_word = (
            self[number] if number >= 0 else "" for number in (special.bos, special.pad, special.eos, special.unk)
        )

    def encode_line(self, line: str, *unused: Any, **options: Any) -> torch.Tensor:
        """Plain text to ids, as the model's own tokenizer makes them."""
        return torch.tensor(self.side.encode(line), dtype=torch.int)


class BundleCodec:
    """The tokenizers behind the interface of fairseq's ``--bpe``; its dictionary does the encoding."""

    def __init__(self, target: BundleDictionary) -> None:
        self.target = target

    def encode(self, text: str) -> str:
        """The text itself."""
        return text

    def decode(self, symbols: str) -> str:
        """Target symbols with spaces between to text."""
        known = self.target.indices
        return self.target.side.decode([known[symbol] for symbol in symbols.split(" ") if symbol in known])


class TargetLines:
    """Encodes targets: up to the symbol that ends a text, which is added where the template has none."""

    def __init__(self, side: TextSide, eos: int) -> None:
        # Marks of a prompt, of a language model's dictionary, are none of a target.
        self.side = replace(side, marks=Marks.ENDED) if isinstance(side, Tokenizer) else side
        self.eos = eos

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> List[List[int]]:
        """The ids of every line, in order."""
        return [self._ended(row) for row in self.side.encode_batch(lines, threads)]

    def _ended(self, row: List[int]) -> List[int]:
        # What stands behind it, a language's token in mBART, is what the decoder begins with.
        return [*(row[: row.index(self.eos)] if self.eos in row else row), self.eos]


class BundlePairDataset(LanguagePairDataset):
    """Sentence pairs of a model whose sides fill batches with symbols of their own."""

    alpha = 0.0

    def __init__(
        self,
        source: Any,
        source_sizes: Sequence[int],
        target: Any,
        target_sizes: Optional[Sequence[int]],
        dictionary: Dictionary,
        *,
        source_pad: int,
        start: int,
        **options: Any,
    ) -> None:
        """``start`` is the symbol that targets begin with on the decoder's input."""
        super().__init__(source, np.array(source_sizes), dictionary, target, target_sizes, dictionary, **options)
        self.source_pad, self.target_pad, self.start = source_pad, dictionary.pad(), start

    def collater(self, samples: List[Dict[str, Any]], pad_to_length: Any = None) -> Dict[str, Any]:
        """A batch as fairseq's own has it, the longest sources first."""
        samples = sorted(samples, key=lambda sample: -len(sample["source"]))
        if not samples:
            return {}
        sources = [sample["source"].tolist() for sample in samples]
        lengths = torch.tensor([len(row) for row in sources])
        batch: Dict[str, Any] = {
            "id": torch.tensor([sample["id"] for sample in samples]),
            "nsentences": len(samples),
            "ntokens": int(lengths.sum()),
            "net_input": {"src_tokens": self._padded(sources), "src_lengths": lengths},
            "target": None,
        }
        if samples[0].get("target") is not None:
            targets = [sample["target"].tolist() for sample in samples]
            batch["target"] = pad_batch(targets, self.target_pad)
            batch["ntokens"] = sum(map(len, targets))
            previous = [[self.start, *row[:-1]] for row in targets]
            batch["net_input"]["prev_output_tokens"] = pad_batch(previous, self.target_pad)
        return batch

    def _padded(self, rows: List[List[int]]) -> torch.Tensor:
        if not self.left_pad_source:
            return pad_batch(rows, self.source_pad)
        return pad_batch([row[::-1] for row in rows], self.source_pad).flip(1)
