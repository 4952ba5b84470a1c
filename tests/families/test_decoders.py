"""Every decoder family against Hugging Face's own model of it: logits, gradients, continuations, folders.

A family's test is its entry in ``MODELS``; the checks are the same for all.
"""

import copy
import json
import warnings

import pytest
import their_searches
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from searching import search_with

from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.families.registry import FAMILIES
from fairbeam.formats.hugging_face_weights import read, to_state_dict, write
from fairbeam.generation import GenerationOptions, SpecialTokenIds
from fairbeam.network import DecoderOnlyConfig
from fairbeam.network.positions import rotary_rates

transformers = pytest.importorskip("transformers")


VOCABULARY, PAD, EOS = 41, 1, 2
SIZES = {
    "vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 40,
    "pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": EOS, "initializer_range": 0.1,
}  # fmt: skip
ROPE = {"rope_type": "llama3", "rope_theta": 900.0, "factor": 3.0, "low_freq_factor": 0.5, "high_freq_factor": 1.5,
        "original_max_position_embeddings": 12}  # fmt: skip
LLAMA = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 28, "max_position_embeddings": 40, "tie_word_embeddings": True,
    "pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": EOS, "initializer_range": 0.2,
}  # fmt: skip
UNTIED = "llama, untied, biases, wide heads"
# name: (beginning of the classes' names, options)
MODELS = {
    "gpt2": ("GPT2", SIZES),
    "gpt2, inner width, relu, untied": (
        "GPT2", {**SIZES, "n_inner": 28, "activation_function": "relu", "tie_word_embeddings": False},
    ),
    "openai-gpt": ("OpenAIGPT", SIZES),
    "openai-gpt, swish": ("OpenAIGPT", {**SIZES, "afn": "swish"}),
    "ctrl": ("CTRL", {**SIZES, "dff": 28}),
    "llama": ("Llama", {**LLAMA, "rope_parameters": ROPE}),
    UNTIED: (
        "Llama", {**LLAMA, "num_key_value_heads": 4, "head_dim": 10, "attention_bias": True, "mlp_bias": True,
                  "tie_word_embeddings": False, "rope_theta": 99.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
    ),
    "llama, biases of attention": ("Llama", {**LLAMA, "num_key_value_heads": 1, "attention_bias": True}),
    "mistral": ("Mistral", {**LLAMA, "head_dim": 8}),
    "qwen2": ("Qwen2", LLAMA),
}  # fmt: skip
EACH = ["gpt2", "openai-gpt", "ctrl", "llama", "mistral", "qwen2"]


@pytest.fixture(autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def their_model(name: str, end: str = "ForCausalLM"):
    """Hugging Face's model, float32, in evaluation mode, with random numbers in every weight."""
    begin, options = MODELS[name]
    options = copy.deepcopy(options)  # theirs adds to what it is given
    if end == "ForCausalLM" and begin in ("GPT2", "OpenAIGPT", "CTRL"):
        end = "LMHeadModel"
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(transformers, begin + end)(getattr(transformers, f"{begin}Config")(**options)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at 0 and norms at 1, which hide mistakes
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def both(name: str, folder):
    model = their_model(name)
    model.save_pretrained(folder)
    return model, read(folder)


def batch(pad: int, left_pad: bool) -> torch.Tensor:
    """Prompts of several lengths, padded on a side."""
    tokens = torch.randint(4, VOCABULARY, (5, 9), generator=torch.Generator().manual_seed(2))
    for row, missing in enumerate((0, 2, 4, 1, 8)):
        tokens[row, :missing] = pad
        if not left_pad:
            tokens[row] = tokens[row].roll(-missing)
    return tokens


@pytest.mark.parametrize("left_pad", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_logits_loss_and_gradients_equal_theirs(name, left_pad, tmp_path):
    theirs, (ours, family, origin) = both(name, tmp_path / "model")
    tokens = batch(PAD, left_pad)
    real = tokens.ne(PAD)
    labels = tokens.masked_fill(~real, -100)
    if left_pad:  # theirs has the first token predicted from padding
        labels[:, 1:].masked_fill_(~real[:, :-1], -100)
    numbers = (real.cumsum(1) - 1).clamp_min(0)  # which theirs counts itself when it generates
    expected = theirs(input_ids=tokens, attention_mask=real.long(), position_ids=numbers, labels=labels)
    actual = ours(tokens)
    torch.testing.assert_close(actual[real], expected.logits[real], rtol=1e-5, atol=1e-5)
    features = theirs.base_model(input_ids=tokens, attention_mask=real.long(), position_ids=numbers).last_hidden_state
    torch.testing.assert_close(ours(tokens, features_only=True)[real], features[real], rtol=1e-5, atol=1e-5)

    loss = F.cross_entropy(actual[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(loss, expected.loss, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.loss.backward()
    slopes = copy.deepcopy(ours)
    with torch.no_grad():
        for slope, parameter in zip(slopes.parameters(), ours.parameters(), strict=True):
            slope.copy_(parameter.grad)
    by_their_names = to_state_dict(slopes, family, origin)
    compared = set()
    for weight, parameter in theirs.named_parameters(remove_duplicate=False):
        if parameter.grad is not None and weight in by_their_names:
            scale = parameter.grad.abs().max().item()
            torch.testing.assert_close(
                by_their_names[weight], parameter.grad, rtol=1e-4, atol=2e-5 * max(1.0, scale),
                msg=lambda text, weight=weight: f"{weight}: {text}",
            )  # fmt: skip
            compared.add(parameter)
    assert compared == set(theirs.parameters())


@torch.no_grad()
@pytest.mark.parametrize("left_pad", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_steps_with_reordered_beams_equal_whole_sequences(name, packed, left_pad, tmp_path):
    """Whatever beams descend from whom, a step sees the prompt and exactly the tokens of its own history."""
    _, (network, *_) = both(name, tmp_path / "model")
    decoder = network.for_inference(torch.float32) if packed else network
    prompts = batch(PAD, left_pad)
    generator = torch.Generator().manual_seed(3)
    sentences, beams = len(prompts), 3
    state = decoder.prefill(prompts, beams)
    tokens, rows = torch.empty(sentences, beams, 0, dtype=torch.long), torch.arange(sentences)
    latest = torch.full((sentences, beams), EOS)  # not looked at
    for step in range(24):
        logits = decoder.step(state, latest)
        begun = batch(PAD, left_pad=True)[rows].repeat_interleave(beams, dim=0)  # padding is not in between
        last = network(torch.cat([begun, tokens.flatten(0, 1)], dim=1))[:, -1]
        torch.testing.assert_close(logits, last.view_as(logits), rtol=1e-4, atol=1e-4)
        parents = torch.randint(0, beams, (len(rows), beams), generator=generator)
        latest = torch.randint(4, VOCABULARY, (len(rows), beams), generator=generator)
        tokens = torch.cat([tokens.gather(1, parents[:, :, None].expand(-1, -1, step)), latest[:, :, None]], dim=2)
        state.reorder(parents)
        if step in (0, 11):  # a sentence finishes and leaves
            kept = torch.tensor([row for row in range(len(rows)) if row != 1])
            state.select(kept)
            tokens, rows, latest = tokens[kept], rows[kept], latest[kept]


def frequent_token(network) -> int:
    return their_searches.frequent_token(network, batch(PAD, left_pad=False), SpecialTokenIds(0, PAD, EOS), EOS)


@pytest.mark.parametrize("ours_left", [False, True])
@pytest.mark.parametrize("ends", ["late", "early"])
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("name", MODELS)
def test_continuations_equal_theirs(name, beam, ends, ours_left, tmp_path):
    """``early_stopping=True`` is fairseq's rule: a sentence is finished with as many hypotheses as there are beams."""
    theirs, (network, *_) = both(name, tmp_path / "model")
    eos = EOS if ends == "late" else frequent_token(network)
    options = GenerationOptions(beam=beam, max_len_b=12, min_len=0)
    found = search_with([network], options, SpecialTokenIds(bos=0, pad=PAD, eos=eos))(batch(PAD, ours_left))
    if ends == "early" and beam == 1:
        assert min(len(hypotheses[0].tokens) for hypotheses in found) < 10
    prompts = batch(PAD, left_pad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.generate(
            input_ids=prompts, attention_mask=prompts.ne(PAD).long(), do_sample=False, num_beams=beam,
            max_new_tokens=13, bad_words_ids=[[PAD]], eos_token_id=eos,
            logits_processor=transformers.LogitsProcessorList([their_searches.EndAtLimit(eos, prompts.size(1) + 12)]),
            **({"early_stopping": True, "length_penalty": 1.0} if beam > 1 else {}),
        )  # fmt: skip
    for row, hypotheses in zip(expected[:, prompts.size(1) :].tolist(), found, strict=True):
        assert hypotheses[0].tokens.tolist() == row[: row.index(eos) + 1]


def test_searches_equal_theirs(tmp_path):
    theirs, (network, *_) = both("gpt2", tmp_path / "model")
    prompts = batch(PAD, left_pad=True)
    inputs = {"input_ids": prompts, "attention_mask": prompts.ne(PAD).long()}
    source, special = batch(PAD, left_pad=False), SpecialTokenIds(bos=0, pad=PAD, eos=EOS)
    their_searches.assert_same_searches(theirs, inputs, network, source, special, EOS)


@torch.no_grad()
@pytest.mark.parametrize("name", EACH)
def test_a_continuation_does_not_depend_on_the_batch_and_rescores_to_its_score(name, tmp_path):
    _, (network, *_) = both(name, tmp_path / "model")
    search = search_with([network], GenerationOptions(beam=3, max_len_b=9), SpecialTokenIds(bos=0, pad=PAD, eos=EOS))
    prompts = batch(PAD, left_pad=False)
    for prompt, together in zip(prompts, search(prompts), strict=True):
        prompt = prompt[prompt.ne(PAD)]
        (alone,) = search(prompt[None])
        for one, other in zip(alone, together, strict=True):
            assert one.tokens.tolist() == other.tokens.tolist()
            assert one.score == pytest.approx(other.score, abs=1e-5)
            logits = network(torch.cat([prompt, one.tokens])[None])[0, len(prompt) - 1 : -1]
            scores = logits.log_softmax(1).gather(1, one.tokens[:, None])[:, 0]
            torch.testing.assert_close(one.positional_scores, scores, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_padding_needs_no_symbol_of_its_own(tmp_path):
    model = their_model("gpt2")
    model.config.pad_token_id = EOS
    model.save_pretrained(tmp_path / "model")
    network = read(tmp_path / "model").network
    assert network.config.pad == -1
    special = SpecialTokenIds(bos=0, pad=-1, eos=EOS)
    prompts = batch(-1, left_pad=False)
    search = search_with([network], GenerationOptions(beam=2, max_len_b=9), special)
    for prompt, together in zip(prompts, search(prompts), strict=True):
        (alone,) = search(prompt[prompt.ge(0)][None])
        assert alone[0].tokens.tolist() == together[0].tokens.tolist()


@torch.no_grad()
def test_a_prompt_and_its_continuation_share_the_positions(tmp_path):
    _, (network, *_) = both("gpt2", tmp_path / "model")
    search = search_with([network], GenerationOptions(beam=2, min_len=20), SpecialTokenIds(bos=0, pad=PAD, eos=EOS))
    prompt = torch.randint(4, VOCABULARY, (1, 38), generator=torch.Generator().manual_seed(4))
    (found,) = search(prompt)
    assert {len(hypothesis.tokens) for hypothesis in found} == {3}  # two, and the end, which takes no position
    with pytest.raises(ConfigError, match="prompts have 41 to 41 tokens; expected 1 to 40"):
        search(torch.full((1, 41), 5))
    with pytest.raises(ConfigError, match="prompts have 0 to 9 tokens"):
        network.prefill(torch.tensor([[PAD] * 9, [5] * 9]), 2)


@torch.no_grad()
@pytest.mark.parametrize("name", EACH)
def test_a_bfloat16_copy_stays_close(name, tmp_path):
    _, (network, *_) = both(name, tmp_path / "model")
    prompts = batch(PAD, left_pad=True)
    rough = network.for_inference(torch.bfloat16)
    exact = network(prompts)[:, -1]
    state = rough.prefill(prompts, 1)
    logits = rough.step(state, prompts[:, -1:])
    assert (logits[:, 0] - exact).abs().max() < 0.06 * exact.abs().max()
    beams, tokens = torch.zeros(5, 3, dtype=torch.long), torch.tensor([[4, 5, 6]]).expand(5, -1)
    corrected = logits[:, 0].gather(1, tokens) + rough.rounded_head.logit_delta(state.latest[0], logits, beams, tokens)
    bias = 0 if network.head.bias is None else network.head.bias[tokens]
    features = state.latest[0][:, 0]
    exact = (features @ network.head.weight.T).gather(1, tokens) + bias
    torch.testing.assert_close(corrected, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("name", "end"), [*((name, "ForCausalLM") for name in MODELS), *((name, "Model") for name in [*EACH, UNTIED])]
)
def test_a_folder_comes_back_as_it_was(name, end, dtype, tmp_path):
    their_model(name, end).to(dtype).save_pretrained(tmp_path / "theirs")
    checkpoint = read(tmp_path / "theirs")
    write(tmp_path / "ours", *checkpoint)
    same_tensors(tmp_path / "theirs", tmp_path / "ours")
    assert (tmp_path / "ours/config.json").read_text() == (tmp_path / "theirs/config.json").read_text()
    config = checkpoint.network.config
    assert DecoderOnlyConfig.from_dict(config.to_dict()) == config


@torch.no_grad()
def test_a_model_without_an_output_gives_features(tmp_path):
    theirs = their_model(UNTIED, "Model")
    theirs.save_pretrained(tmp_path)
    network, tokens = read(tmp_path).network, batch(PAD, left_pad=False)
    real = tokens.ne(PAD)
    expected = theirs(input_ids=tokens, attention_mask=real.long()).last_hidden_state[real]
    for ours, tolerance in ((network, 1e-5), (network.for_inference(torch.bfloat16), 0.2)):
        features = ours(tokens, features_only=True)[real]
        torch.testing.assert_close(features, expected, rtol=tolerance, atol=tolerance)
        for use in (ours, lambda prompts, ours=ours: ours.prefill(prompts, 2)):
            with pytest.raises(ConfigError, match="output is false"):
                use(tokens)


def same_tensors(theirs, ours):
    before, after = (load_file(folder / "model.safetensors") for folder in (theirs, ours))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor), name


@pytest.mark.parametrize("name", EACH)
def test_a_configuration_may_leave_out_what_its_class_implies(name):
    whole = getattr(transformers, f"{MODELS[name][0]}Config")().to_dict()
    plan = FAMILIES[name].plan
    assert plan({}, {}) == plan(whole, {})


def test_masks_that_old_files_store_come_back(tmp_path):
    folder = tmp_path / "theirs"
    their_model("gpt2", "Model").save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 40, 40, dtype=torch.uint8).tril()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write(tmp_path / "ours", *read(folder))
    same_tensors(folder, tmp_path / "ours")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"n_head": 5}, "decoder.dim is 24, which decoder.heads (5) does not divide"),
        ({"n_inner": 28}, "h.0.mlp.c_fc.weight has shape (24, 96), expected (24, 28)"),
        ({"eos_token_id": VOCABULARY}, f"eos_token_id is {VOCABULARY}"),
        ({"tie_word_embeddings": False}, "missing lm_head.weight"),
    ],
)
def test_what_does_not_fit_is_named(change, problem, tmp_path):
    their_model("gpt2").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path)
    assert problem in str(caught.value)


ROTARY = {**LLAMA, "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}}


@pytest.mark.parametrize("config", [ROTARY, {**LLAMA, "rope_theta": 500, "rope_scaling": ROPE}, LLAMA])
def test_rotary_options_of_old_files_mean_what_they_do_at_theirs(config):
    new = transformers.LlamaConfig(**copy.deepcopy(config)).to_dict()
    assert "rope_parameters" in new
    assert FAMILIES["llama"].plan(new, {}) == FAMILIES["llama"].plan(config, {})
    positions = FAMILIES["llama"].plan(new, {}).network.decoder.positions
    theirs = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(transformers.LlamaConfig(**new))
    torch.testing.assert_close(rotary_rates(positions, 6), theirs.inv_freq, rtol=1e-6, atol=0)


def test_sequences_stay_within_the_window():
    def longest(**change) -> int:
        return FAMILIES["mistral"].plan({**LLAMA, **change}, {}).network.decoder.positions.max_positions

    assert [longest(sliding_window=window) for window in (None, 7, 41)] == [40, 7, 40]


@pytest.mark.parametrize(("eos", "expected"), [([2], (2, PAD)), ([2, PAD], (None, -1)), ([], (None, PAD))])
def test_several_symbols_may_end_a_text(eos, expected):
    config = FAMILIES["llama"].plan({**LLAMA, "eos_token_id": eos}, {}).network
    assert (config.eos, config.pad) == expected


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type is 'yarn'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor is 0; expected a number above 0"),
        ({"rope_parameters": {**ROPE, "low_freq_factor": 2}}, "rotary_scaling.slowed_turns is 2.0"),
        ({"rope_parameters": [1]}, "rope_parameters is .1.; expected an object"),
        ({"rope_theta": float("nan")}, "rope_theta is NaN"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"num_key_value_heads": 3}, "decoder.key_value_heads .3."),
        ({"original_max_position_embeddings": 9}, "original_max_position_embeddings is 9"),
        ({"eos_token_id": [2, 41]}, "eos_token_id is 41"),
        ({"mlp_bias": None}, "mlp_bias is null; expected true or false"),
    ],
)
def test_options_of_llama_that_cannot_be_followed_are_named(change, problem):
    with pytest.raises(ConfigError, match=problem):
        FAMILIES["llama"].plan({**LLAMA, **change}, {})
