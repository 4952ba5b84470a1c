"""Pretrained tokenizers: data that describes them, and files that somebody hostile wrote."""

import builtins
import json
import os
from pathlib import Path

import pytest

from fairbeam.errors import ConfigError, InputError
from fairbeam.text import (
    AddedToken,
    PretrainedTokenizer,
    SentencePieceOptions,
    Side,
    SpecialTokens,
    Template,
    TokenizerConfig,
    auto_tokenizer,
    from_hf,
    train_sentencepiece,
)
from fairbeam.text.tokenizer_config import Kind

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "##s", "see", "a", "cat", "."]
LINES = ["the dog sees a cat", "a cat sees the dogs"] * 10


def write(path: Path, values: object) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.fixture
def bert(tmp_path) -> Path:
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    write(folder / "config.json", {"model_type": "bert"})
    return folder


@pytest.fixture
def gpt2(tmp_path) -> Path:
    """Single bytes alone, as the byte-level alphabet writes them."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path / "gpt2"
    folder.mkdir()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    write(folder / "vocab.json", {token: index for index, token in enumerate([*alphabet, "<|endoftext|>"])})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    write(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"})
    return folder


@pytest.fixture
def t5(tmp_path) -> Path:
    folder = tmp_path / "t5"
    folder.mkdir()
    train_sentencepiece(LINES, SentencePieceOptions(vocab_size=25)).save(folder / "spiece.model")
    write(folder / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer", "extra_ids": 3, "pad_token": "<s>"})
    return folder


def test_templates_types_and_roles(bert):
    tokenizer = from_hf(bert)
    assert [tokenizer.token(i) for i in tokenizer.encode("The DOGS")] == ["[CLS]", "the", "dog", "##s", "[SEP]"]
    pair = tokenizer.encode_pair("a cat", "")
    assert [tokenizer.token(i) for i in pair.ids] == ["[CLS]", "a", "cat", "[SEP]", "[SEP]"]
    assert pair.types == [0, 0, 0, 0, 1]
    assert tokenizer.encode_typed("a").types == [0, 0, 0]
    assert (tokenizer.pad, tokenizer.unk, tokenizer.mask, tokenizer.bos) == (0, 1, 4, None)
    assert len(tokenizer) == len(WORDS)
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([2, 5, 6, 3, 0], keep_special=True) == "[CLS] the dog [SEP] [PAD]"


def test_a_pair_of_families_has_the_tokenizer_of_its_encoder(bert):
    alone = from_hf(bert)
    write(bert / "config.json", {"model_type": "encoder-decoder", "encoder": {"model_type": "bert"}, "decoder": []})
    assert from_hf(bert).encode_pair("the dog", "a cat") == alone.encode_pair("the dog", "a cat")


def test_options_of_the_folder(bert):
    write(bert / "tokenizer_config.json", {"do_lower_case": False})
    assert from_hf(bert).encode("THE")[1] == from_hf(bert).unk
    write(bert / "added_tokens.json", {"[NEW]": len(WORDS)})
    tokenizer = from_hf(bert)
    assert tokenizer.encode("the [NEW]dog") == [2, 5, len(WORDS), 6, 3]
    assert len(tokenizer) == len(WORDS) + 1
    tokenizer.save(bert / "ours")
    assert PretrainedTokenizer.load(bert / "ours").encode("the [NEW]dog") == [2, 5, len(WORDS), 6, 3]


def test_the_options_have_the_last_word_over_tokenizer_json(bert):
    from_hf(bert).save(bert)
    assert from_hf(bert).encode("THE") == [2, 5, 3]
    write(bert / "tokenizer_config.json", {"do_lower_case": False, "tokenizer_class": "BertTokenizerFast"})
    assert from_hf(bert).encode("THE") == [2, 1, 3]


def test_text_is_neither_cut_nor_padded(bert):
    tokenizer = from_hf(bert)
    tokenizer.backend.library.enable_truncation(3)
    tokenizer.backend.library.enable_padding(length=9)
    tokenizer.save(bert)
    assert len(from_hf(bert).encode("the dog " * 50)) == 102
    assert len(PretrainedTokenizer.load(bert).encode("a")) == 3


@pytest.mark.parametrize("folder", ["gpt2", "bert", "t5"])
def test_any_ids_decode(folder, request):
    tokenizer = from_hf(request.getfixturevalue(folder))
    for ids in ([i] for i in range(-2, len(tokenizer) + 3)):
        assert isinstance(tokenizer.decode(ids), str)
        assert isinstance(tokenizer.decode(ids * 3, keep_special=True), str)
    assert tokenizer.decode([-100, 10**12]) == ""


def test_bytes_that_are_not_utf8_are_shown_as_such(gpt2):
    tokenizer = from_hf(gpt2)
    ids = tokenizer.encode("né")
    assert tokenizer.decode(ids) == "né"
    assert tokenizer.decode(ids[:-1]) == "n\ufffd"


def test_bytes_of_sentencepiece(tmp_path):
    import sentencepiece

    path = tmp_path / "tokenizer.model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_prefix=str(path)[:-6], vocab_size=290, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    tokenizer = from_hf(tmp_path, family="t5")
    ids = tokenizer.encode("the 犬")
    assert tokenizer.decode(ids) == "the 犬"
    assert "\ufffd" in tokenizer.decode(ids[:-2])


def test_sentinels_count_down(t5):
    tokenizer = from_hf(t5)
    assert [tokenizer.index(f"<extra_id_{i}>") for i in range(3)] == [len(tokenizer) - 1 - i for i in range(3)]
    ids = tokenizer.encode("the <extra_id_1> dog")
    assert tokenizer.index("<extra_id_1>") in ids
    assert tokenizer.decode(ids) == "the dog"
    assert "<extra_id_1>" in tokenizer.decode(ids, keep_special=True)


def test_a_language_is_needed_where_the_template_names_one(t5):
    write(t5 / "special_tokens_map.json", {"additional_special_tokens": ["de_DE", {"content": "en_XX"}]})
    with pytest.raises(ConfigError, match=r"language is None.*de_DE, en_XX"):
        from_hf(t5, family="mbart50")
    german = from_hf(t5, family="mbart50", language="de_DE")
    english = german.with_language("en_XX")
    assert german.encode("dog")[1:] == english.encode("dog")[1:]
    assert (german.encode("dog")[0], english.encode("dog")[0]) == (german.language_id, english.language_id)
    assert from_hf(t5, family="mbart", language="de_DE").encode("dog")[-2:] == [german.eos, german.language_id]
    german.save(t5 / "ours")
    assert PretrainedTokenizer.load(t5 / "ours", "en_XX").encode("dog") == english.encode("dog")
    with pytest.raises(ConfigError, match="fr_XX"):
        PretrainedTokenizer.load(t5 / "ours", "fr_XX")


def test_a_missing_library_is_named_with_its_extra(bert, t5, monkeypatch):
    true_import = builtins.__import__

    def without(name, *arguments, **options):
        if name == "transformers":
            raise ImportError(name)
        return true_import(name, *arguments, **options)

    from_hf(bert).save(bert / "ours")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"converted by the transformers library: pip install 'fairbeam\[hf\]'"):
        from_hf(bert)
    assert from_hf(t5).encode("dog")
    assert PretrainedTokenizer.load(bert / "ours").encode("the dog") == [2, 5, 6, 3]


def test_what_no_conversion_gets_right_is_refused(t5, gpt2):
    write(t5 / "tokenizer_config.json", {"tokenizer_class": "AlbertTokenizer"})
    with pytest.raises(InputError, match=r"a SentencePiece model of no family.*expected tokenizer.json, or a model of"):
        from_hf(t5)
    with pytest.raises(InputError, match=r"conversion of blenderbot leaves out its </s>; expected a tokenizer.json"):
        from_hf(gpt2, family="blenderbot")


def test_a_converted_folder_names_no_file_outside_of_it(bert, tmp_path):
    """Options that would make the library read another file, or run code, do not reach it."""
    (tmp_path / "other.txt").write_text("\n".join(reversed(WORDS)))
    expected = from_hf(bert).encode("the dog")
    for name in ("vocab", "vocab_file", "tokenizer_file", "name_or_path", "gguf_file"):
        write(bert / "tokenizer_config.json", {name: str(tmp_path / "other.txt")})
        assert from_hf(bert).encode("the dog") == expected
    code = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()"
    (bert / "tokenization_own.py").write_text(code)
    own = {"auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}, "trust_remote_code": True}
    write(bert / "tokenizer_config.json", own)
    assert from_hf(bert).encode("the dog") == expected
    assert not list(tmp_path.rglob("ran"))
    for kind in ("AutoModel", "pipeline", "../Tokenizer", "os.Tokenizer"):
        write(bert / "tokenizer_config.json", {"tokenizer_class": kind})
        with pytest.raises(InputError, match="expected a tokenizer's class"):
            from_hf(bert)


def test_a_tokenizer_of_python_alone_cannot_be_kept(bert):
    write(bert / "tokenizer_config.json", {"tokenizer_class": "ProphetNetTokenizer"})
    (bert / "vocab.txt").rename(bert / "prophetnet.tokenizer")
    (bert / "vocab.txt").write_text("\n".join(WORDS))
    with pytest.raises(InputError, match=r"expected a"):
        from_hf(bert)


def test_a_token_that_the_model_has_no_row_for_is_left_out(bert):
    (bert / "vocab.txt").write_text("\n".join(word for word in WORDS if word != "[MASK]"))
    assert (from_hf(bert).mask, len(from_hf(bert))) == (None, len(WORDS) - 1)
    write(bert / "config.json", {"model_type": "bert", "vocab_size": len(WORDS)})
    assert (from_hf(bert).mask, len(from_hf(bert))) == (len(WORDS) - 1, len(WORDS))


def test_lone_surrogates_are_refused(bert, t5):
    for folder in (bert, t5):
        with pytest.raises(InputError, match="text 2 of 2 holds a lone surrogate"):
            from_hf(folder).encode_batch(["a", "\ud800"])


DEEP = "[" * 100_000
JSON_FILES = {
    "not JSON": "{",
    "deep": DEEP,
    "deep inside": f'{{"a": {DEEP}',
    "no object": "[]",
    "number": "9" * 10_000,
}


@pytest.mark.parametrize("text", JSON_FILES.values(), ids=JSON_FILES.keys())
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json"])
def test_malformed_json(bert, name, text):
    (bert / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=f"{name}: (not JSON|expected|nested)"):
        from_hf(bert)


TOKENIZER_JSONS = {
    "empty": {},
    "unknown model": {"model": {"type": "Nonsense"}},
    "bad ids": {"model": {"type": "WordPiece", "vocab": {"a": -1}, "unk_token": "a"}},
    "no pieces": {"model": {"type": "WordPiece", "vocab": {}, "unk_token": "[UNK]"}},
    "bad processor": {
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
        "post_processor": {"type": "TemplateProcessing", "single": 3},
    },
    "other processor": {
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
        "post_processor": {"type": "Invented"},
    },
}


@pytest.mark.parametrize("values", TOKENIZER_JSONS.values(), ids=TOKENIZER_JSONS.keys())
def test_malformed_tokenizer_json(tmp_path, values):
    write(tmp_path / "tokenizer.json", values)
    with pytest.raises(InputError, match="expected") as error:
        from_hf(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


OPTIONS = [
    ("tokenizer_config.json", {"do_lower_case": "yes"}, "do_lower_case"),
    ("tokenizer_config.json", {"pad_token": 3}, "3"),
    ("tokenizer_config.json", {"pad_token": {"content": "[PAD]", "lstrip": 1}}, "lstrip"),
    ("tokenizer_config.json", {"bos_token": "[BOS]"}, "vocabulary lacks"),
    ("tokenizer_config.json", {"added_tokens_decoder": []}, "expected an object"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"x": "y"}}, "/added_tokens_decoder/x"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"900": {"content": "y"}}}, "without a gap"),
    ("added_tokens.json", {"[NEW]": -1}, "-1"),
    ("added_tokens.json", {"[NEW]": 10**9}, "1000000000"),
    ("special_tokens_map.json", {"additional_special_tokens": 3}, "list|array"),
]


@pytest.mark.parametrize(("name", "values", "message"), OPTIONS)
def test_malformed_options(bert, name, values, message):
    write(bert / name, values)
    with pytest.raises(InputError, match=message):
        from_hf(bert)


def test_malformed_tables(bert, gpt2, t5, tmp_path):
    for content in (b"no unknown token\n", b"\xff"):
        (bert / "vocab.txt").write_bytes(content)
        with pytest.raises(InputError, match=r"expected|lacks"):
            from_hf(bert)
    for merges in ("a b c", "#version\nx", "zz yy"):
        (gpt2 / "merges.txt").write_text(merges)
        with pytest.raises(InputError, match="expected a tokenizer's files"):
            from_hf(gpt2)
    (gpt2 / "merges.txt").write_text("")
    for values in ({"a": 0, "b": 0}, {"a": True}, {"a": 10**9}, {"a": -1}, {}):
        write(gpt2 / "vocab.json", values)
        with pytest.raises(InputError, match=r"expected|lacks"):
            from_hf(gpt2)
    (t5 / "spiece.model").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"spiece.model: not a SentencePiece model"):
        from_hf(t5)
    with pytest.raises(InputError, match="no such folder"):
        from_hf(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no tokenizer's files; expected tokenizer.json"):
        from_hf(tmp_path / "empty", family="bert")
    (tmp_path / "empty" / "vocab.txt").write_text("\n".join(WORDS))
    with pytest.raises(InputError, match="names a family; name one"):
        from_hf(tmp_path / "empty")
    with pytest.raises(InputError, match="expected a"):
        from_hf(tmp_path / "empty", family="nonsense")


def test_sizes_are_bounded_before_reading(bert, monkeypatch):
    monkeypatch.setattr(auto_tokenizer, "MAX_TABLE_BYTES", 10)
    with pytest.raises(InputError, match=r"vocab.txt: larger than 10 bytes"):
        from_hf(bert)


def test_links_stay_in_the_folder(bert, tmp_path):
    (tmp_path / "secret").write_text("\n".join(WORDS))
    (bert / "vocab.txt").unlink()
    (bert / "vocab.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"vocab.txt: leads out of its folder"):
        from_hf(bert)
    snapshot = tmp_path / "model" / "snapshots" / "abc"
    blobs = tmp_path / "model" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "123").write_text("\n".join(WORDS))
    os.symlink("../../blobs/123", snapshot / "vocab.txt")
    assert from_hf(snapshot, family="bert").encode("the") == [2, 5, 3]


def test_our_own_files(t5, tmp_path):
    from_hf(t5).save(tmp_path)
    good = json.loads((tmp_path / "tokenizer.fairbeam.json").read_text(encoding="utf-8"))
    bad = [
        {**good, "format": 2},
        {**good, "kind": "pickle"},
        {**good, "kind": []},
        {**good, "more": 1},
        {**good, "special": {}},
        {**good, "special": {**good["special"], "eos": 3}},
        {**good, "special": {**good["special"], "unk": None}},
        {**good, "special": {**good["special"], "cls": "absent"}},
        {**good, "languages": []},
        {**good, "languages": {"de": 1}},
        {**good, "languages": {"de": "absent"}},
        {**good, "template": {**good["template"], "single": ["</s>"]}},
        {**good, "template": {**good["template"], "single": "$A"}},
        {**good, "template": {**good["template"], "single": ["$A", "absent"]}},
        {**good, "template": {**good["template"], "pair_types": [0]}},
        {**good, "added": [3]},
        {**good, "added": [{"content": "x"}]},
        {**good, "added": [{**good["added"][0], "content": "absent"}]},
        {**good, "two_models": 1},
        {**good, "two_models": True},
    ]
    for values in bad:
        write(tmp_path / "tokenizer.fairbeam.json", values)
        with pytest.raises(InputError):
            PretrainedTokenizer.load(tmp_path)
    write(tmp_path / "tokenizer.fairbeam.json", good)
    assert PretrainedTokenizer.load(tmp_path).encode("dog") == from_hf(t5).encode("dog")
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(InputError, match=r"vocab.json: no such file"):
        PretrainedTokenizer.load(tmp_path, side=Side.TARGET)


def test_configurations_survive_json():
    config = TokenizerConfig(
        kind=Kind.SENTENCEPIECE,
        special=SpecialTokens(unk="<unk>", eos="</s>"),
        template=Template(single=("$LANG", "$A"), pair=("$A", "$B", "</s>"), pair_types=(0, 1, 1)),
        languages={"de": "__de__"},
        added=(AddedToken(content="<mask>", lstrip=True), AddedToken(content=">>de<<", opening=True, special=False)),
        two_models=True,
    )
    assert TokenizerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
