"""What the decoder remembers between steps, as explicit values.

Beams of one sentence ride in the query dimension. Their keys and values lie side by side in *slots*: the slot
of step ``t`` and beam ``b`` is ``1 + (t - 1) * beams + b``; at step 0 all beams are equal and share slot 0. A beam's
history is the set of slots its mask leaves open, so choosing new beams reorders the small mask and never copies a key
or a value.

Sentences may join behind their first step. They take their places in the step that the others have reached, so that
steps, and slots, are those of the oldest sentence; what is before a sentence's own beginning is closed to it.
"""

import torch
from torch import Tensor

from fairbeam.network.cache import BeamSlots, CrossAttentionCache, KeyValues, free_rows, per_head
from fairbeam.network.inference import ops


class DecoderState:
    """Everything one decoding step needs: the memory, the self-attention cache and who descends from whom."""

    def __init__(
        self,
        memory: CrossAttentionCache | None,
        layers: list[KeyValues],
        batch: int,
        beams: int,
        like: Tensor,
        *,
        by_number: bool = False,
    ) -> None:
        """A state before the first token; ``like`` gives the dtype and device.

        ``by_number`` has histories told as ``BeamSlots``, not as masks.
        """
        self.memory = memory
        self.layers = layers
        self.beams = beams
        self.steps = 0
        self.latest: tuple[Tensor, Tensor | None] | None = None
        """Features of the last step, before beams of equal hypotheses are written out, and its logits if they are
        needed again; who was given them may overwrite them otherwise."""
        # (batch, beams, slots): 0 where a slot belongs to the beam's own history, -inf elsewhere
        self._history = like.new_empty(batch, beams, 0)
        closed = like.new_full((beams, beams), float("-inf"))
        self._own_slot = closed.fill_diagonal_(0.0)
        if by_number:
            self._history = torch.empty(batch, beams, 0, dtype=torch.int32, device=like.device)
        self._rows = torch.arange(batch, device=like.device) if by_number else None
        self._starts: Tensor | None = None
        """(batch,) long: the step at which each sentence began; None where all began at 0."""
        self._oldest = 0
        self._filled: list[int] = []
        """By number: which step filled each block of slots last. Block ``i`` begins at slot ``1 + i * beams``."""
        self._block = -1
        """The latest of them; -1 for slot 0."""

    def positions(self) -> Tensor:
        """How many tokens were run before those of the coming step: (1,), or (batch, 1) where sentences differ."""
        steps = torch.tensor([self.steps], device=self._history.device)
        return steps if self._starts is None else steps - self._starts.unsqueeze(1)

    def advance(self) -> Tensor | BeamSlots:
        """Open the slots of the next step and return each beam's history, the latest token included: a mask over all
        slots, (batch * heads, beams or 1, slots), or their numbers."""
        heads = self.layers[0].storage.size(2)
        self.steps += 1
        if self._rows is not None:
            return BeamSlots(self._advance_numbers(), self._rows)
        if self.steps == 1:
            self._history = self._history.new_zeros(len(self._history), self.beams, 1)
            return per_head(self._history[:, :1], heads)
        own = self._own_slot.expand(len(self._history), -1, -1)
        self._history = torch.cat([self._history, own], dim=2)
        return per_head(self._history, heads)

    def _advance_numbers(self) -> Tensor:
        if self.steps == 1:
            self._history = self._history.new_zeros(len(self._history), self.beams, 1)
            return self._history[:, :1].contiguous()
        first = self._open_block()
        self._history = ops.append_slots(self._history, first)
        return self._history

    def _open_block(self) -> int:
        """The first slot for the latest tokens: of the next block that is in no sentence's history, or of a new one."""
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
        """The first slot of the latest step."""
        return 1 + self._block * self.beams if self._block >= 0 else 0

    def open_ahead(self, most: int) -> tuple[int, Tensor]:
        """Make room for steps that are made in one call; histories must be ``BeamSlots``, with no joined sentences.

        Returns:
            How many of ``most`` steps there is room for, one at least, and room for the histories of all beams behind
            them, flat, which begins with those before them.
        """
        for layer in self.layers:
            layer.reserve(self.beams)
        steps = min(most, (self.layers[0].storage.size(3) - 1) // self.beams + 1 - self.steps)
        rows = len(self._history) * self.beams
        histories = self._history.new_empty(rows * (self.steps + steps))
        histories[: self._history.numel()] = self._history.flatten()
        return steps, histories

    def close_ahead(self, steps: int, histories: Tensor) -> None:
        """``steps`` were made, behind which are ``histories``, as ``advance`` leaves them."""
        self.steps += steps
        batch = len(self._history)
        self._history = histories[: batch * self.beams * self.steps].view(batch, self.beams, self.steps)
        self._filled = list(range(1, self.steps))
        self._block = self.steps - 2
        for layer in self.layers:
            layer.length = self._latest_slot + self.beams

    @property
    def may_go_ahead(self) -> bool:
        """Whether ``open_ahead`` can be asked."""
        return self._rows is not None and self._starts is None

    @property
    def rows(self) -> Tensor:
        """(batch,) long: where in the caches each sentence is, if histories are told as ``BeamSlots``."""
        assert self._rows is not None
        return self._rows

    def reorder(self, parents: Tensor) -> None:
        """Let beam ``b`` of each sentence continue beam ``parents[sentence, b]``; (batch, beams) long."""
        index = parents.unsqueeze(2).expand(-1, -1, self._history.size(2))
        self._history = self._history.gather(1, index)

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences, (kept,) long; the others are finished."""
        self._history = self._history[sentences]
        if self._starts is not None:
            self._starts = self._starts[sentences]
            self._oldest = int(self._starts.min())
        if self.memory is not None:
            self.memory.select(sentences)
        if self._rows is not None:  # caches are read where they are
            self._rows = self._rows[sentences]
            return
        for layer in self.layers:
            layer.select(sentences)

    def join(self, other: "DecoderState") -> None:
        """Append the sentences of a state that has run its first step, and that no sentence has joined or left."""
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
        fresh = free_rows(rows, self.layers[0].storage.size(1) + len(other._history))[: len(other._history)]
        for layer, added in zip(self.layers, other.layers, strict=True):
            layer.join_rows(added, fresh, self._latest_slot)
        self._rows = torch.cat([rows, fresh])
        history = self._history[:, :, self._oldest - self.steps :]
        joining = history.new_full((len(fresh), *history.shape[1:]), -1)
        joining[:, :, -1] = self._latest_slot
        self._history = torch.cat([history, joining])

    def _join_columns(self, other: "DecoderState") -> None:
        """Steps before the oldest sentence's first are dropped. Sentences that join have the last slot of the latest
        step, which is slot 0 when they are the oldest, and the slots of the step after it follow as usual."""
        assert self._starts is not None
        dead = self._oldest * self.beams
        self.steps, self._starts, history = self.steps - self._oldest, self._starts - self._oldest, self._history
        history = history[:, :, dead:]
        latest = (self.steps - 1) * self.beams
        joining = history.new_full((len(other._history), *history.shape[1:]), float("-inf"))
        joining[:, :, latest] = 0.0
        self._history = torch.cat([history, joining])
        for layer, added in zip(self.layers, other.layers, strict=True):
            layer.join_columns(added, dead, latest)


class PromptState(DecoderState):
    """The state of a decoder without an encoder: its first slots hold the prompt, which all beams share."""

    def __init__(
        self, layers: list[KeyValues], closed: Tensor, numbers: Tensor, beams: int, features: Tensor, prompt: Tensor
    ) -> None:
        """A state behind the prompt.

        Args:
            layers: keys and values of the prompt.
            closed: (batch, prompt), 0 at tokens and -inf at padding.
            numbers: (batch, prompt) position numbers; padding's are the lowest.
            features: (batch, 1, dim) of each prompt's last token, from which the first step scores.
            prompt: (batch, prompt, dim) features of all tokens, zeros at padding.
        """
        super().__init__(None, layers, len(closed), beams, closed)
        self.numbers = numbers
        """(batch, slots): the position number of each filled slot."""
        self.next_numbers = numbers.amax(1, keepdim=True) + 1
        """(batch, 1): the position number at which all beams of a sentence go on."""
        self.features: Tensor | None = features
        self.prompt: Tensor | None = prompt
        """Until the second step."""
        self.steps = 1  # the prompt's last token is run already
        self._history = closed[:, None].expand(-1, beams, -1)

    def take_features(self) -> Tensor | None:
        """What the prompt left, once; None from then on."""
        features, self.features = self.features, None
        return features

    def advance(self) -> Tensor | BeamSlots:
        self.prompt = None
        self.numbers = torch.cat([self.numbers, self.next_numbers.expand(-1, self.beams)], dim=1)
        self.next_numbers = self.next_numbers + 1
        return super().advance()

    def select(self, sentences: Tensor) -> None:
        super().select(sentences)
        self.numbers, self.next_numbers = self.numbers[sentences], self.next_numbers[sentences]
        self.prompt = None if self.prompt is None else self.prompt[sentences]
        self.features = None if self.features is None else self.features[sentences]
