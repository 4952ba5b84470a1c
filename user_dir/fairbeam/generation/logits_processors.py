"""Filters forbid tokens before the chooser sees the scores. Each changes the log probabilities in place.

Setting a log probability to -inf removes the token without renormalising the others, as fairseq does.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.search.beams import Beams

FORBIDDEN = float("-inf")

LogitsProcessor = Callable[[Tensor, Beams], None]
"""Takes log probabilities, (batch, beams, vocabulary), and the beams they continue."""


@dataclass(frozen=True)
class SpecialTokenIds:
    """Ids of the special tokens that decoding must know."""

    bos: int = 0
    pad: int = 1
    """Below 0 where the vocabulary has no symbol for padding."""
    eos: int = 2
    unk: int = 3
    source_pad: int | None = None
    """Padding of sources, where it is another symbol; ``pad`` if None."""

    @property
    def padding_of_sources(self) -> int:
        """The symbol that fills batches of sources."""
        return self.pad if self.source_pad is None else self.source_pad


class StaticMask(NamedTuple):
    """Tokens that may not follow any hypothesis."""

    tokens: list[int]
    steps: int = sys.maxsize
    """For how many steps that holds."""


@dataclass(frozen=True)
class MaskingProcessor:
    """A filter that, at most steps, closes the same tokens to all hypotheses, and does nothing else."""

    apply: LogitsProcessor
    closed: Callable[[Beams], StaticMask | None]
    """Those tokens; None at other steps."""

    def __call__(self, scores: Tensor, beams: Beams) -> None:
        self.apply(scores, beams)


def common_static_mask(filters: Sequence[LogitsProcessor], beams: Beams) -> StaticMask | None:
    """The tokens that filters close to all hypotheses, if that is all they do at this step; None otherwise."""
    tokens: list[list[int]] = []
    steps = sys.maxsize
    for _, cohort in beams.cohorts():
        each = [one.closed(cohort) if isinstance(one, MaskingProcessor) else None for one in filters]
        found = [closed for closed in each if closed is not None]
        if len(found) < len(each):
            return None
        tokens.append([token for closed in found for token in closed.tokens])
        steps = min([steps, *(closed.steps for closed in found)])
    return StaticMask(tokens[0], steps) if all(one == tokens[0] for one in tokens) else None


def never_pad(special: SpecialTokenIds) -> LogitsProcessor:
    """Padding is not a token of any sentence."""

    def apply(scores: Tensor, beams: Beams) -> None:
        scores[..., special.pad] = FORBIDDEN

    return MaskingProcessor(apply, lambda beams: StaticMask([special.pad]))


def penalise_unknown(special: SpecialTokenIds, penalty: float) -> LogitsProcessor:
    """Subtract ``penalty`` from the log probability of ``<unk>``."""

    def apply(scores: Tensor, beams: Beams) -> None:
        scores[..., special.unk] -= penalty

    return apply


def limit_length(special: SpecialTokenIds) -> LogitsProcessor:
    """A sentence that has reached its limit may only end."""

    def apply(scores: Tensor, beams: Beams) -> None:
        if beams.step < beams.shortest_limit:
            return
        full = beams.limits <= beams.step
        ending = scores[full, :, special.eos]
        scores[full] = FORBIDDEN
        scores[full, :, special.eos] = ending

    def closed(beams: Beams) -> StaticMask | None:
        return StaticMask([], beams.shortest_limit - beams.step) if beams.step < beams.shortest_limit else None

    return MaskingProcessor(apply, closed)


def forced_by_prefix(beams: Beams, special: SpecialTokenIds) -> Tensor:
    """Sentences whose own prefix says the next token, (batch,) bool; stock fairseq takes the longest of the batch."""
    if not beams.in_prefix or beams.prefix is None:
        return torch.zeros_like(beams.limits, dtype=torch.bool)
    return beams.prefix[:, beams.step].ne(special.pad) & (beams.limits > beams.step)


def require_length(special: SpecialTokenIds, least: int) -> LogitsProcessor:
    """No sentence ends before it has ``least`` tokens; a forced prefix takes precedence."""

    def apply(scores: Tensor, beams: Beams) -> None:
        if beams.step < least:
            open_ended = beams.limits > beams.step
            scores[open_ended & ~forced_by_prefix(beams, special), :, special.eos] = FORBIDDEN

    def closed(beams: Beams) -> StaticMask | None:
        if beams.step >= least:
            return StaticMask([])
        steps = min(least, beams.shortest_limit) - beams.step
        return StaticMask([special.eos], steps) if steps > 0 and not beams.in_prefix else None

    return MaskingProcessor(apply, closed)


def require_own_length(special: SpecialTokenIds) -> LogitsProcessor:
    """No sentence ends before it has as many tokens as ``beams.least`` says; a forced prefix takes precedence."""

    def apply(scores: Tensor, beams: Beams) -> None:
        if beams.least is not None:
            too_short = (beams.least > beams.step) & (beams.limits > beams.step)
            scores[too_short & ~forced_by_prefix(beams, special), :, special.eos] = FORBIDDEN

    return apply


def end_for_nothing(special: SpecialTokenIds) -> LogitsProcessor:
    """At its limit a sentence ends with probability one, as fairseq has it with ``--match-source-len``."""

    def apply(scores: Tensor, beams: Beams) -> None:
        if beams.step >= beams.shortest_limit:
            scores[beams.limits <= beams.step, :, special.eos] = 0.0

    return apply


def force_prefix(special: SpecialTokenIds) -> LogitsProcessor:
    """Each sentence begins with the tokens of its prefix; a prefix may end the sentence.

    Where the prefix says ``</s>``, all beams become copies of the first, the only one that followed it.
    """

    def apply(scores: Tensor, beams: Beams) -> None:
        if not beams.in_prefix or beams.prefix is None:
            return
        token, forced = beams.prefix[:, beams.step], forced_by_prefix(beams, special)
        wanted = scores[forced].gather(2, token[forced, None, None].expand(-1, scores.size(1), 1))
        scores[forced] = FORBIDDEN
        scores[forced] = scores[forced].scatter(2, token[forced, None, None].expand_as(wanted), wanted)
        ended = forced & token.eq(special.eos)
        if bool(ended.any()):
            for tensor in (scores, beams.totals, beams.tokens, beams.history):
                tensor[ended] = tensor[ended][:, :1]

    return MaskingProcessor(apply, lambda beams: None if beams.in_prefix else StaticMask([]))


def favour_prefix(special: SpecialTokenIds, beta: float) -> LogitsProcessor:
    """While a hypothesis follows its sentence's prefix, mix its distribution with one that is sure of the prefix's next
    token: ``(1 - beta) p + beta [token is next]`` (Arivazhagan et al., 2020)."""
    kept, added = math.log1p(-beta), math.log(beta)

    def apply(scores: Tensor, beams: Beams) -> None:
        step, favoured = beams.step, beams.favoured
        if favoured is None or step >= favoured.size(1):
            return
        token = favoured[:, step]
        follows = beams.tokens[:, :, 1 : step + 1].eq(favoured[:, None, :step]).all(2)  # (batch, beams)
        follows &= (token.ne(special.pad) & (beams.limits > step)).unsqueeze(1)
        sentences, places = follows.nonzero(as_tuple=True)
        scores[sentences, places] += kept
        at = sentences, places, token[sentences]
        scores[at] = torch.logaddexp(scores[at], scores.new_tensor(added))

    return apply


def no_repeated_ngrams(size: int) -> LogitsProcessor:
    """No n-gram of ``size`` tokens occurs twice (Paulus et al., 2018, section 2.5).

    The start symbol counts as a token of the first n-gram, as in fairseq.
    """

    def apply(scores: Tensor, beams: Beams) -> None:
        length = beams.step + 1
        if length < size:
            return
        history = beams.tokens[:, :, :length]
        windows = history.unfold(2, size, 1)  # (batch, beams, windows, size)
        latest = history[:, :, None, length - size + 1 :]
        repeated = (windows[..., :-1] == latest).all(-1)
        sentence, beam, window = repeated.nonzero(as_tuple=True)
        scores[sentence, beam, windows[sentence, beam, window, -1]] = FORBIDDEN

    return apply


def penalise_repetition(penalty: float) -> LogitsProcessor:
    """Multiply the log probability of every token that the hypothesis holds by ``penalty`` (Keskar et al., 2019).

    The start symbol counts, as in Hugging Face's generation.
    """

    def apply(scores: Tensor, beams: Beams) -> None:
        history = beams.tokens[:, :, : beams.step + 1]
        scores.scatter_(2, history, scores.gather(2, history) * penalty)

    return apply


def forbid_phrases(phrases: tuple[tuple[int, ...], ...]) -> LogitsProcessor:
    """None of these token sequences occurs in a hypothesis."""

    def apply(scores: Tensor, beams: Beams) -> None:
        for *before, last in phrases:
            if not before:
                scores[:, :, last] = FORBIDDEN
            elif len(before) <= beams.step:
                tail = beams.tokens[:, :, beams.step + 1 - len(before) : beams.step + 1]
                scores[..., last].masked_fill_(tail.eq(tail.new_tensor(before)).all(-1), FORBIDDEN)

    return apply


def begin_with(token: int, special: SpecialTokenIds) -> LogitsProcessor:
    """The first token that no prefix forces is ``token``."""

    def apply(scores: Tensor, beams: Beams) -> None:
        if beams.step > (0 if beams.prefix is None else beams.prefix.size(1)):
            return
        forced = 0 if beams.prefix is None else beams.prefix.ne(special.pad).sum(1)
        first = torch.full_like(beams.limits, beams.step).eq(forced)
        wanted = scores[first, :, token]
        scores[first] = FORBIDDEN
        scores[first, :, token] = wanted

    return apply


def end_with(token: int, special: SpecialTokenIds) -> LogitsProcessor:
    """``</s>`` follows ``token`` alone, which is also the last token that the length limit leaves room for."""

    def apply(scores: Tensor, beams: Beams) -> None:
        last = beams.limits == beams.step + 1
        wanted, ending = scores[last, :, token], scores[last, :, special.eos]
        scores[last] = FORBIDDEN
        scores[last, :, token], scores[last, :, special.eos] = wanted, ending
        ready = beams.tokens[:, :, beams.step] == token
        scores[..., special.eos].masked_fill_(~ready, FORBIDDEN)

    return apply


def favour_source(penalty: float) -> LogitsProcessor:
    """Divide the log probability of every token of the source by ``penalty``: above 1 it becomes more likely.

    Hugging Face's ``encoder_repetition_penalty``; source and target share a vocabulary.
    """

    def apply(scores: Tensor, beams: Beams) -> None:
        assert beams.source is not None
        index = beams.source.unsqueeze(1).expand(-1, scores.size(1), -1)
        scores.scatter_(2, index, scores.gather(2, index) / penalty)

    return apply


def no_ngrams_of_source(size: int, special: SpecialTokenIds) -> LogitsProcessor:
    """No n-gram of the source occurs in a hypothesis, but for those that end in ``</s>``.

    Hugging Face's ``encoder_no_repeat_ngram_size``; source and target share a vocabulary.
    """

    def apply(scores: Tensor, beams: Beams) -> None:
        assert beams.source is not None
        length = beams.step + 1
        if length < size - 1 or beams.source.size(1) < size:
            return
        windows = beams.source.unfold(1, size, 1).unsqueeze(1)  # (batch, 1, windows, size)
        latest = beams.tokens[:, :, None, length - size + 1 : length]
        said = (windows[..., :-1] == latest).all(-1) & windows[..., -1].ne(special.eos)
        sentence, beam, window = said.nonzero(as_tuple=True)
        scores[sentence, beam, windows[sentence, 0, window, -1]] = FORBIDDEN

    return apply


def allow_only(allowed: Callable[[int, Tensor], Sequence[int]]) -> LogitsProcessor:
    """``allowed`` says for a sentence's number and a hypothesis, start symbol included, which tokens may follow."""

    def apply(scores: Tensor, beams: Beams) -> None:
        assert beams.numbers is not None
        closed = torch.ones_like(scores, dtype=torch.bool)
        for sentence, number in enumerate(beams.numbers.tolist()):
            for beam in range(scores.size(1)):
                tokens = beams.tokens[sentence, beam, : beams.step + 1]
                closed[sentence, beam, torch.as_tensor(allowed(number, tokens), dtype=torch.long)] = False
        scores.masked_fill_(closed, FORBIDDEN)

    return apply


Tree = dict[int, "Tree"]


def follow_tree(outputs: Sequence[Sequence[int]], special: SpecialTokenIds) -> LogitsProcessor:
    """Every hypothesis is one of ``outputs``, which are ids without ``</s>`` (De Cao et al., 2021, section 3.2)."""
    root: Tree = {}
    for output in outputs:
        node = root
        for token in (*output, special.eos):
            node = node.setdefault(token, {})

    def following(tokens: list[int]) -> Tree:
        node = root
        for token in tokens:
            node = node.get(token, {})
        return node

    def apply(scores: Tensor, beams: Beams) -> None:
        rows = beams.tokens[:, :, 1 : beams.step + 1].flatten(0, 1).tolist()
        # A place that is empty, because few outputs are left, may hold anything.
        allowed = [(row, token) for row, tokens in enumerate(rows) for token in following(tokens)]
        closed = torch.ones_like(scores, dtype=torch.bool)
        if allowed:
            index = torch.tensor(allowed, device=scores.device)
            closed.view(-1, scores.size(2))[index[:, 0], index[:, 1]] = False
        scores.masked_fill_(closed, FORBIDDEN)

    return apply


def build_logits_processors(options: GenerationOptions, special: SpecialTokenIds) -> list[LogitsProcessor]:
    """The filters that ``options`` ask for, in fairseq's order."""
    filters = [never_pad(special)] if special.pad >= 0 else []
    if options.unkpen:
        filters.append(penalise_unknown(special, options.unkpen))
    filters.append(limit_length(special))
    beta = options.prefix_bias_beta
    filters.append(favour_prefix(special, beta) if beta else force_prefix(special))
    if options.match_source_len:
        filters.append(end_for_nothing(special))
    if options.match_source_len or options.min_len_a:
        filters.append(require_own_length(special))
    elif options.min_len:
        filters.append(require_length(special, options.min_len))
    if options.no_repeat_ngram_size:
        filters.append(no_repeated_ngrams(options.no_repeat_ngram_size))
    if options.repetition_penalty != 1.0:
        filters.append(penalise_repetition(options.repetition_penalty))
    if options.banned_phrases:
        filters.append(forbid_phrases(options.banned_phrases))
    if options.first_token >= 0:
        filters.append(begin_with(options.first_token, special))
    if options.last_token >= 0:
        filters.append(end_with(options.last_token, special))
    if options.encoder_repetition_penalty != 1.0:
        filters.append(favour_source(options.encoder_repetition_penalty))
    if options.encoder_no_repeat_ngram_size:
        filters.append(no_ngrams_of_source(options.encoder_no_repeat_ngram_size, special))
    if options.prefix_allowed_tokens_fn is not None:
        filters.append(allow_only(options.prefix_allowed_tokens_fn))
    if options.allowed_outputs:
        filters.append(follow_tree(options.allowed_outputs, special))
    return filters
