"""Options of generation, each declared once; names and defaults are fairseq's where fairseq has the option."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from torch import Tensor

from fairbeam.errors import ConfigError, OptionName
from fairbeam.generation.features import Feature
from fairbeam.generation.option_fields import (
    ANY,
    CLI,
    HUGGING_FACE,
    MODEL,
    PER_CALL,
    REQUEST,
    HuggingFace,
    Needs,
    Source,
    check_options,
    declared_options,
    option,
    parse_option,
)
from fairbeam.scoring.minimum_bayes_risk import Utility


class Constraints(StrEnum):
    """Order in which an output contains its required phrases."""

    ORDERED = "ordered"
    UNORDERED = "unordered"


class LengthNormalization(StrEnum):
    """Length penalty: the divisor of a hypothesis' log probability."""

    POWER = "power"
    """``length ** lenpen``, as in fairseq and in Hugging Face's generation."""
    GNMT = "gnmt"
    """``((5 + length) / 6) ** lenpen`` (Wu et al., 2016, section 7)."""


_CANDIDATES = Needs("beam", at_least=2)
_GREEDY = Needs("beam", at_most=1)


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Options of generation. Lengths count target tokens before ``</s>``, and source tokens with theirs.

    Raises:
        ConfigError: a value is of the wrong type, out of range, or contradicts another.
    """

    # --- Search ---
    beam: int = option(
        5, "Beam size; with sampling, samples for each sentence.", group="Search", feature=Feature.PLAIN, at_least=1,
        hugging_face="num_beams", sources=ANY | HUGGING_FACE, unit="hypotheses",
    )  # fmt: skip
    nbest: int = option(
        1, "Outputs for each sentence, best first, at most {beam}; with {return_alternatives}, alternatives.",
        group="Search", feature=Feature.SEVERAL_OUTPUTS, at_least=1, hugging_face="num_return_sequences",
        unit="outputs",
    )  # fmt: skip
    beam_patience: float = option(
        1.0, "Patience factor: a sentence is done with {beam} x patience finished hypotheses (Kasai et al., 2022).",
        group="Search", feature=Feature.PATIENCE,
        below=math.inf, above=0, unit="factor",
    )  # fmt: skip
    coverage_penalty: float = option(
        0.0, "Weight of the coverage penalty, which ranks hypotheses that attend to every source token first (Wu et "
        "al., 2016).",
        group="Search", feature=Feature.COVERAGE_PENALTY, at_least=0, unit="weight",
    )  # fmt: skip
    unkpen: float = option(
        0.0, "Penalty of <unk>: subtracted from its log probability; below 0 favours it.",
        group="Search", feature=Feature.PLAIN, unit="nats",
    )  # fmt: skip
    diverse_beam_groups: int = option(
        -1, "Diverse beam search: groups of beams that avoid each other's tokens (Vijayakumar et al., 2018); must "
        "divide {beam}.",
        group="Search", feature=Feature.DIVERSE_GROUPS, off_up_to=0, hugging_face="num_beam_groups", unit="groups",
    )  # fmt: skip
    diverse_beam_strength: float = option(
        0.5, "Penalty for a token that an earlier group chose at this step.",
        group="Search", feature=Feature.PLAIN, hugging_face="diversity_penalty", unit="nats",
    )  # fmt: skip
    diversity_rate: float = option(
        -1.0, "Penalty per rank among continuations of the same beam (diverse siblings, Li et al., 2016).",
        group="Search", feature=Feature.DIVERSE_SIBLINGS, off_up_to=0, unit="nats",
    )  # fmt: skip
    penalty_alpha: float = option(
        0.0, "Contrastive search among the {beam} most probable tokens: weight of the penalty for being like "
        "earlier tokens; 0.6 is usual (Su et al., 2022). 0 turns it off.",
        group="Search", feature=Feature.CONTRASTIVE, at_least=0, below=1, needs=_CANDIDATES,
        hugging_face="penalty_alpha", unit="weight",
    )  # fmt: skip
    ensemble_weights: tuple[float, ...] = option(
        (), "Weights of the models of an ensemble in the average of their probabilities, one for each; equal if "
        "none are given.",
        group="Search", feature=Feature.PLAIN, sources=PER_CALL, unit="weights",
    )  # fmt: skip
    lm_weight: float = option(
        0.0, "Shallow fusion: weight of the log probability that a language model gives to each next token, added at "
        "every step (Gulcehre et al., 2015).",
        group="Search", feature=Feature.SHALLOW_FUSION, sources=PER_CALL, unit="weight",
    )  # fmt: skip

    # --- Length ---
    max_len_a: float = option(
        0.0, "Maximum output length per source token: the limit is A x source length + {max_len_b}.",
        group="Length", feature=Feature.PLAIN, unit="ratio",
    )  # fmt: skip
    max_len_b: int = option(
        200, "Maximum output length, added to {max_len_a} x source length.",
        group="Length", feature=Feature.PLAIN, at_least=0, sources=ANY | HUGGING_FACE,
        hugging_face=(HuggingFace("max_new_tokens", 1, 1), HuggingFace("max_length", 2, 1)),
        unit="tokens",
    )  # fmt: skip
    min_len: int = option(
        1, "Minimum output length.", group="Length", feature=Feature.PLAIN, at_least=0, sources=ANY | HUGGING_FACE,
        hugging_face=(HuggingFace("min_new_tokens"), HuggingFace("min_length", 1)), unit="tokens",
    )  # fmt: skip
    min_len_a: float = option(
        0.0, "Minimum output length per source token, added to {min_len}.",
        group="Length", feature=Feature.PLAIN, at_least=0, unit="ratio",
    )  # fmt: skip
    match_source_len: bool = option(
        False, "Force the output to the source's length in tokens.", group="Length", feature=Feature.SOURCE_LENGTH,
    )  # fmt: skip
    lenpen: float = option(
        1.0, "Length penalty: the exponent of the length that divides a hypothesis' log probability; above 1 favours "
        "long outputs.",
        group="Length", feature=Feature.LENGTH_PENALTY, hugging_face="length_penalty", sources=ANY | HUGGING_FACE,
        unit="exponent",
    )  # fmt: skip
    length_normalization: LengthNormalization = option(
        LengthNormalization.POWER, "Length that the penalty is a power of: power is the length itself, gnmt is (5 + "
        "length) / 6 (Wu et al., 2016).",
        group="Length", feature=Feature.PLAIN,
    )  # fmt: skip
    unnormalized: bool = option(
        False, "Rank hypotheses by their log probability, without a length penalty.",
        group="Length", feature=Feature.PLAIN,
    )  # fmt: skip

    # --- Sampling ---
    sampling: bool = option(
        False, "Sample tokens from the model's distribution instead of searching for the most probable output.",
        group="Sampling", feature=Feature.SAMPLING, hugging_face="do_sample",
    )  # fmt: skip
    sampling_topk: int = option(
        -1, "Top-k sampling: sample from the K most probable tokens (Fan et al., 2018).",
        group="Sampling", feature=Feature.SAMPLING, off_up_to=0, needs="sampling", hugging_face="top_k", unit="tokens",
    )  # fmt: skip
    sampling_topp: float = option(
        -1.0, "Nucleus sampling: sample from the smallest set of tokens whose probability sums to P (Holtzman et al., "
        "2020).",
        group="Sampling", feature=Feature.SAMPLING, off_up_to=0, at_most=1, needs="sampling", hugging_face="top_p",
        unit="probability",
    )  # fmt: skip
    min_p: float = option(
        0.0, "Min-p sampling: sample from tokens with at least this share of the top probability (Nguyen et al., "
        "2024).",
        group="Sampling", feature=Feature.SAMPLING, at_least=0, at_most=1, needs="sampling", hugging_face="min_p",
        unit="probability",
    )  # fmt: skip
    typical_p: float = option(
        0.0, "Typical sampling: sample from the tokens of most typical information whose probability sums to P "
        "(Meister et al., 2023). 0 turns it off.",
        group="Sampling", feature=Feature.SAMPLING, at_least=0, at_most=1, needs="sampling", hugging_face="typical_p",
        unit="probability",
    )  # fmt: skip
    epsilon_cutoff: float = option(
        0.0, "Epsilon sampling: sample from tokens with at least this probability (Hewitt et al., 2022).",
        group="Sampling", feature=Feature.SAMPLING, at_least=0, at_most=1, needs="sampling",
        hugging_face="epsilon_cutoff", unit="probability",
    )  # fmt: skip
    temperature: float = option(
        1.0, "Temperature: the divisor of the logits; above 1 flattens the distribution.",
        group="Sampling", feature=Feature.PLAIN, above=0, hugging_face="temperature", unit="divisor",
    )  # fmt: skip
    stochastic_beam: bool = option(
        False, "Stochastic beam search: sample {beam} different outputs, without replacement (Kool "
        "et al., 2019); scores are perturbed log probabilities.",
        group="Sampling", feature=Feature.STOCHASTIC_BEAM,
    )  # fmt: skip
    seed: int = option(
        1, "Random seed for sampling. Samples depend on the seed and the sentence alone.",
        group="Sampling", feature=Feature.PLAIN, at_least=0, unit="number",
    )  # fmt: skip

    # --- Constraints ---
    constraints: Constraints | None = option(
        None, "Lexical constraints: outputs contain the required phrases, in the order given or in any (Hu et al., "
        "2019).",
        group="Constraints", feature=Feature.CONSTRAINTS, sources=PER_CALL,
    )  # fmt: skip
    banned_phrases: tuple[tuple[int, ...], ...] = option(
        (), "Phrases that no output contains; a forced prefix cannot bring them in either.",
        group="Constraints", feature=Feature.PLAIN, sources=CLI | MODEL | REQUEST | HUGGING_FACE,
        hugging_face="bad_words_ids", unit="token ids",
    )  # fmt: skip
    allowed_outputs: tuple[tuple[int, ...], ...] = option(
        (), "The only outputs that are possible, without </s>; any output if none are given.",
        group="Constraints", feature=Feature.ALLOWED_OUTPUTS, sources=CLI | REQUEST, unit="token ids",
    )  # fmt: skip
    first_token: int = option(
        -1, "Token that every output begins with, behind a forced prefix.",
        group="Constraints", feature=Feature.FIRST_TOKEN, off_up_to=-1, hugging_face="forced_bos_token_id",
        unit="token id",
    )  # fmt: skip
    last_token: int = option(
        -1, "Token that every output has before </s>.",
        group="Constraints", feature=Feature.PLAIN, off_up_to=-1, unit="token id",
    )  # fmt: skip
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = option(
        None, "Function that maps the sentence's index and the hypothesis so far, start symbol included, to the ids "
        "that may follow (De Cao et al., 2021).",
        group="Constraints", feature=Feature.PREFIX_FUNCTION, sources=Source(0),
    )  # fmt: skip
    no_repeat_ngram_size: int = option(
        0, "N-gram blocking: no n-gram of this size occurs twice in an output. 0 turns it off.",
        group="Constraints", feature=Feature.PLAIN, at_least=0, hugging_face="no_repeat_ngram_size",
        sources=ANY | HUGGING_FACE, unit="tokens",
    )  # fmt: skip
    repetition_penalty: float = option(
        1.0, "Repetition penalty: above 1, penalises tokens already generated (CTRL; Keskar et al., 2019).",
        group="Constraints", feature=Feature.PLAIN, above=0, hugging_face="repetition_penalty",
        sources=ANY | HUGGING_FACE, unit="factor",
    )  # fmt: skip
    encoder_no_repeat_ngram_size: int = option(
        0, "Source n-gram blocking: no n-gram of this size of the source occurs in the output. 0 turns it off. Needs "
        "one vocabulary for both sides.",
        group="Constraints", feature=Feature.SOURCE_TOKENS, at_least=0, hugging_face="encoder_no_repeat_ngram_size",
        sources=ANY | HUGGING_FACE, unit="tokens",
    )  # fmt: skip
    encoder_repetition_penalty: float = option(
        1.0, "Hallucination penalty: above 1, favours tokens of the source. Needs one vocabulary for both sides.",
        group="Constraints", feature=Feature.SOURCE_TOKENS, above=0, hugging_face="encoder_repetition_penalty",
        sources=ANY | HUGGING_FACE, unit="factor",
    )  # fmt: skip

    # --- Prefix ---
    prefix_bias_beta: float = option(
        0.0, "Biased decoding: above 0, the target prefix is not forced but favoured; while a hypothesis follows it, "
        "the prefix's next token has the probability (1 - beta) p + beta (Arivazhagan et al., 2020).",
        group="Prefix", feature=Feature.PREFIX_BIAS, sources=PER_CALL, at_least=0, below=1, unit="probability",
    )  # fmt: skip
    return_alternatives: bool = option(
        False, "Alternatives: the {nbest} most probable tokens behind the target prefix, each with the best output "
        "that goes on from it.",
        group="Prefix", feature=Feature.ALTERNATIVES, sources=PER_CALL,
    )  # fmt: skip
    min_alternative_expansion_prob: float = option(
        0.0, "Minimum probability of an alternative's token; alternatives below are left out, all but the first.",
        group="Prefix", feature=Feature.ALTERNATIVES, sources=PER_CALL, at_least=0, at_most=1,
        needs="return_alternatives", unit="probability",
    )  # fmt: skip

    # --- Reranking ---
    mbr: Utility | None = option(
        None, "Minimum Bayes risk: rank candidates by their average utility against all other candidates, used as "
        "pseudo-references (Eikema and Aziz, 2020). Needs detokenised text.",
        group="Reranking", feature=Feature.MINIMUM_BAYES_RISK, sources=PER_CALL, needs=_CANDIDATES,
    )  # fmt: skip
    ch_wt: float = option(
        0.0, "Noisy-channel reranking: weight of the log probability of the source given an output, per source token "
        "(Yee et al., 2019); 1 where a channel model is given.",
        group="Reranking", feature=Feature.RERANKING, sources=PER_CALL, needs=_CANDIDATES, unit="weight",
    )  # fmt: skip
    lm_wt: float = option(
        0.0, "Language-model reranking: weight of the log probability of an output, per source token; 1 where a "
        "language model is given.",
        group="Reranking", feature=Feature.RERANKING, sources=PER_CALL, needs=_CANDIDATES, unit="weight",
    )  # fmt: skip

    # --- Speed ---
    shortlist: bool = option(
        False, "Vocabulary selection: score only the tokens that the model's lexical shortlist has for a sentence; "
        "faster, and not always the same output.",
        group="Speed", feature=Feature.SHORTLIST,
    )  # fmt: skip
    prompt_lookup_num_tokens: int = option(
        0, "Prompt lookup decoding (Saxena, 2023): verify at once so many tokens that followed the same n-gram in the "
        "source or the output; the same output as greedy search, faster where outputs copy. 0 turns it off. Needs one "
        "vocabulary for both sides.",
        group="Speed", feature=Feature.PROMPT_LOOKUP, at_least=0, needs=_GREEDY,
        hugging_face="prompt_lookup_num_tokens", unit="tokens",
    )  # fmt: skip
    prompt_lookup_max_ngram: int = option(
        3, "Longest n-gram to look up.", group="Speed", feature=Feature.PLAIN, at_least=1,
        hugging_face="max_matching_ngram_size", unit="tokens",
    )  # fmt: skip
    draft_tokens: int = option(
        0, "Speculative decoding (Leviathan et al., 2023): tokens that a draft model proposes at a time; the same "
        "output as greedy search; 4 where a draft model is given.",
        group="Speed", feature=Feature.DRAFT_MODEL, sources=PER_CALL, at_least=0, needs=_GREEDY, unit="tokens",
    )  # fmt: skip

    # --- Output ---
    attention: bool = option(
        False, "Return each output's attention over the source.", group="Output", feature=Feature.ATTENTION,
        sources=REQUEST,
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_options(self)
        self._check_search()
        self._check_lengths()
        if self.ensemble_weights and not (min(self.ensemble_weights) >= 0 < sum(self.ensemble_weights)):
            weights = OptionName("ensemble_weights"), self.ensemble_weights
            raise ConfigError("{} {}: expected numbers of at least 0, not all 0", *weights)
        if not all(self.banned_phrases):
            raise ConfigError("{}: one of the phrases is empty", OptionName("banned_phrases"))

    def _check_search(self) -> None:
        beam, nbest = OptionName("beam"), OptionName("nbest")
        if self.diverse_beam_groups > 0 and self.beam % self.diverse_beam_groups:
            groups = OptionName("diverse_beam_groups")
            raise ConfigError("{} {}: does not divide {} {}", groups, self.diverse_beam_groups, beam, self.beam)
        if self.return_alternatives:
            return
        if self.nbest > self.beam:
            raise ConfigError("{} {} is greater than {} {}", nbest, self.nbest, beam, self.beam)
        if self.nbest > self.finished_wanted:
            raise ConfigError(
                "{} {} is greater than the {} hypotheses that {} {} and {} {} wait for",
                nbest, self.nbest, self.finished_wanted, beam, self.beam, OptionName("beam_patience"),
                self.beam_patience,
            )  # fmt: skip

    def _check_lengths(self) -> None:
        if self.match_source_len and self.min_len_a:
            raise ConfigError("{} and {} exclude each other", OptionName("match_source_len"), OptionName("min_len_a"))
        if self.unnormalized and self.length_normalization is LengthNormalization.GNMT:
            names = OptionName("unnormalized"), OptionName("length_normalization")
            raise ConfigError("{} and {} gnmt exclude each other", *names)
        if self.max_len_a == 0 and self.min_len > self.max_len_b:
            lengths = OptionName("min_len"), self.min_len, OptionName("max_len_b"), self.max_len_b
            raise ConfigError("{} {} is greater than {} {}", *lengths)

    @property
    def drafts(self) -> bool:
        """Whether tokens are drafted and verified several at a time."""
        return self.prompt_lookup_num_tokens > 0 or self.draft_tokens > 0

    @property
    def finished_wanted(self) -> int:
        """Number of finished hypotheses with which a sentence is done."""
        return max(1, round(self.beam * self.beam_patience))

    def least_length(self, source_length: int) -> int:
        """Return the minimum number of target tokens before ``</s>`` for a source of so many tokens, ``</s>``
        included."""
        return source_length if self.match_source_len else int(self.min_len_a * source_length) + self.min_len

    def length_limit(self, source_length: int, max_positions: int) -> int:
        """Return the maximum number of target tokens before ``</s>`` for a source of so many tokens, ``</s>`` included.

        It depends on the sentence alone; stock fairseq takes the padded width of the batch here.
        """
        if self.match_source_len:
            return min(source_length, max_positions - 1)
        return min(int(self.max_len_a * source_length + self.max_len_b), max_positions - 1)


def with_defaults(given: Mapping[str, Any], defaults: GenerationOptions) -> GenerationOptions:
    """Return options as given, others as a model's defaults have them.

    Where an option that a default needs is turned off, the default is dropped: ``sampling=False`` leaves nothing of a
    model's ``sampling_topk``.

    Raises:
        ConfigError: an option is unknown or impossible.
    """
    known = declared_options(type(defaults))
    if unknown := sorted(given.keys() - known.keys()):
        raise ConfigError(f"unknown generation option {unknown[0]!r}; known are {', '.join(known)}")
    given = {name: parse_option(known[name], value) for name, value in given.items()}
    off = {name for name, value in given.items() if not known[name].is_on(value)}
    dropped = {one.name: one.default for one in known.values() if one.declared.needs in off}
    return dataclasses.replace(defaults, **{**dropped, **given})


def parse_weights(text: str) -> tuple[float, ...]:
    """Return the numbers between the commas of a text.

    Raises:
        ConfigError: one of them is none.
    """
    try:
        return tuple(float(weight) for weight in text.split(","))
    except ValueError:
        raise ConfigError("{} {}: expected numbers between commas", OptionName("ensemble_weights"), text) from None
