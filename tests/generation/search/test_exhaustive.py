"""A beam that holds everything against all sequences there are, filtered and ranked in plain Python.

Required phrases are in ``test_constraints.py``.
"""

import dataclasses
import itertools
import math

import pytest
import torch
from searching import search_with

from fairbeam.generation import GenerationOptions
from fairbeam.network import (
    DecoderOnly,
    DecoderOnlyConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    StackConfig,
    pad_batch,
)

PAD, EOS, UNKNOWN = 1, 2, 3
USABLE, VOCABULARY, LIMIT = (0, 3, 4, 5, 6), 7, 3
SOURCES = [[3, 5, 4], [6]]
STACK = StackConfig(layers=1, dim=16, heads=2, ffn_dim=24)

RANKINGS = {
    "lenpen 0.5": {"lenpen": 0.5, "max_len_b": 4},
    "lenpen 1.7": {"lenpen": 1.7},
    "unnormalized": {"unnormalized": True},
    "temperature": {"temperature": 1.7, "lenpen": 0.8},
    "gnmt": {"length_normalization": "gnmt", "lenpen": 0.9, "max_len_b": 4},
    "coverage": {"coverage_penalty": 0.6, "length_normalization": "gnmt"},
    "unknown": {"unkpen": 1.5},
    "repetition": {"repetition_penalty": 1.4},
    "source": {"encoder_repetition_penalty": 1.6, "repetition_penalty": 1.2, "unkpen": -0.5},
}


def ngrams(tokens, size):
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


def holds(tokens, phrase):
    return tuple(phrase) in ngrams(tokens, len(phrase))


PREFIX = torch.tensor([[5, 0], [6, PAD]])
BANNED, OUTPUTS = ((3,), (5, 4), (6, 6, 0), (4, EOS)), ((5, 4), (5,), (), (0, 0, 0), (6, 3, 5))
# name: (options, what a sequence, without </s>, must be like; given also its source and prefix)
FILTERS = {
    "any": ({}, lambda words, source, prefix: True),
    "min_len": ({"min_len": 3}, lambda words, source, prefix: len(words) >= 3),
    "min_len_a": (
        {"min_len_a": 0.5, "min_len": 1}, lambda words, source, prefix: len(words) >= int(len(source) / 2) + 1,
    ),
    "max_len_a": (
        {"max_len_a": 0.5, "max_len_b": 1}, lambda words, source, prefix: len(words) <= int(len(source) / 2) + 1,
    ),
    "match_source_len": (
        {"match_source_len": True}, lambda words, source, prefix: len(words) == len(source),
    ),
    "no_repeat_ngram": (
        {"no_repeat_ngram_size": 2},
        lambda words, source, prefix: len(set(ngrams((EOS, *words), 2))) == len(ngrams((EOS, *words), 2)),
    ),
    "banned": (
        {"banned_phrases": BANNED},
        lambda words, source, prefix: not any(holds((*words, EOS), phrase) for phrase in BANNED),
    ),
    "allowed_outputs": ({"allowed_outputs": OUTPUTS}, lambda words, source, prefix: words in OUTPUTS),
    "first and last": (
        {"first_token": 5, "last_token": 6, "max_len_b": 4},
        lambda words, source, prefix: words[len(prefix) :][:1] == (5,) and words[-1:] == (6,),
    ),
    "function": (
        {"prefix_allowed_tokens_fn": lambda number, tokens: [EOS, *(t for t in USABLE if t != tokens[-1] + number)]},
        lambda words, source, prefix: not any(
            b == a + SOURCES.index(source) for a, b in itertools.pairwise((EOS, *words))
        ),
    ),
    "source ngrams": (
        {"encoder_no_repeat_ngram_size": 2},
        lambda words, source, prefix: not set(ngrams(words, 2)) & set(ngrams(source, 2)),
    ),
}  # fmt: skip


def model_of(kind: str, seed: int):
    """Random weights, sharpened so that hypotheses differ clearly."""
    torch.manual_seed(seed)
    if kind == "decoder":
        made = DecoderOnly(DecoderOnlyConfig(vocabulary=VOCABULARY, decoder=STACK, pad=PAD)).eval()
    else:
        sizes = {"source_vocabulary": VOCABULARY, "target_vocabulary": VOCABULARY}
        made = EncoderDecoder(EncoderDecoderConfig(**sizes, encoder=STACK, decoder=STACK)).eval()
    with torch.no_grad():
        made.head.weight *= 4
    return made


def token_scores(model, source: list[int], texts: list[tuple[int, ...]], temperature: float):
    """For every text the log probability of each token, and the attention over the source if there is one."""
    for _, group in itertools.groupby(texts, key=len):
        rows = torch.tensor(list(group))
        read = torch.tensor([source]).expand(len(rows), -1)
        attention = [None] * len(rows)
        if isinstance(model, DecoderOnly):
            logits = model(torch.cat([read, rows], dim=1))[:, len(source) - 1 : -1]
        else:
            previous = torch.cat([rows.new_full((len(rows), 1), EOS), rows[:, :-1]], dim=1)
            logits, attention = model(read, previous), model.alignments(read, previous).tolist()
        scores = (logits / temperature).log_softmax(-1).gather(2, rows[..., None])[..., 0]
        yield from zip(rows.tolist(), scores.tolist(), attention, strict=True)


def ranked(scores: list[float], text: list[int], source: list[int], attention, options: GenerationOptions) -> float:
    """The score of a whole sequence under the options, by their definitions."""
    total = 0.0
    for place, (token, score) in enumerate(zip(text, scores, strict=True)):
        score -= options.unkpen * (token == UNKNOWN)
        score *= options.repetition_penalty ** (token in (EOS, *text[:place]))
        score /= options.encoder_repetition_penalty ** (token in source)
        total += 0.0 if options.match_source_len and token == EOS else score
    if not options.unnormalized:
        gnmt = options.length_normalization == "gnmt"
        total /= ((5 + len(text)) / 6 if gnmt else len(text)) ** options.lenpen
    if options.coverage_penalty:
        columns = zip(*attention, strict=True)
        total += options.coverage_penalty * sum(math.log(min(1.0, sum(column))) for column in columns)
    return total


CASES = [
    *((RANKINGS[name], ["any"], False) for name in RANKINGS),
    *(({}, [name], prefix) for name in FILTERS if name != "any" for prefix in (False, True)
      if not (prefix and name == "allowed_outputs")),
    ({"unnormalized": True}, ["no_repeat_ngram", "banned", "min_len_a"], True),
    ({"lenpen": 0.4, "repetition_penalty": 0.8}, ["function", "source ngrams", "min_len"], False),
]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "given", "names", "with_prefix"),
    [(kind, *case) for case in CASES for kind in ("both", "decoder")
     if not (kind == "decoder" and "coverage_penalty" in case[0])],
    ids=lambda value: value if isinstance(value, str) else str(value),
)  # fmt: skip
def test_all_there_is_in_the_right_order(kind, given, names, with_prefix):
    asked = {name: value for filter_name in names for name, value in FILTERS[filter_name][0].items()}
    options = GenerationOptions(**{"max_len_b": LIMIT, "min_len": 0, **given, **asked})
    longest = max(options.length_limit(len(source) + 1, 99) for source in SOURCES)
    options = dataclasses.replace(options, beam=sum(len(USABLE) ** n for n in range(longest + 1)) + 20)
    for seed in range(2):
        model = model_of(kind, seed)
        eos = [] if kind == "decoder" else [EOS]
        sources = [[*source, *eos] for source in SOURCES]
        found = search_with([model], options)(pad_batch(sources, PAD), prefix=PREFIX if with_prefix else None)
        for number, (source, hypotheses) in enumerate(zip(sources, found, strict=True)):
            prefix = tuple(PREFIX[number][PREFIX[number].ne(PAD)].tolist()) if with_prefix else ()
            limit = options.length_limit(len(source), 99)
            texts = [
                (*words, EOS) for n in range(limit + 1) for words in itertools.product(USABLE, repeat=n)
                if words[: len(prefix)] == prefix
                and all(FILTERS[name][1](words, SOURCES[number] if name in ("function", "source ngrams") else source,
                                         prefix) for name in names)
            ]  # fmt: skip
            expected = {
                tuple(text): ranked(scores, text, source, attention, options)
                for text, scores, attention in token_scores(model, source, texts, options.temperature)
            }
            best = max(expected, key=expected.__getitem__)
            assert tuple(hypotheses[0].tokens.tolist()) == best
            scored = {tuple(hypothesis.tokens.tolist()): hypothesis.score for hypothesis in hypotheses}
            assert len(scored) == len(hypotheses)
            assert scored == pytest.approx(expected, rel=1e-6, abs=1e-5)
            assert list(scored.values()) == sorted(scored.values(), reverse=True)
