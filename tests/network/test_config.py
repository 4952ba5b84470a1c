"""Configurations survive JSON and refuse what makes no sense."""

import json

import pytest

from fairbeam.errors import ConfigError
from fairbeam.network import EncoderDecoderConfig, PositionConfig, PositionKind, StackConfig


def test_round_trip_through_json():
    positions = PositionConfig(kind=PositionKind.LEARNED, max_positions=99)
    config = EncoderDecoderConfig(source_vocabulary=10, target_vocabulary=12, decoder=StackConfig(positions=positions))
    assert EncoderDecoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "/heads is an unknown field"),
        ({"source_vocabulary": "10"}, '/source_vocabulary is "10"; expected an integer'),
        ({"encoder": {"layers": 2, "activation": "sine"}}, '/encoder/activation is "sine"; expected one of relu'),
        ({"encoder": {"positions": {"offset": None}}}, "/encoder/positions/offset is null; expected an integer"),
        ({"encoder": 3}, "/encoder is 3; expected an object"),
        ({"encoder": {"dim": 30, "heads": 4}}, "encoder.dim is 30, which encoder.heads (4) does not divide"),
        ({"encoder": {"heads": 4, "key_value_heads": 3}}, "which encoder.key_value_heads (3) does not divide"),
        ({"decoder": {"head_dim": 7, "positions": {"kind": "rotary"}}}, "a head is 7 wide"),
        ({"decoder": {"positions": {"kind": "relative_buckets", "buckets": 3}}}, "positions.buckets is 3"),
        ({"share_embeddings": True}, "source_vocabulary is 10 and target_vocabulary is 12"),
        ({"dropout": {"residual": True}}, "/dropout/residual is true; expected a number"),
    ],
)
def test_errors_name_the_field(change, message):
    values = {"source_vocabulary": 10, "target_vocabulary": 12, **change}
    with pytest.raises(ConfigError) as error:
        EncoderDecoderConfig.from_dict(values)
    assert message in str(error.value)


def test_a_missing_field_is_named():
    with pytest.raises(ConfigError, match="/target_vocabulary is missing"):
        EncoderDecoderConfig.from_dict({"source_vocabulary": 10})
