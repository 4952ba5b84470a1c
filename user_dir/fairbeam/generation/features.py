"""What generation options ask of a search, and what each search, ranking and way in can be combined with.

Combinations are refused unless they are declared: an option asks for a ``Feature``, every search says in its own file
which features it supports, and ``fairbeam.generation.build`` compares the two. A feature that nobody declares goes with
nothing.
"""

from dataclasses import dataclass
from enum import Flag, auto


class Feature(Flag):
    """Capabilities that some searches lack."""

    UNDECLARED = auto()
    """An option whose declaration names no feature; no search supports it."""
    PLAIN = auto()
    """Lengths, temperature, n-grams and whatever else acts on one hypothesis at one step."""
    SEVERAL_OUTPUTS = auto()
    """More than one output for a sentence."""
    LENGTH_PENALTY = auto()
    COVERAGE_PENALTY = auto()
    ATTENTION = auto()
    PATIENCE = auto()
    """More or fewer finished hypotheses than beams."""
    SOURCE_LENGTH = auto()
    """Outputs as long as their sources."""
    SOURCE_TOKENS = auto()
    """Scores that depend on which tokens the source has."""
    FIRST_TOKEN = auto()
    ALLOWED_OUTPUTS = auto()
    PREFIX_FUNCTION = auto()
    PREFIX_BIAS = auto()
    """A prefix that is favoured instead of forced."""
    ENSEMBLE = auto()
    """Several models; asked for by what is loaded, by no option."""
    SHALLOW_FUSION = auto()
    MINIMUM_BAYES_RISK = auto()
    RERANKING = auto()
    ALTERNATIVES = auto()
    SHORTLIST = auto()
    CONSTRAINTS = auto()
    SAMPLING = auto()
    STOCHASTIC_BEAM = auto()
    CONTRASTIVE = auto()
    DIVERSE_GROUPS = auto()
    DIVERSE_SIBLINGS = auto()
    PROMPT_LOOKUP = auto()
    DRAFT_MODEL = auto()


NOTHING = Feature(0)
MASKS = (
    Feature.PLAIN
    | Feature.SOURCE_TOKENS
    | Feature.FIRST_TOKEN
    | Feature.ALLOWED_OUTPUTS
    | Feature.PREFIX_FUNCTION
)  # fmt: skip
"""What logits processors do."""
RANKING = Feature.SEVERAL_OUTPUTS | Feature.LENGTH_PENALTY | Feature.COVERAGE_PENALTY | Feature.ATTENTION
"""What becomes of hypotheses when they have ended."""
DIVERSITY = Feature.DIVERSE_GROUPS | Feature.DIVERSE_SIBLINGS
DRAFTS = Feature.PROMPT_LOOKUP | Feature.DRAFT_MODEL


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a search, a ranking or a way in is for, and what it can be combined with."""

    name: str
    """Name of it in messages and in the documentation."""
    provides: Feature = NOTHING
    """Features that bring it in; one of several. Nothing where it is in use if nothing else is asked for."""
    supports: Feature
    """Features that may be asked for beside."""
