"""Searches of Hugging Face's ``generate`` beside ours, and what makes the two comparable."""

import dataclasses
import warnings

import pytest
import torch
from searching import search_with

from fairbeam.generation import GenerationOptions, SpecialTokenIds

transformers = pytest.importorskip("transformers")
processors = transformers.generation.logits_process

BEAM, LIMIT = 4, 12


class EndAtLimit(transformers.LogitsProcessor):
    """Only ``</s>`` at the limit, with its probability as it is; theirs sets it to one, which changes beams' ranks."""

    def __init__(self, eos: int, length: int) -> None:
        self.eos, self.length = eos, length

    def __call__(self, input_ids, scores):
        if input_ids.size(1) < self.length:
            return scores
        closed = torch.full_like(scores, float("-inf"))
        closed[:, self.eos] = scores[:, self.eos]
        return closed


class OfContinuation(transformers.LogitsProcessor):
    """Shows a processor what we look at: a start symbol and what follows. Theirs looks at the prompt, too."""

    def __init__(self, processor, begun: int, start: int) -> None:
        self.processor, self.begun, self.start = processor, begun, start

    def __call__(self, input_ids, scores):
        history = input_ids[:, self.begun - 1 :].clone()
        history[:, 0] = self.start
        return self.processor(history, scores)


TIMELY = {"early_stopping": True, "length_penalty": 1.0}
"""fairseq's rule: a sentence is finished with as many hypotheses as there are beams."""
# name: (our options, theirs, a processor of theirs)
SEARCHES = {
    "length penalty 0.4": ({"lenpen": 0.4}, {**TIMELY, "length_penalty": 0.4}, None),
    "length penalty 2": ({"lenpen": 2.0}, {**TIMELY, "length_penalty": 2.0}, None),
    # With patience a search goes on to the limit; theirs stops where nothing better can come, with the same best.
    "never early": ({"beam_patience": 99.0}, {"early_stopping": "never", "length_penalty": 1.0}, None),
    # Their heuristic compares with the length so far, which is exact where lengths don't count.
    "heuristic": (
        {"beam_patience": 99.0, "unnormalized": True}, {"early_stopping": False, "length_penalty": 0.0}, None,
    ),
    "no repeated bigrams": ({"no_repeat_ngram_size": 2}, TIMELY, processors.NoRepeatNGramLogitsProcessor(2)),
    "repetition": ({"repetition_penalty": 1.6}, TIMELY, processors.RepetitionPenaltyLogitsProcessor(1.6)),
    "lengths": ({"min_len": 5, "max_len_b": 7}, {**TIMELY, "min_new_tokens": 5, "max_new_tokens": 8}, None),
    # Theirs makes a forced token certain. Where lengths don't count, that adds the same to every hypothesis.
    "first token": (
        {"first_token": 9, "unnormalized": True}, {**TIMELY, "length_penalty": 0.0, "forced_bos_token_id": 9}, None,
    ),
    "function": ({}, TIMELY, None),
    "banned": ({}, TIMELY, None),  # phrases that it would say otherwise
    "greedy, forced end": ({"beam": 1}, {}, None),
}  # fmt: skip


def frequent_token(network, source: torch.Tensor, special: SpecialTokenIds, start: int) -> int:
    """What greedy outputs hold most often: as the end, it makes them short and of several lengths."""
    search = search_with([network], GenerationOptions(beam=1, max_len_b=LIMIT, min_len=LIMIT), special)
    return int(torch.cat([found[0].tokens[2:-1] for found in search(source, start=start)]).mode().values)


def assert_same_searches(
    theirs, inputs: dict, network, source: torch.Tensor, special: SpecialTokenIds, start: int
) -> None:
    """For each search the best hypothesis and its score; all of them where both keep the best they have seen.

    Args:
        inputs: what theirs is given, with its ``source`` padded as theirs wants it.
        start: what ours begins with, and theirs unless it goes on with a prompt.
    """
    eos = frequent_token(network, source, special, start)
    for name in SEARCHES:
        _assert_same(name, theirs, inputs, network, source, dataclasses.replace(special, eos=eos), start)


def _assert_same(
    name: str, theirs, inputs: dict, network, source: torch.Tensor, special: SpecialTokenIds, start: int
) -> None:
    given, options, processor = SEARCHES[name]
    begun = 1 if theirs.config.is_encoder_decoder else inputs["input_ids"].size(1)
    if name == "first token" and begun > 1:
        options = {**TIMELY, "length_penalty": 0.0}
        processor = processors.ForcedBOSTokenLogitsProcessor(9)
    ours = {"beam": BEAM, "max_len_b": LIMIT, "min_len": 0, **given}
    if name == "function":
        # two in three tokens, by sentence and by what was said
        def allowed(sentence: int, tokens: torch.Tensor) -> list[int]:
            first = (sentence + len(tokens) + int(tokens[-1])) % 3
            return [special.eos, *range(first, 37, 3), *range(first + 1, 37, 3)]

        ours["prefix_allowed_tokens_fn"] = allowed
        processor = processors.PrefixConstrainedLogitsProcessor(allowed, BEAM)
    banned = [[special.pad]]
    if name == "banned":
        plain = search_with([network], GenerationOptions(**ours), special)(source, start=start)
        said = [found[0].tokens.tolist() for found in plain]
        phrases = (tuple(said[0][:1]), *(tuple(text[1:3]) for text in said if len(text) > 3))
        ours["banned_phrases"] = phrases
        banned += map(list, phrases)
    found = search_with([network], GenerationOptions(**ours), special)(source, start=start)
    limit = begun + ours["max_len_b"]
    added = [EndAtLimit(special.eos, limit)] if ours["beam"] > 1 else []
    if processor is not None:
        added = [OfContinuation(processor, begun, start), *added]
    theirs.generation_config.forced_eos_token_id = None if added else special.eos
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.generate(
            **inputs, do_sample=False, use_cache=False, num_beams=ours["beam"], num_return_sequences=ours["beam"],
            bad_words_ids=banned, eos_token_id=special.eos, pad_token_id=special.pad,
            logits_processor=transformers.LogitsProcessorList(added), return_dict_in_generate=True,
            output_scores=True, **{"max_new_tokens": LIMIT + 1, **options},
        )  # fmt: skip
    rows = expected.sequences[:, begun:].unflatten(0, (-1, ours["beam"])).tolist()
    for sentence, (row, hypotheses) in enumerate(zip(rows, found, strict=True)):
        texts = [text[: text.index(special.eos) + 1] for text in row]
        count = ours["beam"] if "beam_patience" in ours else 1
        assert [hypothesis.tokens.tolist() for hypothesis in hypotheses[:count]] == texts[:count], name
        if ours["beam"] > 1 and "first_token" not in ours:
            scores = expected.sequences_scores.view(-1, ours["beam"])[sentence, :count].tolist()
            assert [hypothesis.score for hypothesis in hypotheses[:count]] == pytest.approx(scores, abs=1e-5), name
