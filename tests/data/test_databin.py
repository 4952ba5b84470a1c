"""Describing and checking data folders, ours and stock ones."""

import json
import shutil

import pytest

from fairbeam.data.databin import DataBin, Manifest, References, SubwordFiles, check, find_subwords, raw_lines
from fairbeam.data.indexed import IndexedWriter
from fairbeam.errors import InputError
from fairbeam.text import Dictionary, SentencePieceOptions, train_sentencepiece

MODEL = train_sentencepiece(["a b c d e f"] * 10, SentencePieceOptions(vocab_size=12))
MANIFEST = Manifest(
    source="en",
    target="de",
    splits={"train": 3},
    subwords=SubwordFiles(kind="sentencepiece", source="spm.model", target="spm.model"),
    joined_dictionary=True,
    references=References.TAB,
)


def binarise(prefix, sentences):
    with IndexedWriter(prefix, 100) as writer:
        for sentence in sentences:
            writer.add(sentence)


@pytest.fixture
def stock(tmp_path):
    """What fairseq-preprocess leaves: no manifest, no model, no text."""
    for language in ("en", "de"):
        Dictionary([("a", 2), ("b", 1)]).save(tmp_path / f"dict.{language}.txt")
        binarise(tmp_path / f"train.en-de.{language}", [[4, 2], [5, 4, 2], [2]])
    return tmp_path


@pytest.fixture
def ours(stock):
    MODEL.save(stock / "spm.model")
    MANIFEST.save(stock / "fairbeam.json")
    (stock / "raw").mkdir()
    (stock / "raw" / "train.en").write_text("a\nb a\n\n")
    (stock / "raw" / "train.de").write_text("a\tA\nb a\n\u2028\n")
    return stock


def test_our_folder(ours):
    data = DataBin.open(ours)
    assert (data.source, data.target, data.splits, data.manifest) == ("en", "de", ("train",), MANIFEST)
    assert data.raw_lines("train", "en") == raw_lines(ours, "train", "en") == ["a", "b a", ""]
    assert data.raw_references("train") == [("a", "A"), ("b a",), ("\u2028",)]
    assert data.raw_lines("test", "en") is None
    assert find_subwords(ours).encode("a b") == MODEL.encode("a b")
    assert data.check() == []


def test_a_stock_folder(stock):
    data = DataBin.open(stock)
    assert (data.source, data.target, data.splits, data.manifest) == ("en", "de", ("train",), None)
    assert data.raw_references("train") is None
    assert find_subwords(stock) is None
    assert data.check() == []


def test_a_stock_folder_for_language_models(stock):
    for path in stock.glob("*.de*"):
        path.unlink()
    for ending in ("bin", "idx"):
        (stock / f"train.en-de.en.{ending}").unlink(missing_ok=True)
    binarise(stock / "valid", [[4, 2]])
    shutil.copy(stock / "dict.en.txt", stock / "dict.txt")
    data = DataBin.open(stock)
    assert (data.source, data.target, data.splits) == (None, None, ("valid",))
    assert data.check() == []


def test_check_finds_what_is_wrong(ours):
    binarise(ours / "train.en-de.de", [[4, 2], [6, 4, 2]])
    (ours / "raw" / "train.en").write_text("a\n")
    (ours / "spm.model").unlink()
    (ours / "dict.en.txt").write_text("a\n")
    problems = "\n".join(check(ours))
    for expected in (
        "dict.en.txt, line 1: expected 'token count'",
        "train.en-de.de.bin: id 6, but",
        "different numbers of sentences: 2 in de, 3 in en",
        "train.en: 1 lines, but 3 sentences are binarised",
        "train has 2 sentences in de; fairbeam.json says 3",
        "spm.model: no such SentencePiece model",
    ):
        assert expected in problems


def test_check_names_damaged_and_missing_files(ours):
    (ours / "train.en-de.en.bin").write_bytes(b"\4\0")
    (ours / "train.en-de.de.idx").unlink()
    (ours / "raw" / "train.de").write_bytes(b"\xff\n")
    problems = "\n".join(check(ours))
    assert "train.en-de.en.bin has 2 bytes" in problems
    assert "train has no sentences in de; fairbeam.json says 3" in problems
    assert check(ours / "absent") == [f"{ours / 'absent'}: no such data folder"]
    assert "no binarised data" in check(ours / "raw")[0]


def test_manifest_round_trip(tmp_path):
    MANIFEST.save(tmp_path / "fairbeam.json")
    assert Manifest.load(tmp_path / "fairbeam.json") == MANIFEST
    assert json.loads((tmp_path / "fairbeam.json").read_text())["format"] == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 2}, "format 2; this version reads format 1"),
        ({"surprise": 1}, "/surprise is an unknown field; known are source, target"),
        ({"source": 3}, "/source is 3; expected a string"),
        ({"joined_dictionary": 1}, "/joined_dictionary is 1; expected true or false"),
        ({"splits": {"train": -1}}, "/splits/train is -1; expected an integer from 0"),
        ({"splits": {"../train": 1}}, "'../train' is not a plain name"),
        ({"references": "comma"}, '/references is "comma"; expected one of none, tab'),
        ({"subwords": {"kind": "sentencepiece"}}, "/subwords/source is missing"),
        ({"subwords": {"kind": "magic", "source": "a", "target": "a"}}, "/subwords/kind is 'magic'; expected"),
        ({"subwords": {"kind": "sentencepiece", "source": "/etc/passwd", "target": "a"}}, "not a plain name"),
    ],
)
def test_manifests_are_read_strictly(tmp_path, change, complaint):
    path = tmp_path / "fairbeam.json"
    MANIFEST.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=complaint):
        Manifest.load(path)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b"{}"])
def test_what_is_not_a_manifest_is_refused(tmp_path, content):
    path = tmp_path / "fairbeam.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"fairbeam\.json: "):
        Manifest.load(path)
