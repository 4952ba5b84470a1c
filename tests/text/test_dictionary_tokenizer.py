"""Text to ids and back, saved and loaded."""

import random
from collections import Counter

import pytest

from fairbeam.text import (
    Dictionary,
    SentencePieceOptions,
    SubwordNMT,
    Tokenizer,
    Whitespace,
    train_sentencepiece,
)

ENGLISH = ["the dog sees a cat", "a cat sees the dog"] * 5
GERMAN = ["der Hund sieht die Katze", "die Katze sieht den Hund"] * 5
LINES = ENGLISH + GERMAN


def tokenizer(language: str, lines: list[str], vocab_size: int = 30) -> Tokenizer:
    model = train_sentencepiece(lines, SentencePieceOptions(vocab_size=vocab_size))
    pieces = Counter(piece for line in lines for piece in model.encode(line))
    return Tokenizer(language=language, subwords=model, dictionary=Dictionary.from_counts(pieces))


@pytest.fixture(scope="module")
def english() -> Tokenizer:
    return tokenizer("en", LINES)


def test_round_trip(english):
    for line in LINES:
        ids = english.encode(line)
        assert ids[-1] == english.dictionary.eos
        assert english.decode(ids) == line
        sampled = english.sample(line, alpha=0.3, rng=random.Random(1))
        assert sampled[-1] == english.dictionary.eos
    assert english.encode_batch(LINES) == [english.encode(line) for line in LINES]


def test_an_empty_line_is_the_end_mark_alone(english):
    assert english.encode("") == english.encode("   ") == [english.dictionary.eos]
    assert english.decode([english.dictionary.eos]) == ""


def test_padding_and_marks_are_dropped(english):
    bos, pad = english.dictionary.bos, english.dictionary.pad
    assert english.decode([pad, bos, *english.encode("the dog"), pad, pad]) == "the dog"


def test_saved_and_loaded(english, tmp_path):
    german = Tokenizer(language="de", subwords=english.subwords, dictionary=english.dictionary)
    for side in (english, german):
        side.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dict.de.txt", "dict.en.txt", "spm.model"]
    for side in (english, german):
        assert Tokenizer.load(tmp_path, side.language).encode(LINES[0]) == side.encode(LINES[0])


def test_a_model_for_each_language(english, tmp_path):
    german = tokenizer("de", GERMAN, vocab_size=25)
    for side in (english, german):
        side.save(tmp_path)
        side.save(tmp_path)
    for side, line in ((english, LINES[0]), (german, GERMAN[0])):
        assert Tokenizer.load(tmp_path, side.language).subwords.encode(line) == side.subwords.encode(line)


def test_without_a_model_the_dictionary_tells_the_notation(tmp_path):
    Dictionary([("un@@", 2), ("able", 1)]).save(tmp_path / "dict.en.txt")
    Dictionary([("dog", 2)]).save(tmp_path / "dict.de.txt")
    segmented, plain = Tokenizer.load(tmp_path, "en"), Tokenizer.load(tmp_path, "de")
    assert isinstance(segmented.subwords, SubwordNMT)
    assert segmented.decode(segmented.encode("un@@ able")) == "unable"
    assert type(plain.subwords) is Whitespace
    assert plain.decode(plain.encode("dog dog")) == "dog dog"
