"""Shortlists: IBM Model 1 against a plain loop, the lists made of it, and files that somebody else wrote."""

from collections import defaultdict

import numpy as np
import pytest
from safetensors.numpy import save_file

from fairbeam.data import lexical_shortlist as module
from fairbeam.data.lexical_shortlist import (
    SHORTLIST,
    Shortlist,
    ShortlistOptions,
    build_shortlist,
    model_1,
    shortlist_of,
)
from fairbeam.errors import ConfigError, FairbeamError, InputError

EOS, VOCABULARY = 2, 14
METADATA = {"format": "fairbeam shortlist 1"}


def corpus(seed: int, pairs: int = 12) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sentences of 0 to 7 random words, ended by ``</s>``."""
    random = np.random.default_rng(seed)
    sides = [
        [np.append(random.integers(4, VOCABULARY, random.integers(0, 8)), EOS) for _ in range(pairs)] for _ in range(2)
    ]
    return sides[0], sides[1]


def plain_model_1(source, target, iterations: int) -> dict[tuple[int, int], float]:
    """The algorithm as it is told: every target word is shared out among the source words of its sentence."""
    t = defaultdict(lambda: 1.0)
    for _ in range(iterations):
        counts, totals = defaultdict(float), defaultdict(float)
        for s, e in zip(source, target, strict=True):
            for word in e[:-1]:
                whole = sum(t[f, word] for f in s)
                for f in s:
                    counts[f, word] += t[f, word] / whole
                    totals[f] += t[f, word] / whole
        t = defaultdict(float, {pair: count / totals[pair[0]] for pair, count in counts.items()})
    return dict(t)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("iterations", [1, 2, 6])
def test_model_1_is_that_of_a_plain_loop(seed, iterations):
    source, target = corpus(seed)
    table = model_1(source, target, iterations)
    found = dict(zip(zip(table.sources, table.targets, strict=True), table.probabilities, strict=True))
    expected = plain_model_1(source, target, iterations)
    assert found.keys() == expected.keys()
    for pair, probability in expected.items():
        assert found[pair] == pytest.approx(probability, rel=1e-9)


def test_lists_hold_the_best_translations_copies_and_frequent_symbols():
    source, target = corpus(7, 40)
    same = np.arange(VOCABULARY)
    made = shortlist_of(source, target, same, VOCABULARY, ShortlistOptions(size=3, common=4, iterations=4))
    t = plain_model_1(source, target, 4)
    for word in range(VOCABULARY):
        known = sorted(((p, e) for (f, e), p in t.items() if f == word), reverse=True)
        best = {e for _, e in known[:3]} | {word}
        assert set(made.symbols[made.offsets[word] : made.offsets[word + 1]]) == best
    counts = np.bincount(np.concatenate(target), minlength=VOCABULARY)
    assert sorted(counts[made.common]) == sorted(counts)[-4:]
    batch = np.array([[*source[0], -1], [*source[0][:0], *[-1] * (len(source[0]) + 1)]])
    members = made.members(batch)
    lists = [made.symbols[made.offsets[f] : made.offsets[f + 1]] for f in source[0]]
    assert set(np.flatnonzero(members[0])) == {*made.common, *np.concatenate(lists)}
    assert set(np.flatnonzero(members[1])) == set(made.common)


def small() -> Shortlist:
    return Shortlist(np.array([0, 2, 2, 3]), np.array([1, 4, 0]), np.array([2, 3]), 5)


def test_files_come_back_and_may_be_extended(tmp_path):
    small().save(tmp_path / SHORTLIST)
    assert Shortlist.load(tmp_path / SHORTLIST) == small() != small().extended(3, 6)
    wide = small().extended(5, 7)
    wide.check(5, 7)
    assert wide.members(np.array([[4, 3]])).sum() == 2  # the common ones
    with pytest.raises(ConfigError, match="of 3 and 5 symbols, but the model has 5 and 5"):
        small().check(5, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"symbols": np.array([1, 5, 0])}, "symbols has an id outside of 0 to 4"),
     ({"common": np.array([-1])}, "common has an id"), ({"offsets": np.array([0, 3, 2, 3])}, "offsets do not divide"),
     ({"offsets": np.array([0, 2, 2, 1 << 30])}, "offsets do not divide"), ({"offsets": np.array([], int)}, "offsets"),
     ({"common": np.array([[2]])}, "a row of integers"), ({"common": np.array([2.0])}, "not a shortlist"),
     ({"target_vocabulary": np.array([0])}, "expected one number"), ({"more": np.array([0])}, "expected a shortlist"),
     ({"metadata": {"format": "2"}}, "expected a shortlist"), ({"bytes": b"{}"}, "not a shortlist")],
)  # fmt: skip
def test_impossible_files_are_refused(tmp_path, changes, message):
    arrays = {"offsets": small().offsets, "symbols": small().symbols, "common": small().common,
              "target_vocabulary": np.array([5]), **changes}  # fmt: skip
    path, metadata, whole = tmp_path / SHORTLIST, arrays.pop("metadata", METADATA), arrays.pop("bytes", None)
    arrays = {name: a.astype(np.int32) if np.issubdtype(a.dtype, np.integer) else a for name, a in arrays.items()}
    save_file(arrays, path, metadata)
    if whole is not None:
        path.write_bytes(whole)
    with pytest.raises(InputError, match=message) as error:
        Shortlist.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_commands_make_the_same_file(run, tmp_path, monkeypatch):
    random = np.random.default_rng(1)
    for language in ("xx", "yy"):
        lines = [" ".join(random.choice([f"{language}{n}" for n in range(9)], 5)) for _ in range(60)]
        (tmp_path / f"train.{language}").write_text("".join(f"{line}\n" for line in lines))
    sizes = ("--shortlist-size", 4, "--shortlist-common", 6)
    run("fairbeam", "prepare", tmp_path, "xx", "yy", tmp_path / "bin", "--vocab-size", 21, *sizes)
    made = Shortlist.load(tmp_path / "bin" / SHORTLIST)
    run("fairbeam", "shortlist", tmp_path / "bin", tmp_path / "again", "--size", 4, "--common", 6)
    assert Shortlist.load(tmp_path / "again") == made
    assert len(made.common) == 6
    run("fairbeam", "prepare", tmp_path, "xx", "yy", tmp_path / "bin", "--overwrite", "--vocab-size", 21,
        "--shortlist-size", 0)  # fmt: skip
    assert not (tmp_path / "bin" / SHORTLIST).exists()
    whole = build_shortlist(tmp_path / "bin")
    monkeypatch.setattr(module, "_MAX_LINKS", 1000)  # a part of the text is looked at
    assert 0 < len(build_shortlist(tmp_path / "bin").symbols) < len(whole.symbols)
    with pytest.raises(FairbeamError, match="size is 0; expected at least 1"):
        ShortlistOptions(size=0)
