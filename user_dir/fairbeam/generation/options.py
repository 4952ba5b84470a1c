"""What a caller may ask of decoding; names and defaults are fairseq's."""

from dataclasses import dataclass

from fairbeam.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Options of beam search. Lengths count target tokens, ``</s>`` included where fairseq includes it."""

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

    def __post_init__(self) -> None:
        for name, least in (
            ("beam", 1),
            ("nbest", 1),
            ("min_len", 0),
            ("max_len_b", 0),
            ("no_repeat_ngram_size", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least {least}")
        if self.temperature <= 0:
            raise ConfigError(f"--temperature {self.temperature}: must be greater than 0")
        if self.nbest > self.beam:
            raise ConfigError(f"--nbest {self.nbest} is greater than --beam {self.beam}")
        if self.max_len_a == 0 and self.min_len > self.max_len_b:
            raise ConfigError(f"--min-len {self.min_len} is greater than --max-len-b {self.max_len_b}")

    def length_limit(self, source_length: int, max_positions: int) -> int:
        """Most target tokens before ``</s>`` for a source of ``source_length`` tokens (``</s>`` counted).

        It depends on the sentence alone; stock fairseq takes the padded width of the batch here.
        """
        return min(int(self.max_len_a * source_length + self.max_len_b), max_positions - 1)
