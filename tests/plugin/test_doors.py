"""One checkpoint, one option, three doors: ``fairbeam translate``, Python and ``fairseq-generate`` say the same.

The model's weights are random, and sharp enough that sentences get different translations.
"""

import contextlib
import io
import math
import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import stock_models
import torch
from fairseq import options as fairseq_options
from fairseq_cli import generate

import fairbeam
from fairbeam import cli
from fairbeam.demo.grammar import split_corpus
from fairbeam.errors import ConfigError, command_line
from fairbeam.generation import GenerationOptions
from fairbeam.generation.option_fields import CLI, REQUEST, TASK, declared_options, options_from
from fairbeam.model import Bundle, DecoderPrefix
from fairbeam.text import Dictionary
from fairbeam.text.phrases import phrase_ids
from fairbeam_plugin.tasks.texts import TaskTextSides

ROOT = Path(__file__).resolve().parents[2]
COUNT, BEAM, LIMIT = 6, 5, 12
LOG2 = math.log(2)


@dataclass(frozen=True)
class Place:
    """A data-bin folder, checkpoints, and files of what an option needs, a line for each sentence."""

    folder: Path
    sources: tuple[str, ...]
    pieces: tuple[int, ...]
    """First piece of each reference."""

    def path(self, name: str) -> Path:
        return self.folder / name

    def lines(self, name: str) -> list[str]:
        return self.path(name).read_text().splitlines()


@dataclass(frozen=True)
class Case:
    """Values of options, alike in all doors, and how each door is given what is no plain value.

    ``{name}`` in a flag is a file or checkpoint of the ``Place``.
    """

    values: dict[str, Any] = field(default_factory=dict)
    translate: str = ""
    generate: str = ""
    python: str = ""
    """Names of arguments that ``in_python`` makes."""
    load: dict[str, str] = field(default_factory=dict)
    models: int = 1
    same_as_usual: bool = False
    """Whether the option leaves the output as it is."""
    door_of_task: bool = True


SAMPLES = {"sampling": True, "beam": 2, "nbest": 2}
PREFIXES = {"translate": "--target-prefix {prefixes}", "generate": "--prefix-size 1", "python": "target_prefix"}
ALTERNATIVES = {"return_alternatives": True, "nbest": 3, "beam": 3}
CASES: dict[str, Case] = {
    "beam": Case({"beam": 1}),
    "nbest": Case({"nbest": 4}),
    "beam_patience": Case({"beam_patience": 3.0, "nbest": 3}),
    "coverage_penalty": Case({"coverage_penalty": 2.0}),
    "unkpen": Case({"unkpen": -50.0}),
    "diverse_beam_groups": Case({"diverse_beam_groups": 2, "beam": 4, "nbest": 4}),
    "diverse_beam_strength": Case({"diverse_beam_strength": 3.0, "diverse_beam_groups": 2, "beam": 4, "nbest": 4}),
    "diversity_rate": Case({"diversity_rate": 2.0, "nbest": 3}),
    "penalty_alpha": Case({"penalty_alpha": 0.6}),
    "ensemble_weights": Case({"ensemble_weights": (0.8, 0.2)}, models=2),
    "lm_weight": Case({"lm_weight": 0.4}, "--lm-path {language}", "--lm-path {language}", load={"lm_path": "language"}),
    "max_len_a": Case({"max_len_a": 0.5, "max_len_b": 1}),
    "max_len_b": Case({"max_len_b": 5}),
    "min_len": Case({"min_len": 10}),
    "min_len_a": Case({"min_len_a": 0.7, "max_len_b": 40}),
    "match_source_len": Case({"match_source_len": True}),
    "lenpen": Case({"lenpen": 3.0}),
    "length_normalization": Case({"length_normalization": "gnmt", "nbest": 2}),
    "unnormalized": Case({"unnormalized": True}),
    "sampling": Case(SAMPLES),
    "sampling_topk": Case({**SAMPLES, "sampling_topk": 2}),
    "sampling_topp": Case({**SAMPLES, "sampling_topp": 0.5}),
    "min_p": Case({**SAMPLES, "min_p": 0.3}),
    "typical_p": Case({**SAMPLES, "typical_p": 0.4}),
    "epsilon_cutoff": Case({**SAMPLES, "epsilon_cutoff": 0.1}),
    "temperature": Case({"temperature": 3.0}),
    "stochastic_beam": Case({"stochastic_beam": True, "nbest": 4}),
    "seed": Case({**SAMPLES, "seed": 5}),
    "constraints": Case(
        {"constraints": "ordered"}, "--constraints-file {phrases}", "--constraints-file {phrases}", "required_phrases"
    ),
    "banned_phrases": Case({}, "--banned-phrases {banned}", "", "banned_phrases", door_of_task=False),
    "allowed_outputs": Case(
        {}, "--allowed-outputs {outputs}", "--allowed-outputs-file {outputs}", "allowed_outputs"
    ),
    "first_token": Case({}, "--first-token {first}", "--first-token {first_id}", "first_token"),
    "last_token": Case({}, "--last-token {first}", "--last-token {first_id}", "last_token"),
    "no_repeat_ngram_size": Case({"no_repeat_ngram_size": 2}),
    "repetition_penalty": Case({"repetition_penalty": 3.0}),
    "encoder_no_repeat_ngram_size": Case({"encoder_no_repeat_ngram_size": 1, "encoder_repetition_penalty": 4.0}),
    "encoder_repetition_penalty": Case({"encoder_repetition_penalty": 4.0}),
    "prefix_bias_beta": Case({"prefix_bias_beta": 0.3}, **PREFIXES),
    "return_alternatives": Case(ALTERNATIVES, **PREFIXES),
    "min_alternative_expansion_prob": Case({**ALTERNATIVES, "min_alternative_expansion_prob": 0.2}, **PREFIXES),
    "mbr": Case({"mbr": "chrf", "nbest": 5}),
    "ch_wt": Case(
        {"ch_wt": 0.7, "nbest": 5}, "--channel-model {model}", "--channel-model {model}",
        load={"channel_model": "model"},
    ),
    "lm_wt": Case(
        {"lm_wt": 0.7, "nbest": 5}, "--lm-model {language}", "--lm-model {language}", load={"lm_model": "language"}
    ),
    "shortlist": Case({"shortlist": True}),
    "prompt_lookup_num_tokens": Case({"prompt_lookup_num_tokens": 3, "beam": 1}, same_as_usual=True),
    "prompt_lookup_max_ngram": Case(
        {"prompt_lookup_num_tokens": 3, "prompt_lookup_max_ngram": 1, "beam": 1}, same_as_usual=True
    ),
    "draft_tokens": Case(
        {"draft_tokens": 3, "beam": 1}, "--draft-model {second}", "--draft-model {second}", load={"draft": "second"},
        same_as_usual=True,
    ),
    "target_prefix": Case({}, **PREFIXES),
}  # fmt: skip
"""A case for each option of more than one door, under its name."""


def test_every_option_of_two_doors_has_a_case():
    known = declared_options(GenerationOptions)
    in_commands = {*options_from(GenerationOptions, CLI), *options_from(GenerationOptions, TASK)}
    assert in_commands | {"target_prefix"} == CASES.keys()
    assert known.keys() - CASES.keys() == {"attention", "prefix_allowed_tokens_fn"}  # see below; functions are Python's
    for name, case in CASES.items():
        assert name not in known or case.door_of_task == (
            name in options_from(GenerationOptions, TASK) or "--allowed-outputs-file" in case.generate
        )
        assert name in case.values or case.translate
    assert options_from(GenerationOptions, REQUEST).keys() == known.keys() - {"prefix_allowed_tokens_fn"}


@pytest.fixture(scope="module")
def place(run, tmp_path_factory) -> Place:
    """A model of the demo corpus' vocabulary, another with noise on its weights, and a language model."""
    folder = tmp_path_factory.mktemp("doors")
    split = split_corpus(400, 10, 200, seed=3)
    known = [pair for pair in split.test if pair[1].split()[0] in ("Der", "Die")][:COUNT]
    for name, pairs in (("train", split.train), ("valid", split.valid), ("test", known)):
        for side, language in enumerate(("en", "de")):
            write(folder / "text" / f"{name}.{language}", [pair[side] for pair in pairs])
    run("fairbeam", "prepare", folder / "text", "en", "de", folder / "bin", "--vocab-size", "400")
    shutil.copy(folder / "bin" / "dict.de.txt", folder / "bin" / "dict.txt")
    sizes = {"embed_dim": 32, "ffn_embed_dim": 48, "attention_heads": 2, "layers": 2}
    stacks = {f"{stack}_{name}": size for stack in ("encoder", "decoder") for name, size in sizes.items()}
    task = {"_name": "translation", "source_lang": "en", "target_lang": "de"}
    for name, noise in (("model", 0.0), ("second", 0.02)):
        checkpoint(folder, name, task, noise, arch="transformer", **stacks)
    decoder = {name: size for name, size in stacks.items() if name.startswith("decoder")}
    task = {"_name": "language_modeling", "tokens_per_sample": 60}
    checkpoint(folder, "language", task, 0.0, arch="transformer_lm_gpt", tokens_per_sample=60, **decoder)
    files = fairbeam.ModelFiles(data=folder / "bin")
    side = fairbeam.load(folder / "model" / "checkpoint_best.pt", files=files, precision="float32", workers=1).target
    first = [pair[1].split()[0] for pair in known]
    write(folder / "prefixes", first)
    write(folder / "phrases", ["\t".join(pair[1].rstrip(".?!").split()[1:3]) for pair in known])
    write(folder / "banned", ["sing", "wird"])
    write(folder / "outputs", ["Der Hund", "Die Katze schläft", "Das"])
    ids = phrase_ids(side, first)
    assert all(len(row) == 1 for row in ids)  # so that a prefix of one token is a text
    return Place(folder, tuple(pair[0] for pair in known), tuple(row[0] for row in ids))


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def checkpoint(folder: Path, name: str, task: dict, noise: float, **options) -> None:
    """Random weights, sharp enough that hypotheses differ, with which some end before the limit and some do not."""
    torch.manual_seed(4)
    model = stock_models.build(options, len(Dictionary.load(folder / "bin" / "dict.en.txt")))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.7).add_(noise * torch.randn_like(parameter))
        centre = model.decoder.layers[-1].final_layer_norm.bias
        model.decoder.output_projection.weight[2] += 3.5 * centre / (centre @ centre)
    stock_models.write_checkpoint(folder / name, model, options, {**task, "data": str(folder / "bin")})


def flags(place: Place, case: Case, door: str) -> list[str]:
    """Flags of a command: those of the values, and those of the door."""
    values = {"max_len_b": LIMIT, "beam": BEAM, **case.values}
    found: list[str] = []
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        found += [flag] if value is True else [flag, text]
    first = {"first": "Der", "first_id": str(place.pieces[place.lines("prefixes").index("Der")])}
    models = {name: f"{place.folder}/{name}/checkpoint_best.pt" for name in ("model", "second", "language")}
    files = {name: str(place.path(name)) for name in ("prefixes", "phrases", "banned", "outputs")}
    return found + [part.format(**first, **models, **files) for part in getattr(case, door).split()]


def checkpoints(place: Place, case: Case) -> list[str]:
    return [f"{place.folder}/{name}/checkpoint_best.pt" for name in ("model", "second")[: case.models]]


def translate_arguments(place: Place, case: Case) -> list[str]:
    return [
        "translate", *checkpoints(place, case), "--data", str(place.path("bin")), "-s", "en", "-t", "de", "--workers",
        "1", "--precision", "float32", "--scores", "-q", "-i", str(place.path("text/test.en")),
        *flags(place, case, "translate"),
    ]  # fmt: skip


def by_command(place: Place, case: Case, monkeypatch) -> str:
    """``fairbeam translate`` in this process."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["fairbeam", *translate_arguments(place, case)])
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as done:
        cli.main()
    assert not done.value.code
    return out.getvalue()


def in_python(place: Place, case: Case) -> list[list[fairbeam.Translation]]:
    helpers = {name: f"{place.folder}/{model}/checkpoint_best.pt" for name, model in case.load.items()}
    files = fairbeam.ModelFiles(data=place.path("bin"), source_lang="en", target_lang="de")
    model = fairbeam.load(*checkpoints(place, case), files=files, precision="float32", workers=1, **helpers)
    makers = {
        "target_prefix": lambda: place.lines("prefixes"),
        "required_phrases": lambda: [line.split("\t") for line in place.lines("phrases")],
        "banned_phrases": lambda: model.phrase_ids(place.lines("banned")),
        "allowed_outputs": lambda: model.output_ids(place.lines("outputs")),
        "first_token": lambda: model.token_id("Der", "first_token"),
        "last_token": lambda: model.token_id("Der", "last_token"),
    }
    arguments = {case.python: makers[case.python]()} if case.python else {}
    return list(model.stream(place.sources, **{"max_len_b": LIMIT, **case.values, **arguments}))


def generate_arguments(place: Place, case: Case) -> list[str]:
    return [
        str(place.path("bin")), "--user-dir", str(ROOT / "user_dir"), "--task", "fairbeam_translation", "-s", "en",
        "-t", "de", "--cpu", "--no-progress-bar", "--num-workers", "0", "--batch-size", "4",
        "--path", ":".join(checkpoints(place, case)), *flags(place, case, "generate"),
    ]  # fmt: skip


def by_fairseq(place: Place, case: Case) -> str:
    """``fairseq-generate`` in this process."""
    out = io.StringIO()
    parsed = fairseq_options.parse_args_and_arch(
        fairseq_options.get_generation_parser(), generate_arguments(place, case)
    )
    with contextlib.redirect_stdout(out):
        generate.main(parsed)
    return out.getvalue()


def assert_translate_says(output: str, expected: list[list[fairbeam.Translation]]) -> None:
    assert output.splitlines() == [f"{one.score:.4f}\t{one.text}" for mine in expected for one in mine]


def assert_fairseq_says(output: str, expected: list[list[fairbeam.Translation]]) -> None:
    """Pieces, without ``<s>`` and ``</s>``, which fairseq does not print, and scores, which it prints in bits."""
    found: dict[int, list[tuple[str, float]]] = {number: [] for number in range(COUNT)}
    for number, score, text in re.findall(r"^H-(\d+)\t(\S+)\t(.*)$", output, re.MULTILINE):
        found[int(number)].append((text, float(score) * LOG2))
    for number, mine in enumerate(expected):
        kept = [one for one in mine if one.token_scores]  # n lines are promised, and alternatives may be fewer
        assert [text for text, _ in found[number]] == [
            " ".join(token for token in one.tokens if token not in ("<s>", "</s>")) for one in kept
        ]
        assert [score for _, score in found[number]] == pytest.approx([one.score for one in kept], abs=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_doors_agree(place, monkeypatch, name):
    case = CASES[name]
    expected = in_python(place, case)
    assert [len(mine) for mine in expected] == [case.values.get("nbest", 1)] * COUNT
    assert_translate_says(by_command(place, case, monkeypatch), expected)
    if case.door_of_task:
        assert_fairseq_says(by_fairseq(place, case), expected)
    others = {key: value for key, value in case.values.items() if key != name}
    prefixed = case.python == "target_prefix" != name
    without = in_python(place, Case(others, python="target_prefix" if prefixed else ""))
    assert is_same(without, expected) == case.same_as_usual


def is_same(some: list[list[fairbeam.Translation]], others: list[list[fairbeam.Translation]]) -> bool:
    """Whether there are the same translations, with the same scores."""
    return all(
        [one.tokens for one in mine] == [one.tokens for one in theirs]
        and [one.score for one in mine] == pytest.approx([one.score for one in theirs], abs=1e-4)
        for mine, theirs in zip(some, others, strict=True)
    )


def test_attention_is_the_same(place, monkeypatch):
    case = Case({}, "--alignments soft", "--print-alignment soft")
    expected = in_python(place, Case({"attention": True}))
    shown = [
        [[float(weight) for weight in row.split(",")] for row in line.split("\t")[2].split(" ")]
        for line in by_command(place, case, monkeypatch).splitlines()
    ]
    printed = {
        int(number): [[float(weight) for weight in row.split(",")] for row in text.split(" ")]
        for number, text in re.findall(r"^A-(\d+)\t(.*)$", by_fairseq(place, case), re.MULTILINE)
    }
    for number, (best,) in enumerate(expected):
        for found in shown[number], printed[number]:
            torch.testing.assert_close(torch.tensor(found), torch.tensor(best.attention), rtol=0, atol=2e-6)


FORCED = [
    Case({}),
    Case({"nbest": 3}, **PREFIXES),
    Case({"prefix_bias_beta": 0.3, "nbest": 3}, **PREFIXES),
    Case({}, "--allowed-outputs {outputs}", "--allowed-outputs-file {outputs}", "allowed_outputs"),
]


@pytest.fixture
def forced(place, monkeypatch) -> int:
    """The model has a first token of its own."""
    token = place.pieces[0] + 7
    prefix = DecoderPrefix(None, token)
    monkeypatch.setattr(Bundle, "decoder_prefix", lambda self: prefix)
    monkeypatch.setattr(TaskTextSides, "prefix", prefix)
    return token


@pytest.mark.parametrize("case", FORCED, ids=["plain", "prefix", "favoured prefix", "allowed outputs"])
def test_a_models_own_first_token_is_forced_in_every_door(place, forced, monkeypatch, case):
    expected = in_python(place, case)
    dictionary = Dictionary.load(place.path("bin") / "dict.de.txt")
    assert {one.tokens[0] for mine in expected for one in mine} == {dictionary[forced]}
    assert_translate_says(by_command(place, case, monkeypatch), expected)
    assert_fairseq_says(by_fairseq(place, case), expected)


REFUSED = {
    "first_token and prefix_bias_beta exclude each other": Case(
        {"prefix_bias_beta": 0.5}, "--target-prefix {prefixes} --first-token {first}",
        "--prefix-size 1 --first-token {first_id}", "target_prefix",
    ),
    "prefix_bias_beta 0.5: needs a prefix": Case({"prefix_bias_beta": 0.5}),
    "lm_weight 0.5: there is no language model": Case({"lm_weight": 0.5}),
    "ch_wt 0.5: there is no model to weigh": Case({"ch_wt": 0.5}),
    "draft_tokens 3: there is no model to draft": Case({"draft_tokens": 3, "beam": 1}),
    "nbest 9 is greater than beam 5": Case({"nbest": 9}),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_doors_refuse_the_same(place, forced, monkeypatch, capsys, message):
    """Each in its own words for options."""
    case = REFUSED[message]
    names = "|".join(declared_options(GenerationOptions))
    written = re.sub(rf"\b({names})\b", lambda match: f"--{match[0].replace('_', '-')}", message)
    first = {"first_token": 7} if "first_token" in message else {}
    with pytest.raises(ConfigError, match=re.escape(message)):
        in_python(place, Case({**case.values, **first}, python=case.python))
    monkeypatch.setattr(sys, "argv", ["fairbeam", *translate_arguments(place, case)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 2
    assert f"error: {written}" in capsys.readouterr().err
    with pytest.raises(ConfigError) as caught:
        by_fairseq(place, case)
    assert caught.value.spoken(command_line).startswith(written)


@pytest.mark.parametrize("name", ["nbest", "target_prefix"])
def test_as_commands(run, place, name):
    case = CASES[name]
    expected = in_python(place, case)
    assert_translate_says(run("fairbeam", *translate_arguments(place, case)).stdout, expected)
    assert_fairseq_says(run("fairseq-generate", *generate_arguments(place, case)).stdout, expected)
