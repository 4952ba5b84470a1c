"""What the decoder remembers between steps, as explicit values.

Beams of one sentence ride in the query dimension. Their keys and values lie side by side in *slots*: the slot
of step ``t`` and beam ``b`` is ``1 + (t - 1) * beams + b``; at step 0 all beams are equal and share slot 0. A beam's
history is the set of slots its mask leaves open, so choosing new beams reorders the small mask and never copies a key
or a value.

Sentences may join behind their first step. They take their places in the step that the others have reached, so that
steps, and slots, are those of the oldest sentence; what is before a sentence's own beginning is closed to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.network.inference import native


def per_head(mask: Tensor, heads: int) -> Tensor:
    """(batch, queries, keys) written out for every head, (batch * heads, queries, keys), which all layers share."""
    return mask.repeat_interleave(heads, dim=0)


def slot_steps(slots: int, beams: int, device: torch.device) -> Tensor:
    """The step that filled each slot, (slots,): 0, then ``beams`` slots a step."""
    return (torch.arange(slots, device=device) + (beams - 1)) // beams


def of_sentences(rows: Tensor, sentences: Tensor, batch: int) -> Tensor:
    """The rows of some sentences of ``batch``, where each sentence has as many: (batch * n, …) to (kept * n, …)."""
    return rows.unflatten(0, (batch, -1)).index_select(0, sentences).flatten(0, 1)


@dataclass
class KeyValues:
    """Growing self-attention keys and values of one layer."""

    storage: Tensor
    """Keys and values, (2, batch, heads, capacity, head_dim); the first ``length`` slots are filled."""
    length: int = 0

    @classmethod
    def empty(cls, batch: int, heads: int, head_dim: int, like: Tensor, capacity: int = 64) -> "KeyValues":
        """Storage for ``capacity`` slots in the dtype and on the device of ``like``."""
        return cls(like.new_empty(2, batch, heads, capacity, head_dim))

    def append(self, added: Tensor) -> Tensor:
        """Add (2, batch, heads, new, head_dim) and return all filled slots, (2, batch * heads, length, head_dim)."""
        start = self.reserve(added.size(3))
        self.storage[:, :, :, start : self.length] = added
        return self.storage[:, :, :, : self.length].flatten(1, 2)

    def reserve(self, slots: int) -> int:
        """Make room for more slots, which the caller fills; the number of the first."""
        start, self.length = self.length, self.length + slots
        if self.length > self.storage.size(3):
            self._rebuild(self.storage[:, :, :, :start], max(self.length, 2 * self.storage.size(3)))
        return start

    def select(self, sentences: Tensor) -> None:
        """Keep only these rows of the batch."""
        self._rebuild(self.storage[:, :, :, : self.length].index_select(1, sentences), self.storage.size(3))

    def join_columns(self, other: "KeyValues", dead: int, slot: int) -> None:
        """Append sentences whose one slot becomes ``slot`` after the first ``dead`` ones are dropped."""
        kept = self.storage[:, :, :, dead : self.length]
        batch, self.length = kept.size(1), kept.size(3)
        joined = kept.new_empty(2, batch + other.storage.size(1), *self.storage.shape[2:])
        joined[:, :batch, :, : self.length] = kept
        joined[:, batch:, :, : self.length] = 0.0  # a closed slot has a weight of 0, and 0 * nan is nan
        joined[:, batch:, :, slot] = other.storage[:, :, :, 0]
        self.storage = joined

    def join_rows(self, other: "KeyValues", rows: Tensor, slot: int) -> None:
        """Put sentences into ``rows``, which are free or new, their one slot into ``slot``."""
        if (wanted := int(rows.max()) + 1) > self.storage.size(1):
            grown = self.storage.new_empty(2, wanted, *self.storage.shape[2:])
            grown[:, : self.storage.size(1)] = self.storage
            self.storage = grown
        self.storage[:, :, :, slot].index_copy_(1, rows, other.storage[:, :, :, 0])

    def _rebuild(self, filled: Tensor, capacity: int) -> None:
        self.storage = filled.new_empty(*filled.shape[:3], capacity, filled.size(4))
        self.storage[:, :, :, : filled.size(3)] = filled


class CrossKeyValues(NamedTuple):
    """The encoded source as the cross-attention of one layer reads it; each (batch * heads, source, head_dim)."""

    keys: Tensor
    values: Tensor
    rows: Tensor | None = None
    """(kept,) long: the sentences that are left, for who reads keys and values where they are; None for all."""


class AbsorbedKeyValues(NamedTuple):
    """The same with the projections of queries and outputs multiplied in, for queries of the residual stream."""

    keys: Tensor
    """(batch, dim, heads * source), scaled."""
    bias: Tensor
    """(batch, 1, heads * source): the share of the queries' bias, and the mask."""
    values: Tensor
    """(batch, heads * source, dim)."""


@dataclass
class CrossAttentionCache:
    """The encoded source as the decoder's cross-attention reads it: projected once, never copied per beam."""

    batch: int
    layers: Sequence[CrossKeyValues | AbsorbedKeyValues]
    """One for each decoder layer."""
    mask: Tensor | None
    """(batch * heads, 1, source), 0 at tokens and -inf at padding; None where nothing is padded."""

    def select(self, sentences: Tensor) -> None:
        """Keep only these rows of the batch."""
        first = self.layers[0]
        if isinstance(first, CrossKeyValues) and first.rows is not None:
            rows = first.rows[sentences]
            self.layers = [CrossKeyValues(layer[0], layer[1], rows) for layer in self.layers]
            self.batch = len(sentences)
            return

        def kept(tensor: Tensor) -> Tensor:
            return of_sentences(tensor, sentences, self.batch)

        self.layers = [
            CrossKeyValues(*map(kept, layer[:2]))
            if isinstance(layer, CrossKeyValues)
            else AbsorbedKeyValues(*map(kept, layer))
            for layer in self.layers
        ]
        self.mask = None if self.mask is None else kept(self.mask)
        self.batch = len(sentences)

    def join(self, other: "CrossAttentionCache") -> None:
        """Append the sentences of another, which like this one is not folded, and none of which has left."""
        first = self.layers[0]
        heads = len(other.layers[0].keys) // other.batch
        width = max(self._width(heads), other.layers[0].keys.size(1))
        if isinstance(first, CrossKeyValues) and first.rows is not None:
            self._join_rows(other, first.rows, heads, width)
        else:
            every = torch.arange(self.batch, device=first.keys.device)
            self._rebuild(every, self.batch, heads, width)
            self.layers = [
                CrossKeyValues(
                    torch.cat([mine.keys, _of_width(theirs.keys, width)]),
                    torch.cat([mine.values, _of_width(theirs.values, width)]),
                )
                for mine, theirs in zip(self.layers, other.layers, strict=True)
            ]
            assert self.mask is not None
            self.mask = torch.cat([self.mask, other.mask_of_width(width, heads)])
        self.batch += other.batch

    def mask_of_width(self, width: int, heads: int) -> Tensor:
        """The mask for sources padded to ``width``, (batch * heads, 1, width)."""
        keys = self.layers[0].keys
        open_ = keys.new_zeros(len(keys), 1, keys.size(1)) if self.mask is None else self.mask
        return _of_width(open_.mT, width, float("-inf")).mT.contiguous()

    def _join_rows(self, other: "CrossAttentionCache", rows: Tensor, heads: int, width: int) -> None:
        pool, before = len(self.layers[0].keys) // heads, self.layers[0].keys.size(1)
        # Sources that have got shorter are not to be read at the width of those before for long.
        if len(rows) + other.batch > pool or not 0.75 * before < width <= before or self.mask is None:
            pool = max(pool, len(rows) + other.batch)
            self._rebuild(rows, pool, heads, width)
            rows = torch.arange(len(rows))
        before = self.layers[0].keys.size(1)
        free = free_rows(rows, pool)[: other.batch]
        places = (free.unsqueeze(1) * heads + torch.arange(heads)).flatten()
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.keys[places] = _of_width(theirs.keys, before)
            mine.values[places] = _of_width(theirs.values, before)
        assert self.mask is not None
        self.mask[places] = other.mask_of_width(before, heads)
        rows = torch.cat([rows, free])
        self.layers = [CrossKeyValues(layer[0], layer[1], rows) for layer in self.layers]

    def _rebuild(self, rows: Tensor, pool: int, heads: int, width: int) -> None:
        """Lay these rows out one behind the other, with room for ``pool`` rows."""
        mask = self.mask_of_width(max(width, self.layers[0].keys.size(1)), heads)
        kept = (rows.unsqueeze(1) * heads + torch.arange(heads, device=rows.device)).flatten()

        def laid_out(tensor: Tensor) -> Tensor:
            room = tensor.new_zeros(pool * heads, width, tensor.size(2))
            room[: len(kept)] = _of_width(tensor[kept], width)
            return room

        self.layers = [CrossKeyValues(laid_out(layer[0]), laid_out(layer[1])) for layer in self.layers]
        self.mask = mask.new_full((pool * heads, 1, width), float("-inf"))
        self.mask[: len(kept)] = mask[kept, :, :width]

    def _width(self, heads: int) -> int:
        """Columns up to the last token of any sentence that is left."""
        first = self.layers[0]
        if self.mask is None:
            return first.keys.size(1)
        mask = self.mask.unflatten(0, (-1, heads))[:, 0, 0]
        if isinstance(first, CrossKeyValues) and first.rows is not None:
            mask = mask[first.rows]
        return int(mask.eq(0).any(0).nonzero().max()) + 1


def free_rows(taken: Tensor, pool: int) -> Tensor:
    """The rows of a pool that are not taken, and as many behind it as are, (pool,) long."""
    free = torch.ones(pool + len(taken), dtype=torch.bool).index_fill_(0, taken, False)
    return free.nonzero()[:, 0]


def _of_width(tensor: Tensor, width: int, value: float = 0.0) -> Tensor:
    """(rows, columns, …) cut or padded behind to ``width`` columns."""
    if tensor.size(1) >= width:
        return tensor[:, :width]
    return F.pad(tensor, (0, 0, 0, width - tensor.size(1)), value=value)


class BeamSlots(NamedTuple):
    """Each beam's history as the slots that hold it."""

    numbers: Tensor
    """(batch, beams or 1, steps) int32, the latest last; below 0, before all others, where there are fewer steps."""
    rows: Tensor
    """(batch,) long: where in the caches each sentence is."""
    starts: Tensor | None = None
    """(batch,) long: the first slot of each sentence's latest tokens; the cache's next ones if None."""


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
            self._own_slot = torch.arange(beams, dtype=torch.int32, device=like.device).view(1, -1, 1)
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
        if self._history.is_contiguous() and self._history.size(1) == self.beams:
            self._history = _append_slots(self._history, first)
            return self._history
        own = (self._own_slot + first).expand(len(self._history), -1, -1)
        self._history = torch.cat([self._history, own], dim=2)
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


def _append_slots(history: Tensor, first: int) -> Tensor:
    """Histories, (batch, beams, steps) int32, with one slot more: ``first`` for the first beam, and so on."""
    batch, beams, steps = history.shape
    out = history.new_empty(batch, beams, steps + 1)
    native.function("append_slots")(history.data_ptr(), out.data_ptr(), batch, beams, steps, first)
    return out


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
