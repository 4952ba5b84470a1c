"""Dataclasses from JSON: every wrong value is one line that says where it is and what was expected."""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

import pytest
from annotated_types import Ge, Le

from fairbeam.errors import CheckpointError, ConfigError, OptionName, json_pointer
from fairbeam.schema import json_schema, parse, to_json

LESS = "an integer from 1 to 9"


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: Annotated[int, Ge(1), Le(9)] = 3
    share: float = 1.0
    ids: tuple[tuple[int, ...], ...] = ()
    on: bool = False


@dataclass(frozen=True, kw_only=True)
class Outer:
    colour: Colour
    inner: Inner | None = field(default_factory=Inner)
    more: tuple[Inner, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    either: int | Inner = 0

    def __post_init__(self):
        if self.colour is Colour.BLUE and self.inner is None:
            raise ConfigError("colour is blue, but inner is null")


def test_json_makes_nested_dataclasses_and_they_make_it_again():
    values = {
        "colour": "red",
        "inner": {"size": 9, "share": 2, "ids": [[1, 2], []], "on": True},
        "more": [{"size": 1}],
        "names": {"a/b": "ä"},
    }
    made = parse(Outer, json.loads(json.dumps(values)))
    inner = Inner(size=9, share=2.0, ids=((1, 2), ()), on=True)
    assert made == Outer(colour=Colour.RED, inner=inner, more=(Inner(size=1),), names={"a/b": "ä"})
    assert type(made.inner.share) is float
    assert parse(Outer, to_json(made)) == made
    assert json.loads(json.dumps(to_json(made))) == to_json(made)
    assert parse(Outer, {"colour": "red", "inner": None}) == Outer(colour=Colour.RED, inner=None)
    assert parse(dict[str, int], {"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "/n is []; expected an object"),
        ({}, "/n/colour is missing"),
        ({"colour": "green"}, "/n/colour is \"green\"; expected one of red, blue"),
        ({"colour": ["red"]}, "/n/colour is [\"red\"]; expected one of red, blue"),
        ({"colour": "red", "x": 1}, "/n/x is an unknown field; known are colour, inner, more, names, either"),
        ({"colour": "red", "inner": {"x": 1}}, "/n/inner/x is an unknown field; known are size, share, ids, on"),
        ({"colour": "red", "more": [{"x": 1}]}, "/n/more/0/x is an unknown field; known are size, share, ids, on"),
        ({"colour": "red", "inner": {"size": True}}, "/n/inner/size is true; expected an integer from 1 to 9"),
        ({"colour": "red", "inner": {"size": 3.0}}, "/n/inner/size is 3.0; expected an integer from 1 to 9"),
        ({"colour": "red", "inner": {"size": "3"}}, '/n/inner/size is "3"; expected an integer from 1 to 9'),
        ({"colour": "red", "inner": {"size": 0}}, "/n/inner/size is 0; expected an integer from 1 to 9"),
        ({"colour": "red", "more": [{"size": 10**90}]}, f"/n/more/0/size is 1{'0' * 79}…; expected {LESS}"),
        ({"colour": "red", "inner": {"share": True}}, "/n/inner/share is true; expected a number"),
        ({"colour": "red", "inner": {"on": 1}}, "/n/inner/on is 1; expected true or false"),
        ({"colour": "red", "inner": {"ids": [[1], 2]}}, "/n/inner/ids/1 is 2; expected a list"),
        ({"colour": "red", "names": {"a/b~": 5}}, "/n/names/a~1b~0 is 5; expected a string"),
        ({"colour": "red", "either": "x"}, '/n/either is "x"; expected an integer or an object'),
        ({"colour": "red", "either": {"on": 2}}, "/n/either/on is 2; expected true or false"),
        ({"colour": "blue", "inner": None}, "colour is blue, but inner is null"),
        ({"colour": {1}}, "/n cannot be written as JSON (Object of type set is not JSON serializable)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(values, message):
    with pytest.raises(CheckpointError) as raised:
        parse(Outer, values, file="config.json", pointer="/n", error=CheckpointError)
    assert str(raised.value) == f"config.json: {message}"


@dataclass(frozen=True)
class Options:
    min_p: float

    def __post_init__(self):
        if self.min_p > 1:
            raise ConfigError("{} is {}; expected at most 1", OptionName("min_p"), self.min_p)


def test_options_in_errors_are_still_spelt_as_the_caller_wants():
    with pytest.raises(CheckpointError) as raised:
        parse(Options, {"min_p": 2}, file="a{b}.json", error=CheckpointError)
    assert str(raised.value) == "a{b}.json: min_p is 2.0; expected at most 1"
    assert raised.value.spoken(json_pointer) == "a{b}.json: /min_p is 2.0; expected at most 1"


def test_unknown_fields_can_be_left_out():
    assert parse(Outer, {"colour": "red", "new": 1, "inner": {"new": 2}}, known_fields_only=False).colour is Colour.RED


def test_text_that_json_cannot_hold_and_endless_nesting_are_one_line():
    deep = "red"
    for _ in range(100_000):
        deep = [deep]
    for colour in ("\ud800", deep):
        with pytest.raises(ConfigError) as raised:
            parse(Outer, {"colour": colour})
        assert "\n" not in str(raised.value)


def test_the_schema_says_what_is_taken():
    schema = json_schema(Outer)
    assert schema["required"] == ["colour"]
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert schema["$defs"]["Inner"]["additionalProperties"] is False
    assert schema["$defs"]["Inner"]["properties"]["size"].items() >= {"minimum": 1, "maximum": 9, "default": 3}.items()
