"""What a caller may ask of decoding; names and defaults are fairseq's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.scoring.minimum_bayes_risk import Utility


class Constraints(StrEnum):
    """In which order a hypothesis holds the phrases it must hold."""

    ORDERED = "ordered"
    UNORDERED = "unordered"


class LengthNormalization(StrEnum):
    """What the log probability of a hypothesis is divided by."""

    POWER = "power"
    """``length ** lenpen``, as in fairseq and in Hugging Face's generation."""
    GNMT = "gnmt"
    """``((5 + length) / 6) ** lenpen`` (Wu et al., 2016, section 7)."""


PER_CALL = frozenset(
    {
        "attention", "allowed_outputs", "ch_wt", "constraints", "draft_tokens", "ensemble_weights", "lm_weight",
        "lm_wt", "mbr", "min_alternative_expansion_prob", "prefix_allowed_tokens_fn", "prefix_bias_beta",
        "return_alternatives",
    }
)  # fmt: skip
"""Options of a call, which are no model's defaults."""

DRAFTING = ("prompt_lookup_num_tokens", "draft_tokens")
"""Options that say how many tokens are drafted, each by a drafter of its own."""

_EXCLUSIVE: dict[str, tuple[str, ...]] = {
    "lm_weight": ("stochastic_beam", "penalty_alpha", *DRAFTING),
    "ch_wt": ("mbr", "stochastic_beam", "penalty_alpha"),
    "lm_wt": ("mbr", "stochastic_beam", "penalty_alpha"),
    "return_alternatives": ("ch_wt", "lm_wt", "mbr", "constraints", "stochastic_beam", "penalty_alpha", *DRAFTING),
    "prefix_bias_beta": ("return_alternatives", "penalty_alpha", *DRAFTING),
}
"""Options that mean nothing together."""

Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Options of decoding. Lengths count target tokens, ``</s>`` included where fairseq includes it."""

    beam: int = 5
    nbest: int = 1
    """Hypotheses returned for each sentence, at most ``beam``; or the number of alternatives."""
    max_len_a: float = 0.0
    max_len_b: int = 200
    """The target has at most ``max_len_a * source length + max_len_b`` tokens before ``</s>``."""
    min_len: int = 1
    """The target has at least this many tokens before ``</s>``."""
    min_len_a: float = 0.0
    """The target has at least ``min_len_a * source length + min_len`` tokens before ``</s>``."""
    match_source_len: bool = False
    """The target has as many tokens before ``</s>`` as the source has with it, as in fairseq."""
    lenpen: float = 1.0
    """A hypothesis scores ``log probability / length ** lenpen``."""
    length_normalization: LengthNormalization = LengthNormalization.POWER
    """What ``lenpen`` is the exponent of."""
    coverage_penalty: float = 0.0
    """Times the logarithm of how far each source token was attended to, added to the score (Wu et al., 2016, section
    7)."""
    beam_patience: float = 1.0
    """A sentence is done with ``beam * beam_patience`` finished hypotheses (Kasai et al., 2022)."""
    mbr: Utility | None = None
    """Rank the hypotheses or samples by their mean utility if each of the others were right, instead of by score
    (Eikema and Aziz, 2020). Acts where there is text."""
    lm_weight: float = 0.0
    """Times the log probability that a language model over the target vocabulary gives the next token, added at every
    step (shallow fusion; Gulcehre et al., 2015, section 4.1)."""
    ch_wt: float = 0.0
    """Times the log probability of the source given a hypothesis by a channel model, divided by the source's length and
    added to the score of a finished hypothesis (Yee et al., 2019, section 2)."""
    lm_wt: float = 0.0
    """The same with the log probability of a hypothesis by a language model of the target side."""
    attention: bool = False
    """Give each hypothesis its attention over the source."""
    unnormalized: bool = False
    """Score by log probability alone."""
    unkpen: float = 0.0
    """Subtracted from the log probability of ``<unk>``."""
    temperature: float = 1.0
    """Divides the logits."""
    no_repeat_ngram_size: int = 0
    """No n-gram of this size occurs twice in a hypothesis; 0 allows any."""

    repetition_penalty: float = 1.0
    """Multiplies the log probability of tokens that a hypothesis holds already (Keskar et al., 2019, section 4.1)."""
    banned_phrases: tuple[tuple[int, ...], ...] = ()
    """Token ids of what no hypothesis may say; forced prefixes, too, may not."""
    constraints: Constraints | None = None
    """Whether the phrases that a sentence's outputs must hold come in the order given (Hu et al., 2019); None where no
    sentence has any."""
    encoder_repetition_penalty: float = 1.0
    """Divides the log probability of the source's tokens; above 1 favours them. One vocabulary for both sides."""
    encoder_no_repeat_ngram_size: int = 0
    """No n-gram of this size of the source occurs in a hypothesis; 0 allows any. One vocabulary for both sides."""
    first_token: int = -1
    """The id that every hypothesis begins with, behind a forced prefix; any if below 0."""
    last_token: int = -1
    """The id that every hypothesis has before ``</s>``; any if below 0."""
    allowed_outputs: tuple[tuple[int, ...], ...] = ()
    """Token ids of all that may be said, without ``</s>``; anything where it is empty."""
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = None
    """Given a sentence's number and the hypothesis so far, start symbol included, the ids that may follow (De Cao et
    al., 2021)."""
    ensemble_weights: tuple[float, ...] = ()
    """How much each model of an ensemble counts; all alike where it is empty."""
    sampling: bool = False
    """Draw tokens instead of searching for the best."""
    sampling_topk: int = -1
    """Draw from this many most probable tokens (Fan et al., 2018)."""
    sampling_topp: float = -1.0
    """Draw from the fewest most probable tokens of this probability together (Holtzman et al., 2020)."""
    min_p: float = 0.0
    """Draw from tokens of at least this share of the highest probability (Nguyen et al., 2024)."""
    typical_p: float = 0.0
    """Draw from the most typical tokens of this probability together (Meister et al., 2023)."""
    epsilon_cutoff: float = 0.0
    """Draw from tokens of at least this probability (Hewitt et al., 2022)."""
    stochastic_beam: bool = False
    """Draw ``beam`` different hypotheses, without replacement (Kool et al., 2019); their scores are perturbed log
    probabilities."""
    penalty_alpha: float = 0.0
    """Contrastive search: of the ``beam`` most probable tokens take the one with the best balance between probability
    and unlikeness to what was said before, which weighs this much (Su et al., 2022)."""
    seed: int = 1
    """Of sampling. A sentence's samples depend on the seed and the sentence alone."""
    diverse_beam_groups: int = -1
    """Groups of beams that avoid one another's tokens (Vijayakumar et al., 2018)."""
    diverse_beam_strength: float = 0.5
    """What a token of an earlier group costs, in nats."""
    diversity_rate: float = -1.0
    """What each rank among the continuations of one beam costs, in nats (Li et al., 2016)."""

    return_alternatives: bool = False
    """Give the ``nbest`` most probable tokens behind the prefix, each with the best hypothesis that goes on from it."""
    min_alternative_expansion_prob: float = 0.0
    """Leave out alternatives whose token is less probable, all but the first."""
    prefix_bias_beta: float = 0.0
    """Above 0 a prefix is not forced, but favoured: while a hypothesis follows it, the prefix's next token has the
    probability ``(1 - beta) p + beta``, any other ``(1 - beta) p`` (Arivazhagan et al., 2020)."""

    shortlist: bool = False
    """Choose among the symbols that the model's shortlist has for a sentence, instead of among all."""
    prompt_lookup_num_tokens: int = 0
    """Speculative decoding (Leviathan et al., 2023), which finds what ``beam=1`` finds: run the model over so many
    tokens at once that followed the latest n-gram where the source or the hypothesis had it before (Saxena, 2023); 0
    drafts none. One vocabulary for both sides."""
    prompt_lookup_max_ngram: int = 3
    """The longest n-gram that is looked up; shorter ones follow."""
    draft_tokens: int = 0
    """The same with so many tokens that a smaller model drafts; 0 drafts none."""

    def __post_init__(self) -> None:
        self._parse("constraints", Constraints)
        self._parse("length_normalization", LengthNormalization)
        self._parse("mbr", Utility)
        self._check_searches()
        for name, least in (
            ("seed", 0),
            ("beam", 1),
            ("nbest", 1),
            ("min_len", 0),
            ("max_len_b", 0),
            ("no_repeat_ngram_size", 0),
            ("encoder_no_repeat_ngram_size", 0),
            ("min_len_a", 0),
            ("prompt_lookup_num_tokens", 0),
            ("prompt_lookup_max_ngram", 1),
            ("draft_tokens", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {least}")
        for name in ("repetition_penalty", "encoder_repetition_penalty"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be greater than 0")
        if self.ensemble_weights and not (min(self.ensemble_weights) >= 0 < sum(self.ensemble_weights)):
            raise ConfigError(f"--ensemble-weights {self.ensemble_weights}: expected numbers of at least 0, not all 0")
        if self.match_source_len and self.min_len_a:
            raise ConfigError("--match-source-len and --min-len-a exclude each other")
        if not all(self.banned_phrases):
            raise ConfigError("--banned-phrases: one of the phrases is empty")
        if self.temperature <= 0:
            raise ConfigError(f"--temperature {self.temperature}: must be greater than 0")
        self._check_pairs()
        if self.nbest > self.beam and not self.return_alternatives:
            raise ConfigError(f"--nbest {self.nbest} is greater than --beam {self.beam}")
        self._check_ranking()
        self._check_speculation()
        if self.max_len_a == 0 and self.min_len > self.max_len_b:
            raise ConfigError(f"--min-len {self.min_len} is greater than --max-len-b {self.max_len_b}")

    def _check_ranking(self) -> None:
        if self.coverage_penalty < 0:
            raise ConfigError(f"--coverage-penalty {self.coverage_penalty}: must be at least 0")
        if self.unnormalized and self.length_normalization is LengthNormalization.GNMT:
            raise ConfigError("--unnormalized and --length-normalization gnmt exclude each other")
        if self.beam_patience <= 0:
            raise ConfigError(f"--beam-patience {self.beam_patience}: must be greater than 0")
        for name in ("sampling", "stochastic_beam", "penalty_alpha"):
            if self.beam_patience != 1 and getattr(self, name):
                option = f"--{name.replace('_', '-')}"
                raise ConfigError(f"--beam-patience {self.beam_patience}: means nothing with {option}")
        if self.stochastic_beam and (self.coverage_penalty or self.lenpen != 1):
            raise ConfigError("--stochastic-beam ranks by perturbed log probability, without --lenpen and penalties")
        if not 0 <= self.penalty_alpha < 1:
            raise ConfigError(f"--penalty-alpha {self.penalty_alpha}: must be at least 0 and below 1")
        if self.penalty_alpha and (self.nbest > 1 or self.mbr or self.beam == 1):
            raise ConfigError(f"--penalty-alpha {self.penalty_alpha}: needs --beam above 1 and gives one hypothesis")
        if self.nbest > self.finished_wanted and not self.return_alternatives:
            raise ConfigError(
                f"--nbest {self.nbest} is greater than the {self.finished_wanted} hypotheses that --beam {self.beam} "
                f"and --beam-patience {self.beam_patience} wait for"
            )
        if self.mbr is not None and self.beam == 1:
            raise ConfigError(f"--mbr {self.mbr}: needs several candidates, and --beam is 1")

    def _check_pairs(self) -> None:
        for name, others in _EXCLUSIVE.items():
            for other in others:
                if getattr(self, name) and getattr(self, other):
                    raise ConfigError(f"--{name} and --{other} exclude each other".replace("_", "-"))
        for name in ("ch_wt", "lm_wt"):
            if getattr(self, name) and self.beam == 1:
                option = f"--{name.replace('_', '-')} {getattr(self, name)}"
                raise ConfigError(f"{option}: ranks several candidates, and --beam is 1")
        least = self.min_alternative_expansion_prob
        if not 0 <= least <= 1:
            raise ConfigError(f"--min-alternative-expansion-prob {least}: is a probability, from 0 to 1")
        if least and not self.return_alternatives:
            raise ConfigError(f"--min-alternative-expansion-prob {least}: needs --return-alternatives")
        if self.return_alternatives and self.first_token >= 0:
            raise ConfigError("--return-alternatives and --first-token exclude each other")
        if not 0 <= self.prefix_bias_beta < 1:
            raise ConfigError(f"--prefix-bias-beta {self.prefix_bias_beta}: must be at least 0 and below 1")

    @property
    def speculates(self) -> str | None:
        """The option that has tokens drafted, and verified several at a time, if there is one."""
        drafting = [f"--{name.replace('_', '-')}" for name in DRAFTING if getattr(self, name)]
        if len(drafting) > 1:
            raise ConfigError(f"{' and '.join(drafting)} exclude each other")
        return drafting[0] if drafting else None

    def _check_speculation(self) -> None:
        drafting = self.speculates
        if drafting is None:
            return
        for name in ("beam", "beam_patience", "sampling", "stochastic_beam", "constraints", "diverse_beam_groups",
                     "diversity_rate"):  # fmt: skip
            value, off = getattr(self, name), 1 if name == "beam" else getattr(GenerationOptions, name)
            if value != off:
                asked = f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
                raise ConfigError(f"{drafting}: needs --beam 1 without sampling and constraints, not {asked}")

    @property
    def finished_wanted(self) -> int:
        """With how many finished hypotheses a sentence is done."""
        return max(1, round(self.beam * self.beam_patience))

    def _parse(self, name: str, choices: type[Choice]) -> None:
        """Make the option's text one of its choices; fairseq's options and bundles have texts."""
        value = getattr(self, name)
        if value is None or isinstance(value, choices):
            return
        try:
            object.__setattr__(self, name, choices(str(getattr(value, "value", value))))
        except ValueError:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: expected {' or '.join(choices)}") from None

    def _check_searches(self) -> None:
        searches = {
            "--constraints": self.constraints is not None,
            "--match-source-len": self.match_source_len,
            "--sampling": self.sampling,
            "--stochastic-beam": self.stochastic_beam,
            "--penalty-alpha": self.penalty_alpha > 0,
            "--diverse-beam-groups": self.diverse_beam_groups > 0,
            "--diversity-rate": self.diversity_rate > 0,
        }
        if sum(searches.values()) > 1:
            raise ConfigError(f"{' and '.join(name for name, on in searches.items() if on)} exclude each other")
        if self.diverse_beam_groups > 0 and self.beam % self.diverse_beam_groups:
            raise ConfigError(f"--diverse-beam-groups {self.diverse_beam_groups}: does not divide --beam {self.beam}")
        for name in ("sampling_topk", "sampling_topp", "min_p", "typical_p", "epsilon_cutoff"):
            value, option = getattr(self, name), f"--{name.replace('_', '-')}"
            if value > 0 and not self.sampling:
                raise ConfigError(f"{option} {value}: needs --sampling")
            if value > 1 and name != "sampling_topk":
                raise ConfigError(f"{option} {value}: is a probability, at most 1")

    def least_length(self, source_length: int) -> int:
        """Fewest target tokens before ``</s>`` for a source of ``source_length`` tokens (``</s>`` counted)."""
        return source_length if self.match_source_len else int(self.min_len_a * source_length) + self.min_len

    def length_limit(self, source_length: int, max_positions: int) -> int:
        """Most target tokens before ``</s>`` for a source of ``source_length`` tokens (``</s>`` counted).

        It depends on the sentence alone; stock fairseq takes the padded width of the batch here.
        """
        if self.match_source_len:
            return min(source_length, max_positions - 1)
        return min(int(self.max_len_a * source_length + self.max_len_b), max_positions - 1)


def parse_weights(text: str) -> tuple[float, ...]:
    """Numbers between commas.

    Raises:
        ConfigError: one of them is none.
    """
    try:
        return tuple(float(weight) for weight in text.split(","))
    except ValueError:
        raise ConfigError(f"--ensemble-weights {text}: expected numbers between commas") from None
