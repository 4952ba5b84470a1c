"""Subwords: what the library gives, and what we promise beyond it (determinism, clear errors)."""

import pickle
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairbeam.errors import ConfigError, InputError
from fairbeam.text import (
    ModelType,
    SentencePiece,
    SentencePieceOptions,
    SubwordNMT,
    Whitespace,
    find_model,
    train_sentencepiece,
)

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "wizards", "violins"]


def corpus(lines: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(lines)]


@pytest.fixture(scope="module", params=list(ModelType))
def model(request) -> SentencePiece:
    size = {ModelType.BPE: 60, ModelType.UNIGRAM: 40}[request.param]
    return train_sentencepiece(corpus(500), SentencePieceOptions(vocab_size=size, model_type=request.param))


def test_encodes_and_decodes_as_the_library(model, real_data):
    import sentencepiece

    library = sentencepiece.SentencePieceProcessor(model_proto=model.model)
    lines = (real_data / "multi30k" / "train.de").read_text().split("\n")[:200]
    expected = [library.encode(line, out_type=str) for line in lines]
    assert [model.encode(line) for line in lines] == expected
    assert model.encode_batch(lines, threads=2) == expected
    assert [model.decode(pieces) for pieces in expected] == [library.decode(pieces) for pieces in expected]


@settings(deadline=None)
@given(line=st.text(st.characters(codec="utf-8", exclude_characters="▁▅")))
def test_text_without_the_metaspace_decodes_to_itself(model, line):
    assert model.decode([line]) == line or line in ("<unk>", "<s>", "</s>")


def test_decoding_shows_what_was_unknown(model):
    assert model.decode(["▁the", "▁", "<unk>", "▁fox"]).split() == ["the", "⁇", "fox"]
    assert model.encode("") == model.encode("  ") == []
    assert model.decode([]) == ""


def test_sampling_depends_on_the_random_state_alone(model):
    lines = corpus(50, seed=2)

    def draw(order: list[int]) -> dict[int, list[str]]:
        return {i: model.sample(lines[i], alpha=0.2, rng=random.Random(i)) for i in order}

    forwards = draw(list(range(50)))
    assert draw(list(range(49, -1, -1))) == forwards
    in_thread = {}
    thread = threading.Thread(target=lambda: in_thread.update(draw(list(range(50)))))
    thread.start()
    thread.join()
    assert in_thread == forwards
    assert [model.decode(pieces) for pieces in forwards.values()] == lines
    assert list(forwards.values()) != [model.encode(line) for line in lines]
    rng = random.Random(0)
    assert len({tuple(model.sample("the quick brown fox", alpha=0.3, rng=rng)) for _ in range(20)}) > 1


def test_bpe_dropout_of_zero_is_plain_encoding():
    model = train_sentencepiece(corpus(500), SentencePieceOptions(vocab_size=60))
    for line in corpus(50, seed=3):
        assert model.sample(line, alpha=0, rng=random.Random(1)) == model.encode(line)


def test_training_is_reproducible_and_saved_whole(model, tmp_path):
    options = SentencePieceOptions(vocab_size=60, max_lines=150)
    assert train_sentencepiece(corpus(500), options).model == train_sentencepiece(corpus(500), options).model
    model.save(tmp_path / "spm.model")
    assert SentencePiece.load(tmp_path / "spm.model").model == model.model
    assert pickle.loads(pickle.dumps(model)).encode("the dog") == model.encode("the dog")
    assert not {"<unk>", "<s>", "</s>"} & set(model.pieces)
    assert {piece for line in corpus(500) for piece in model.encode(line)} <= set(model.pieces)


@pytest.mark.parametrize("model_type", list(ModelType))
def test_a_vocabulary_that_does_not_suit_the_text_is_told_what_would(model_type, capfd):
    def train(size: int) -> SentencePiece:
        return train_sentencepiece(corpus(50), SentencePieceOptions(vocab_size=size, model_type=model_type))

    with pytest.raises(InputError, match="4000 pieces is too large") as error:
        train(4000)
    largest = int(str(error.value).split()[-1])
    assert len(train(largest).pieces) == largest - 3
    with pytest.raises(InputError, match="too small for the characters"):
        train(8)
    assert capfd.readouterr().err == ""


def test_bad_models_and_options_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no text"):
        train_sentencepiece(["", ""])
    with pytest.raises(ConfigError, match="vocab_size is 2"):
        SentencePieceOptions(vocab_size=2)
    with pytest.raises(ConfigError, match=r"character_coverage is 1\.5"):
        SentencePieceOptions(character_coverage=1.5)
    path = tmp_path / "spm.model"
    with pytest.raises(InputError, match="no such SentencePiece model"):
        SentencePiece.load(path)
    whole = train_sentencepiece(corpus(50), SentencePieceOptions(vocab_size=40)).model
    for content in (b"", b"not a model", whole[:900]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"spm\.model: not a SentencePiece model"):
            SentencePiece.load(path)
    monkeypatch.setattr("fairbeam.text.subwords.MAX_MODEL_BYTES", 100)
    with pytest.raises(InputError, match="larger than 100 bytes"):
        SentencePiece.load(path)


def test_text_that_is_split_already():
    assert Whitespace().encode(" a  b\u3000c ") == ["a", "b", "c"]
    assert Whitespace().encode_batch(["a b", ""]) == [["a", "b"], []]
    assert Whitespace().decode(["a", "b"]) == "a b"
    assert SubwordNMT().decode(["un@@", "believ@@", "able", "news", "cut@@"]) == "unbelievable news cut"
    with pytest.raises(ConfigError, match="no other segmentations"):
        Whitespace().sample("a b", alpha=0.1, rng=random.Random(1))


def test_find_model_prefers_the_language_then_the_usual_names(tmp_path):
    assert find_model(tmp_path) is None
    (tmp_path / "odd.model").touch()
    assert find_model(tmp_path, "de") == tmp_path / "odd.model"
    (tmp_path / "another.model").touch()
    assert find_model(tmp_path, "de") is None
    (tmp_path / "spm.model").touch()
    assert find_model(tmp_path, "de") == tmp_path / "spm.model"
    (tmp_path / "spm.de.model").touch()
    assert find_model(tmp_path, "de") == tmp_path / "spm.de.model"
    assert find_model(tmp_path, "en") == tmp_path / "spm.model"
