"""What decoding asks of a model, and ensembles that answer as one."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fairbeam.errors import ConfigError, OptionName
from fairbeam.generation.features import DIVERSITY, MASKS, RANKING, Capabilities, Feature
from fairbeam.network import LSTM, DecoderOnly, EncoderDecoder, Generator
from fairbeam.network.decoder_state import DecoderState, PromptState
from fairbeam.network.inference import native, ops
from fairbeam.network.inference.fused_stack import Hypotheses
from fairbeam.network.verification_state import ScoredPositions, VerificationState


class State(Protocol):
    """What a model remembers of a batch between steps."""

    def reorder(self, parents: Tensor) -> None:
        """Beam ``b`` of sentence ``s`` continues beam ``parents[s, b]``; (batch, beams) long."""

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences, (kept,) long."""

    def join(self, other: Any) -> None:
        """Append the sentences of a state that has run one step; for models that ``admit``."""


class Model(Protocol):
    """The three verbs of decoding."""

    def prefill(self, source: Tensor, beams: int) -> Any:
        """Read a batch of sources, or of prompts to be continued: (batch, length) ids, padded."""

    def prefill_to_join(self, source: Tensor, beams: int) -> Any:
        """The same where sentences will join, or join others; for models that ``admit``."""

    @property
    def supports_joining(self) -> bool:
        """Whether sentences may join a batch whose decoding has begun."""

    def log_probabilities(self, state: Any, tokens: Tensor, temperature: float) -> Tensor:
        """Feed the latest tokens, (batch, beams); get float32 (batch, beams, vocabulary)."""

    def correction(
        self, state: Any, scores: Tensor, beams: Tensor, tokens: Tensor, temperature: float
    ) -> Tensor | None:
        """What to add to a few of the log probabilities that the step just made.

        Args:
            state: what the step left.
            scores: (batch, beams, vocabulary) log probabilities.
            beams, tokens: (batch, count).
            temperature: as for ``log_probabilities``.

        Returns:
            (batch, count); None where there is nothing to correct.
        """

    def longest_target(self, source_length: int) -> int:
        """Longest target in tokens, ``</s>`` included, for a source of ``source_length`` tokens."""

    def alignments(self, source: Tensor, previous: Tensor) -> Tensor:
        """Cross-attention under teacher forcing, (batch, target, source)."""

    @property
    def decoder_start(self) -> int | None:
        """The symbol that decoding begins with; ``</s>`` if None."""


class Verifier(Model, Protocol):
    """A model that can read several tokens at once, and forget some again."""

    def begin(self, source: Tensor) -> Any:
        """Read a batch as ``prefill`` does, for one hypothesis a sentence that ``read`` goes on with."""

    def read(self, state: Any, tokens: Tensor, starts: Tensor, scored: ScoredPositions, temperature: float) -> Tensor:
        """Feed several tokens of each hypothesis, (batch, new), the first of them its token ``starts``, (batch,); get
        float32 log probabilities behind those whose rows and columns are ``scored``, (scored, vocabulary). What was
        read from there on before is forgotten.

        To ``correction`` they are sentences of one beam.
        """


class SingleModel:
    """One network."""

    def __init__(self, network: Generator) -> None:
        self.network = network
        self.longest_target = network.longest_target
        self.decoder_start = network.first_token
        self.supports_joining = isinstance(network, EncoderDecoder) and network.supports_joining

    def prefill(self, source: Tensor, beams: int) -> DecoderState:
        return self.network.prefill(source, beams)

    def prefill_to_join(self, source: Tensor, beams: int) -> DecoderState:
        assert isinstance(self.network, EncoderDecoder)
        return self.network.prefill(source, beams, joins=True)

    def log_probabilities(self, state: Any, tokens: Tensor, temperature: float) -> Tensor:
        logits = self.network.step(state, tokens)
        few = logits[:, :1] if logits.stride(1) == 0 else logits  # beams that are all alike
        few = few if temperature == 1.0 else few / temperature
        latest = getattr(state, "latest", None)
        mine = temperature != 1.0 or (latest is not None and latest[1] is None)  # nobody needs the logits again
        scores = ops.log_softmax_(few) if mine and native.serves(few) else few.log_softmax(-1)
        return scores.expand_as(logits).contiguous()

    @property
    def searches_in_one_call(self) -> bool:
        """Whether ``best_continuations`` can be had."""
        return bool(getattr(self.network, "scores_in_one_call", False))

    def best_continuations(
        self, state: Any, tokens: Tensor, totals: Tensor, closed: Sequence[int], count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Feed the latest tokens, (batch, beams); get totals, parents and tokens of the best continuations, each
        (batch, count), to which the tokens ``closed`` are closed."""
        return self.network.best_continuations(state, tokens, totals, closed, count)

    def search(
        self, state: Any, hypotheses: Hypotheses, closed: Sequence[int], eos: int, most: int
    ) -> tuple[int, tuple[Tensor, Tensor, Tensor]] | None:
        """Several steps of beam search in one call, as of ``EncoderDecoder``; None where the network cannot."""
        return self.network.search(state, hypotheses, closed, eos, most)

    def begin(self, source: Tensor) -> VerificationState:
        return VerificationState(self.network.prefill(source, 1))

    def read(self, state: Any, tokens: Tensor, starts: Tensor, scored: ScoredPositions, temperature: float) -> Tensor:
        assert not isinstance(self.network, LSTM)
        logits = self.network.forward_block(state, tokens, starts, scored)
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
        assert isinstance(self.network, EncoderDecoder)
        return self.network.alignments(source, previous)

    def correction(
        self, state: Any, scores: Tensor, beams: Tensor, tokens: Tensor, temperature: float
    ) -> Tensor | None:
        rounding = self.network.rounding(state, beams, tokens)
        return None if rounding is None else ops.renormalised(scores, rounding / temperature, beams, tokens)


class EnsembleState:
    """The states of all members."""

    def __init__(self, members: Sequence[DecoderState]) -> None:
        self.members = members
        self.each: Tensor | None = None
        """Log probabilities of the last step, (members, batch, beams, vocabulary)."""

    def reorder(self, parents: Tensor) -> None:
        for state in self.members:
            state.reorder(parents)

    def select(self, sentences: Tensor) -> None:
        for state in self.members:
            state.select(sentences)

    def join(self, other: "EnsembleState") -> None:
        for state, joining in zip(self.members, other.members, strict=True):
            state.join(joining)


class Ensemble:
    """Networks over one vocabulary whose probabilities are averaged, as fairseq averages them."""

    def __init__(self, networks: Sequence[Generator], weights: Sequence[float] = ()) -> None:
        """``weights``: one for each network; all alike if empty."""
        self.models = [SingleModel(network) for network in networks]
        sum_of_all = sum(weights)
        self._shifts = [math.log(weight / sum_of_all) if weight else -math.inf for weight in weights]
        self.decoder_start = self.models[0].decoder_start
        self.supports_joining = all(model.supports_joining for model in self.models)

    def longest_target(self, source_length: int) -> int:
        return min(model.longest_target(source_length) for model in self.models)

    def prefill(self, source: Tensor, beams: int) -> EnsembleState:
        return EnsembleState([model.prefill(source, beams) for model in self.models])

    def prefill_to_join(self, source: Tensor, beams: int) -> EnsembleState:
        return EnsembleState([model.prefill_to_join(source, beams) for model in self.models])

    def log_probabilities(self, state: EnsembleState, tokens: Tensor, temperature: float) -> Tensor:
        members = zip(self.models, state.members, strict=True)
        each = torch.stack([model.log_probabilities(member, tokens, temperature) for model, member in members])
        state.each = each
        return self._mean(each)

    def begin(self, source: Tensor) -> EnsembleState:
        return EnsembleState([model.begin(source) for model in self.models])

    def read(
        self, state: EnsembleState, tokens: Tensor, starts: Tensor, scored: ScoredPositions, temperature: float
    ) -> Tensor:
        members = zip(self.models, state.members, strict=True)
        each = [model.read(member, tokens, starts, scored, temperature) for model, member in members]
        state.each = torch.stack(each).unsqueeze(2)
        return self._mean(torch.stack(each))

    def alignments(self, source: Tensor, previous: Tensor) -> Tensor:
        return torch.stack([model.alignments(source, previous) for model in self.models]).mean(0)

    def correction(
        self, state: EnsembleState, scores: Tensor, beams: Tensor, tokens: Tensor, temperature: float
    ) -> Tensor | None:
        assert state.each is not None
        place = torch.arange(len(beams), device=beams.device).unsqueeze(1), beams, tokens
        known = torch.stack([one[place] for one in state.each])
        added = [
            model.correction(member, one, beams, tokens, temperature)
            for model, member, one in zip(self.models, state.members, state.each, strict=True)
        ]
        if all(one is None for one in added):
            return None
        changed = torch.stack([old if new is None else old + new for old, new in zip(known, added, strict=True)])
        return self._mean(changed) - self._mean(known)

    def _mean(self, each: Tensor) -> Tensor:
        """The logarithm of the mean probability, over the first dimension."""
        if self._shifts:
            return torch.logsumexp(each + each.new_tensor(self._shifts).view(-1, *[1] * (each.dim() - 1)), dim=0)
        return torch.logsumexp(each, dim=0) - math.log(len(self.models))


class FusedState:
    """The states of a model and of the language model beside it."""

    def __init__(self, whole: Any, beams: int) -> None:
        self.whole, self.beams = whole, beams
        self.language_model: Any = None
        """None until the first step says which symbol decoding begins with."""
        self.apart: tuple[Tensor, Tensor] | None = None
        """What each made of the last step."""

    def reorder(self, parents: Tensor) -> None:
        for state in (self.whole, self.language_model):
            state.reorder(parents)

    def select(self, sentences: Tensor) -> None:
        for state in (self.whole, self.language_model):
            state.select(sentences)


class ShallowFusion:
    """A model to whose log probabilities those of a language model are added, weighted (Gulcehre et al., 2015).

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

    def log_probabilities(self, state: FusedState, tokens: Tensor, temperature: float) -> Tensor:
        if state.language_model is None:
            state.language_model = self.language_model.prefill(tokens[:, :1], state.beams)
        scores = self.model.log_probabilities(state.whole, tokens, temperature)
        state.apart = scores, self.language_model.log_probabilities(state.language_model, tokens, 1.0)
        return torch.add(*state.apart, alpha=self.weight)

    def correction(
        self, state: FusedState, scores: Tensor, beams: Tensor, tokens: Tensor, temperature: float
    ) -> Tensor | None:
        assert state.apart is not None
        found = self.model.correction(state.whole, state.apart[0], beams, tokens, temperature)
        added = self.language_model.correction(state.language_model, state.apart[1], beams, tokens, 1.0)
        if found is None or added is None:
            return found if added is None else added * self.weight
        return found + added * self.weight


LANGUAGE_MODEL_OPTION = OptionName("lm_path")


def check_attention(networks: Sequence[Generator], option: OptionName) -> None:
    """Check that networks have attention over a source.

    Raises:
        ConfigError: one has not; names the option that needs it.
    """
    if not all(hasattr(network, "alignments") for network in networks):
        raise ConfigError("{}: needs attention to a source, and the model has no encoder", option)


def with_language_model(model: Model, language_model: DecoderOnly | None, weight: float) -> Model:
    """The model, or its fusion with a language model where that counts.

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
    """The language model, if shallow fusion can be made with it.

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
    """One network as itself, several as an ensemble.

    Raises:
        ConfigError: there are weights, but not one for each network.
    """
    if weights and len(weights) != len(networks):
        raise ConfigError("{}: there are {} for {} models", OptionName("ensemble_weights"), len(weights), len(networks))
    return SingleModel(networks[0]) if len(networks) == 1 else Ensemble(networks, weights)
