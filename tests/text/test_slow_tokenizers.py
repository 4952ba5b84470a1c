"""Converted tokenizers against the slow ones of transformers 4, and SentencePiece folders against SentencePiece."""

import json
import unicodedata
from pathlib import Path

import pytest
import sentencepiece

from fairbeam.text import PretrainedTokenizer, from_hf

GOLDEN = json.loads((Path(__file__).parent / "golden" / "slow_tokenizers.json").read_text(encoding="utf-8"))


def comparable(name: str, line: str) -> bool:
    """Whether both implementations of BERT mean to agree: the slow one composes characters, the library does not."""
    composed = unicodedata.normalize("NFC", line) == line
    return "vocab.txt" not in GOLDEN["folders"][name]["files"] or composed


@pytest.mark.parametrize("name", GOLDEN["folders"])
def test_converted_folders_give_the_ids_of_slow_tokenizers(name, tmp_path):
    pytest.importorskip("transformers")
    folder = GOLDEN["folders"][name]
    for file, text in folder["files"].items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    tokenizer = from_hf(tmp_path)
    tokenizer.save(tmp_path / "kept")
    again = PretrainedTokenizer.load(tmp_path / "kept")
    lines = [line for line in GOLDEN["lines"] if comparable(name, line)]
    assert len(lines) > 40
    for line, expected in zip(GOLDEN["lines"], folder["ids"], strict=True):
        if comparable(name, line):
            text = line.format(folder["special"])
            assert tokenizer.encode(text) == expected, line
            assert again.encode(text) == expected, line


LLAMA = {"tokenizer_class": "LlamaTokenizer"}
SPECIALS = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}  # of T5 and Pegasus
# name: (file, options, SentencePiece's own training options, added to its ids, ids before, ids behind)
MODELS = {
    "xlm-roberta": ("sentencepiece.bpe.model", {}, {}, 1, [0], [2]),
    "t5": ("spiece.model", {}, SPECIALS, 0, [], [1]),
    "mt5": ("spiece.model", {"extra_ids": 0}, SPECIALS, 0, [], [1]),
    "pegasus": ("spiece.model", {}, SPECIALS, 103, [], [1]),
    "llama": ("tokenizer.model", LLAMA, {"model_type": "bpe", "byte_fallback": True}, 0, [1], []),
}


@pytest.mark.parametrize("name", MODELS)
def test_sentencepiece_folders_give_the_ids_of_sentencepiece(name, tmp_path):
    file, options, training, offset, before, behind = MODELS[name]
    lines = [line for line in GOLDEN["lines"] if line and "{0}" not in line and "\x00" not in line]
    with (tmp_path / file).open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines * 3), model_writer=stream, minloglevel=2, hard_vocab_limit=False,
            **{"vocab_size": 700, "character_coverage": 0.98, **training},
        )  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    tokenizer = from_hf(tmp_path)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / file))
    unknown = 3 if name == "xlm-roberta" else model.unk_id() + offset
    for line in lines:
        own = model.encode(line)
        expected = [unknown if index == model.unk_id() else index + offset for index in own]
        assert tokenizer.encode(line) == [*before, *expected, *behind], line
        if model.unk_id() not in own:
            assert tokenizer.decode(tokenizer.encode(line)) == model.decode(own).strip(" ")
