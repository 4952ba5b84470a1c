"""``fairbeam translate`` as it is used: pipes, files, and input that cannot be used."""

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fairbeam.cli import translate
from fairbeam.errors import CheckpointError, ConfigError, InputError
from fairbeam.formats import bundle
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam.generation import GenerationOptions
from fairbeam.model import Bundle
from fairbeam.network import EncoderDecoder, EncoderDecoderConfig, PositionConfig, StackConfig
from fairbeam.scoring.minimum_bayes_risk import Utility, expected_utilities
from fairbeam.text import Dictionary, Tokenizer, Whitespace
from fairbeam.translator import TooLong, Translation, Translator

SENTENCES = ["w1 w2 w3", "", "w4 w5", "w6"]
TEXT = "".join(f"{sentence}\n" for sentence in SENTENCES)


@pytest.fixture(scope="module")
def made():
    dictionary = Dictionary((f"w{i}", 1) for i in range(20))
    torch.manual_seed(0)
    stack = StackConfig(layers=1, dim=16, heads=2, ffn_dim=24, positions=PositionConfig(max_positions=30))
    size = len(dictionary)
    network = EncoderDecoder(
        EncoderDecoderConfig(source_vocabulary=size, target_vocabulary=size, encoder=stack, decoder=stack)
    )
    with torch.no_grad():
        network.head.weight *= 4
    source, target = (Tokenizer(language=side, subwords=Whitespace(), dictionary=dictionary) for side in "ab")
    return Bundle(network=network.eval(), source=source, target=target)


@pytest.fixture(scope="module")
def model(tmp_path_factory, made):
    return bundle.save(tmp_path_factory.mktemp("models") / "tiny", made)


@pytest.fixture(scope="module")
def expected(made):
    return Translator([made], precision="float32", workers=1).translate(SENTENCES)


@pytest.fixture
def call(model, tmp_path):
    """Run the command's function on a text; returns the output file."""

    def run_command(text: str | bytes = TEXT, output: Path | None = None, models=(), **options) -> Path:
        (tmp_path / "in").write_bytes(text.encode() if isinstance(text, str) else text)
        options = {
            "input_file": tmp_path / "in",
            "precision": "float32",
            "workers": 1,
            "quiet": True,
            **options,
        }
        translate.command([*models] or [model], output=output or tmp_path / "out", **options)
        return tmp_path / "out"

    return run_command


def lines(texts: list[str]) -> str:
    return "".join(f"{text}\n" for text in texts)


def test_a_line_out_for_a_line_in(run, model, expected):
    done = run("fairbeam", "translate", model, "--precision", "float32", input=TEXT)
    assert done.stdout == lines(expected)
    assert done.stderr == ""
    assert len({*expected}) > 2
    assert expected[1] == ""


def test_translations_come_before_the_input_ends(model, expected):
    command = [
        Path(sys.executable).parent / "fairbeam",
        "translate",
        model,
        "--precision",
        "float32",
        "--buffer-size",
        "1",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, bufsize=1, **pipes) as process:
        try:
            for sentence, translation in zip(SENTENCES[2:], expected[2:], strict=True):
                process.stdin.write(f"{sentence}\n")
                process.stdin.flush()
                assert process.stdout.readline() == f"{translation}\n"  # a hang is caught by the test's time limit
            rest, errors = process.communicate()
        finally:
            process.kill()
    assert (rest, errors, process.returncode) == ("", "", 0)


def test_input_and_output_files(call, expected, tmp_path):
    assert call().read_text() == lines(expected)
    assert call(TEXT.removesuffix("\n").replace("\n", "\r\n")).read_text() == lines(expected)
    assert call("").read_text() == ""
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_samples_repeat_with_the_seed_and_alternatives_differ(call):
    first, again, other = (call(sampling=True, beam=2, nbest=2, seed=seed).read_text() for seed in (4, 4, 5))
    assert first == again != other
    diverse = call(beam=4, nbest=4, diverse_beam_groups=4, diverse_beam_strength=50.0).read_text().splitlines()
    assert len({line.split(" ")[0] for line in diverse[:4]}) == 4


def test_defaults_of_a_model_can_be_turned_off_and_its_seed_be_chosen(call, made, tmp_path):
    saved = GenerationOptions(sampling=True, sampling_topk=12, max_len_b=12)
    drawing = bundle.save(tmp_path / "drawing", dataclasses.replace(made, generation=saved))

    def written(**options) -> str:
        return call(models=[drawing], **options).read_text()

    first = written()
    assert written(seed=1) == first != written(seed=2)
    assert written(seed=2) == written(seed=2)
    searched = call(max_len_b=12).read_text()
    assert written(sampling=False) == searched != first


def test_drafts_leave_the_output_as_it_is(run, call, model, made, tmp_path):
    greedy = {"beam": 1, "max_len_b": 20, "scores": True}
    usual = call(**greedy).read_text()
    assert call(**greedy, prompt_lookup_num_tokens=3, prompt_lookup_max_ngram=1).read_text() == usual
    assert call(**greedy, draft_model=model).read_text() == usual
    done = run("fairbeam", "translate", model, "--precision", "float32", "--beam", 1, "--max-len-b", 20, "--scores",
               "--draft-model", model, "--draft-tokens", 3, input=TEXT)  # fmt: skip
    assert done.stdout == usual
    with pytest.raises(ConfigError, match="draft_tokens 4: needs beam of at most 1, not 2"):
        call(draft_model=model, beam=2)
    others = Dictionary((f"x{i}", 1) for i in range(20))
    source, target = (Tokenizer(language=side, subwords=Whitespace(), dictionary=others) for side in "ab")
    with pytest.raises(ConfigError, match="draft: must have the model's dictionaries, and has others"):
        Translator([made], draft=dataclasses.replace(made, source=source, target=target))
    apart = Translator([dataclasses.replace(made, target=target)], precision="float32", workers=1)
    with pytest.raises(ConfigError, match="one vocabulary for both sides; the model's have other symbols on each"):
        apart.translate(SENTENCES, beam=1, prompt_lookup_num_tokens=3)


def test_banned_phrases_are_never_said(call, expected, tmp_path):
    said = max((word for text in expected for word in text.split()), key=len)
    (tmp_path / "banned").write_text(f"{said}\n")
    out = call(banned_phrases=tmp_path / "banned").read_text()
    assert said not in out.split()
    assert out != lines(expected)


def test_nbest_and_scores(call, made):
    out = call(nbest=2, scores=True, beam=4).read_text().splitlines()
    assert len(out) == 2 * len(SENTENCES)
    found = Translator([made], precision="float32", workers=1).stream(SENTENCES, nbest=2, beam=4)
    assert out == [f"{t.score:.4f}\t{t.text}" for pair in found for t in pair]
    assert out[2:4] == ["0.0000\t"] * 2


def test_prefixes_alternatives_and_streams(run, call, model, made, tmp_path):
    prefixes = ["w7", "", "w3 w4", "w5"]
    (tmp_path / "prefixes").write_text(lines(prefixes))
    translator = Translator([made], precision="float32", workers=1)
    found = translator.translate(SENTENCES, target_prefix=prefixes)
    assert call(target_prefix=tmp_path / "prefixes").read_text() == lines(found)
    assert call(target_prefix=tmp_path / "prefixes", stream=True).read_text() == lines(found)
    favoured = translator.translate(SENTENCES, target_prefix=prefixes, prefix_bias_beta=0.1)
    assert call(target_prefix=tmp_path / "prefixes", prefix_bias_beta=0.1).read_text() == lines(favoured)
    assert favoured != found
    done = run("fairbeam", "translate", model, "--precision", "float32", "--stream", "--beam", 1, input=TEXT)
    assert done.stdout == lines(translator.translate(SENTENCES, beam=1))
    assert done.stderr == ""
    wanted = translator.stream(SENTENCES, target_prefix=prefixes, return_alternatives=True, nbest=7, beam=2)
    out = call(target_prefix=tmp_path / "prefixes", return_alternatives=True, nbest=7, beam=2).read_text()
    assert out == lines([translation.text for found in wanted for translation in found])
    with pytest.raises(ConfigError, match="stream_text and scores exclude each other"):
        call(stream=True, scores=True)
    (tmp_path / "prefixes").write_text(lines(prefixes[:2]))
    for stream in (False, True):
        with pytest.raises(InputError, match="sentence 3 has no target prefix"):
            call(target_prefix=tmp_path / "prefixes", stream=stream)


def test_a_line_break_inside_a_translation_is_no_new_line():
    assert translate._line(Translation("a\nb", -1.0, (), ()), False) == "a b\n"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (b"w1\nw2 \xe9\n", {"buffer_size": 1}, r"in, line 2: not valid UTF-8 \(byte 0xe9 at column 4\)"),
        ("w1\n" + "w2 " * 40, {"buffer_size": 1}, "sentence 2 has 41 tokens, but the model reads at most 30"),
    ],
)
def test_an_error_halfway_leaves_what_was_done_and_no_output(call, expected, tmp_path, text, options, message):
    (tmp_path / "out").write_text("older\n")
    with pytest.raises(InputError, match=rf"{message}.*What was done is in .*out\.partial"):
        call(text, **options)
    assert (tmp_path / "out").read_text() == "older\n"
    assert len((tmp_path / "out.partial").read_text().splitlines()) == 1


def test_long_sentences_can_be_skipped(call, expected):
    out = call(f"{'w2 ' * 40}\n{TEXT}", too_long=TooLong.SKIP)
    assert out.read_text() == lines(["", *expected])


def test_impossible_options_are_refused_before_a_file_is_made(call, tmp_path):
    with pytest.raises(ConfigError, match="nbest 9 is greater than beam 5"):
        call(nbest=9)
    with pytest.raises(ConfigError, match="buffer_size 0: must be at least 1"):
        call(buffer_size=0)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_places_that_cannot_be_written_or_read_are_named(call, tmp_path):
    for output in (tmp_path / "nowhere" / "out", tmp_path):
        with pytest.raises(InputError, match=str(output)):
            call(output=output)
    with pytest.raises(InputError, match="missing: no such file"):
        call(input_file=tmp_path / "missing")
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_device_is_written_to_and_not_replaced(call, expected, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        call(output=pipe)
        assert reader.communicate()[0] == lines(expected)
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to stand for a full disk")
def test_a_full_disk_is_one_line(model):
    command = [Path(sys.executable).parent / "fairbeam", "translate", model]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, input=TEXT, text=True, stdout=full, stderr=subprocess.PIPE, env=environment, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "error: standard output: cannot be written (No space left on device)\n"


class Attack:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_malicious_checkpoint_is_refused_and_does_nothing(call, tmp_path):
    hostile, trace = tmp_path / "hostile.pt", tmp_path / "trace"
    torch.save({"model": {}, "cfg": Attack(trace)}, hostile)
    with pytest.raises(CheckpointError, match=r"hostile\.pt: refused, because reading it would call .*open"):
        call(models=[hostile])
    assert {path.name for path in tmp_path.iterdir()} == {"in", "hostile.pt"}


def test_models_that_cannot_be_read_are_named(call, tmp_path):
    whole = tmp_path / "whole.pt"
    cfg = {"model": argparse.Namespace(_name="fconv"), "task": {"_name": "translation"}}
    checkpoint.write(whole, {"args": None, "cfg": cfg, "model": {"weight": torch.ones(500)}})
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(whole.read_bytes()[:1000])
    text = tmp_path / "text.pt"
    text.write_text("no checkpoint")
    for path, message in (
        (truncated, "truncated"), (text, "not a checkpoint"), (whole, "'fconv' has no conversion"),
        (tmp_path / "absent.pt", "No such file"),
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match=message) as caught:
            call(models=[path])
        assert path.name in str(caught.value) or path is whole


def test_missing_dictionaries_are_asked_for(call, real_models, tmp_path):
    alone = tmp_path / "checkpoint.pt"
    stored = real_models / "multi30k-en-de"
    alone.symlink_to(stored / "checkpoint.pt")
    with pytest.raises(InputError, match=r"no dictionaries .*; name the folder that holds them with --data"):
        call(models=[alone])
    out = call("A man sleeps.\n", models=[alone], data=stored)
    assert "schläft" in out.read_text()
    one_left = tmp_path / "one"
    one_left.mkdir()
    shutil.copy(stored / "dict.en.txt", one_left)
    with pytest.raises(InputError, match="give --source-lang and --target-lang"):
        call(models=[alone], data=one_left)


def test_required_phrases_behind_tabs_or_in_a_file(call, expected, tmp_path):
    behind_tabs = ["w1 w2 w3\tw9 w9\tw17|||w18", "", "w4 w5", "w6\tw11"]
    out = call(lines(behind_tabs), constraints="unordered").read_text().splitlines()
    assert "w9 w9" in out[0]
    assert {"w17", "w18"} & set(out[0].split())
    assert "w11" in out[3].split()
    assert out[1:3] == expected[1:3]
    (tmp_path / "phrases").write_text(lines([line.partition("\t")[2] for line in behind_tabs]))
    assert call(constraints_file=tmp_path / "phrases", buffer_size=3).read_text() == lines(out)
    ordered = call(lines(["w1 w2 w3\tw7\tw6", "w1 w2 w3\tw6\tw7"]), constraints="ordered").read_text().splitlines()
    assert ordered[0].split().index("w7") < len(ordered[0].split()) - ordered[0].split()[::-1].index("w6")
    assert ordered[0] != ordered[1]
    for phrases, message in ((2, "sentence 3 has no required phrases"), (6, "more than 4 lines of required phrases")):
        (tmp_path / "phrases").write_text("w1\n" * phrases)
        with pytest.raises(InputError, match=message):
            call(constraints_file=tmp_path / "phrases")


def test_alignments_stand_behind_the_text(call, expected):
    hard = [line.split("\t") for line in call(alignments=translate.Alignment.HARD).read_text().splitlines()]
    assert [text for text, _ in hard] == expected
    for (text, pairs), sentence in zip(hard, SENTENCES, strict=True):
        places = [tuple(map(int, pair.split("-"))) for pair in pairs.split()]
        assert [target for _, target in places] == list(range(len(text.split())))
        assert all(source < len(sentence.split()) for source, _ in places)
    soft = [line.split("\t")[1] for line in call(alignments=translate.Alignment.SOFT).read_text().splitlines()]
    for rows, sentence in zip(soft, SENTENCES, strict=True):
        for row in rows.split():
            weights = [float(weight) for weight in row.split(",")]
            assert len(weights) == len(sentence.split()) + 1
            assert sum(weights) == pytest.approx(1, abs=1e-4)


def test_unknown_words_are_replaced_by_what_they_align_with(call, tmp_path):
    text = "zebra w2\n"
    plain, copied = (call(text, unkpen=-50, max_len_b=4, replace_unk=on).read_text().split() for on in (False, True))
    assert set(plain) == {"<unk>"}
    assert set(copied) <= {"zebra", "w2"}
    (tmp_path / "words").write_text("zebra Zebra\nw2 Zebra\n")
    known = call(text, unkpen=-50, max_len_b=4, replace_unk_dict=tmp_path / "words")
    assert set(known.read_text().split()) == {"Zebra"}
    (tmp_path / "words").write_text("zebra Zebra\nalone\n")
    with pytest.raises(InputError, match="words, line 2: expected two words, found 'alone'"):
        call(text, replace_unk_dict=tmp_path / "words")


def test_the_rest_of_the_search_is_reached(call, made, tmp_path):
    (tmp_path / "outputs").write_text("w1 w2\nw3\n")
    said = call(allowed_outputs=tmp_path / "outputs", beam=2).read_text().splitlines()
    assert {*said} <= {"", "w1 w2", "w3"}
    drawn = call(stochastic_beam=True, beam=4, nbest=4, max_len_b=4).read_text().splitlines()
    assert len({*drawn[:4]}) == 4
    framed = call(first_token="w7", last_token="w8").read_text().splitlines()
    assert all(line.startswith("w7") and line.endswith("w8") for line in framed if line)
    with pytest.raises(ConfigError, match="last_token 'w7 w8': expected one token of the model's; it is w7 w8"):
        call(last_token="w7 w8")
    contrastive = call(penalty_alpha=0.8, beam=4).read_text().split()
    assert contrastive
    assert [len(line.split()) for line in call(match_source_len=True).read_text().splitlines()] == [4, 0, 3, 2]
    model = Translator([made], precision="float32", workers=1)
    candidates = [t.text for t in next(model.stream(SENTENCES, beam=6, nbest=6))]
    chosen = next(model.stream(SENTENCES, beam=6, mbr="chrf"))[0].text
    assert chosen == candidates[int(expected_utilities(candidates, Utility.CHRF).argmax())]
    assert call(beam=6, mbr="chrf").read_text().splitlines()[0] == chosen
