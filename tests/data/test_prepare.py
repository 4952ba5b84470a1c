"""Raw text to a data folder, compared with fairseq's own tools, and what goes wrong on the way."""

import os
import random
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from fairbeam.data.databin import DataBin, References
from fairbeam.data.indexed import IndexedReader, IndexedWriter
from fairbeam.data.prepare import PrepareOptions, prepare
from fairbeam.errors import ConfigError, InputError
from fairbeam.text import Dictionary, ModelType, SentencePiece, SentencePieceOptions, Tokenizer

WORDS = {
    "en": ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "wizards", "play"],
    "de": ["der", "schnelle", "Fuchs", "springt", "über", "einen", "Hund", "und", "während", "Zauberer"],
}


def write_corpus(folder: Path, **lines: int) -> None:
    rng = random.Random(1)
    for split, count in lines.items():
        for language, words in WORDS.items():
            text = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(count)]
            (folder / f"{split}.{language}").write_text("".join(f"{line}\n" for line in text))


@pytest.fixture
def corpus(tmp_path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_corpus(folder, train=300, valid=20, test=20, test1=10)
    return folder


def options(corpus: Path, vocab_size: int = 90, **changes) -> PrepareOptions:
    values = {
        "data": corpus,
        "source": "en",
        "target": "de",
        "out": corpus.parent / "out",
        "subwords": SentencePieceOptions(vocab_size=vocab_size),
        "workers": 2,
    }
    return PrepareOptions(**{**values, **changes})


def decoded(data: DataBin, split: str, language: str) -> list[str]:
    tokenizer = Tokenizer.load(data.folder, language)
    return [tokenizer.decode(ids.tolist()) for ids in IndexedReader(data.prefix(split, language))]


def test_the_folder_is_whole_and_sound(corpus):
    steps: dict[str, list[int]] = {}
    data = prepare(options(corpus), lambda step, done, total: steps.setdefault(step, []).append(done))
    assert data.manifest.splits == {"train": 300, "valid": 20, "test": 20, "test1": 10}
    assert data.check() == []
    for split in data.splits:
        for language in ("en", "de"):
            text = (corpus / f"{split}.{language}").read_text()
            assert data.raw_path(split, language).read_text() == text
            assert decoded(data, split, language) == text.splitlines()
    assert len(steps) == 6  # learning, counting, four splits
    assert all(earlier <= later for done in steps.values() for earlier, later in pairwise(done))
    assert list(corpus.parent.glob(".*")) == []


def test_chunks_and_threads_do_not_matter(corpus, monkeypatch):
    prepare(options(corpus))
    monkeypatch.setattr("fairbeam.data.prepare._CHUNK_LINES", 7)
    prepare(options(corpus, out=corpus.parent / "again", workers=1))
    for path in (corpus.parent / "out").rglob("*.*"):
        other = corpus.parent / "again" / path.relative_to(corpus.parent / "out")
        assert path.read_bytes() == other.read_bytes(), path.name


def test_equals_fairseq_preprocess(corpus, tmp_path, run):
    """The same pieces through fairseq's own command: the same files, byte for byte.

    The dictionary has the same tokens and counts first; the model's pieces that the text does not use follow.
    """
    pytest.importorskip("fairseq")
    data = prepare(options(corpus))
    model = SentencePiece.load(data.folder / "spm.model")
    for path in corpus.iterdir():
        pieces = [" ".join(model.encode(line)) for line in path.read_text().splitlines()]
        (tmp_path / path.name).write_text("".join(f"{line}\n" for line in pieces))
    prefixes = {
        "--trainpref": tmp_path / "train",
        "--validpref": tmp_path / "valid",
        "--testpref": f"{tmp_path / 'test'},{tmp_path / 'test1'}",
        "--destdir": tmp_path / "stock",
    }
    arguments = [argument for pair in prefixes.items() for argument in pair]
    run("fairseq-preprocess", "-s", "en", "-t", "de", "--joined-dictionary", *arguments)
    names = [path.name for path in (tmp_path / "stock").iterdir() if path.suffix in (".txt", ".bin", ".idx")]
    assert len(names) == 18
    for name in names:
        ours, stock = ((folder / name).read_bytes() for folder in (data.folder, tmp_path / "stock"))
        if name.endswith(".txt"):
            used = stock.partition(b"madeupword")[0]
            assert ours.startswith(used)
            assert b" 0\n" not in used
        else:
            assert ours == stock, name
    assert set(model.pieces) <= {token for token, _ in Dictionary.load(data.dictionary_path("en")).entries()}


def test_fairseq_reads_it(corpus):
    fairseq_data = pytest.importorskip("fairseq.data")
    data_utils = pytest.importorskip("fairseq.data.data_utils")
    data = prepare(options(corpus))
    assert data_utils.infer_language_pair(str(data.folder)) == ["en", "de"]
    dictionary = fairseq_data.Dictionary.load(str(data.dictionary_path("de")))
    dataset = data_utils.load_indexed_dataset(str(data.prefix("valid", "de")), dictionary)
    lines = [dictionary.string(dataset[i], "sentencepiece") for i in range(len(dataset))]
    assert lines == data.raw_lines("valid", "de")


@pytest.mark.parametrize("model_type", list(ModelType))
def test_real_text_round_trip_equals_the_library(real_data, tmp_path, model_type):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for language in ("en", "de"):
        lines = (real_data / "multi30k" / f"train.{language}").read_text().split("\n")[:500]
        (corpus / f"train.{language}").write_text("".join(f"{line}\n" for line in lines))
    subwords = SentencePieceOptions(vocab_size=1000, model_type=model_type)
    data = prepare(options(corpus, subwords=subwords))
    library = SentencePiece.load(data.folder / "spm.model")
    for language in ("en", "de"):
        lines = data.raw_lines("train", language)
        assert decoded(data, "train", language) == [library.decode(library.encode(line)) for line in lines]


def test_separate_models(corpus):
    data = prepare(options(corpus, vocab_size=60, separate=True))
    assert data.check() == []
    assert not data.manifest.joined_dictionary
    for language in ("en", "de"):
        assert decoded(data, "test", language) == data.raw_lines("test", language)
        tokens = Dictionary.load(data.dictionary_path(language)).entries()
        characters = {character for token, _ in tokens for character in token}
        assert ("ü" in characters) == (language == "de")


def test_reusing_a_model_and_a_dictionary_needs_no_training_text(corpus):
    first = prepare(options(corpus))
    for path in corpus.glob("train.*"):
        path.unlink()
    again = prepare(
        options(
            corpus,
            out=corpus.parent / "again",
            spm_model=first.folder / "spm.model",
            dictionary=first.dictionary_path("en"),
        )
    )
    assert again.splits == ("valid", "test", "test1")
    name = "test.en-de.de.bin"
    assert (again.folder / name).read_bytes() == (first.folder / name).read_bytes()


def test_several_references(corpus):
    (corpus / "test.de").write_text("der Hund\tein Hund\n" * 20)
    data = prepare(options(corpus, references=References.TAB))
    assert data.raw_references("test") == [("der Hund", "ein Hund")] * 20
    assert decoded(data, "test", "de") == ["der Hund"] * 20
    data = prepare(options(corpus, overwrite=True))
    assert data.raw_references("test") == [("der Hund\tein Hund",)] * 20
    assert decoded(data, "test", "de") == ["der Hund ein Hund"] * 20


def test_characters_left_out_are_unknown_not_words(corpus):
    with (corpus / "train.en").open("a") as english, (corpus / "train.de").open("a") as german:
        english.write("the dog ☃\n")
        german.write("der Hund ☃\n")
    data = prepare(options(corpus, subwords=SentencePieceOptions(vocab_size=90, character_coverage=0.999)))
    dictionary = Dictionary.load(data.dictionary_path("en"))
    assert "☃" not in dictionary
    assert dictionary.unk in IndexedReader(data.prefix("train", "en"))[300]


def test_nothing_is_dropped_unless_asked(corpus, caplog):
    lines = (corpus / "train.de").read_text().splitlines()
    (corpus / "train.de").write_text("".join(f"{line}\n" for line in ["", *lines[1:]]))
    data = prepare(options(corpus))
    assert f"{corpus / 'train.de'}: 1 of 300 lines are blank" in caplog.text
    assert IndexedReader(data.prefix("train", "de"))[0].tolist() == [2]
    write_corpus(corpus, train=300)
    short = prepare(options(corpus, overwrite=True, max_length=12))
    kept = short.manifest.splits["train"]
    assert 0 < kept < 300
    assert f"left out {300 - kept} of 300 pairs longer than 12 pieces" in caplog.text
    assert IndexedReader(short.prefix("train", "de")).sizes.max() <= 13
    assert short.manifest.splits["test"] == 20
    assert short.check() == []
    for language in ("en", "de"):
        (corpus / f"train.{language}").write_text("much too long\n" * 100)
    with pytest.raises(InputError, match="no pair of train has at most 1 pieces"):
        prepare(options(corpus, vocab_size=15, overwrite=True, max_length=1))


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_text("")


def add_line(path: Path) -> None:
    path.write_text(path.read_text() + "mehr\n")


def add_latin1(path: Path) -> None:
    path.write_bytes(path.read_bytes() + "über\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("damage", "name", "complaint"),
    [
        (remove, "train.de", r"train\.de: no such file"),
        (remove, "test.en", r"test\.en: no such file"),
        (truncate, "valid.de", r"valid\.de: the file is empty"),
        (add_line, "train.de", r"train\.en has 300 lines but .*train\.de has 301"),
        (add_latin1, "test.de", r"test\.de, line 21: not valid UTF-8"),
    ],
)
def test_bad_text_is_named_before_any_work(corpus, damage, name, complaint):
    damage(corpus / name)
    with pytest.raises(InputError, match=complaint):
        prepare(options(corpus))
    assert [path.name for path in corpus.parent.iterdir()] == ["corpus"]


def test_a_vocabulary_too_large_names_the_largest(corpus):
    with pytest.raises(InputError, match=r"9000 pieces is too large for this text; the largest .* is \d+"):
        prepare(options(corpus, vocab_size=9000))
    assert not (corpus.parent / "out").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"source": "../en"}, "language '../en'"),
        ({"target": "en"}, "both 'en'"),
        ({"dictionary": Path("dict.txt")}, "spm_model"),
        ({"separate": True, "spm_model": Path("spm.model")}, "separate"),
        ({"max_length": 0}, "max_length is 0"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_contradictory_options_are_refused(tmp_path, changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        options(tmp_path, **changes)


def test_an_existing_folder_is_refused_or_replaced(corpus):
    out = prepare(options(corpus)).folder
    with pytest.raises(InputError, match="exists; choose another folder"):
        prepare(options(corpus))
    write_corpus(corpus, train=200)
    assert prepare(options(corpus, overwrite=True)).manifest.splits["train"] == 200
    (out / "checkpoint_best.pt").write_text("weeks of work")
    with pytest.raises(InputError, match=r"holds 'checkpoint_best\.pt'"):
        prepare(options(corpus, overwrite=True))
    assert (out / "checkpoint_best.pt").read_text() == "weeks of work"


def test_a_full_disk_leaves_the_old_folder_and_nothing_else(corpus, monkeypatch):
    out = prepare(options(corpus)).folder
    before = {path: path.read_bytes() for path in out.rglob("*.*")}

    def full(self, ids):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(IndexedWriter, "add", full)
    with pytest.raises(InputError, match="No space left on device"):
        prepare(options(corpus, overwrite=True))
    with pytest.raises(InputError, match=r"new/train\S+: cannot be written \(No space left on device\)"):
        prepare(options(corpus, out=corpus.parent / "new"))
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    assert sorted(path.name for path in corpus.parent.iterdir()) == ["corpus", "out"]


def test_a_kill_leaves_no_folder(corpus):
    script = """
import os, signal, sys
from pathlib import Path
from fairbeam.data.prepare import PrepareOptions, prepare
from fairbeam.text import SentencePieceOptions

def kill(step, done, total):
    if step == "binarising valid":
        os.kill(os.getpid(), signal.SIGKILL)

data = Path(sys.argv[1])
out, subwords = data.parent / "out", SentencePieceOptions(vocab_size=90)
prepare(PrepareOptions(data=data, source="en", target="de", out=out, subwords=subwords), kill)
"""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root / "user_dir")}
    command = [sys.executable, "-c", script, str(corpus)]
    done = subprocess.run(command, env=environment, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (corpus.parent / "out").exists()
    assert prepare(options(corpus)).check() == []


def test_the_command(corpus, run):
    out = corpus.parent / "out"
    subwords = ["--vocab-size", 45, "--model-type", "unigram"]
    done = run("fairbeam", "prepare", corpus, "en", "de", out, *subwords)
    assert done.stdout == ""
    assert "train: 300 pairs" in done.stderr
    assert DataBin.open(out).check() == []
    done = run("fairbeam", "prepare", corpus, "en", "de", out, check=False)
    assert (done.returncode, "exists" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
