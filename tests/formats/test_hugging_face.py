"""Hugging Face folders as whole models: what they translate, what comes back, and what is refused."""

import json
import logging
import warnings

import hub_folders
import pytest
import torch
from safetensors.torch import load_file, save_file

import fairbeam
from fairbeam.demo.grammar import corpus
from fairbeam.errors import CheckpointError, ConfigError, FairbeamError
from fairbeam.formats import bundle
from fairbeam.formats import hugging_face as pretrained
from fairbeam.formats import provenance as origin
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.formats.registry import read_model
from fairbeam.generation import GenerationOptions
from fairbeam.translator import Translator

transformers = pytest.importorskip("transformers")

TEXT = [source for source, _ in corpus(6, seed=3)]
GERMAN = {"mbart": ("de_DE", 5), "m2m_100": ("deu_Latn", 5)}


def files(name: str) -> ModelFiles:
    return ModelFiles(target_lang=GERMAN[name][0]) if name in GERMAN else ModelFiles()


class Only(transformers.LogitsProcessor):
    """One token alone at some lengths, with its probability as it is; theirs sets it to one, which changes ranks."""

    def __init__(self, token: int, lengths: range) -> None:
        self.token, self.lengths = token, lengths

    def __call__(self, input_ids, scores):
        if input_ids.size(1) not in self.lengths:
            return scores
        closed = torch.full_like(scores, float("-inf"))
        closed[:, self.token] = scores[:, self.token]
        return closed


@pytest.mark.parametrize("name", hub_folders.MODELS)
def test_what_is_translated_is_what_transformers_generates(name, tmp_path):
    theirs = hub_folders.make(name, tmp_path / "folder")
    saved = bundle.save(tmp_path / "bundle", read_model(tmp_path / "folder", files(name)))
    ours = fairbeam.load(saved, precision="float32", workers=1)
    direct = fairbeam.load(tmp_path / "folder", precision="float32", workers=1, files=files(name))
    assert ours.generation == direct.generation == GenerationOptions(beam=4, max_len_b=12, min_len=0)

    rows = ours.source.encode_batch(TEXT)
    longest = max(map(len, rows))
    ids = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
    start = GERMAN[name][1] if name == "mbart" else theirs.config.decoder_start_token_id
    first = GERMAN[name][1] if name == "m2m_100" else theirs.generation_config.forced_bos_token_id
    theirs.generation_config.forced_bos_token_id = None
    processors = [Only(2, range(13, 15)), *([] if first is None else [Only(first, range(1, 2))])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.generate(
            input_ids=ids, attention_mask=ids.ne(1), decoder_start_token_id=start, bad_words_ids=[[1]],
            logits_processor=transformers.LogitsProcessorList(processors),
        )  # fmt: skip
    found = list(ours.stream(TEXT))
    assert [hypotheses[0] for hypotheses in found] == [hypotheses[0] for hypotheses in direct.stream(TEXT)]
    for row, (best,) in zip(expected[:, 1:].tolist(), found, strict=True):
        tokens = row[: row.index(2)]
        assert list(best.tokens) == ours.target.symbols(tokens)
        assert best.text == ours.target.decode(tokens)


def test_a_decoder_continues_prompts_as_transformers_does(tmp_path):
    theirs = hub_folders.make("gpt2", tmp_path / "folder", max_length=None, num_beams=1, early_stopping=False)
    saved = bundle.save(tmp_path / "bundle", read_model(tmp_path / "folder"))
    ours = fairbeam.load(saved, precision="float32", workers=1)
    for prompt, (best,) in zip(TEXT, ours.stream(TEXT, beam=1, max_len_b=8), strict=True):
        ids = ours.source.encode(prompt)
        expected = theirs.generate(input_ids=torch.tensor([ids]), bad_words_ids=[[1]], max_new_tokens=9)
        tokens = expected[0, len(ids) :].tolist()
        tokens = tokens[: tokens.index(2)] if 2 in tokens else tokens
        assert list(best.tokens)[: len(tokens)] == ours.target.symbols(tokens)[: len(best.tokens)]
        assert len(tokens) - len(best.tokens) in (0, 1)  # theirs may stop without the symbol that ends a text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", hub_folders.MODELS)
def test_a_folder_comes_back_from_its_bundle_to_the_bit(name, dtype, tmp_path):
    hub_folders.make(name, tmp_path / "theirs", dtype)
    saved = bundle.save(tmp_path / "bundle", pretrained.read(tmp_path / "theirs"))
    pretrained.write(tmp_path / "ours", bundle.load(saved))
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(after[key].dtype == tensor.dtype and torch.equal(after[key], tensor) for key, tensor in before.items())
    names = {path.name for path in (tmp_path / "theirs").iterdir()}
    assert names == {path.name for path in (tmp_path / "ours").iterdir()} >= {"generation_config.json"}
    for other in names - {"model.safetensors"}:
        assert (tmp_path / "ours" / other).read_bytes() == (tmp_path / "theirs" / other).read_bytes(), other


def test_a_target_language_is_asked_for_and_chosen_late(tmp_path):
    hub_folders.make("m2m_100", tmp_path / "folder")
    saved = bundle.save(tmp_path / "bundle", pretrained.read(tmp_path / "folder"))
    with pytest.raises(ConfigError, match=r"several languages; choose one with --target-lang"):
        fairbeam.load(saved)
    with pytest.raises(ConfigError, match=r"'xxx'; expected one of eng_Latn, deu_Latn"):
        fairbeam.load(saved, files=ModelFiles(target_lang="xxx"))
    with pytest.raises(ConfigError, match=r"--source-lang xxx: expected one of eng_Latn, deu_Latn"):
        pretrained.read(tmp_path / "folder", source_lang="xxx")
    for language, index in (("eng_Latn", 4), ("deu_Latn", 5)):
        chosen = fairbeam.load(saved, files=ModelFiles(target_lang=language), precision="float32", workers=1)
        assert next(chosen.stream(TEXT[:1]))[0].tokens[0] == chosen.target.symbols([index])[0] == language


def test_blank_lines_stay_blank_and_long_ones_keep_their_ends(tmp_path):
    hub_folders.make("mbart", tmp_path / "folder")
    model = fairbeam.load(tmp_path / "folder", files=files("mbart"), precision="float32", workers=1)
    assert model.translate(["", "  ", "\t"]) == ["", "", ""]
    row = model.source.encode("word " * 100)
    shortened = model.engine.fit(row, 0, fairbeam.TooLong.TRUNCATE)
    assert len(shortened) == 40
    assert shortened[-2:] == row[-2:] == [2, 4]


def test_without_tokenizer_there_is_a_warning_and_no_text(tmp_path, caplog):
    hub_folders.make("marian", tmp_path / "folder")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "folder" / name).unlink()
    with caplog.at_level(logging.WARNING):
        model = pretrained.read(tmp_path / "folder")
    assert "no tokenizer's files" in caplog.text
    saved = bundle.save(tmp_path / "bundle", model)
    assert bundle.load(saved).source is None
    with pytest.raises(ConfigError, match="the model has no tokenizer"):
        fairbeam.load(saved)


@pytest.mark.parametrize(
    ("values", "expected", "notice"),
    [
        ({}, {"min_len": 0}, ""),
        ({"num_beams": 6, "length_penalty": 2, "max_length": 142, "min_length": 56, "no_repeat_ngram_size": 3},
         {"beam": 6, "lenpen": 2.0, "max_len_b": 140, "min_len": 55, "no_repeat_ngram_size": 3}, ""),
        ({"max_new_tokens": 10, "max_length": 20, "min_new_tokens": 2}, {"max_len_b": 9, "min_len": 2}, ""),
        ({"bad_words_ids": [[7]], "pad_token_id": 7, "do_sample": False, "temperature": 0.3}, {"min_len": 0}, ""),
        ({"do_sample": True, "penalty_alpha": 0.6}, {"min_len": 0}, "do_sample, penalty_alpha"),
        ({"repetition_penalty": 1.3, "bad_words_ids": [[7], [3, 4]], "pad_token_id": 7},
         {"repetition_penalty": 1.3, "banned_phrases": ((3, 4),)}, ""),
    ],
)  # fmt: skip
def test_generation_defaults(values, expected, notice, caplog):
    with caplog.at_level(logging.WARNING):
        assert pretrained.generation_options(values) == GenerationOptions(**{"min_len": 0, **expected})
    assert (notice in caplog.text) if notice else not caplog.text


@pytest.fixture
def saved(tmp_path):
    hub_folders.make("marian", tmp_path / "folder")
    return bundle.save(tmp_path / "bundle", pretrained.read(tmp_path / "folder"))


def change(path, **options) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **options}))


def test_a_folder_with_generation_defaults_out_of_range_is_refused(saved):
    folder = saved.parent / "folder"
    change(folder / "generation_config.json", num_beams="many")
    with pytest.raises(CheckpointError, match=r"generation_config\.json: num_beams many: expected a whole number"):
        pretrained.read(folder)
    change(folder / "generation_config.json", num_beams=4, decoder_start_token_id=999)
    with pytest.raises(CheckpointError, match=r"decoder_start_token_id is 999; expected an id from 0 to 319"):
        pretrained.read(folder)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("config.json", {"tokenizer": "other"}, "/tokenizer is 'other'; expected dictionary, pretrained or null"),
        ("config.json", {"tokenizer": []}, r"/tokenizer is \[\]; expected a string or an object or null"),
        ("config.json", {"start": 320}, "start is 320; expected an id from 0 to 319"),
        ("config.json", {"forced_first": "x"}, '/forced_first is "x"; expected an integer or null'),
        ("config.json", {"surprise": 1}, r"unknown fields \['surprise'\]"),
        ("config.json", {"format": 3}, r"missing fields \['shape'\]"),
        ("config.json", {"format": 4}, "format 1 or 2 or 3"),
        ("origin.json", {"surprise": 1}, "/surprise is an unknown field; known are config, dtypes"),
        ("origin.json", {"config": []}, r"/config is \[\]; expected an object"),
        ("origin.json", {"dtypes": {"x": "object"}}, "x has dtype 'object'"),
    ],
)
def test_malformed_descriptions_are_refused(saved, name, values, message):
    change(saved / name, **values)
    with pytest.raises(CheckpointError, match=message):
        bundle.load(saved)


def test_kept_tensors_must_be_those_that_are_described(saved):
    save_file({"more": torch.ones(1)}, saved / origin.TENSORS)
    with pytest.raises(CheckpointError, match=r"more is torch\.float32, which origin\.json does not say"):
        bundle.load(saved)


@pytest.mark.parametrize("name", ["tokenizer.json", "original/tokenizer.json", "origin.json", "origin.safetensors"])
def test_links_out_of_a_bundle_are_refused(saved, name):
    (saved / name).rename(saved.parent / "secret")
    (saved / name).symlink_to(saved.parent / "secret")
    with pytest.raises(CheckpointError, match=rf"{name}: leads out of the bundle's folder"):
        bundle.load(saved)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.fairbeam.json", "origin.json", "origin.safetensors"])
def test_files_that_are_too_large_or_missing_are_refused(saved, name):
    with (saved / name).open("r+b") as stream:
        stream.truncate(300 << 20)  # sparse
    with pytest.raises(FairbeamError, match=rf"{name}: (larger than|not a safetensors file)"):
        bundle.load(saved)
    (saved / name).unlink()
    if name == "origin.json":
        assert bundle.load(saved).origin is None
    else:
        with pytest.raises(FairbeamError, match=rf"{name}: no such file"):
            bundle.load(saved)


def test_a_vocabulary_may_be_smaller_than_the_embedding_but_not_larger(saved):
    model = bundle.load(saved)
    assert len(model.source) < model.network.config.source_vocabulary
    values = json.loads((saved / "tokenizer.json").read_text())
    added = {"content": "<more>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    values["model"]["vocab"] |= {f"more{i}": i for i in range(len(model.source), 330)}
    values["added_tokens"].append({**added, "id": 330, "special": True})
    values["model"]["vocab"]["<more>"] = 330
    (saved / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="the source dictionary has 331 entries, but the model embeds 320"):
        bundle.load(saved)


def test_an_origin_of_another_network_is_not_written(saved, tmp_path):
    description = json.loads((saved / "origin.json").read_text())
    description["config"]["decoder_ffn_dim"] = 29
    (saved / "origin.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"origin\.json: describes another network .* decoder differ"):
        pretrained.write(tmp_path / "out", bundle.load(saved))
    description["config"]["decoder_ffn_dim"] = 28
    description["dtypes"]["model.more"] = "float32"
    (saved / "origin.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"the network has no tensor 'model\.more'"):
        pretrained.write(tmp_path / "out", bundle.load(saved))
    assert not (tmp_path / "out").exists()


def test_ensembles_share_a_vocabulary(saved, tmp_path):
    models = [bundle.load(saved), bundle.load(saved)]
    assert Translator(models, precision="float32", workers=1).translate(TEXT[:2])
