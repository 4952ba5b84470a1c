"""What a caller may ask of decoding; names and defaults are fairseq's."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from fairbeam.errors import ConfigError


class Constraints(StrEnum):
    """In which order a hypothesis holds the phrases it must hold."""

    ORDERED = "ordered"
    UNORDERED = "unordered"


Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Options of decoding. Lengths count target tokens, ``</s>`` included where fairseq includes it."""

    beam: int = 5
    nbest: int = 1
    """Hypotheses returned for each sentence, at most ``beam``."""
    max_len_a: float = 0.0
    max_len_b: int = 200
    """The target has at most ``max_len_a * source length + max_len_b`` tokens before ``</s>``."""
    min_len: int = 1
    """The target has at least this many tokens before ``</s>``."""
    lenpen: float = 1.0
    """A hypothesis scores ``log probability / length ** lenpen``."""
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
    seed: int = 1
    """Of sampling. A sentence's samples depend on the seed and the sentence alone."""
    diverse_beam_groups: int = -1
    """Groups of beams that avoid one another's tokens (Vijayakumar et al., 2018)."""
    diverse_beam_strength: float = 0.5
    """What a token of an earlier group costs, in nats."""
    diversity_rate: float = -1.0
    """What each rank among the continuations of one beam costs, in nats (Li et al., 2016)."""

    def __post_init__(self) -> None:
        self._parse("constraints", Constraints)
        self._check_searches()
        for name, least in (
            ("seed", 0),
            ("beam", 1),
            ("nbest", 1),
            ("min_len", 0),
            ("max_len_b", 0),
            ("no_repeat_ngram_size", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {least}")
        if self.repetition_penalty <= 0:
            raise ConfigError(f"--repetition-penalty {self.repetition_penalty}: must be greater than 0")
        if not all(self.banned_phrases):
            raise ConfigError("--banned-phrases: one of the phrases is empty")
        if self.temperature <= 0:
            raise ConfigError(f"--temperature {self.temperature}: must be greater than 0")
        if self.nbest > self.beam:
            raise ConfigError(f"--nbest {self.nbest} is greater than --beam {self.beam}")
        if self.max_len_a == 0 and self.min_len > self.max_len_b:
            raise ConfigError(f"--min-len {self.min_len} is greater than --max-len-b {self.max_len_b}")

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
            "--sampling": self.sampling,
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

    def length_limit(self, source_length: int, max_positions: int) -> int:
        """Most target tokens before ``</s>`` for a source of ``source_length`` tokens (``</s>`` counted).

        It depends on the sentence alone; stock fairseq takes the padded width of the batch here.
        """
        return min(int(self.max_len_a * source_length + self.max_len_b), max_positions - 1)
