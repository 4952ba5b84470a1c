"""Models made of several networks: ensembles, and shallow fusion with a language model."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fairbeam.errors import ConfigError, OptionName
from fairbeam.generation.features import DIVERSITY, MASKS, RANKING, Capabilities, Feature
from fairbeam.generation.model import Model, SingleModel, State, StepScores, Verifier
from fairbeam.network import DecoderOnly, Generator
from fairbeam.network.verification_state import ScoredPositions


class EnsembleState:
    """The states of all members."""

    def __init__(self, members: Sequence[State]) -> None:
        self.members = members

    def reorder(self, parents: Tensor) -> None:
        for state in self.members:
            state.reorder(parents)

    def select(self, sentences: Tensor) -> None:
        for state in self.members:
            state.select(sentences)

    def join(self, other: "EnsembleState") -> None:
        for state, joining in zip(self.members, other.members, strict=True):
            state.join(joining)


class EnsembleScores(StepScores):
    """The logarithm of the mean probability of all members."""

    def __init__(
        self, members: Sequence[StepScores], weights: Sequence[float], log_probs: Tensor | None = None
    ) -> None:
        """Average the members' probabilities, or take ``log_probs`` for their mean.

        ``weights``: logarithms of the members' shares; all alike if empty.
        """
        self._members, self._weights = members, weights
        mean = self._mean(torch.stack([one.log_probs for one in members])) if log_probs is None else log_probs
        super().__init__(mean)

    def exact_delta(self, parents: Tensor, tokens: Tensor) -> Tensor | None:
        deltas = [one.exact_delta(parents, tokens) for one in self._members]
        if all(delta is None for delta in deltas):
            return None
        place = torch.arange(len(parents), device=parents.device).unsqueeze(1), parents, tokens
        known = torch.stack([one.log_probs[place] for one in self._members])
        exact = torch.stack([old if delta is None else old + delta for old, delta in zip(known, deltas, strict=True)])
        return self._mean(exact) - self._mean(known)

    def of_rows(self, rows: Tensor | slice) -> "EnsembleScores":
        return EnsembleScores([one.of_rows(rows) for one in self._members], self._weights, self.log_probs[rows])

    def _mean(self, each: Tensor) -> Tensor:
        """Return the logarithm of the mean probability over the first dimension."""
        if self._weights:
            return torch.logsumexp(each + each.new_tensor(self._weights).view(-1, *[1] * (each.dim() - 1)), dim=0)
        return torch.logsumexp(each, dim=0) - math.log(len(self._members))


class Ensemble:
    """Networks over one vocabulary whose probabilities are averaged, as fairseq averages them."""

    def __init__(self, models: Sequence[SingleModel], weights: Sequence[float] = ()) -> None:
        """``weights``: one for each model; all alike if empty."""
        self.models = models
        total = sum(weights)
        self._weights = [math.log(weight / total) if weight else -math.inf for weight in weights]
        self.decoder_start = self.models[0].decoder_start
        self.supports_joining = all(model.supports_joining for model in self.models)

    def longest_target(self, source_length: int) -> int:
        return min(model.longest_target(source_length) for model in self.models)

    def prefill(self, source: Tensor, beams: int) -> EnsembleState:
        return EnsembleState([model.prefill(source, beams) for model in self.models])

    def prefill_to_join(self, source: Tensor, beams: int) -> EnsembleState:
        return EnsembleState([model.prefill_to_join(source, beams) for model in self.models])

    def score(self, state: EnsembleState, tokens: Tensor, temperature: float) -> StepScores:
        members = zip(self.models, state.members, strict=True)
        return EnsembleScores([model.score(member, tokens, temperature) for model, member in members], self._weights)

    def begin(self, source: Tensor) -> EnsembleState:
        return EnsembleState([model.begin(source) for model in self.models])

    def score_block(
        self, state: EnsembleState, tokens: Tensor, starts: Tensor, scored: ScoredPositions, temperature: float
    ) -> StepScores:
        members = zip(self.models, state.members, strict=True)
        each = [model.score_block(member, tokens, starts, scored, temperature) for model, member in members]
        return EnsembleScores(each, self._weights)

    def alignments(self, source: Tensor, previous: Tensor) -> Tensor:
        return torch.stack([model.alignments(source, previous) for model in self.models]).mean(0)


class FusedState:
    """The states of a model and of the language model beside it."""

    def __init__(self, model: Any, beams: int) -> None:
        self.model, self.beams = model, beams
        self.language_model: Any = None
        """None until the first step says which token decoding begins with."""

    def reorder(self, parents: Tensor) -> None:
        for state in (self.model, self.language_model):
            state.reorder(parents)

    def select(self, sentences: Tensor) -> None:
        for state in (self.model, self.language_model):
            state.select(sentences)


class FusedScores(StepScores):
    """A model's log-probabilities plus those of a language model, weighted."""

    def __init__(self, model: StepScores, language_model: StepScores, weight: float) -> None:
        super().__init__(torch.add(model.log_probs, language_model.log_probs, alpha=weight))
        self._model, self._language_model, self._weight = model, language_model, weight

    def exact_delta(self, parents: Tensor, tokens: Tensor) -> Tensor | None:
        delta = self._model.exact_delta(parents, tokens)
        added = self._language_model.exact_delta(parents, tokens)
        if delta is None or added is None:
            return delta if added is None else added * self._weight
        return delta + added * self._weight


class ShallowFusion:
    """A model to whose log-probabilities those of a language model are added, weighted (Gulcehre et al., 2015).

    Both read the same tokens, the start symbol first, as in fairseq; the temperature is the model's alone.
    """

    capabilities = Capabilities(
        name="shallow fusion",
        provides=Feature.SHALLOW_FUSION,
        supports=MASKS
        | RANKING
        | DIVERSITY
        | Feature.SAMPLING
        | Feature.CONSTRAINTS
        | Feature.SOURCE_LENGTH
        | Feature.PATIENCE
        | Feature.PREFIX_BIAS
        | Feature.ENSEMBLE
        | Feature.ALTERNATIVES
        | Feature.MINIMUM_BAYES_RISK
        | Feature.RERANKING,
    )

    def __init__(self, model: Model, language_model: DecoderOnly, weight: float) -> None:
        self.model, self.weight = model, weight
        self.language_model = SingleModel(language_model)
        self.decoder_start = model.decoder_start
        self.supports_joining = False  # the language model's state begins with the first step
        self.alignments = model.alignments

    def longest_target(self, source_length: int) -> int:
        return min(self.model.longest_target(source_length), self.language_model.longest_target(1))

    def prefill_to_join(self, source: Tensor, beams: int) -> FusedState:
        raise NotImplementedError

    def prefill(self, source: Tensor, beams: int) -> FusedState:
        return FusedState(self.model.prefill(source, beams), beams)

    def score(self, state: FusedState, tokens: Tensor, temperature: float) -> StepScores:
        if state.language_model is None:
            state.language_model = self.language_model.prefill(tokens[:, :1], state.beams)
        scores = self.model.score(state.model, tokens, temperature)
        return FusedScores(scores, self.language_model.score(state.language_model, tokens, 1.0), self.weight)


LANGUAGE_MODEL_OPTION = OptionName("lm_path")


def check_attention(networks: Sequence[Generator], option: OptionName) -> None:
    """Check that networks have attention over a source.

    Raises:
        ConfigError: one has not; names the option that needs it.
    """
    if not all(hasattr(network, "alignments") for network in networks):
        raise ConfigError("{}: needs attention to a source, and the model has no encoder", option)


def with_language_model(model: Model, language_model: DecoderOnly | None, weight: float) -> Model:
    """Return the model, or its fusion with a language model if that has a weight.

    Raises:
        ConfigError: there is a weight and no language model.
    """
    if not weight:
        return model
    if language_model is None:
        names = OptionName("lm_weight"), weight, LANGUAGE_MODEL_OPTION
        raise ConfigError("{} {}: there is no language model; {} names one", *names)
    return ShallowFusion(model, language_model, weight)


def check_fusion(language_model: Any, vocabulary: int) -> DecoderOnly:
    """Return the language model, if shallow fusion can be made with it.

    Raises:
        ConfigError: it is none, it is one for pairs of texts, or it knows another number of symbols than the model.
    """
    option = LANGUAGE_MODEL_OPTION
    if not isinstance(language_model, DecoderOnly):
        raise ConfigError("{}: the model is no language model; expected a decoder without an encoder", option)
    config = language_model.config
    if config.separator is not None:
        raise ConfigError("{}: the model has a separator between two texts; expected a model of one text", option)
    if config.vocabulary != vocabulary:
        raise ConfigError(
            "{}: the language model has {} symbols, and the target side {}; expected the same dictionary",
            option, config.vocabulary, vocabulary,
        )  # fmt: skip
    return language_model


def as_model(networks: Sequence[Generator], weights: Sequence[float] = ()) -> Verifier:
    """Return one network as a single model, several as an ensemble.

    Raises:
        ConfigError: there are weights, but not one for each network.
    """
    if weights and len(weights) != len(networks):
        raise ConfigError("{}: there are {} for {} models", OptionName("ensemble_weights"), len(weights), len(networks))
    models = [SingleModel(network) for network in networks]
    return models[0] if len(models) == 1 else Ensemble(models, weights)
