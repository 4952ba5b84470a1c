"""What decoding asks of a model: states, scores of the next token, and exact scores of the few tokens that count."""

from typing import Any, Protocol

import torch
from torch import Tensor

from fairbeam.generation.search import beam_ops
from fairbeam.network import LSTM, EncoderDecoder, Generator
from fairbeam.network.decoder_state import DecoderState, PromptState
from fairbeam.network.inference import ops
from fairbeam.network.inference.heads import RoundedHead
from fairbeam.network.verification_state import ScoredPositions, VerificationState


class StepScores:
    """Log-probabilities of the next token at one step, with exact values of a few where they are rounded."""

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs
        """(batch, beams, vocabulary) float32; logits processors change it in place."""

    def exact_delta(self, parents: Tensor, tokens: Tensor) -> Tensor | None:
        """Return what makes a few log-probabilities exact when it is added to them; None if they are exact.

        It is added last, behind what processors and the search have added, so that sums round alike everywhere.

        Args:
            parents: (batch, count) beams.
            tokens: (batch, count).

        Returns:
            (batch, count) float32.
        """
        return None

    def of_beams(self, beams: slice, log_probs: Tensor | None = None) -> "StepScores":
        """Return the scores of some beams, which are numbered from 0 there; ``log_probs`` replace theirs."""
        return _BeamScores(self, beams, self.log_probs[:, beams] if log_probs is None else log_probs)

    def of_rows(self, rows: Tensor | slice) -> "StepScores":
        """Return the scores of some sentences; if ``rows`` is a slice, their log-probabilities are a view."""
        return StepScores(self.log_probs[rows])


class _BeamScores(StepScores):
    """Scores of some of the beams of ``whole``."""

    def __init__(self, whole: StepScores, beams: slice, log_probs: Tensor) -> None:
        super().__init__(log_probs)
        self._whole, self._first, self._stride = whole, beams.start or 0, beams.step or 1

    def exact_delta(self, parents: Tensor, tokens: Tensor) -> Tensor | None:
        if (self._first, self._stride) != (0, 1):
            parents = parents * self._stride + self._first
        return self._whole.exact_delta(parents, tokens)


class NetworkScores(StepScores):
    """Scores of a network whose output projection is rounded."""

    def __init__(
        self, log_probs: Tensor, head: RoundedHead, latest: tuple[Tensor, Tensor | None], temperature: float
    ) -> None:
        """``latest``: features and logits of the step, as ``DecoderState.latest``; the logits of all beams."""
        super().__init__(log_probs)
        self._head, self._latest, self._temperature = head, latest, temperature

    def exact_delta(self, parents: Tensor, tokens: Tensor) -> Tensor:
        delta = self._head.logit_delta(*self._latest, parents, tokens)
        return beam_ops.renormalise(self.log_probs, delta / self._temperature, parents, tokens)

    def of_rows(self, rows: Tensor | slice) -> "NetworkScores":
        features, logits = self._latest
        latest = features[rows], None if logits is None else logits[rows]
        return NetworkScores(self.log_probs[rows], self._head, latest, self._temperature)


class State(Protocol):
    """What a model remembers of a batch between steps."""

    def reorder(self, parents: Tensor) -> None:
        """Let beam ``b`` of sentence ``s`` continue beam ``parents[s, b]``; (batch, beams) long."""

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences, (kept,) long."""

    def join(self, other: Any) -> None:
        """Append the sentences of a state that has run one step; for models that support joining."""


class Model(Protocol):
    """A model that is decoded step by step."""

    def prefill(self, source: Tensor, beams: int) -> Any:
        """Read a batch of sources, or of prompts to be continued: (batch, length) ids, padded."""

    def prefill_to_join(self, source: Tensor, beams: int) -> Any:
        """Do the same where sentences will join, or join others; for models that support joining."""

    @property
    def supports_joining(self) -> bool:
        """Whether sentences may join a batch whose decoding has begun."""

    def score(self, state: Any, tokens: Tensor, temperature: float) -> StepScores:
        """Feed the latest tokens, (batch, beams), and return the scores of the next."""

    def longest_target(self, source_length: int) -> int:
        """Return the longest target in tokens, ``</s>`` included, for a source of ``source_length`` tokens."""

    def alignments(self, source: Tensor, previous: Tensor) -> Tensor:
        """Return cross-attention under teacher forcing, (batch, target, source)."""

    @property
    def decoder_start(self) -> int | None:
        """Id of the token that decoding begins with; ``</s>`` if None."""


class Verifier(Model, Protocol):
    """A model that can read several tokens at once, and forget some again."""

    def begin(self, source: Tensor) -> Any:
        """Read a batch as ``prefill`` does, for one hypothesis a sentence that ``score_block`` goes on with."""

    def score_block(
        self, state: Any, tokens: Tensor, starts: Tensor, scored: ScoredPositions, temperature: float
    ) -> StepScores:
        """Feed several tokens of each hypothesis at target positions ``starts[b]``, ``starts[b] + 1``, ….

        What was read from there on before is overwritten.

        Args:
            state: changed in place.
            tokens: (batch, new) ids.
            starts: (batch,) positions of the first.
            scored: rows and columns of ``tokens`` whose next tokens are scored, each (scored,).
            temperature: as for ``score``.

        Returns:
            Scores in which each scored position is a sentence of one beam.
        """


class SingleModel:
    """One network."""

    def __init__(self, network: Generator) -> None:
        self.network = network
        self.longest_target = network.longest_target
        self.decoder_start = network.first_token
        self.supports_joining = isinstance(network, EncoderDecoder) and network.supports_joining

    def prefill(self, source: Tensor, beams: int) -> Any:
        return self.network.prefill(source, beams)

    def prefill_to_join(self, source: Tensor, beams: int) -> Any:
        assert isinstance(self.network, EncoderDecoder)
        return self.network.prefill(source, beams, joins=True)

    def network_state(self, state: Any) -> Any:
        """Return the network's part of a state."""
        return state

    def token_ids(self, tokens: Tensor) -> Tensor:
        """Return the network's ids of tokens."""
        return tokens

    def logit_mask(self, state: Any) -> Tensor | None:
        """Return what is added to the logits, (batch, 1, outputs); None for nothing."""
        return None

    def score(self, state: Any, tokens: Tensor, temperature: float) -> StepScores:
        logits, mask = self.network.step(self.network_state(state), self.token_ids(tokens)), self.logit_mask(state)
        head = self.network.rounded_head
        may_overwrite = head is None or not head.needs_logits
        if mask is not None:
            logits, may_overwrite = logits + mask, True
        # Beams that are all alike are one.
        few = logits[:, :1] if logits.stride(1) == 0 else logits
        if temperature != 1.0:
            few, may_overwrite = few / temperature, True
        log_probs = ops.log_softmax(few, may_overwrite=may_overwrite).expand_as(logits).contiguous()
        if head is None:
            return StepScores(log_probs)
        return NetworkScores(log_probs, head, self._latest(state), temperature)

    def _latest(self, state: Any) -> tuple[Tensor, Tensor | None]:
        """Return features and logits of the latest step, the logits of all beams."""
        inner = self.network_state(state)
        features, logits = inner.latest
        return features, None if logits is None else logits.expand(-1, inner.beams, -1)

    def begin(self, source: Tensor) -> VerificationState:
        return VerificationState(self.network.prefill(source, 1))

    def score_block(
        self, state: Any, tokens: Tensor, starts: Tensor, scored: ScoredPositions, temperature: float
    ) -> StepScores:
        assert not isinstance(self.network, LSTM)
        logits = self.network.forward_block(state, tokens, starts, scored)
        log_probs = torch.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1).unsqueeze(1)
        head = self.network.rounded_head
        return StepScores(log_probs) if head is None else NetworkScores(log_probs, head, state.latest, temperature)

    def features(self, state: DecoderState) -> Tensor:
        """Return the output projection's inputs at the last step, (batch, beams, dim)."""
        assert state.latest is not None
        return state.latest[0].expand(-1, state.beams, -1)

    def context(self, state: DecoderState) -> Tensor:
        """Return the features of all that was read by the end of the first step, (batch, length, dim), zeros at
        padding."""
        if isinstance(state, PromptState):
            assert state.prompt is not None
            return state.prompt
        return self.features(state)[:, :1]

    def alignments(self, source: Tensor, previous: Tensor) -> Tensor:
        assert isinstance(self.network, EncoderDecoder)
        return self.network.alignments(source, previous)
