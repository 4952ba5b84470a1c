"""Decode random sentences with random small networks, natively and by torch's operations.

Memory errors of the native library show under sanitizers (``make check-native``), which is what this is for; where
numbers are float32, both ways must also find the same.
"""

import argparse
import random
from typing import Any

import numpy as np
import pytest
import torch

from fairbeam.data.lexical_shortlist import Shortlist
from fairbeam.generation import GenerationOptions, Hypothesis, ModelSet, build_search
from fairbeam.network import (
    Activation,
    EncoderDecoder,
    EncoderDecoderConfig,
    NormPlacement,
    PositionConfig,
    StackConfig,
    pad_batch,
)
from fairbeam.network.inference import native

BOS, PAD, EOS = 0, 1, 2
SEARCHES_A_NETWORK = 10
POSITIONS = 40


def random_network(draw: random.Random) -> EncoderDecoder:
    """Return a network of a random shape, sharp enough that hypotheses differ."""
    head_dim, heads = draw.choice([5, 8, 16, 32, 64, 80]), draw.choice([1, 2, 3])
    dim = head_dim * heads
    stack = StackConfig(
        layers=draw.choice([1, 2]),
        dim=dim,
        heads=heads,
        ffn_dim=draw.choice([1, 7, 48, 130]),
        activation=draw.choice([Activation.RELU, Activation.GELU, Activation.GELU_TANH, Activation.SILU]),
        norm_placement=draw.choice(list(NormPlacement)),
        final_norm=draw.choice([True, False]),
        scale_embedding=draw.choice([True, False]),
        positions=PositionConfig(max_positions=POSITIONS),
    )
    vocabulary = draw.choice([5, 30, 64, 333])
    config = EncoderDecoderConfig(
        source_vocabulary=vocabulary,
        target_vocabulary=vocabulary,
        encoder=stack,
        decoder=stack,
        tie_output=draw.choice([True, False]),
        output_bias=draw.choice([True, False]),
    )
    network = EncoderDecoder(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return network


def random_source(draw: random.Random, vocabulary: int) -> torch.Tensor:
    """Return a batch of sentences, (batch, length), padded."""
    lengths = [draw.randrange(0, 12) for _ in range(draw.choice([1, 2, 7, 70]))]
    rows = [[draw.randrange(3, vocabulary) for _ in range(length)] + [EOS] for length in lengths]
    return pad_batch(rows, PAD)


def random_options(draw: random.Random) -> dict[str, Any]:
    """Return options of a search."""
    beam = draw.choice([1, 2, 5, 9])
    longest = draw.choice([1, 6, 50])
    options: dict[str, Any] = {"beam": beam, "nbest": draw.randint(1, beam), "max_len_b": longest}
    more = [{}, {"min_len": min(4, longest)}, {"temperature": 1.3}, {"lenpen": 0.5}, {"no_repeat_ngram_size": 2}]
    return options | draw.choice(more)


def decode(network: EncoderDecoder, source: torch.Tensor, options: dict[str, Any], short: bool, prefix: Any) -> Any:
    """Search, among a few tokens if ``short``."""
    vocabulary = network.config.target_vocabulary
    pairs = np.arange(vocabulary + 1), np.arange(vocabulary)
    shortlist = Shortlist(*pairs, np.array([BOS, PAD, EOS]), vocabulary)
    models = ModelSet([network], shortlist=shortlist)
    return build_search(models, GenerationOptions(**options, shortlist=short))(source, prefix=prefix)


def agree(found: list[list[Hypothesis]], expected: list[list[Hypothesis]]) -> bool:
    """Return whether the best hypotheses score alike."""
    pairs = zip(found, expected, strict=True)
    return all(abs(mine[0].score - theirs[0].score) < 1e-3 for mine, theirs in pairs if mine and theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decodes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if not native.available():
        raise SystemExit("there is no native library to test")
    dtypes = [torch.float32, torch.int8, *([torch.int16] if native.multiplies_integers() else [])]
    for number in range(asked.decodes):
        draw = random.Random(f"{asked.seed} {number // SEARCHES_A_NETWORK}")
        torch.manual_seed(draw.randrange(1 << 30))
        if number % SEARCHES_A_NETWORK == 0:
            dtype, made = draw.choice(dtypes), random_network(draw)
            network = made.for_inference(dtype)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(native, "library", lambda: None)
                plain = made.for_inference(torch.float32)
        draw = random.Random(f"{asked.seed} {number} search")
        source = random_source(draw, network.config.source_vocabulary)
        options, short = random_options(draw), draw.random() < 0.2
        prefix = source[:, : draw.randrange(1, 4)] if draw.random() < 0.2 else None
        found = decode(network, source, options, short, prefix)
        if dtype is torch.float32 and not short:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(native, "library", lambda: None)
                expected = decode(plain, source, options, short, prefix)
            if not agree(found, expected):
                raise SystemExit(f"decode {number} of seed {asked.seed}: native and torch's scores differ; {options}")
    print(f"{asked.decodes} decodes, seed {asked.seed}: no error")


if __name__ == "__main__":
    main()
