"""Required phrases: automata and turns against plain loops, the search against exhaustive search, real references.

fairseq's own constrained search is compared in ``tests/plugin/test_constraints.py``.
"""

import itertools
import random
import time

import pytest
import sacrebleu
import torch
from hypothesis import given
from hypothesis import strategies as st
from searching import checked, search_with

import fairbeam
from fairbeam.errors import ConfigError
from fairbeam.files import read_lines
from fairbeam.generation import Constraints, GenerationOptions
from fairbeam.generation.constraints import Ordered, Unordered, take_turns
from fairbeam.network import EncoderDecoder, EncoderDecoderConfig, StackConfig, pad_batch

PAD, EOS = 1, 2
tokens = st.integers(3, 5)
phrases = st.lists(tokens, min_size=1, max_size=3).map(tuple)
groups = st.lists(st.lists(phrases, min_size=1, max_size=2).map(tuple), max_size=3).map(tuple)


def holds(text: list[int], required: tuple, *, ordered: bool) -> bool:
    """Whether phrases, one of each group, lie in ``text`` without overlap, by trying everything."""
    if not required:
        return True
    for number, group in enumerate(required[:1] if ordered else required):
        rest = required[:number] + required[number + 1 :]
        for phrase, start in itertools.product(group, range(len(text))):
            end = start + len(phrase)
            if tuple(text[start:end]) == phrase:
                left = text[end:] if ordered else [*text[:start], -1, *text[end:]]
                if holds(left, rest, ordered=ordered):
                    return True
    return False


@pytest.mark.parametrize("kind", [Ordered, Unordered])
@given(required=groups, text=st.lists(tokens, max_size=9))
def test_a_finished_hypothesis_holds_what_is_required(kind, required, text):
    automaton = kind(required)
    state = automaton.start
    for token in text:
        state = automaton.advance(state, token)
    assert not automaton.finished(state) or holds(text, required, ordered=kind is Ordered)
    assert automaton.bank(state) <= sum(min(map(len, group)) for group in required)
    # tokens that a phrase asks for lead to the end; where there are no alternatives, every step of the way counts
    reached, steps = {state}, 0
    while not any(map(automaton.finished, reached)):
        reached = {automaton.advance(one, token) for one in reached for token in automaton.next_tokens(one)}
        steps += 1
        assert steps <= 9
        if all(len(set(group)) == 1 for group in required):
            following = max(reached, key=automaton.bank)
            assert automaton.bank(following) > automaton.bank(state)
            reached, state = {following}, following


@given(
    candidates=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-0.5, -1.0, -2.0, float("-inf")])), max_size=12)
)
def test_banks_take_turns(candidates):
    left = {place for place, (_, score) in enumerate(candidates) if score > float("-inf")}
    expected = []
    while left:  # a round: the best of each bank, the fullest bank first
        for bank in sorted({candidates[place][0] for place in left}, reverse=True):
            best = max((place for place in left if candidates[place][0] == bank), key=lambda i: (candidates[i][1], -i))
            expected.append(best)
        left -= set(expected)
    found = take_turns(*(list(zip(*candidates, strict=True)) or ([], [])))
    assert found[: len(expected)] == expected
    assert sorted(found) == list(range(len(candidates)))


def network(vocabulary: int) -> EncoderDecoder:
    """Random weights, sharpened so that hypotheses differ clearly."""
    torch.manual_seed(0)
    stack = StackConfig(layers=1, dim=32, heads=4, ffn_dim=64)
    made = EncoderDecoder(
        EncoderDecoderConfig(source_vocabulary=vocabulary, target_vocabulary=vocabulary, encoder=stack, decoder=stack)
    ).eval()
    with torch.no_grad():
        made.head.weight *= 4
    return made


@pytest.mark.parametrize("order", Constraints)
@torch.no_grad()
def test_a_wide_beam_finds_the_best_that_holds_what_is_required(order):
    model, longest = network(7), 4
    search = search_with([model], GenerationOptions(beam=300, max_len_b=longest, constraints=order))
    usable = [0, 3, 4, 5, 6]
    texts = [[*words, EOS] for n in range(1, longest + 1) for words in itertools.product(usable, repeat=n)]
    for source, required in (([3, 4, EOS], (((5, 4),), ((3,), (6, 6)))), ([6, 5, 5, EOS], (((3,),), ((0,),)))):
        good = [text for text in texts if holds(text[:-1], required, ordered=order is Constraints.ORDERED)]
        scores = []
        for length in {len(text) for text in good}:
            rows = torch.tensor([text for text in good if len(text) == length])
            previous = torch.cat([rows.new_full((len(rows), 1), EOS), rows[:, :-1]], dim=1)
            logits = model(torch.tensor([source]).expand(len(rows), -1), previous)
            each = logits.log_softmax(-1).gather(2, rows[..., None]).sum((1, 2)) / length
            scores += zip(each.tolist(), rows.tolist(), strict=True)
        best = max(scores)
        found = search(torch.tensor([source]), required=[required])[0]
        assert found[0].tokens.tolist() == best[1]
        assert found[0].score == pytest.approx(best[0], abs=1e-5)
        assert all(holds(hypothesis.tokens.tolist(), required, ordered=False) for hypothesis in found)


def test_required_phrases_do_not_depend_on_the_batch_and_may_be_absent():
    model = network(30).for_inference(torch.float32)
    search = search_with([model], GenerationOptions(beam=4, max_len_b=14, constraints="unordered"))
    draw = random.Random(2)
    rows = [[*draw.choices(range(4, 30), k=draw.randint(1, 9)), EOS] for _ in range(12)]
    required = [
        tuple((tuple(draw.choices(range(4, 30), k=draw.randint(1, 3))),) for _ in range(number % 3))
        for number in range(12)
    ]
    together = search(pad_batch(rows, PAD), required=required)
    plain = search_with([model], GenerationOptions(beam=4, max_len_b=14))(pad_batch(rows, PAD))
    for row, wanted, found, free in zip(rows, required, together, plain, strict=True):
        alone = search(torch.tensor([row]), required=[wanted])[0]
        assert [h.tokens.tolist() for h in found] == [h.tokens.tolist() for h in alone]
        assert [h.score for h in found] == pytest.approx([h.score for h in alone], abs=1e-5)
        assert all(holds(h.tokens.tolist(), wanted, ordered=False) for h in found)
        assert wanted or [h.tokens.tolist() for h in found] == [h.tokens.tolist() for h in free]


def test_what_does_not_fit_the_length_limit_is_given_up():
    search = search_with([network(30)], GenerationOptions(beam=3, max_len_b=2, constraints="ordered"))
    found = search(torch.tensor([[5, 6, EOS]]), required=[(((7, 8, 9),),)])[0]
    assert [h.tokens.tolist()[-1] for h in found] == [EOS] * len(found) != []


def test_orders_are_checked():
    with pytest.raises(ConfigError, match="constraints sorted: expected ordered or unordered"):
        GenerationOptions(constraints="sorted")
    with pytest.raises(ConfigError, match="constraints and sampling exclude each other"):
        checked(constraints="ordered", sampling=True)


def phrases_of(reference: str, draw: random.Random) -> list[str]:
    """One or two phrases of one to three words, in the order in which they stand."""
    words, phrases, end = reference.split(), [], 0
    for start in sorted(draw.sample(range(len(words)), min(2, len(words)))):
        start, count = max(start, end), draw.randint(1, 3)
        end = start + count
        phrases.append(" ".join(words[start:end]))
    return [phrase for phrase in phrases if phrase]


@pytest.mark.parametrize("order", ["unordered", "ordered"])
@pytest.mark.parametrize(
    ("count", "precision"),
    [(20, "float32"), *(pytest.param(500, precision, marks=pytest.mark.slow) for precision in ("float32", "auto"))],
)
def test_phrases_of_real_references_are_said(real_models, real_data, count, precision, order, record_property):
    """All of them; the translations come nearer to the references, in less than three times the time."""
    model = fairbeam.load(real_models / "multi30k-en-de" / "checkpoint.pt", precision=precision, workers=1)
    source, reference = (read_lines(real_data / "multi30k" / f"test.{side}")[:count] for side in ("en", "de"))
    draw = random.Random(1)
    required = [phrases_of(line, draw) for line in reference]
    model.translate(source[:64])
    times, texts = [], []
    for options in ({}, {"required_phrases": required, "constraints": order}):
        begin = time.process_time()
        texts.append(model.translate(source, **options))
        times.append(time.process_time() - begin)
    said = [all(phrase in text for phrase in phrases) for text, phrases in zip(texts[1], required, strict=True)]
    before, after = (sacrebleu.corpus_bleu(text, [reference]).score for text in texts)
    record_property("figures", f"BLEU {before:.2f} -> {after:.2f}, {times[1] / times[0]:.2f} times as long")
    assert all(said)
    assert after > before + 5
    assert count < 100 or times[1] < 3 * times[0]
