"""Vocabulary selection: search among the few tokens that may translate a sentence, with a small output projection.

The search itself is the usual one. It runs over the columns of a batch's shortlist as over a vocabulary, with special
tokens, prefixes and phrases mapped to columns; tokens that are not in a sentence's own list are masked, so that its
text does not depend on what else is in the batch. Probabilities are nearly those of the whole vocabulary
(``fairbeam.network.inference.shortlist_head``).
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.data.lexical_shortlist import Shortlist
from fairbeam.errors import ConfigError, OptionName
from fairbeam.generation.constraints import Required
from fairbeam.generation.ensemble import Ensemble
from fairbeam.generation.features import DIVERSITY, Capabilities, Feature
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.logits_processors import FORBIDDEN, SpecialTokenIds
from fairbeam.generation.model import Model, SingleModel, State
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.search.beam_search import BeamSearch
from fairbeam.network import Generator
from fairbeam.network.inference.shortlist_head import tail_moments_of, with_shortlist
from fairbeam.network.linear import Linear

PHRASES, TOKENS = ("banned_phrases",), ("first_token", "last_token")
"""Options that hold ids, as sequences of sequences or alone, and are mapped to columns."""
InnerSearch = Callable[[Model, GenerationOptions, SpecialTokenIds], BeamSearch]
"""Makes the search over models of columns."""
_COLUMNS = 256
"""Columns come in multiples of this: oneDNN compiles kernels for every number of them."""


class ShortlistSearch:
    """``BeamSearch`` within the lists of a batch's source symbols."""

    # What needs ids of both sides, or of the whole vocabulary, is not rewritten to columns.
    capabilities = Capabilities(
        name="vocabulary selection",
        provides=Feature.SHORTLIST,
        supports=Feature.PLAIN
        | DIVERSITY
        | Feature.SEVERAL_OUTPUTS
        | Feature.LENGTH_PENALTY
        | Feature.PATIENCE
        | Feature.SOURCE_LENGTH
        | Feature.FIRST_TOKEN
        | Feature.PREFIX_BIAS
        | Feature.CONSTRAINTS
        | Feature.SAMPLING
        | Feature.ENSEMBLE
        | Feature.MINIMUM_BAYES_RISK
        | Feature.RERANKING,
    )

    def __init__(
        self,
        networks: Sequence[Generator],
        options: GenerationOptions,
        special: SpecialTokenIds,
        shortlist: Shortlist,
        inner: InnerSearch,
    ) -> None:
        """Several networks are an ensemble; all share one target vocabulary."""
        self.networks, self.options, self.special = networks, options, special
        self.shortlist, self._inner = shortlist, inner
        rest = torch.ones(self.shortlist.target_vocabulary, dtype=torch.bool)
        rest[torch.from_numpy(self.shortlist.common)] = False
        if special.pad >= 0:
            rest[special.pad] = True
        self._moments = [tail_moments_of(network, rest.nonzero()[:, 0]) for network in networks]

    @torch.no_grad()
    def __call__(
        self,
        source: Tensor,
        *,
        prefix: Tensor | None = None,
        start: int | None = None,
        required: Sequence[Required] | None = None,
        numbers: Sequence[int] | None = None,
        watch: Any = None,
    ) -> list[list[Hypothesis]]:
        """Decode one batch; arguments and result as of ``BeamSearch``, but that nothing can be watched."""
        if start is None:
            first = self.networks[0].first_token
            start = self.special.eos if first is None else first
        columns = Columns.of(self._members(source, prefix, required), start, self.special.pad, self.options.temperature)
        models = [
            ShortlistModel(network, columns, moments, self.options.temperature)
            for network, moments in zip(self.networks, self._moments, strict=True)
        ]
        model = models[0] if len(models) == 1 else Ensemble(models, self.options.ensemble_weights)
        search = self._inner(model, self._options(columns), self._special(columns))
        found = search(
            source,
            prefix=None if prefix is None else columns.column_of[prefix],
            start=int(columns.column_of[start]),
            required=None if required is None else [_placed(groups, columns) for groups in required],
            numbers=numbers,
        )
        return [
            [dataclasses.replace(one, tokens=columns.token_ids[one.tokens]) for one in hypotheses]
            for hypotheses in found
        ]

    def _members(self, source: Tensor, prefix: Tensor | None, required: Sequence[Required] | None) -> Tensor:
        """Return the list of each sentence, with special tokens and those that its text must contain, (batch,
        vocabulary) bool.

        Padding, which is never chosen, is left out.
        """
        special = self.special
        rows = source.masked_fill(source == special.padding_of_sources, -1).numpy(force=True)
        members = torch.from_numpy(self.shortlist.members(rows)).to(source.device)
        asked = [token for name in TOKENS if (token := getattr(self.options, name)) >= 0]
        members[:, [special.bos, special.eos, special.unk, *asked]] = True
        for mine, groups in zip(members, required or (), strict=False):
            mine[[token for group in groups for phrase in group for token in phrase]] = True
        if prefix is not None:
            members.scatter_(1, prefix.where(prefix >= 0, special.eos), True)
        if special.pad >= 0:
            members[:, special.pad] = False
        return members

    def _options(self, columns: "Columns") -> GenerationOptions:
        """Return the options with columns for ids; a phrase with a symbol that no list has cannot be said."""

        def rewritten(phrases: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
            places = [tuple(columns.column_of[list(phrase)].tolist()) for phrase in phrases]
            return tuple(phrase for phrase in places if min(phrase) >= 0)

        changes: dict[str, Any] = {name: rewritten(getattr(self.options, name)) for name in PHRASES}
        changes["shortlist"] = False
        for name in TOKENS:
            token = getattr(self.options, name)
            changes[name] = token if token < 0 else int(columns.column_of[token])
        return dataclasses.replace(self.options, **changes)

    def _special(self, columns: "Columns") -> SpecialTokenIds:
        names = ("bos", "pad", "eos", "unk")
        places = {name: int(columns.column_of[getattr(self.special, name)]) for name in names}
        return SpecialTokenIds(**places, source_pad=self.special.padding_of_sources)


def check_shortlist(shortlist: Shortlist | None, networks: Sequence[Generator]) -> Shortlist:
    """Return the shortlist that a search can use.

    Raises:
        ConfigError: there is none, it is for other vocabularies, or a network has no plain output projection.
    """
    if shortlist is None:
        raise ConfigError(
            "{}: the model has none; fairbeam shortlist DATA-BIN makes one of the data it was trained on, and its "
            "place is beside the dictionaries",
            OptionName("shortlist"),
        )
    for network in networks:
        shortlist.check(network.config.source_vocabulary, network.config.target_vocabulary)
        network.output_projection()
    return shortlist


def _placed(groups: Required, columns: "Columns") -> Required:
    """Return required phrases with columns for ids."""
    return tuple(tuple(tuple(columns.column_of[list(phrase)].tolist()) for phrase in group) for group in groups)


@dataclass(frozen=True)
class Columns:
    """The tokens of a batch's shortlists, as columns of the scores."""

    token_ids: Tensor
    """(columns,) ascending, then fillers, which are in no list. The last column stands for all other tokens."""
    column_of: Tensor
    """(vocabulary + 1,) maps token id to column; -1 if the token is in no list. Padding (its id, or index -1 without
    one) maps to the last column."""
    mask: Tensor
    """(batch, 1, columns), 0 if the token is in the sentence's list, else -inf. The last column holds log(number of
    tokens left out) times the temperature that it will be divided by: it stands for their total probability."""

    @classmethod
    def of(cls, members: Tensor, start: int, pad: int, temperature: float) -> "Columns":
        """Make columns of all lists, (batch, vocabulary) bool, and of the token that decoding begins with."""
        union = members.any(0)
        union[start] = True
        token_ids = union.nonzero()[:, 0]
        fillers = _COLUMNS - len(token_ids) % _COLUMNS  # one at least
        column_of = token_ids.new_full((members.size(1) + 1,), -1)
        column_of[token_ids] = torch.arange(len(token_ids), device=token_ids.device)
        column_of[pad] = len(token_ids) + fillers - 1
        listed = F.pad(members[:, token_ids], (0, fillers))
        mask = torch.zeros(listed.shape, device=token_ids.device).masked_fill_(~listed, FORBIDDEN)
        mask[:, -1] = (~members).sum(1).log() * temperature
        return cls(F.pad(token_ids, (0, fillers), value=start), column_of, mask.unsqueeze(1))


class ShortlistState:
    """A network's state, and the mask of the sentences that are left."""

    def __init__(self, inner: State, mask: Tensor) -> None:
        self.inner, self.mask = inner, mask

    def reorder(self, parents: Tensor) -> None:
        self.inner.reorder(parents)

    def select(self, sentences: Tensor) -> None:
        self.inner.select(sentences)
        self.mask = self.mask[sentences]


class ShortlistModel(SingleModel):
    """A network that scores the columns of a batch's shortlist; its tokens are columns."""

    def __init__(self, network: Generator, columns: Columns, tail_moments: Linear, temperature: float) -> None:
        super().__init__(with_shortlist(network, columns.token_ids, tail_moments, temperature))
        self._columns = columns
        self.supports_joining = False  # other batches have other columns

    def prefill(self, source: Tensor, beams: int) -> ShortlistState:
        return ShortlistState(super().prefill(source, beams), self._columns.mask)

    def network_state(self, state: ShortlistState) -> Any:
        return state.inner

    def token_ids(self, tokens: Tensor) -> Tensor:
        return self._columns.token_ids[tokens]

    def logit_mask(self, state: ShortlistState) -> Tensor:
        return state.mask
