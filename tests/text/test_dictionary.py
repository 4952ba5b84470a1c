"""The dictionary file format, against fairseq's own reader and writer."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairbeam.errors import InputError
from fairbeam.text import Dictionary

# Everything a token can hold: odd Unicode spaces too, but neither ASCII white space nor line breaks.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\t\v\f ")
TOKENS = st.text(CHARACTERS, min_size=1, max_size=8)


@pytest.fixture(scope="module")
def fairseq_data():
    return pytest.importorskip("fairseq.data")


@pytest.fixture
def write(tmp_path):
    def write_lines(*lines: str):
        path = tmp_path / "dict.txt"
        path.write_bytes("".join(f"{line}\n" for line in lines).encode())
        return path

    return write_lines


def test_special_tokens_come_first_and_stay_out_of_the_file(tmp_path):
    dictionary = Dictionary([("▁a", 3), ("b", 1)])
    assert dictionary.symbols(range(6)) == ["<s>", "<pad>", "</s>", "<unk>", "▁a", "b"]
    assert (dictionary.bos, dictionary.pad, dictionary.eos, dictionary.unk) == (0, 1, 2, 3)
    assert dictionary.encode(["b", "never seen"]) == [5, 3, 2]
    assert dictionary.encode(["b"], eos=False) == [5]
    dictionary.save(tmp_path / "dict.txt")
    assert (tmp_path / "dict.txt").read_text() == "▁a 3\nb 1\n"


@settings(deadline=None)
@given(counts=st.dictionaries(TOKENS, st.integers(0, 10**9), max_size=30))
def test_saved_and_loaded_by_us_and_by_fairseq(tmp_path_factory, fairseq_data, counts):
    path = tmp_path_factory.mktemp("dictionary") / "dict.txt"
    dictionary = Dictionary.from_counts(counts)
    dictionary.save(path)
    loaded = Dictionary.load(path)
    assert loaded == dictionary
    assert list(loaded.entries()) == list(dictionary.entries())
    assert fairseq_data.Dictionary.load(str(path)).symbols == dictionary.symbols(range(len(dictionary)))


@settings(deadline=None)
@given(counts=st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.integers(1, 4), max_size=30))
def test_counted_as_fairseq_counts(fairseq_data, counts):
    theirs = fairseq_data.Dictionary()
    for token in Counter(counts).elements():
        theirs.add_symbol(token)
    theirs.finalize(padding_factor=8)
    ours = Dictionary.from_counts(counts)
    assert list(ours.entries()) == list(zip(theirs.symbols[4:], theirs.count[4:], strict=True))


def test_filler_names_that_are_taken_are_skipped():
    dictionary = Dictionary.from_counts({"madeupword0000": 7})
    assert dictionary.symbols(range(4, 8)) == [f"madeupword{i:04d}" for i in range(4)]


def test_an_odd_space_is_a_token(write):
    assert Dictionary.load(write("\u3000 7", "a\u00a0b 2"))[4] == "\u3000"


def test_overwrite_flag_moves_the_token_and_survives_saving(write, tmp_path):
    dictionary = Dictionary.load(write("a 1", "<s> 0 #fairseq:overwrite", "a 2 #fairseq:overwrite"))
    assert dictionary.index("a") == 6
    assert dictionary.index("<s>") == 5
    assert dictionary.bos == 0
    dictionary.save(tmp_path / "again.txt")
    assert Dictionary.load(tmp_path / "again.txt") == dictionary


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["a 1", "a 2"], "line 2: duplicate token 'a'"),
        (["<unk> 1"], "line 1: duplicate token '<unk>'"),
        (["a 1", ""], "line 2: expected 'token count', found ''"),
        (["a"], "line 1: expected 'token count'"),
        (["a many"], "line 1: expected 'token count', found 'a many'"),
        (["a" * 5000 + " 1"], "line 1: over 4096 characters"),
        (["a" * 50_000 + " 1"], "line 1: over 4096 characters"),
    ],
)
def test_malformed_lines_are_named(write, lines, complaint):
    with pytest.raises(InputError, match=complaint):
        Dictionary.load(write(*lines))


def test_unusable_files_are_named(tmp_path, monkeypatch):
    path = tmp_path / "dict.txt"
    with pytest.raises(InputError, match=r"dict\.txt: no such dictionary"):
        Dictionary.load(path)
    path.write_bytes(b"a 1\n\xff 2\n")
    with pytest.raises(InputError, match=r"dict\.txt, line 2: not valid UTF-8"):
        Dictionary.load(path)
    path.write_text("a 1\nb 2\nc 3\n")
    monkeypatch.setattr("fairbeam.text.dictionary.MAX_ENTRIES", 2)
    with pytest.raises(InputError, match="more than 2 lines"):
        Dictionary.load(path)
    with pytest.raises(InputError, match="line break"):
        Dictionary([("a\nb", 1)]).save(path)
