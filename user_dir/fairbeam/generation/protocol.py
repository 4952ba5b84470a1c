"""What decoding asks of a model, and ensembles that answer as one."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.network import Generator, Network, RecurrentNetwork
from fairbeam.network.cache import DecoderState, PromptState, RewindableState, Scored


class State(Protocol):
    """What a model remembers of a batch between steps."""

    def reorder(self, parents: Tensor) -> None:
        """Beam ``b`` of sentence ``s`` continues beam ``parents[s, b]``; (batch, beams) long."""

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences, (kept,) long."""


class Model(Protocol):
    """The three verbs of decoding."""

    def prefill(self, source: Tensor, beams: int) -> Any:
        """Read a batch of sources, or of prompts to be continued: (batch, length) ids, padded."""

    def log_probabilities(self, state: Any, tokens: Tensor, temperature: float) -> Tensor:
        """Feed the latest tokens, (batch, beams); get float32 (batch, beams, vocabulary)."""

    def correction(self, state: Any, beams: Tensor, tokens: Tensor, temperature: float) -> Tensor | None:
        """What to add to the log probabilities that the step just made gave a few tokens of a few beams.

        Both are (batch, count), as is the result; None where there is nothing to correct.
        """

    def longest_target(self, source_length: int) -> int:
        """Longest target in tokens, ``</s>`` included, for a source of ``source_length`` tokens."""

    def begin(self, source: Tensor) -> Any:
        """Read a batch as ``prefill`` does, for one hypothesis a sentence that ``read`` goes on with."""

    def read(self, state: Any, tokens: Tensor, starts: Tensor, scored: Scored, temperature: float) -> Tensor:
        """Feed several tokens of each hypothesis, (batch, new), the first of them its token ``starts``, (batch,); get
        float32 log probabilities behind those whose rows and columns are ``scored``, (scored, vocabulary). What was
        read from there on before is forgotten.

        To ``correction`` they are sentences of one beam.
        """

    def alignments(self, source: Tensor, previous: Tensor) -> Tensor:
        """Cross-attention under teacher forcing, (batch, target, source)."""

    @property
    def decoder_start(self) -> int | None:
        """The symbol that decoding begins with; ``</s>`` if None."""


class SingleModel:
    """One network."""

    def __init__(self, network: Generator) -> None:
        self.network = network
        self.longest_target = network.longest_target
        self.decoder_start = network.first_token

    def prefill(self, source: Tensor, beams: int) -> DecoderState:
        return self.network.prefill(source, beams)

    def log_probabilities(self, state: Any, tokens: Tensor, temperature: float) -> Tensor:
        logits = self.network.step(state, tokens)
        return torch.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)

    def begin(self, source: Tensor) -> RewindableState:
        return RewindableState(self.network.prefill(source, 1))

    def read(self, state: Any, tokens: Tensor, starts: Tensor, scored: Scored, temperature: float) -> Tensor:
        assert not isinstance(self.network, RecurrentNetwork)
        logits = self.network.read(state, tokens, starts, scored)
        return torch.log_softmax(logits if temperature == 1.0 else logits / temperature, dim=-1)

    def features(self, state: DecoderState) -> Tensor:
        """What the last step's scores were made of, (batch, beams, dim)."""
        assert state.latest is not None
        return state.latest[0].expand(-1, state.beams, -1)

    def context(self, state: DecoderState) -> Tensor:
        """The features of all that was read by the end of the first step, (batch, length, dim); zeros at padding."""
        if isinstance(state, PromptState):
            assert state.prompt is not None
            return state.prompt
        return self.features(state)[:, :1]

    def alignments(self, source: Tensor, previous: Tensor) -> Tensor:
        assert isinstance(self.network, Network)
        return self.network.alignments(source, previous)

    def correction(self, state: Any, beams: Tensor, tokens: Tensor, temperature: float) -> Tensor | None:
        rounding = self.network.rounding(state, beams, tokens)
        return rounding if rounding is None or temperature == 1.0 else rounding / temperature


class EnsembleState:
    """The states of all members."""

    def __init__(self, members: Sequence[DecoderState]) -> None:
        self.members = members

    def reorder(self, parents: Tensor) -> None:
        for state in self.members:
            state.reorder(parents)

    def select(self, sentences: Tensor) -> None:
        for state in self.members:
            state.select(sentences)


class Ensemble:
    """Networks over one vocabulary whose probabilities are averaged, as fairseq averages them."""

    def __init__(self, networks: Sequence[Generator], weights: Sequence[float] = ()) -> None:
        """``weights``: one for each network; all alike if empty."""
        self.models = [SingleModel(network) for network in networks]
        sum_of_all = sum(weights)
        self._shifts = [math.log(weight / sum_of_all) if weight else -math.inf for weight in weights]
        self.decoder_start = self.models[0].decoder_start

    def longest_target(self, source_length: int) -> int:
        return min(model.longest_target(source_length) for model in self.models)

    def prefill(self, source: Tensor, beams: int) -> EnsembleState:
        return EnsembleState([model.prefill(source, beams) for model in self.models])

    def log_probabilities(self, state: EnsembleState, tokens: Tensor, temperature: float) -> Tensor:
        members = zip(self.models, state.members, strict=True)
        return self._mean([model.log_probabilities(member, tokens, temperature) for model, member in members])

    def begin(self, source: Tensor) -> EnsembleState:
        return EnsembleState([model.begin(source) for model in self.models])

    def read(self, state: EnsembleState, tokens: Tensor, starts: Tensor, scored: Scored, temperature: float) -> Tensor:
        members = zip(self.models, state.members, strict=True)
        return self._mean([model.read(member, tokens, starts, scored, temperature) for model, member in members])

    def _mean(self, log_probabilities: list[Tensor]) -> Tensor:
        each = torch.stack(log_probabilities)
        if self._shifts:
            return torch.logsumexp(each + each.new_tensor(self._shifts).view(-1, *[1] * (each.dim() - 1)), dim=0)
        return torch.logsumexp(each, dim=0) - math.log(len(self.models))

    def alignments(self, source: Tensor, previous: Tensor) -> Tensor:
        return torch.stack([model.alignments(source, previous) for model in self.models]).mean(0)

    def correction(self, state: EnsembleState, beams: Tensor, tokens: Tensor, temperature: float) -> Tensor | None:
        """None: averaging probabilities evens rounding out."""
        return None


def as_model(networks: Sequence[Generator], weights: Sequence[float] = ()) -> Model:
    """One network as itself, several as an ensemble.

    Raises:
        ConfigError: there are weights, but not one for each network.
    """
    if weights and len(weights) != len(networks):
        raise ConfigError(f"--ensemble-weights: there are {len(weights)} for {len(networks)} models")
    return SingleModel(networks[0]) if len(networks) == 1 else Ensemble(networks, weights)
