"""Transformer-XL against what the last releases of transformers that had it computed: ``golden/transfo_xl.py``."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from searching import search_with

from fairbeam.errors import CheckpointError
from fairbeam.families.registry import FAMILIES
from fairbeam.formats.hugging_face_weights import read, to_state_dict, write
from fairbeam.generation import GenerationOptions, SpecialTokenIds
from fairbeam.network import DecoderOnlyConfig, SegmentMemory

MODELS = ["widths", "one width"]
SEGMENTS = range(3)
VOCABULARY, MEMORY = 48, 6


def golden(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    with safe_open(Path(__file__).parent / "golden/transfo_xl.safetensors", "pt") as file:
        found = {key.removeprefix(f"{name}/"): file.get_tensor(key) for key in file.keys() if key.startswith(name)}  # noqa: SIM118
        return json.loads(file.metadata()[name]), found


def folder(path, name: str, change=()):
    config, found = golden(name)
    weights = {key.removeprefix("weights/"): value for key, value in found.items() if key.startswith("weights/")}
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**config, **dict(change)}, indent=2, sort_keys=True) + "\n")
    torch.save(weights, path / "pytorch_model.bin")
    return path, found, weights


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_segments_with_memory_equal_theirs(name, tmp_path):
    path, expected, _ = folder(tmp_path / "theirs", name)
    network, family, origin = read(path)
    memory = network.start_memory(2)
    for number in SEGMENTS:
        tokens = expected[f"tokens/{number}"]
        before = SegmentMemory(list(memory.layers))
        close(network(tokens, memory=SegmentMemory(list(memory.layers))), expected[f"log_probabilities/{number}"])
        features = network(tokens, features_only=True, memory=memory)
        close(features, expected[f"states/{number}"])
        close(torch.stack(memory.layers), expected[f"memories/{number}"])
    features = network(tokens, features_only=True, memory=before)[:, :-1].flatten(0, 1)
    loss = network.head.negative_log_likelihood(features, tokens[:, 1:].flatten()).mean()
    close(loss, expected["loss"])
    loss.backward()
    slopes = copy.deepcopy(network)
    with torch.no_grad():
        for slope, parameter in zip(slopes.parameters(), network.parameters(), strict=True):
            slope.copy_(parameter.grad)
    slopes = to_state_dict(slopes, family, origin)
    gradients = {key.removeprefix("gradients/"): value for key, value in expected.items() if "gradients/" in key}
    assert len(gradients) >= 10
    for key, gradient in gradients.items():
        torch.testing.assert_close(slopes[key], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: key + text)


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("name", MODELS)
def test_continuations_equal_theirs(name, beam, tmp_path):
    path, expected, _ = folder(tmp_path / "theirs", name)
    network = read(path).network
    prompts, wanted = expected["prompts"], [key for key in expected if key.endswith(f"/{beam}") and "contin" in key]
    assert len(wanted) == 2
    for key in wanted:
        eos = int(key.split("/")[1])
        options = GenerationOptions(beam=beam, max_len_b=12, min_len=0, lenpen=0.0)
        found = search_with([network], options, SpecialTokenIds(0, -1, eos))(prompts)
        for row, hypotheses in zip(expected[key].tolist(), found, strict=True):
            assert hypotheses[0].tokens.tolist() == row[: row.index(eos) + 1]


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_steps_with_reordered_beams_equal_segments_of_one_token(name, packed, tmp_path):
    path, _, _ = folder(tmp_path / "theirs", name, {"pad_token_id": 1}.items())
    network = read(path).network
    decoder = network.for_inference(torch.float32) if packed else network
    generator = torch.Generator().manual_seed(3)
    lengths, beams = (2, 9, 5), 3
    prompts = torch.randint(2, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    for row, length in enumerate(lengths):  # padding on either side
        prompts[row] = prompts[row].masked_fill(torch.arange(max(lengths)) >= length, 1).roll(row % 2 * (9 - length))
    state = decoder.prefill(prompts, beams)
    tokens = torch.empty(len(lengths), beams, 0, dtype=torch.long)
    latest = torch.zeros(len(lengths), beams, dtype=torch.long)
    rows = torch.arange(len(lengths))
    for step in range(15):
        logits = decoder.step(state, latest)
        for place, row in enumerate(rows.tolist()):
            memory = network.start_memory(beams)
            expected = network(prompts[row][prompts[row].ne(1)].expand(beams, -1), memory=memory)[:, -1]
            for column in tokens[place].unbind(1):
                expected = network(column[:, None], memory=memory)[:, 0]
            torch.testing.assert_close(logits[place], expected, rtol=1e-4, atol=1e-4)
        parents = torch.randint(0, beams, (len(rows), beams), generator=generator)
        latest = torch.randint(2, VOCABULARY, (len(rows), beams), generator=generator)
        tokens = torch.cat([tokens.gather(1, parents[:, :, None].expand(-1, -1, step)), latest[:, :, None]], dim=2)
        state.reorder(parents)
        if step == 4:  # a sentence finishes and leaves
            kept = torch.tensor([0, 2])
            state.select(kept)
            tokens, rows, latest = tokens[kept], rows[kept], latest[kept]


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_padding_is_neither_seen_nor_remembered(name, tmp_path):
    path, _, _ = folder(tmp_path / "theirs", name, {"pad_token_id": 1}.items())
    network = read(path).network
    tokens = torch.randint(2, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(4))
    tokens[1, 4:], tokens[2, :5] = 1, 1
    together, memory = [], network.start_memory(3)
    for _ in range(2):
        together.append(network(tokens, memory=memory))
    for row, sentence in enumerate(tokens):
        real, alone = sentence.ne(1), network.start_memory(1)
        for logits in together:
            close(logits[row, real], network(sentence[None, real], memory=alone)[0])
        for ours, all_of_them in zip(alone.layers, memory.layers, strict=True):
            close(ours[0], all_of_them[row])


@torch.no_grad()
def test_segments_make_no_difference_where_all_see_as_many(tmp_path):
    """With ``same_length`` a token sees the same whether what is before it is in its segment or in memory."""
    network = read(folder(tmp_path / "theirs", "one width")[0]).network
    tokens = torch.randint(0, VOCABULARY, (2, 19), generator=torch.Generator().manual_seed(5))
    memory = network.start_memory(2)
    close(torch.cat([network(part, memory=memory) for part in tokens.split([1, 9, 2, 7], 1)], 1), network(tokens))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("names", ["all", "shared ones once", "one layer's biases"])
@pytest.mark.parametrize("name", MODELS)
def test_a_folder_comes_back_as_it_was(name, names, dtype, tmp_path):
    path, _, weights = folder(tmp_path / "theirs", name)
    if names == "shared ones once" and name == "widths":
        for key in [
            key for key in weights if key.startswith(("transformer.r_", "crit.out_layers.")) and "bias" not in key
        ]:
            del weights[key]
        for key in ("transformer.layers.1.dec_attn.r_w_bias", "crit.out_projs.1", "transformer.r_r_bias"):
            del weights[key]
    elif names == "one layer's biases" and name == "widths":
        for key in [key for key in weights if key.endswith(("r_w_bias", "r_r_bias")) and "layers" in key]:
            del weights[key]
    weights = {key: value.to(dtype) for key, value in weights.items()}
    torch.save(weights, path / "pytorch_model.bin")
    checkpoint = read(path)
    write(tmp_path / "ours", *checkpoint)
    with safe_open(tmp_path / "ours/model.safetensors", "pt") as file:
        assert set(file.keys()) == set(weights)
        for key, value in weights.items():
            assert file.get_tensor(key).dtype == value.dtype
            assert torch.equal(file.get_tensor(key), value), key
    assert (tmp_path / "ours/config.json").read_text() == (path / "config.json").read_text()
    config = checkpoint.network.config
    assert DecoderOnlyConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_released_model_needs_no_more_than_its_class_implies():
    network = FAMILIES["transfo-xl"].plan({"tie_weight": True, "tie_projs": [False, True, True, True]}, {}).network
    assert network == FAMILIES["transfo-xl"].plan({}, {}).network
    assert network.decoder.positions.memory_length == 1600
    assert network.adaptive.widths(network.decoder.dim) == (1024, 256, 64, 16)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"cutoffs": [32, 16]}, "adaptive.cutoffs are [32, 16]; expected numbers that grow"),
        ({"cutoffs": [16, VOCABULARY]}, f"adaptive.cutoffs are [16, {VOCABULARY}], but vocabulary is {VOCABULARY}"),
        ({"cutoffs": [16, "32"]}, 'cutoffs/1 is "32"; expected an integer'),
        ({"cutoffs": [16]}, "adaptive.tied_projections has 3 values, but adaptive.cutoffs makes 2 clusters"),
        ({"cutoffs": list(range(1, 65)), "tie_projs": None}, "adaptive.cutoffs are 64 numbers; expected at most 63"),
        ({"div_val": 5}, "adaptive.factor is 5, which leaves nothing of 16 dimensions"),
        ({"mem_len": 0}, "mem_len is 0; expected an integer from 1"),
        ({"clamp_len": "all"}, 'clamp_len is "all"'),
        ({"attn_type": 1}, "attn_type is 1"),
        ({"tie_projs": [True, True, True]}, "crit.out_projs.0 differs from transformer.word_emb.emb_projs.0"),
        ({"untie_r": True}, "unexpected transformer.r_"),
    ],
)
def test_what_does_not_fit_is_named(change, problem, tmp_path):
    with pytest.raises(CheckpointError) as caught:
        read(folder(tmp_path / "theirs", "widths", change.items())[0])
    assert problem in str(caught.value)
