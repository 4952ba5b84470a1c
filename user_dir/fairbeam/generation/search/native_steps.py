"""Plain beam search by the native library: scores, softmax and candidates of a step in one call, or several steps."""

import functools
from typing import Any

import torch
from torch import Tensor

from fairbeam.generation.logits_processors import StaticMask
from fairbeam.generation.model import Model, SingleModel
from fairbeam.generation.search.beams import Beams, Candidates
from fairbeam.network import EncoderDecoder
from fairbeam.network.inference import native
from fairbeam.network.inference.fused_decoder import FusedDecoder
from fairbeam.network.inference.fused_stack import supports_memory
from fairbeam.network.inference.heads import NativeHead
from fairbeam.network.inference.native import Arguments, counts, pointers


class BestContinuations(Arguments):
    """The best continuations of beams, from the output projection's input (search.h)."""

    _fields_ = (
        *pointers("features projection shortlist totals masked best_totals parents tokens"),
        *counts("batch beams count masked_count"),
    )


class BeamSearchSteps(Arguments):
    """Steps of beam search until a hypothesis ends (search.h)."""

    _fields_ = (
        *pointers("step embedding final_norm projection shortlist masked"),
        *pointers("tokens totals history ignored slots best_totals parents chosen"),
        *counts("room filled masked_count eos max_steps steps_made"),
    )


class NativeSteps:
    """Beam search without any choice but the most probable tokens, for one network with a native output projection.

    Its results are those of ``SingleModel.score``, log-softmax and ``best_continuations``, made for a few sentences at
    a time, whose scores stay in the processor's cache.
    """

    def __init__(self, model: SingleModel, head: NativeHead, beam: int, eos: int) -> None:
        self._model, self._head, self._beam, self._eos = model, head, beam, eos
        network = model.network
        self._decoder: FusedDecoder | None = network.fused_decoder if isinstance(network, EncoderDecoder) else None

    @classmethod
    def build(cls, model: Model, temperature: float, beam: int, eos: int) -> "NativeSteps | None":
        """Return native steps of a model; None if the library cannot score its tokens."""
        if not isinstance(model, SingleModel) or temperature != 1.0:
            return None
        head = model.network.native_head
        return None if head is None else cls(model, head, beam, eos)

    def __call__(self, state: Any, beams: Beams, mask: StaticMask, *, max_steps: int | None) -> Candidates:
        """Return the candidates of the next step, or, until some end, of the first step after it at which one does.

        Args:
            state: of the model; changed.
            beams: extended at all steps but the last.
            mask: tokens that may not follow, at as many steps.
            max_steps: steps at most besides the mask's own limit; None if steps must be made one by one.
        """
        inner = self._model.network_state(state)
        ahead = max_steps is not None and native.can_run(beams.tokens, beams.history)
        if ahead and self._decoder is not None and inner.may_go_ahead and supports_memory(inner.memory):
            assert max_steps is not None
            return self._several_steps(self._decoder, state, beams, tuple(mask.tokens), min(max_steps, mask.steps))
        return self._one_step(state, beams, tuple(mask.tokens))

    def _one_step(self, state: Any, beams: Beams, masked: tuple[int, ...]) -> Candidates:
        model, latest = self._model, beams.tokens[:, :, beams.step]
        features = model.network.features_of_step(model.network_state(state), model.token_ids(latest)).contiguous()
        batch, run, _ = features.shape
        totals = beams.totals[:, :run].contiguous()
        best, ids = _empty_candidates(totals, 2 * self._beam), _id_tensor(masked)
        added = model.logit_mask(state)
        shortlist = self._head.shortlist_columns(added)
        BestContinuations(
            features=features.data_ptr(),
            projection=self._head.struct.address,
            shortlist=None if shortlist is None else shortlist.address,
            totals=totals.data_ptr(),
            masked=ids.data_ptr(),
            best_totals=best.totals.data_ptr(),
            parents=best.parents.data_ptr(),
            tokens=best.tokens.data_ptr(),
            batch=batch,
            beams=run,
            count=2 * self._beam,
            masked_count=len(masked),
        ).call()
        return best

    def _several_steps(
        self, decoder: FusedDecoder, state: Any, beams: Beams, masked: tuple[int, ...], max_steps: int
    ) -> Candidates:
        inner, added = self._model.network_state(state), self._model.logit_mask(state)
        begun = inner.steps
        assert beams.tokens.size(2) == beams.history.size(2) + 1
        max_steps, histories = inner.open_ahead(max_steps)
        beams.totals, beams.ignored = beams.totals.contiguous(), beams.ignored.contiguous()
        best, ids = _empty_candidates(beams.totals, 2 * self._beam), _id_tensor(masked)
        step = decoder.stack.decoder_step(inner.layers, inner.rows, inner.memory, beams.totals.size(1))
        step.steps = begun
        embedding = decoder.token_embedding(begun)
        shortlist = self._head.shortlist_columns(added)
        search = BeamSearchSteps(
            step=step.address,
            embedding=embedding.address,
            final_norm=None if decoder.final_norm is None else decoder.final_norm.address,
            projection=self._head.struct.address,
            shortlist=None if shortlist is None else shortlist.address,
            masked=ids.data_ptr(),
            tokens=beams.tokens.data_ptr(),
            totals=beams.totals.data_ptr(),
            history=beams.history.data_ptr(),
            ignored=beams.ignored.data_ptr(),
            slots=histories.data_ptr(),
            best_totals=best.totals.data_ptr(),
            parents=best.parents.data_ptr(),
            chosen=best.tokens.data_ptr(),
            room=beams.tokens.size(2),
            filled=beams.step + 1,
            masked_count=len(masked),
            eos=self._eos,
            max_steps=max_steps,
        )
        search.call()
        inner.close_ahead(search.steps_made, histories)
        beams.step += search.steps_made - 1
        return best


def _empty_candidates(totals: Tensor, width: int) -> Candidates:
    batch = len(totals)
    parents, tokens = (totals.new_empty(batch, width, dtype=torch.long) for _ in range(2))
    return Candidates(totals.new_empty(batch, width), parents, tokens)


@functools.lru_cache(maxsize=64)
def _id_tensor(ids: tuple[int, ...]) -> Tensor:
    """Return ids as a tensor, which must not be changed."""
    return torch.tensor(ids, dtype=torch.long)
