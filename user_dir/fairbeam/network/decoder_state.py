"""Decoder states: everything a network keeps between decoding steps, as explicit values.

The slot of step ``t`` and beam ``b`` is ``1 + (t - 1) * beams + b``; slot 0 holds step 0, where all beams are equal.
Where histories are slot tables, blocks of slots that no beam's history needs any more are filled again.

Sentences may join a batch after their first step. They enter at the step that the others have reached, so steps and
slots count from the oldest sentence; slots from before a sentence joined are masked for it.
"""

import torch
from torch import Tensor

from fairbeam.network.cache import BeamSlots, CrossAttentionCache, KeyValues, free_rows, per_head
from fairbeam.network.inference import ops


class DecoderState:
    """Cross-attention cache, self-attention caches and the history of every beam."""

    def __init__(
        self,
        memory: CrossAttentionCache | None,
        layers: list[KeyValues],
        batch: int,
        beams: int,
        like: Tensor,
        *,
        by_slot: bool = False,
    ) -> None:
        """Make the state before the first token.

        Args:
            memory: the encoded source; None for a decoder without an encoder.
            layers: empty self-attention caches.
            batch: number of sentences.
            beams: hypotheses per sentence.
            like: tensor whose dtype and device the history masks get.
            by_slot: keep histories as ``BeamSlots`` instead of masks.
        """
        self.memory = memory
        self.layers = layers
        self.beams = beams
        self.steps = 0
        self.latest: tuple[Tensor, Tensor | None] | None = None
        """(features, logits) of the last step. Not yet expanded over beams if all beams are equal. logits is None when
        nobody needs them again, so the caller may modify its copy in place."""
        # (batch, beams, slots): 0 where a slot belongs to the beam's own history, -inf elsewhere
        self._history = like.new_empty(batch, beams, 0)
        masked = like.new_full((beams, beams), float("-inf"))
        self._own_slot = masked.fill_diagonal_(0.0)
        if by_slot:
            self._history = torch.empty(batch, beams, 0, dtype=torch.int32, device=like.device)
        self._rows = torch.arange(batch, device=like.device) if by_slot else None
        self._starts: Tensor | None = None
        """(batch,) long: the step at which each sentence began; None if all began at step 0."""
        self._oldest = 0
        """Lowest of ``_starts``."""
        self._filled: list[int] = []
        """Step that last filled each block of ``beams`` slots. Block ``i`` begins at slot ``1 + i * beams``."""
        self._block = -1
        """Index of the block that the latest step filled; -1 for slot 0."""

    def positions(self) -> Tensor:
        """Return the target position of the next step's tokens, from 0: (1,), or (batch, 1) if sentences differ."""
        steps = torch.tensor([self.steps], device=self._history.device)
        return steps if self._starts is None else steps - self._starts.unsqueeze(1)

    def advance(self) -> Tensor | BeamSlots:
        """Begin the next step and return each beam's history, the token about to be decoded included.

        Returns:
            A mask over all slots, (batch * heads, beams or 1, slots), or the slot table if ``by_slot``.
        """
        heads = self.layers[0].storage.size(2)
        self.steps += 1
        if self._rows is not None:
            return BeamSlots(self._advance_slots(), self._rows)
        if self.steps == 1:
            self._history = self._history.new_zeros(len(self._history), self.beams, 1)
            return per_head(self._history[:, :1], heads)
        own = self._own_slot.expand(len(self._history), -1, -1)
        self._history = torch.cat([self._history, own], dim=2)
        return per_head(self._history, heads)

    def _advance_slots(self) -> Tensor:
        """Append the new step's slots to the slot table and return it, (batch, beams or 1, steps)."""
        if self.steps == 1:
            self._history = self._history.new_zeros(len(self._history), self.beams, 1)
            return self._history[:, :1].contiguous()
        first = self._open_block()
        self._history = ops.append_slots(self._history, first)
        return self._history

    def _open_block(self) -> int:
        """Return the first slot for the new step: of the next block if no history needs it, else of a new block."""
        self._block = (self._block + 1) % max(1, len(self._filled))
        if not self._filled or self._filled[self._block] >= self._oldest:
            self._block = len(self._filled)
            self._filled.append(0)
        self._filled[self._block] = self.steps - 1
        for layer in self.layers:
            layer.length = self._latest_slot
        return self._latest_slot

    @property
    def _latest_slot(self) -> int:
        """First slot of the latest step."""
        return 1 + self._block * self.beams if self._block >= 0 else 0

    def open_ahead(self, most: int) -> tuple[int, Tensor]:
        """Reserve slots for several steps that one native call decodes; requires ``may_go_ahead``.

        Args:
            most: number of steps wanted, at least 1.

        Returns:
            The number of steps there is room for, from 1 to ``most``; and int32 storage for the slot tables after those
            steps, flat, whose beginning holds the present tables.
        """
        for layer in self.layers:
            layer.reserve(self.beams)
        steps = min(most, (self.layers[0].storage.size(3) - 1) // self.beams + 1 - self.steps)
        rows = len(self._history) * self.beams
        histories = self._history.new_empty(rows * (self.steps + steps))
        histories[: self._history.numel()] = self._history.flatten()
        return steps, histories

    def close_ahead(self, steps: int, histories: Tensor) -> None:
        """Take over the slot tables of ``open_ahead`` after ``steps`` steps were decoded, as if by ``advance``."""
        self.steps += steps
        batch = len(self._history)
        self._history = histories[: batch * self.beams * self.steps].view(batch, self.beams, self.steps)
        self._filled = list(range(1, self.steps))
        self._block = self.steps - 2
        for layer in self.layers:
            layer.length = self._latest_slot + self.beams

    @property
    def may_go_ahead(self) -> bool:
        """Whether ``open_ahead`` may be called: histories are slot tables and no sentence has joined."""
        return self._rows is not None and self._starts is None

    @property
    def rows(self) -> Tensor:
        """Each sentence's row in the caches, (batch,) long; only if histories are ``BeamSlots``."""
        assert self._rows is not None
        return self._rows

    def reorder(self, parents: Tensor) -> None:
        """Let beam ``b`` of each sentence continue beam ``parents[sentence, b]``; (batch, beams) long."""
        index = parents.unsqueeze(2).expand(-1, -1, self._history.size(2))
        self._history = self._history.gather(1, index)

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences, (kept,) long; drop the others, which are finished."""
        self._history = self._history[sentences]
        if self._starts is not None:
            self._starts = self._starts[sentences]
            self._oldest = int(self._starts.min())
        if self.memory is not None:
            self.memory.select(sentences)
        if self._rows is not None:  # kernels read the rows in place, so nothing is copied
            self._rows = self._rows[sentences]
            return
        for layer in self.layers:
            layer.select(sentences)

    def join(self, other: "DecoderState") -> None:
        """Append the sentences of ``other``, which has run only its first step and gained or lost no sentence."""
        if self._starts is None:
            self._starts = torch.zeros(len(self._history), dtype=torch.long, device=self._history.device)
        if self.memory is not None and other.memory is not None:
            self.memory.join(other.memory)
        if self._rows is None:
            self._join_columns(other)
        else:
            self._join_rows(other, self._rows)
        self._starts = torch.cat([self._starts, self._starts.new_full((len(other._history),), self.steps - 1)])
        self._oldest = int(self._starts.min())

    def _join_rows(self, other: "DecoderState", rows: Tensor) -> None:
        """Join as slot tables: give the new sentences free cache rows and the latest step's first slot."""
        fresh = free_rows(rows, self.layers[0].storage.size(1) + len(other._history))[: len(other._history)]
        for layer, added in zip(self.layers, other.layers, strict=True):
            layer.join_rows(added, fresh, self._latest_slot)
        self._rows = torch.cat([rows, fresh])
        history = self._history[:, :, self._oldest - self.steps :]
        joining = history.new_full((len(fresh), *history.shape[1:]), -1)
        joining[:, :, -1] = self._latest_slot
        self._history = torch.cat([history, joining])

    def _join_columns(self, other: "DecoderState") -> None:
        """Join as masks: drop slots from before the oldest sentence began, and give the new sentences the latest step's
        first slot (slot 0 if they are the oldest), so that the next step's slots follow as usual."""
        assert self._starts is not None
        expired = self._oldest * self.beams
        self.steps, self._starts, history = self.steps - self._oldest, self._starts - self._oldest, self._history
        history = history[:, :, expired:]
        latest = (self.steps - 1) * self.beams
        joining = history.new_full((len(other._history), *history.shape[1:]), float("-inf"))
        joining[:, :, latest] = 0.0
        self._history = torch.cat([history, joining])
        for layer, added in zip(self.layers, other.layers, strict=True):
            layer.join_columns(added, expired, latest)


class PromptState(DecoderState):
    """The state of a decoder-only network, whose first slots hold the prompt, shared by all beams."""

    def __init__(
        self,
        layers: list[KeyValues],
        padding_mask: Tensor,
        position_ids: Tensor,
        beams: int,
        features: Tensor,
        prompt: Tensor,
    ) -> None:
        """Make the state after the prompt.

        Args:
            layers: self-attention caches of the prompt.
            padding_mask: (batch, prompt), 0 at tokens and -inf at padding.
            position_ids: (batch, prompt) long; padding has the lowest.
            beams: hypotheses per sentence.
            features: (batch, 1, dim) of each prompt's last token, which the first step scores.
            prompt: (batch, prompt, dim) features of all prompt tokens, zeros at padding.
        """
        super().__init__(None, layers, len(padding_mask), beams, padding_mask)
        self.position_ids = position_ids
        """(batch, slots): position id of each filled slot."""
        self.next_position_ids = position_ids.amax(1, keepdim=True) + 1
        """(batch, 1): position id of the next step's tokens, the same for all beams of a sentence."""
        self.features: Tensor | None = features
        self.prompt: Tensor | None = prompt
        """Features of the prompt; None from the second step on."""
        self.steps = 1  # prefilling has run the prompt's last token
        self._history = padding_mask[:, None].expand(-1, beams, -1)

    def take_features(self) -> Tensor | None:
        """Return the features of the prompt's last token, (batch, 1, dim), at the first call; None afterwards."""
        features, self.features = self.features, None
        return features

    def advance(self) -> Tensor | BeamSlots:
        self.prompt = None
        self.position_ids = torch.cat([self.position_ids, self.next_position_ids.expand(-1, self.beams)], dim=1)
        self.next_position_ids = self.next_position_ids + 1
        return super().advance()

    def select(self, sentences: Tensor) -> None:
        super().select(sentences)
        self.position_ids, self.next_position_ids = self.position_ids[sentences], self.next_position_ids[sentences]
        self.prompt = None if self.prompt is None else self.prompt[sentences]
        self.features = None if self.features is None else self.features[sentences]
