"""The state of a decoder that reads several tokens of each hypothesis at a time, and may go back behind them."""

import torch
from torch import Tensor

from fairbeam.network.cache import BeamSlots, KeyValues, per_head
from fairbeam.network.decoder_state import DecoderState, PromptState


class PlacedKeyValues(KeyValues):
    """Keys and values whose rows stand at columns of their own; what is written again is forgotten."""

    columns: Tensor
    """(batch, new): the columns that the next keys and values get."""
    first: int | None
    """The first of them, where all rows have the same; they follow one another."""

    @classmethod
    def behind(cls, filled: KeyValues) -> "PlacedKeyValues":
        """The same storage, which is taken over."""
        filled.storage[:, :, :, filled.length :] = 0.0  # a closed column has a weight of 0, and 0 * nan is nan
        return cls(filled.storage, filled.length)

    def place(self, columns: Tensor, first: int | None, length: int) -> None:
        """Say where the next keys and values go, and how many columns are looked at."""
        self.columns, self.first, self.length = columns, first, length
        if length > self.storage.size(3):
            self._rebuild(self.storage, max(length, 2 * self.storage.size(3)))

    def append(self, added: Tensor) -> Tensor:
        if self.first is not None:
            self.storage[:, :, :, self.first : self.length] = added
        else:
            index = self.columns[None, :, None, :, None].expand_as(added)
            self.storage.scatter_(3, index, added.to(self.storage.dtype))
        return self.storage[:, :, :, : self.length].flatten(1, 2)

    def _rebuild(self, filled: Tensor, capacity: int) -> None:
        storage = filled.new_zeros(*filled.shape[:3], capacity, filled.size(4))
        storage[:, :, :, : filled.size(3)] = filled
        self.storage = storage


Scored = tuple[Tensor, Tensor]
"""Rows and columns of a batch of tokens."""


class VerificationState(DecoderState):
    """The state of one hypothesis a sentence, each at a position of its own, which may go back.

    A target's token ``t`` has column ``first + t``; the start symbol is token 0. Of a decoder without an encoder the
    prompt's last token stands for it, so that ``first`` is one before the prompt's width.
    """

    def __init__(self, begun: DecoderState) -> None:
        """What prefilling left, for one beam; it is taken over."""
        prompt = begun if isinstance(begun, PromptState) else None
        layers: list[KeyValues] = [PlacedKeyValues.behind(layer) for layer in begun.layers]
        super().__init__(begun.memory, layers, len(begun._history), 1, begun.layers[0].storage)
        self.first = 0 if prompt is None else prompt.numbers.size(1) - 1
        self.features = None if prompt is None else prompt.features
        """Those of a prompt's last token, (batch, 1, dim), until they are taken."""
        self._closed = self._history[:, :, :0] if prompt is None else prompt._history
        """(batch, 1, prompt): 0 at tokens and -inf at padding."""
        zero = torch.zeros(len(self._history), 1, dtype=torch.long, device=self._history.device)
        self._numbers = zero[:, :0] if prompt is None else prompt.numbers
        self._next = zero if prompt is None else prompt.next_numbers
        """(batch, 1): the position number of the first column behind the prompt."""

    def take_features(self) -> Tensor | None:
        """What the prompt left, once; None from then on."""
        features, self.features = self.features, None
        return features

    def place(
        self, tokens: Tensor, highest_number: int, *, by_number: bool = False
    ) -> tuple[Tensor | BeamSlots | None, Tensor, Tensor]:
        """Make room for the tokens of these numbers, (batch, new) long, in every layer.

        Tokens that fill a batch may stand beyond the last position; they get its number.

        Returns:
            The mask of attention, None where each token sees all columns, or, if ``by_number`` may be, their numbers;
            the tokens' position numbers, (batch, new), and all columns', (batch, columns), without the batch where
            sentences do not differ.
        """
        columns, prompt = self.first + tokens, self._numbers.size(1)
        lowest, highest = int(columns[:, 0].min()), int(columns[:, -1].max())
        alike = lowest if highest - lowest == columns.size(1) - 1 else None
        for layer in self.layers:
            layer.place(columns, alike, highest + 1)  # type: ignore[attr-defined]
        behind = torch.arange(highest + 1 - prompt, device=columns.device)
        if by_number and not prompt:
            seen = behind + (columns - highest).unsqueeze(2)
            starts = columns[:, 0].contiguous()
            slots = BeamSlots(seen.int(), torch.arange(len(columns), device=columns.device), starts)
            return slots, columns.clamp_max(highest_number), behind
        if alike is not None and not prompt:
            queries, keys = columns[0].clamp_max(highest_number), behind.clamp_max(highest_number)
            return (None if len(queries) == 1 else self._ahead(columns[0], behind)), queries, keys
        mask = self._ahead(columns, prompt + behind)
        if prompt:
            mask = torch.cat([self._closed.expand(-1, columns.size(1), -1), mask], dim=2)
        numbers = torch.cat([self._numbers, self._next + behind], dim=1).clamp_max(highest_number)
        queries = (self._next + columns - prompt).clamp_max(highest_number)
        return per_head(mask, self.layers[0].storage.size(2)), queries, numbers

    def _ahead(self, columns: Tensor, seen: Tensor) -> Tensor:
        """-inf where a seen column, (seen,), is behind that of a token, (..., new): (..., new, seen)."""
        closed = seen > columns.unsqueeze(-1)
        mask = torch.zeros(closed.shape, dtype=self._closed.dtype, device=columns.device)
        return mask.masked_fill_(closed, float("-inf"))

    def select(self, sentences: Tensor) -> None:
        super().select(sentences)
        self._closed, self._numbers, self._next = (x[sentences] for x in (self._closed, self._numbers, self._next))
        self.features = None if self.features is None else self.features[sentences]
