"""The decoder state of speculative decoding: one hypothesis a sentence, several tokens at a time, with rewinding."""

import torch
from torch import Tensor

from fairbeam.network.cache import BeamSlots, KeyValues, per_head
from fairbeam.network.decoder_state import DecoderState, PromptState


class PlacedKeyValues(KeyValues):
    """Self-attention cache whose rows are filled at columns of their own; filling a column again overwrites it."""

    columns: Tensor
    """(batch, new): columns for the next keys and values."""
    first: int | None
    """First of these columns if all rows have the same consecutive ones, else None."""

    @classmethod
    def from_cache(cls, filled: KeyValues) -> "PlacedKeyValues":
        """Take over the storage of a cache."""
        filled.storage[:, :, :, filled.length :] = 0.0  # a masked column has a weight of 0, and 0 * nan is nan
        return cls(filled.storage, filled.length)

    def set_columns(self, columns: Tensor, first: int | None, length: int) -> None:
        """Set the columns that the next ``append`` fills, and the number of columns that attention reads."""
        self.columns, self.first, self.length = columns, first, length
        if length > self.storage.size(3):
            self._reallocate(self.storage, max(length, 2 * self.storage.size(3)))

    def append(self, added: Tensor) -> Tensor:
        if self.first is not None:
            self.storage[:, :, :, self.first : self.length] = added
        else:
            index = self.columns[None, :, None, :, None].expand_as(added)
            self.storage.scatter_(3, index, added.to(self.storage.dtype))
        return self.storage[:, :, :, : self.length].flatten(1, 2)

    def _reallocate(self, filled: Tensor, capacity: int) -> None:
        storage = filled.new_zeros(*filled.shape[:3], capacity, filled.size(4))
        storage[:, :, :, : filled.size(3)] = filled
        self.storage = storage


ScoredPositions = tuple[Tensor, Tensor]
"""Row and column indices into a batch of tokens, each (scored,) long."""


class VerificationState(DecoderState):
    """The state of one hypothesis a sentence, each at a length of its own, which may be rewound.

    Target token ``t`` is at column ``first + t``; the start symbol is token 0. In a decoder-only network the prompt's
    last token plays the start symbol's part, so ``first`` is the prompt's width less one.
    """

    def __init__(self, prefilled: DecoderState) -> None:
        """Take over the state that prefilling for one beam has made."""
        prompt = prefilled if isinstance(prefilled, PromptState) else None
        layers: list[KeyValues] = [PlacedKeyValues.from_cache(layer) for layer in prefilled.layers]
        super().__init__(prefilled.memory, layers, len(prefilled._history), 1, prefilled.layers[0].storage)
        self.first = 0 if prompt is None else prompt.position_ids.size(1) - 1
        self.features = None if prompt is None else prompt.features
        """(batch, 1, dim) of the prompt's last token, until ``take_features`` returns them."""
        self._padding_mask = self._history[:, :, :0] if prompt is None else prompt._history
        """(batch, 1, prompt): 0 at tokens and -inf at padding."""
        zero = torch.zeros(len(self._history), 1, dtype=torch.long, device=self._history.device)
        self._prompt_ids = zero[:, :0] if prompt is None else prompt.position_ids
        """(batch, prompt): position ids of the prompt."""
        self._next_ids = zero if prompt is None else prompt.next_position_ids
        """(batch, 1): position id of the first column behind the prompt."""

    def take_features(self) -> Tensor | None:
        """Return the features of the prompt's last token, (batch, 1, dim), at the first call; None afterwards."""
        features, self.features = self.features, None
        return features

    def reserve_block(
        self, tokens: Tensor, max_position: int, *, by_slot: bool = False
    ) -> tuple[Tensor | BeamSlots | None, Tensor, Tensor]:
        """Make room in every layer for a block of tokens, and locate it among the columns.

        Args:
            tokens: (batch, new) long, consecutive target token indices (the start symbol is 0).
            max_position: highest position id. Padding at the end of a block may stand beyond it and gets this id.
            by_slot: return a slot table instead of a mask where there is no prompt.

        Returns:
            The attention mask, None where each token sees all columns, or the slot table; the position ids of the
            tokens, (batch, new), and those of all columns, (batch, columns). Ids lack the batch dimension where all
            sentences have the same.
        """
        columns, prompt = self.first + tokens, self._prompt_ids.size(1)
        lowest, highest = int(columns[:, 0].min()), int(columns[:, -1].max())
        common_first = lowest if highest - lowest == columns.size(1) - 1 else None
        for layer in self.layers:
            layer.set_columns(columns, common_first, highest + 1)  # type: ignore[attr-defined]
        behind = torch.arange(highest + 1 - prompt, device=columns.device)
        if by_slot and not prompt:
            histories = behind + (columns - highest).unsqueeze(2)
            starts = columns[:, 0].contiguous()
            slots = BeamSlots(histories.int(), torch.arange(len(columns), device=columns.device), starts)
            return slots, columns.clamp_max(max_position), behind
        if common_first is not None and not prompt:
            queries, keys = columns[0].clamp_max(max_position), behind.clamp_max(max_position)
            return (None if len(queries) == 1 else self._causal_mask(columns[0], behind)), queries, keys
        mask = self._causal_mask(columns, prompt + behind)
        if prompt:
            mask = torch.cat([self._padding_mask.expand(-1, columns.size(1), -1), mask], dim=2)
        keys = torch.cat([self._prompt_ids, self._next_ids + behind], dim=1).clamp_max(max_position)
        queries = (self._next_ids + columns - prompt).clamp_max(max_position)
        return per_head(mask, self.layers[0].storage.size(2)), queries, keys

    def _causal_mask(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Mask key columns, (keys,), behind each query's column, (..., new): (..., new, keys), 0 or -inf."""
        masked = keys > queries.unsqueeze(-1)
        mask = torch.zeros(masked.shape, dtype=self._padding_mask.dtype, device=queries.device)
        return mask.masked_fill_(masked, float("-inf"))

    def select(self, sentences: Tensor) -> None:
        super().select(sentences)
        self._padding_mask, self._prompt_ids, self._next_ids = (
            x[sentences] for x in (self._padding_mask, self._prompt_ids, self._next_ids)
        )
        self.features = None if self.features is None else self.features[sentences]
