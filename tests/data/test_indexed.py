"""Token files, written and read by us and by fairseq, and what hostile files do."""

import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairbeam.data.indexed import IndexedReader, IndexedWriter
from fairbeam.errors import InputError


@pytest.fixture(scope="module")
def fairseq_indexed():
    return pytest.importorskip("fairseq.data.indexed_dataset")


def write(prefix, sentences, vocab_size):
    with IndexedWriter(prefix, vocab_size) as writer:
        for sentence in sentences:
            writer.add(sentence)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), vocab_size=st.sampled_from([5, 65_499, 65_500, 100_000]))
def test_round_trip_and_fairseq_reads_the_same(tmp_path_factory, fairseq_indexed, data, vocab_size):
    ids = st.lists(st.integers(0, vocab_size - 1), max_size=6)
    sentences = data.draw(st.lists(ids, min_size=1, max_size=8).filter(any))
    prefix = tmp_path_factory.mktemp("indexed") / "train"
    write(prefix, sentences, vocab_size)
    ours = IndexedReader(prefix)
    assert [sentence.tolist() for sentence in ours] == sentences
    assert ours.sizes.tolist() == [len(sentence) for sentence in sentences]
    assert ours.sizes.dtype == np.int32
    assert ours.max_id() == max(max(sentence, default=-1) for sentence in sentences)
    theirs = fairseq_indexed.MMapIndexedDataset(str(prefix))
    assert [theirs[i].tolist() for i in range(len(theirs))] == sentences


@pytest.mark.parametrize("vocab_size", [1000, 70_000])
def test_the_files_are_fairseqs_to_the_byte(tmp_path, fairseq_indexed, vocab_size):
    import torch

    rng = np.random.default_rng(1)
    sentences = [rng.integers(0, vocab_size, rng.integers(1, 20)) for _ in range(100)]
    write(tmp_path / "ours", sentences, vocab_size)
    builder = fairseq_indexed.make_builder(str(tmp_path / "theirs.bin"), "mmap", vocab_size)
    for sentence in sentences:
        builder.add_item(torch.from_numpy(sentence))
    builder.finalize(str(tmp_path / "theirs.idx"))
    for ending in (".bin", ".idx"):
        assert (tmp_path / f"ours{ending}").read_bytes() == (tmp_path / f"theirs{ending}").read_bytes()
    assert all((a == b).all() for a, b in zip(IndexedReader(tmp_path / "theirs"), sentences, strict=True))


def test_an_error_leaves_no_files(tmp_path):
    with pytest.raises(InputError, match=r"sentence 2 has ids from 1 to 9; expected 0 to 8"):
        write(tmp_path / "train", [[1, 2], [1, 9]], 9)
    with pytest.raises(InputError, match="ids from -1 to 3"):
        write(tmp_path / "train", [[3, -1]], 9)
    assert list(tmp_path.iterdir()) == []


def test_no_sentences_and_empty_sentences(tmp_path):
    write(tmp_path / "none", [], 9)
    write(tmp_path / "empty", [[], []], 9)
    assert len(IndexedReader(tmp_path / "none")) == 0
    assert IndexedReader(tmp_path / "none").max_id() == -1
    assert [len(sentence) for sentence in IndexedReader(tmp_path / "empty")] == [0, 0]


def test_sentences_are_independent_copies_and_readers_pickle_small(tmp_path):
    write(tmp_path / "train", [list(range(1000))] * 100, 1000)
    reader = IndexedReader(tmp_path / "train")
    reader[0][:] = 0
    assert reader[0][5] == 5
    assert reader[-1].tolist() == list(range(1000))
    assert len(pickle.dumps(reader)) < 500
    assert (pickle.loads(pickle.dumps(reader))[7] == reader[7]).all()
    with pytest.raises(IndexError):
        reader[100]


def index(code=8, sizes=(2, 1), offsets=(0, 4), version=1, count=None, magic=b"MMIDIDX\0\0") -> bytes:
    count = len(sizes) if count is None else count
    header = struct.pack("<9sQBQ", magic, version, code, count)
    return header + np.array(sizes, "<i4").tobytes() + np.array(offsets, "<i8").tobytes()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (index(magic=b"TNTIDX\0\0\0"), "not a fairseq mmap index"),
        (b"", "not a fairseq mmap index"),
        (index()[:20], "truncated: 20 bytes"),
        (index(version=2), "version 2; expected 1"),
        (index(code=6), "type code 6"),
        (index(code=200), "type code 200"),
        (index()[:-1], "49 bytes; expected 50 for 2 sentences"),
        (index() + b"x", "51 bytes; expected 50"),
        (index(count=2**60), "50 bytes; expected 13835058055282163738"),
        (index(sizes=(2, -1)), "sentence 2 has -1 tokens"),
        (index(sizes=(2, 2)), "sentence 2 has 2 tokens at byte 4"),
        (index(offsets=(0, -2)), "at byte -2"),
        (index(offsets=(2**63 - 1, 0)), "sentence 1 has 2 tokens at byte 9223372036854775807"),
        (index(code=9), "sentence 1 has 2 tokens|sentence 2"),
    ],
)
def test_hostile_indexes_are_refused(tmp_path, content, complaint):
    (tmp_path / "x.idx").write_bytes(content)
    (tmp_path / "x.bin").write_bytes(np.array([1, 2, 3], "<u2").tobytes())
    with pytest.raises(InputError, match=complaint):
        IndexedReader(tmp_path / "x")


def test_missing_and_truncated_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"x\.idx: no such file"):
        IndexedReader(tmp_path / "x")
    (tmp_path / "x.idx").write_bytes(index())
    with pytest.raises(InputError, match=r"x\.bin: no such file"):
        IndexedReader(tmp_path / "x")
    (tmp_path / "x.bin").write_bytes(b"\1\0\2\0\3")
    with pytest.raises(InputError, match=r"x\.bin has 5 bytes"):
        IndexedReader(tmp_path / "x")
