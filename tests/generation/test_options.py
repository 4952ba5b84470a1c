"""Options that are declared once: what is derived from their declarations, and what is checked by them."""

import argparse
import dataclasses
import math
import re
from pathlib import Path

import pytest
import typer
from searching import checked
from typer.testing import CliRunner

from fairbeam.cli import translate
from fairbeam.cli._derived import derive_options
from fairbeam.cli._help import PanelCommand
from fairbeam.errors import ConfigError, command_line, json_pointer
from fairbeam.generation import Constraints, GenerationOptions, LengthNormalization
from fairbeam.generation.build import BESIDE, DOORS, SEARCHES, check_features, matrix
from fairbeam.generation.features import Feature
from fairbeam.generation.generation_config import from_generation_config, to_generation_config
from fairbeam.generation.option_fields import CLI, GROUPS, HUGGING_FACE, MODEL, declared_options, option, options_from
from fairbeam.generation.options import with_defaults
from fairbeam.generation.options_page import options_page
from fairbeam.generation.request_model import json_schema, request_model
from fairbeam.requests import DecodingLimits

DOCS = Path(__file__).parents[2] / "docs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Throwaway(GenerationOptions):
    """The options, and one that nothing knows."""

    warmth: float = option(
        0.25, "Warmth of what is sampled, beside {min_p}.", group="Sampling", at_least=0, at_most=1, needs="sampling",
        unit="degrees",
    )  # fmt: skip
    breeze: bool = option(False, "Breeze.", group="Output")


def commanded(kind: type, *arguments: str):
    """Run a command whose options are those of a dataclass; return what was printed and what was given."""
    given: dict = {}
    app = typer.Typer()

    @app.command(cls=PanelCommand)
    @derive_options(generation=kind, forms=translate.FORMS)
    def command(*, generation: dict) -> None:
        given.update(generation)

    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, arguments, catch_exceptions=False)
    return done.output, given


def test_a_new_option_is_known_everywhere_at_once():
    text, _ = commanded(Throwaway, "--help")
    assert re.search(r"--warmth DEGREES +Warmth of what is sampled, beside", text)
    assert "--min-p. [default: 0.25; at least 0" in text
    assert "--no-breeze" in text
    _, given = commanded(Throwaway, "--warmth", "0.5", "--breeze")
    assert given == {"warmth": 0.5, "breeze": True}
    assert commanded(Throwaway, "--no-breeze")[1] == {"breeze": False}
    assert "| `warmth` | `0.25` degrees | at least 0 and at most 1; needs `sampling` |" in options_page(Throwaway)
    schema = json_schema(Throwaway)["properties"]["warmth"]
    assert (schema["minimum"], schema["maximum"], schema["default"]) == (0, 1, 0.25)
    assert schema["description"] == "Warmth of what is sampled, beside min_p."
    assert "warmth" in options_from(Throwaway, MODEL)


def test_a_new_option_of_fairseqs_commands():
    fairseq_utils = pytest.importorskip("fairseq.dataclass.utils")
    from fairseq.dataclass import FairseqDataclass

    from fairbeam_plugin.tasks.search_options import task_fields

    made = dataclasses.make_dataclass("Made", task_fields(Throwaway), bases=(FairseqDataclass,))
    parser = argparse.ArgumentParser()
    fairseq_utils.gen_parser_from_dataclass(parser, made())
    found = parser.parse_args(["--warmth", "0.5", "--breeze"])
    assert (found.warmth, found.breeze, found.min_p) == (0.5, True, None)


def test_a_new_option_is_refused_by_every_search_and_door():
    made = Throwaway(breeze=True)
    with pytest.raises(ConfigError, match="breeze: beam search does not support it"):
        check_features(made)
    for other in ({"sampling": True}, {"penalty_alpha": 0.5}, {"beam": 1, "draft_tokens": 2}, {"shortlist": True}):
        with pytest.raises(ConfigError, match="and breeze exclude each other"):
            check_features(dataclasses.replace(made, **other))
    for door in DOORS:
        with pytest.raises(ConfigError, match=f"{door.label} and breeze exclude each other"):
            check_features(made, door)
    check_features(Throwaway(), DOORS[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmth": 2.0, "sampling": True}, "warmth 2.0: must be at least 0 and at most 1"),
        ({"warmth": 0.5}, "warmth 0.5: needs sampling"),
        ({"warmth": math.nan}, "warmth nan: expected a number"),
        ({"breeze": 1}, "breeze 1: expected true or false"),
        ({"beam": 2.5}, "beam 2.5: expected a whole number"),
        ({"beam": "many"}, "beam many: expected a whole number"),
        ({"beam": True}, "beam True: expected a whole number"),
        ({"mbr": "rouge"}, "mbr rouge: expected bleu or chrf"),
        ({"mbr": "chrf", "beam": 1}, "mbr chrf: needs beam of at least 2, not 1"),
        ({"draft_tokens": 2}, "draft_tokens 2: needs beam of at most 1, not 5"),
        ({"banned_phrases": ((3, -1),)}, "banned_phrases ((3, -1),): expected lists of token ids"),
        ({"banned_phrases": 3}, "banned_phrases 3: expected lists of token ids"),
        ({"ensemble_weights": ("a",)}, "ensemble_weights ('a',): expected numbers in a list"),
        ({"beam_patience": math.inf}, "beam_patience inf: must be greater than 0 and finite"),
        ({"sampling": True, "sampling_topp": 1.5}, "sampling_topp 1.5: must be at most 1"),
        ({"first_token": "x"}, "first_token x: expected a whole number"),
        ({"prefix_allowed_tokens_fn": 3}, "prefix_allowed_tokens_fn 3: expected a function"),
    ],
)
def test_values_are_checked_by_their_declarations(options, message):
    with pytest.raises(ConfigError) as error:
        Throwaway(**options)
    assert str(error.value) == message


def test_values_get_their_own_types():
    made = GenerationOptions(
        beam=3.0, lenpen=1, banned_phrases=[[1, 2]], constraints="ordered", length_normalization="gnmt"
    )
    assert (made.beam, made.banned_phrases, made.constraints) == (3, ((1, 2),), Constraints.ORDERED)
    assert made.length_normalization is LengthNormalization.GNMT
    assert [type(value) for value in (made.beam, made.lenpen)] == [int, float]
    off = GenerationOptions(sampling_topk=-7, sampling_topp=0.0, first_token=-3, diversity_rate=-0.5)
    check_features(dataclasses.replace(off, return_alternatives=True))  # none of them asks for anything


def test_an_error_speaks_its_callers_language():
    with pytest.raises(ConfigError) as error:
        GenerationOptions(min_alternative_expansion_prob=0.5)
    found = error.value
    assert str(found) == "min_alternative_expansion_prob 0.5: needs return_alternatives"
    assert found.spoken(command_line) == "--min-alternative-expansion-prob 0.5: needs --return-alternatives"
    assert found.spoken(json_pointer) == "/min_alternative_expansion_prob 0.5: needs /return_alternatives"
    assert found.followed_by(". Done.").spoken(command_line).endswith("--return-alternatives. Done.")
    assert ConfigError("{braces} stay").followed_by("{}").spoken(command_line) == "{braces} stay{}"
    with pytest.raises(ConfigError) as error:
        check_features(GenerationOptions(nbest=2), DOORS[1])
    assert error.value.spoken(command_line) == "--stream and --nbest exclude each other"
    assert str(error.value) == "stream_text and nbest exclude each other"


def test_every_option_is_declared_in_full():
    known = declared_options(GenerationOptions)
    assert known.keys() == {field.name for field in dataclasses.fields(GenerationOptions)}
    asked = {one.declared.feature for one in known.values()}
    assert Feature.UNDECLARED not in asked
    for feature in asked:
        assert any(feature in part.supports | part.provides for part in SEARCHES), feature
    for one in known.values():
        assert one.help(command_line).endswith("."), one.name
        assert set(re.findall(r"\{(\w+)\}", one.declared.help)) <= known.keys()
        assert one.declared.unit or one.is_flag or one.choices or one.name == "prefix_allowed_tokens_fn"
        assert not one.is_on(one.default)
    assert checked() == GenerationOptions()


def test_what_goes_with_what_is_the_same_from_both_sides():
    """Where one search is in use beside another, or beside a ranking, both must support the other."""
    names, rows = matrix()
    supports = {
        name: {other for others, cells in rows if cells[at] for other in others} for at, name in enumerate(names)
    }
    asks = {part.name: {one for others, _ in rows for one in others
                        if declared_options(GenerationOptions)[one].declared.feature in part.provides}
            for part in (*SEARCHES, *BESIDE)}  # fmt: skip
    for one, mine in asks.items():
        for other, theirs in asks.items():
            if one != other and mine and theirs:
                assert (mine <= supports[other]) == (theirs <= supports[one]), (one, other)


def test_the_page_of_the_documentation_is_fresh():
    assert (DOCS / "options.md").read_text(encoding="utf-8") == options_page(), "make docs writes it anew"


def test_a_default_can_be_turned_off_with_what_needs_it():
    saved = GenerationOptions(sampling=True, sampling_topk=5, min_p=0.1, temperature=0.7)
    off = with_defaults({"sampling": False}, saved)
    assert off == GenerationOptions(temperature=0.7)
    assert with_defaults({"beam": 3}, saved) == dataclasses.replace(saved, beam=3)
    with pytest.raises(ConfigError, match=r"min_p 0\.2: needs sampling"):
        with_defaults({"sampling": False, "min_p": 0.2}, saved)
    with pytest.raises(ConfigError, match="unknown generation option 'samplig'; known are beam, nbest"):
        with_defaults({"samplig": False}, saved)


def test_requests_are_objects_with_known_options_in_range():
    request = request_model()
    given = request.model_validate_json(
        '{"beam": 3, "banned_phrases": [[1, 2]], "mbr": "chrf", "lenpen": 1, "sampling_topk": -1}'
    ).model_dump(exclude_unset=True)
    assert GenerationOptions(**given).banned_phrases == ((1, 2),)
    assert given.keys() == {"beam", "banned_phrases", "mbr", "lenpen", "sampling_topk"}
    for wrong in ('{"beams": 3}', '{"beam": 0}', '{"beam": "3"}', '{"beam": true}', '{"min_p": 1.5}', '{"mbr": "ter"}',
                  '{"temperature": 0}', '{"penalty_alpha": 1}', '{"prefix_allowed_tokens_fn": 1}'):  # fmt: skip
        with pytest.raises(ValueError, match="1 validation error"):
            request.model_validate_json(wrong)


def test_generation_config_is_read_back_as_it_was_written():
    options = GenerationOptions(
        beam=3, max_len_b=40, min_len=4, lenpen=0.6, no_repeat_ngram_size=3, repetition_penalty=1.2,
        encoder_no_repeat_ngram_size=2, encoder_repetition_penalty=1.1, banned_phrases=((5, 6),),
    )  # fmt: skip
    assert {name for name, one in options_from(GenerationOptions, HUGGING_FACE).items()
            if getattr(options, name) == one.default} == set()  # fmt: skip
    written = to_generation_config(options)
    assert written["max_new_tokens"] == 41
    assert from_generation_config(written) == options
    sampled = GenerationOptions(sampling=True, sampling_topk=5, min_p=0.1, beam=4, diverse_beam_strength=0.7)
    assert to_generation_config(sampled) | {"do_sample": True, "top_k": 5, "min_p": 0.1} == to_generation_config(
        sampled
    )
    assert not from_generation_config(to_generation_config(sampled)).sampling
    with pytest.raises(ConfigError, match=r"repetition_penalty -1\.0: must be greater than 0"):
        from_generation_config({"repetition_penalty": -1})
    with pytest.raises(ConfigError, match=r"max_length 3\.5: expected a whole number"):
        from_generation_config({"max_length": 3.5})


@pytest.mark.parametrize("width", [80, 120])
def test_the_help_shows_every_option_whole_in_its_panel(width):
    app = typer.Typer()
    app.command(**translate.SETTINGS)(translate.command)
    text = CliRunner(env={"COLUMNS": str(width)}).invoke(app, ["--help"], catch_exceptions=False).output
    assert max(map(len, text.splitlines())) <= width
    assert re.findall(r"╭─ ([A-Z][a-z ]+) ─", text) == list(GROUPS)
    panels = dict(zip(GROUPS, text.split("╭─ ")[1:], strict=True))
    every = {**options_from(GenerationOptions, CLI), **options_from(DecodingLimits, CLI)}
    for name, one in every.items():
        flags = [command_line(one.label)]
        flags += [flags[0].replace("--", "--no-", 1)] if one.is_flag else []
        for flag in flags:
            assert re.search(rf"^│ {flag}\s", panels[one.declared.group], re.MULTILINE), name
    for flag in ("--lm-path", "--target-prefix", "--channel-model", "--draft-model", "--no-stream", "--no-scores"):
        assert re.search(rf"^│ {flag}\s", text, re.MULTILINE)
