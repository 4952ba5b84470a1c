"""Beam search and the batch it stands in, ensembles, and options that cannot be."""

import pytest
import torch

from fairbeam.errors import ConfigError
from fairbeam.generation import BeamSearch, GenerationOptions
from fairbeam.network import Network, NetworkConfig, StackConfig, pad_batch

PAD, EOS = 1, 2


def network(vocabulary: int, seed: int = 0) -> Network:
    """Random weights, sharpened so that hypotheses differ clearly."""
    torch.manual_seed(seed)
    stack = StackConfig(layers=2, dim=32, heads=4, ffn_dim=64)
    made = Network(
        NetworkConfig(source_vocabulary=vocabulary, target_vocabulary=vocabulary, encoder=stack, decoder=stack)
    ).eval()
    with torch.no_grad():
        made.head.weight *= 4
    return made


def sources(count: int, vocabulary: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    return [[*torch.randint(4, vocabulary, (n,), generator=generator).tolist(), EOS] for n in lengths]


@pytest.mark.parametrize(
    "options", [{}, {"lenpen": 0.6, "min_len": 3}, {"no_repeat_ngram_size": 2, "max_len_a": 0.5, "max_len_b": 4}]
)
def test_text_does_not_depend_on_the_batch(options):
    model = network(30)
    search = BeamSearch([model.for_inference(torch.float32)], GenerationOptions(beam=4, **{"max_len_b": 20, **options}))
    rows = sources(24, 30)
    alone = [search(torch.tensor([row]))[0] for row in rows]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(2)).tolist()
    for size in (7, 24):
        for start in range(0, len(rows), size):
            part = order[start : start + size]
            for row, found in zip(part, search(pad_batch([rows[i] for i in part], PAD)), strict=True):
                assert [h.tokens.tolist() for h in found] == [h.tokens.tolist() for h in alone[row]]
                assert [h.score for h in found] == pytest.approx([h.score for h in alone[row]], abs=1e-5)


def test_two_equal_models_are_one():
    model = network(30)
    one = BeamSearch([model], GenerationOptions(max_len_b=15))
    two = BeamSearch([model, model], GenerationOptions(max_len_b=15))
    source = pad_batch(sources(5, 30), PAD)
    for a, b in zip(one(source), two(source), strict=True):
        assert [h.tokens.tolist() for h in a] == [h.tokens.tolist() for h in b]
        assert [h.score for h in a] == pytest.approx([h.score for h in b], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"beam": 0}, "--beam 0"), ({"nbest": 6}, "--nbest 6 is greater than --beam 5"),
     ({"temperature": 0.0}, "--temperature"), ({"min_len": 300}, "--min-len 300 is greater than --max-len-b 200")],
)  # fmt: skip
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        GenerationOptions(**options)
