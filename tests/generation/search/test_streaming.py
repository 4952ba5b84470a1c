"""What is said to be certain is what comes."""

import importlib.util
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from searching import search_with

from fairbeam.generation import GenerationOptions
from fairbeam.generation.search.streaming import certain_tokens, common_prefix, given_by_thread
from fairbeam.network import pad_batch

spec = importlib.util.spec_from_file_location("searches", Path(__file__).with_name("test_beam_search.py"))
searches = importlib.util.module_from_spec(spec)
spec.loader.exec_module(searches)

OPTIONS = [
    {"beam": 1}, {"beam": 2}, {"beam": 5}, {"beam": 4, "lenpen": 3.0},
    {"beam": 2, "lenpen": -1.0, "beam_patience": 2.0}, {"beam": 4, "diverse_beam_groups": 2},
    {"beam": 3, "sampling": True}, {"beam": 3, "stochastic_beam": True},
    {"beam": 3, "min_len": 6, "no_repeat_ngram_size": 2},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_certain_tokens_are_the_beginning_of_the_best(options):
    model, rows = searches.network(30), searches.sources(12, 30)
    shown: dict[int, list[list[int]]] = {sentence: [] for sentence in range(12)}

    def watch(alive, beams, finished):
        for row, sentence in enumerate(alive.tolist()):
            if not finished.closed[sentence]:
                shown[sentence].append(certain_tokens(row, sentence, beams, finished))

    search = search_with([model], GenerationOptions(max_len_b=12, **options))
    for sentence, hypotheses in enumerate(search(pad_batch(rows, searches.PAD), watch=watch)):
        best = hypotheses[0].tokens.tolist()
        assert all(certain == best[: len(certain)] for certain in shown[sentence])
        lengths = list(map(len, shown[sentence]))
        assert lengths == sorted(lengths)
        if options["beam"] == 1:
            assert lengths == list(range(1, len(best)))
    early = [step for certain in shown.values() for step, tokens in enumerate(certain) if tokens]
    assert early or options["beam"] > 2  # a random model's many beams share nothing


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=4))
def test_common_prefix(rows):
    common = common_prefix(rows)
    assert all(row[: len(common)] == common for row in rows)
    longer = {tuple(row[: len(common) + 1]) for row in rows}
    assert len(longer) != 1 or tuple(common) in longer


def test_a_thread_gives_its_pieces_and_errors_and_ends_when_nobody_reads():
    assert list(given_by_thread(lambda give: [give(n) for n in range(3)])) == [0, 1, 2]

    def fails(give):
        give(1)
        raise ValueError("two")

    pieces = given_by_thread(fails)
    assert next(pieces) == 1
    with pytest.raises(ValueError, match="two"):
        next(pieces)

    def endless(give):
        while True:
            give(0)

    before = threading.active_count()
    pieces = given_by_thread(endless)
    assert next(pieces) == 0
    pieces.close()
    assert threading.active_count() == before
